"""Statistics of reviewers: how lenient each is, whether its scores know right from wrong, and whether two agree.

With reviewers as uneven as in the published run (one lets 89 % of what it reads pass, another 67 %), the accepted texts
depend on which reviewer got them. Whether a text is *right* is known by :mod:`vivavoce.data.bounds`; a text of which
this cannot be told is in no share of right or wrong ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

from vivavoce.data.acceptance import RELEASED, AcceptRules, Verdict, decide, rationales, scores
from vivavoce.data.bounds import right, surely_wrong
from vivavoce.graph import Graph
from vivavoce.records import Node
from vivavoce.stats import auroc

FAR = 3
"""Points between two scores that contradict each other, on a scale of 1 to 5."""


@dataclass(frozen=True)
class Given:
    """The scores that a reviewer gave, to the texts of one author or (``author`` None) of all. Shares are None if
    there is nothing to take a share of."""

    reviewer: str
    author: str | None
    counts: dict[str, int]
    """The number of times that each score was given."""
    invalid: int
    """Reviews without a readable score."""
    mean: float | None
    lenient: float | None
    """Share of its scores above the threshold."""
    lenient_right: float | None
    """The same among right texts. An ideal reviewer has 1 here."""
    lenient_wrong: float | None
    """The same among wrong texts. An ideal reviewer has 0 here."""
    auroc: float | None
    """Chance that it scores a right text above a wrong one; 0.5 tells nothing."""


@dataclass(frozen=True)
class ReviewerAgreement:
    """Two reviewers on the texts of one author that both scored."""

    author: str
    first: str
    second: str
    texts: int
    same: float
    """Share of texts on which both are above the threshold, or neither."""
    kappa: float | None
    """The same beyond chance (Cohen); None if chance alone explains everything."""
    far: float
    """Share of texts with scores ``FAR`` or more points apart."""


@dataclass(frozen=True)
class SelfPreference:
    """The mean score that a reviewer gives to its own texts, and that of the others for the same texts."""

    reviewer: str
    texts: int
    own: float
    others: float


@dataclass(frozen=True)
class Author:
    """The texts of one author against what became of them."""

    author: str
    rationales: int
    accepted: int
    right: int
    maybe_right: int
    """Texts that are not surely wrong: at most so many are right."""
    surely_wrong: int
    surely_wrong_accepted: int


@dataclass(frozen=True)
class AtMean:
    """The texts whose peers' scores have one mean: how many are right, and how the rule decided about them."""

    mean: float
    texts: int
    right: int
    wrong: int
    accepted: int


@dataclass(frozen=True)
class ReviewReport:
    """The whole report. ``reviewers`` and ``reviewers_of`` (by author and reviewer) leave self-reviews out."""

    threshold: float
    reviewers: list[Given]
    reviewers_of: list[Given]
    agreements: list[ReviewerAgreement]
    score_pairs: dict[str, int]
    """``1+5``: texts to which one of two reviewers gave 1 and the other 5."""
    self_preference: list[SelfPreference]
    authors: list[Author]
    verdicts: dict[str, dict[str, int]]
    """``right``, ``wrong``, ``unknown`` by ``accepted``, ``rejected``, ``undecided``."""
    by_mean: list[AtMean]
    """The texts by the mean of their scores, from the lowest mean to the highest."""


class _Review(NamedTuple):
    author: str
    reviewer: str
    score: float | None
    right: bool | None


def calibrate(graphs: Iterable[Graph], rules: AcceptRules = RELEASED, seed: int = 0) -> ReviewReport:
    """Statistics of a run's reviewers, at the threshold of ``rules``; failed rationales are left out.

    ``seed`` is the run's, for rules that draw at random.
    """
    graphs = list(graphs)
    texts = [(g, n) for g in graphs for n in rationales(g) if not n.absent]
    reviews = [
        [_Review(n.agent, one.reviewer, one.score, right(n, g.problem)) for one in scores(g, n, True)] for g, n in texts
    ]
    peers = [[r for r in of_one if r.reviewer != r.author] for of_one in reviews]
    everything = [r for of_one in peers for r in of_one]
    verdicts: dict[str, Verdict] = {d.rationale: d.verdict for d in decide(graphs, rules, seed)}
    authors = list(dict.fromkeys(n.agent for _, n in texts))
    reviewers = list(dict.fromkeys(r.reviewer for r in everything))
    return ReviewReport(
        rules.threshold,
        [_scores_given(everything, k, None, rules) for k in reviewers],
        [
            _scores_given(everything, k, j, rules)
            for j in authors
            for k in reviewers
            if any(r[:2] == (j, k) for r in everything)
        ],
        _agreements(peers, rules),
        _score_pairs(peers),
        [
            preference
            for k in dict.fromkeys(r.reviewer for rs in reviews for r in rs)
            if (preference := _self_preference(reviews, k))
        ],
        *_outcomes(texts, verdicts),
        _by_mean(texts, verdicts),
    )


def _by_mean(texts: Iterable[tuple[Graph, Node]], verdicts: Mapping[str, Verdict]) -> list[AtMean]:
    counts: dict[float, Counter[str]] = {}
    for graph, n in texts:
        values = [one.score for one in scores(graph, n) if one.score is not None]
        if values:
            is_right = right(n, graph.problem)
            counts.setdefault(round(fmean(values), 2), Counter()).update(
                texts=1,
                right=is_right is True,
                wrong=is_right is False,
                accepted=verdicts[n.id] == "accepted",
            )
    return [
        AtMean(mean, *(of[k] for k in ("texts", "right", "wrong", "accepted"))) for mean, of in sorted(counts.items())
    ]


def kappa(first: Sequence[bool], second: Sequence[bool]) -> float | None:
    """Agreement of two judges beyond chance.

    ::

        (p_o - p_e) / (1 - p_e),   p_o = share judged alike,   p_e = p q + (1 - p)(1 - q)

    with p and q the shares that each calls true. Both always true: p_e = 1, and None. By hand: TTFF against TFFF has
    p_o = 3/4, p_e = 1/2, kappa 1/2.

    Source: Cohen 1960, Educ. Psychol. Meas. 20:37. Raises ValueError if the lengths differ.
    """
    pairs = list(zip(first, second, strict=True))
    if not pairs:
        return None
    same, p, q = (fmean(x) for x in zip(*((a == b, a, b) for a, b in pairs), strict=True))
    chance = p * q + (1 - p) * (1 - q)
    return None if chance == 1 else (same - chance) / (1 - chance)


def _scores_given(all_reviews: Iterable[_Review], reviewer: str, author: str | None, rules: AcceptRules) -> Given:
    reviews = [r for r in all_reviews if r.reviewer == reviewer and author in (None, r.author)]
    scored = [(r.score, r.right) for r in reviews if r.score is not None]
    judged = [(s, is_right) for s, is_right in scored if is_right is not None]
    counts = Counter(s for s, _ in scored)
    return Given(
        reviewer,
        author,
        {f"{score:g}": counts[score] for score in sorted(counts)},
        len(reviews) - len(scored),
        _mean([s for s, _ in scored]),
        _mean([rules.above(s) for s, _ in scored]),
        _mean([rules.above(s) for s, is_right in judged if is_right]),
        _mean([rules.above(s) for s, is_right in judged if not is_right]),
        auroc([s for s, _ in judged], [is_right for _, is_right in judged]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _pairs(of_one: Iterable[_Review]) -> list[tuple[tuple[str, str, str], float, float]]:
    """Author and two reviewers, in one order everywhere, with their scores."""
    scored = sorted((r.reviewer, r.score, r.author) for r in of_one if r.score is not None)
    return [((author, a, b), s, t) for (a, s, author), (b, t, _) in combinations(scored, 2)]


def _agreements(peers: Iterable[list[_Review]], rules: AcceptRules) -> list[ReviewerAgreement]:
    scores: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for of_one in peers:
        for pair, s, t in _pairs(of_one):
            scores.setdefault(pair, []).append((s, t))
    agreements = []
    for pair, both in scores.items():
        first, second = [rules.above(s) for s, _ in both], [rules.above(t) for _, t in both]
        same = fmean(a == b for a, b in zip(first, second, strict=True))
        agreements.append(
            ReviewerAgreement(*pair, len(both), same, kappa(first, second), fmean(abs(s - t) >= FAR for s, t in both))
        )
    return agreements


def _score_pairs(peers: Iterable[list[_Review]]) -> dict[str, int]:
    counts = Counter(tuple(sorted(pair)) for of_one in peers for _, *pair in _pairs(of_one))
    return {f"{low:g}+{high:g}": n for (low, high), n in counts.most_common()}


def _self_preference(reviews: Iterable[list[_Review]], reviewer: str) -> SelfPreference | None:
    own, others = list[float](), list[float]()
    for of_one in reviews:
        to_itself = [r.score for r in of_one if r.reviewer == r.author == reviewer and r.score is not None]
        rest = [r.score for r in of_one if r.reviewer != r.author == reviewer and r.score is not None]
        if to_itself and rest:
            own, others = own + to_itself, [*others, fmean(rest)]
    return SelfPreference(reviewer, len(own), fmean(own), fmean(others)) if own else None


def _outcomes(
    texts: Iterable[tuple[Graph, Node]], verdicts: Mapping[str, Verdict]
) -> tuple[list[Author], dict[str, dict[str, int]]]:
    table: dict[str, dict[str, int]] = {
        a: dict.fromkeys(("accepted", "rejected", "undecided"), 0) for a in ("right", "wrong", "unknown")
    }
    counts: dict[str, Counter[str]] = {}
    for graph, n in texts:
        is_right, wrong = right(n, graph.problem), surely_wrong(n, graph.problem)
        became = verdicts[n.id]
        table["unknown" if is_right is None else "right" if is_right else "wrong"][became] += 1
        counts.setdefault(n.agent, Counter()).update(
            rationales=1,
            accepted=became == "accepted",
            right=bool(is_right),
            maybe_right=not wrong,
            surely_wrong=wrong,
            surely_wrong_accepted=wrong and became == "accepted",
        )
    return [Author(author, **of_one) for author, of_one in counts.items()], table


__all__ = [
    "FAR",
    "AtMean",
    "Author",
    "Given",
    "ReviewReport",
    "ReviewerAgreement",
    "SelfPreference",
    "calibrate",
    "kappa",
]
