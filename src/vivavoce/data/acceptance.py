"""The choice of the rationales that a student learns from: a view of their reviews. Changing a rule makes no model
call.

Paper: arXiv:2410.03663 (FAIR). A rationale of author j is accepted if the mean of its peers' scores exceeds a
threshold::

    mean over k != j of s_jk  >  tau,      s_jk in 1..5,  tau = 3 (authors' code; the paper's value is not known)

Differs from the authors' code, which accepts on a single readable score and checks no answer: both are rules here. A
rationale about which too little is known is ``undecided``, which is neither accepted nor evidence against its author.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import correlation, fmean, median, pstdev
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.graph import Graph
from vivavoce.records import Node, digest
from vivavoce.stats import auroc
from vivavoce.tasks import Task
from vivavoce.tasks.agreement import classes

Verdict = Literal["accepted", "rejected", "undecided"]
_Rescale = Callable[["ReviewerScore"], tuple[float, float]]
"""The score of a reviewer as it enters the aggregate, and its weight there."""

_SUMMARIES: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": fmean,
    "median": median,
    "min": min,
    "max": max,
    "standardised": fmean,
}


class AcceptRules(BaseModel):
    """The rules by which reviews decide about a rationale. The defaults are the authors' code (arXiv:2410.03663)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    take: Literal["reviewed", "all", "random", "majority"] = Field(
        default="reviewed",
        description="reviewed: by the reviews (paper); all: every rationale; random: as many as the reviews would "
        "accept, drawn at random (ours: the worth of reviews beyond the count); majority: those with the most frequent "
        "answer to the question, none if two are as frequent (ours: gold is not looked at)",
    )
    reviewers: list[str] | None = Field(
        default=None, description="whose reviews count (ours: one left out, one fixed judge); None: all (paper)"
    )
    answer_check: bool = Field(
        default=False, description="only rationales whose answer is right (code: false; ours: true)"
    )
    aggregate: Literal["mean", "median", "min", "max", "share_above", "standardised", "reliable", "agreeing"] = Field(
        default="mean",
        description="mean (paper) or another summary of the reviewers' scores; share_above: the share of reviewers "
        "above the threshold, accepted over 1/2; standardised: the mean after every reviewer's scores were given "
        "the mean and spread of all scores, so that a lenient reviewer counts no more than a severe one; reliable: a "
        "mean in which a reviewer counts by how well its scores of this run tell right answers from wrong ones, gold "
        "being used; agreeing: by how its scores go with those of the others, gold not being used",
    )
    threshold: float = Field(default=3.0, description="the aggregate to exceed (code; the paper does not tell its own)")
    strict: bool = Field(default=True, description="above the threshold (paper, code); false: at it or above")
    unread: Literal["leave_out", "middle", "lowest"] = Field(
        default="leave_out",
        description="a reviewer whose score cannot be read: left out of the aggregate (code), or counted as 3 or as 1 "
        "(ours); min_valid counts readable ones all the same",
    )
    min_valid: Annotated[int, Field(ge=1)] | Literal["all", "all_but_one"] = Field(
        default=1,
        description="readable reviews that a decision needs, of those asked for, at least 1 (code: 1; ours: all, which "
        "is n-1 if n teachers review one another)",
    )
    top_m: int | None = Field(
        default=None,
        ge=1,
        description="accepted texts of one question at most, the best first; ties are broken at random",
    )
    min_words: int = Field(
        default=0, ge=0, description="a text of fewer words is not accepted (code: 0, bare answers pass)"
    )
    self_review: bool = Field(default=False, description="an author's review of its own text counts too (paper: never)")

    @property
    def needs_reviews(self) -> bool:
        """Whether the scores decide, or how many texts they would accept."""
        return self.take in ("reviewed", "random")

    def above(self, score: float) -> bool:
        """Whether a score or an aggregate of scores passes the threshold."""
        return score > self.threshold if self.strict else score >= self.threshold


RELEASED = AcceptRules()
"""The rule of the authors' code: mean of the readable scores above 3."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on one rationale, and its reason."""

    rationale: str
    """Id of its node."""
    problem: str
    author: str
    verdict: Verdict
    reason: str
    """A short code: ``mean 3.0``, ``wrong answer``, ``too few valid reviews``, ``below top 2``, ``outvoted``."""
    value: float | None
    """The aggregate of the valid reviews; None if there is none."""
    valid: int
    """Number of reviewers whose score could be read."""


def decide(graphs: Iterable[Graph], rules: AcceptRules, seed: int = 0, task: Task | None = None) -> list[Decision]:
    """One decision for each rationale, in the order of the graphs. ``seed`` draws the lots: ties, ``take: random``.

    All graphs of a run belong in one call, because ``standardised`` and ``random`` look at the whole run. ``task`` says
    which answers are the same, for ``take: majority``; without it, equal texts are.
    """
    graphs = list(graphs)
    if rules.take == "random":
        return _draw(graphs, rules, seed)
    if rules.aggregate == "standardised":
        rescale = _standard(graphs, rules)
    elif rules.aggregate in ("reliable", "agreeing"):
        rescale = _weigh(reliability(graphs, rules))
    else:
        rescale = _raw
    return [decision for graph in graphs for decision in _best(_decisions_of(graph, rules, rescale, task), rules, seed)]


def clearness(decision: Decision, rules: AcceptRules) -> float:
    """The clearness with which a text passed: 0 at the threshold or below it, 1 at the highest possible value.

    ::

        (value - tau) / (5 - tau)   of scores;   (value - 1/2) / (1 - 1/2)   of the share of reviewers above tau

    If the threshold is the highest value itself (5, with ``strict: false``), a text that reached it has 1. A text
    without a score has 0.
    """
    lowest, highest = (0.5, 1.0) if rules.aggregate == "share_above" else (rules.threshold, 5.0)
    if decision.value is None or decision.value < lowest:
        return 0.0
    return min(1.0, (decision.value - lowest) / (highest - lowest)) if lowest < highest else 1.0


def with_accepted_feedback(graphs: Iterable[Graph], rules: AcceptRules) -> list[Graph]:
    """The graphs without feedback that its reviews do not accept. Scores are taken as they are: a ``standardised`` or
    weighted mean counts as a plain one.
    """
    return [replace(g, nodes=tuple(n for n in g.nodes if n.kind != "critique" or _passes(g, n, rules))) for g in graphs]


def _passes(graph: Graph, feedback: Node, rules: AcceptRules) -> bool:
    plain = {"standardised": "mean", "reliable": "mean", "agreeing": "mean"}
    by = rules.model_copy(update={"aggregate": plain.get(rules.aggregate, rules.aggregate)})
    opinion = _opinion(graph, feedback, by, _raw)
    return opinion.enough and opinion.passes(by)


class _Opinion(NamedTuple):
    """The reviews of a text taken together."""

    value: float | None
    """The aggregate of their scores; None if none can be read."""
    valid: int
    """The number of reviews whose scores can be read."""
    enough: bool
    """Whether these are as many as a decision needs."""

    def passes(self, rules: AcceptRules) -> bool:
        """Whether the aggregate is good enough."""
        if self.value is None:
            return False
        return self.value > 0.5 if rules.aggregate == "share_above" else rules.above(self.value)


def _opinion(graph: Graph, text: Node, rules: AcceptRules, rescale: _Rescale) -> _Opinion:
    counted = _counting_reviews(graph, text, rules)
    valid = [score for score in counted if score.score is not None]
    value = _aggregate(valid, rules, rescale, len(counted) - len(valid)) if valid else None
    return _Opinion(value, len(valid), bool(valid) and len(valid) >= _reviews_needed(len(counted), rules))


def rationales(graph: Graph) -> list[Node]:
    """The rationales of a graph, failed calls among them."""
    return [n for n in graph.nodes if n.kind == "rationale"]


class ReviewerScore(NamedTuple):
    """One reviewer's score of a rationale."""

    reviewer: str
    score: float | None
    """Mean of its readable scores; None if it has none."""
    reviews: tuple[Node, ...]
    """All its reviews, also those whose score could not be read."""


def scores(
    graph: Graph, rationale: Node, self_review: bool = False, by: Collection[str] | None = None
) -> list[ReviewerScore]:
    """The score of each reviewer of ``by`` (None: all) for the rationale, in the order of their first reviews."""
    by_reviewer: dict[str, list[Node]] = {}
    for n in graph.nodes:
        if n.kind != "review" or n.target != rationale.id or (n.agent == rationale.agent and not self_review):
            continue
        if by is None or n.agent in by:
            by_reviewer.setdefault(n.agent, []).append(n)
    scored = []
    for reviewer, nodes in by_reviewer.items():
        valid = [n.score for n in nodes if readable(n) and n.score is not None]
        scored.append(ReviewerScore(reviewer, fmean(valid) if valid else None, tuple(nodes)))
    return scored


def readable(review: Node) -> bool:
    """Whether the review gave a score on the scale."""
    return review.status == "ok" and review.score is not None


def _raw(opinion: ReviewerScore) -> tuple[float, float]:
    assert opinion.score is not None, opinion
    return opinion.score, 1.0


def _counting_reviews(graph: Graph, rationale: Node, rules: AcceptRules) -> list[ReviewerScore]:
    """The reviewers whose word counts."""
    return scores(graph, rationale, rules.self_review, rules.reviewers)


def _decisions_of(graph: Graph, rules: AcceptRules, rescale: _Rescale, task: Task | None) -> list[Decision]:
    """A decision about each rationale of a question, before at most so many are kept."""
    texts = rationales(graph)
    majority = _majority(graph, texts, task) if rules.take == "majority" else None
    return [_decide_one(graph, n, rules, rescale, majority) for n in texts]


def _majority(graph: Graph, texts: Sequence[Node], task: Task | None) -> set[str]:
    """Ids of the texts whose answer more texts give than any other; empty if two answers are equally frequent, or no
    text gives any.

    Unlike a debate's vote, a tie is not drawn: if the teachers do not agree there is nothing to accept.
    """
    group = classes(task, graph.problem, [n.answer for n in texts])
    most = Counter(key for key in group if key is not None).most_common(2)
    if not most or (len(most) == 2 and most[0][1] == most[1][1]):
        return set()
    return {n.id for n, key in zip(texts, group, strict=True) if key == most[0][0]}


def _decide_one(
    graph: Graph, rationale: Node, rules: AcceptRules, rescale: _Rescale, majority: set[str] | None
) -> Decision:
    opinion = _opinion(graph, rationale, rules, rescale)

    def is_(verdict: Verdict, reason: str) -> Decision:
        author = rationale.agent
        return Decision(rationale.id, graph.problem.id, author, verdict, reason, opinion.value, opinion.valid)

    if rationale.absent:
        return is_("undecided", "call failed")
    if rationale.status == "empty" or not rationale.text.strip():
        return is_("rejected", "empty")
    if rationale.status == "truncated":
        return is_("rejected", "truncated")
    if rules.answer_check and not rationale.correct:
        if rationale.correct is None:
            return is_("undecided", "ungradable answer")
        return is_("rejected", "no answer" if rationale.status == "no_answer" else "wrong answer")
    if len(rationale.text.split()) < rules.min_words:
        return is_("rejected", f"under {rules.min_words} words")
    if rules.take == "all":
        return is_("accepted", "taken unreviewed")
    if rules.take == "majority":
        if not majority:
            return is_("rejected", "no majority")
        return is_("accepted", "majority") if rationale.id in majority else is_("rejected", "outvoted")
    if opinion.value is None or not opinion.enough:
        return is_("undecided", "too few valid reviews")
    reason = f"{rules.aggregate.replace('_', ' ')} {round(opinion.value, 2)}"
    return is_("accepted" if opinion.passes(rules) else "rejected", reason)


def _reviews_needed(reviewers: int, rules: AcceptRules) -> int:
    """The number of readable reviews that a decision needs. It is never 0: a text without reviews is not accepted.

    If ``reviewers`` names those that count, it is never more than their number. Two reviews cannot be had of one fixed
    judge, and an arm that accepts no text at all would compare the number of reviewers, not their scores.
    """
    if isinstance(rules.min_valid, int):
        return rules.min_valid if rules.reviewers is None else max(1, min(rules.min_valid, reviewers))
    return max(1, reviewers if rules.min_valid == "all" else reviewers - 1)


def _aggregate(valid: Sequence[ReviewerScore], rules: AcceptRules, rescale: _Rescale, unread: int = 0) -> float:
    """The aggregate of readable scores, and of as many others as were ``unread`` if the rules count them."""
    scores = [rescale(score) for score in valid]
    if rules.unread != "leave_out":
        scores += [(3.0 if rules.unread == "middle" else 1.0, 1.0)] * unread
    if rules.aggregate == "share_above":
        return sum(rules.above(score) for score, _ in scores) / len(scores)
    if rules.aggregate in ("reliable", "agreeing"):
        whole = sum(weight for _, weight in scores)  # reviewers of weight 0 count if there is no other
        weighed = scores if whole else [(score, 1.0) for score, _ in scores]
        return round(sum(s * w for s, w in weighed) / sum(w for _, w in weighed), 9)
    return round(_SUMMARIES[rules.aggregate]([score for score, _ in scores]), 9)  # so that rounding never decides


def _standard(graphs: Iterable[Graph], rules: AcceptRules) -> _Rescale:
    """``M + S (s - m_k) / d_k``: mean and deviation of reviewer k's scores of this run, and of all scores.

    A reviewer that always gives the same score tells nothing: each becomes the overall mean.
    """
    by_reviewer: dict[str, list[float]] = {}
    for graph in graphs:
        for rationale in rationales(graph):
            for review in _counting_reviews(graph, rationale, rules):
                if review.score is not None:
                    by_reviewer.setdefault(review.reviewer, []).append(review.score)
    everything = [score for scores in by_reviewer.values() for score in scores]
    overall = _spread(everything) if everything else (0.0, 0.0)
    own: Mapping[str, tuple[float, float]] = {agent: _spread(scores) for agent, scores in by_reviewer.items()}

    def rescale(opinion: ReviewerScore) -> tuple[float, float]:
        mean, deviation = own[opinion.reviewer]
        return overall[0] + (overall[1] * (_raw(opinion)[0] - mean) / deviation if deviation else 0.0), 1.0

    return rescale


def reliability(graphs: Iterable[Graph], rules: AcceptRules) -> dict[str, float]:
    """The weight of each reviewer's word, 0 to 1, by its scores of this run.

    ``reliable``: 2 AUROC - 1 of its scores against whether the answers are right, at least 0; 0 for one whose scores
    tell nothing. ``agreeing``: the correlation of its scores with the mean of the others' on the same texts, at least
    0. A reviewer with too few scores counts as the average one.
    """
    pairs: dict[str, list[tuple[float, float]]] = {}
    for graph in graphs:
        for rationale in rationales(graph):
            opinions = [
                (one.reviewer, one.score) for one in _counting_reviews(graph, rationale, rules) if one.score is not None
            ]
            for reviewer, score in opinions:
                others = [other for name, other in opinions if name != reviewer]
                if rules.aggregate == "agreeing" and others:
                    pairs.setdefault(reviewer, []).append((score, fmean(others)))
                elif rules.aggregate == "reliable" and rationale.correct is not None:
                    pairs.setdefault(reviewer, []).append((score, float(rationale.correct)))
                else:
                    pairs.setdefault(reviewer, [])
    known = {name: _weight_of(both, rules.aggregate == "reliable") for name, both in pairs.items()}
    there = [weight for weight in known.values() if weight is not None]
    usual = fmean(there) if there else 1.0
    return {name: usual if weight is None else weight for name, weight in known.items()}


def _weight_of(pairs: Sequence[tuple[float, float]], against_answers: bool) -> float | None:
    scores, truth = [score for score, _ in pairs], [other for _, other in pairs]
    if against_answers:
        area = auroc(scores, [bool(x) for x in truth]) if pairs else None
        return None if area is None else max(0.0, 2 * area - 1)
    if len(pairs) < 2 or not pstdev(scores) or not pstdev(truth):
        return None
    return max(0.0, correlation(scores, truth))


def _weigh(weights: Mapping[str, float]) -> _Rescale:
    return lambda opinion: (_raw(opinion)[0], weights[opinion.reviewer])


def _spread(scores: Sequence[float]) -> tuple[float, float]:
    return fmean(scores), pstdev(scores)


def _best(decisions: list[Decision], rules: AcceptRules, seed: int) -> list[Decision]:
    """At most ``top_m`` of the accepted of one question. Most good texts have the same score, so ties are decided at
    random; otherwise the order of the teachers would decide.
    """
    if rules.top_m is None:
        return decisions

    def rank(d: Decision) -> tuple[float, str]:
        return -(d.value or 0.0) if rules.take == "reviewed" else 0.0, _lot(d, seed)

    kept = {d.rationale for d in sorted(_accepted_of(decisions), key=rank)[: rules.top_m]}
    return [
        replace(d, verdict="rejected", reason=f"below top {rules.top_m}")
        if d.verdict == "accepted" and d.rationale not in kept
        else d
        for d in decisions
    ]


def _draw(graphs: Sequence[Graph], rules: AcceptRules, seed: int) -> list[Decision]:
    """As many as the reviews would accept, drawn at random from all that could be taken without reviews."""
    reviewed = decide(graphs, rules.model_copy(update={"take": "reviewed"}), seed)
    eligible = _accepted_of(decide(graphs, rules.model_copy(update={"take": "all", "top_m": None}), seed))
    lots = sorted(eligible, key=lambda d: _lot(d, seed))
    drawn = {d.rationale: i < len(_accepted_of(reviewed)) for i, d in enumerate(lots)}
    return [
        d
        if d.rationale not in drawn
        else replace(d, verdict="accepted", reason="drawn by lot")
        if drawn[d.rationale]
        else replace(d, verdict="rejected", reason="not drawn")
        for d in reviewed
    ]


def _accepted_of(decisions: Iterable[Decision]) -> list[Decision]:
    return [d for d in decisions if d.verdict == "accepted"]


def _lot(decision: Decision, seed: int) -> str:
    return digest([seed, decision.problem, decision.rationale])


__all__ = [
    "RELEASED",
    "AcceptRules",
    "Decision",
    "ReviewerScore",
    "Verdict",
    "decide",
    "rationales",
    "readable",
    "reliability",
    "scores",
]
