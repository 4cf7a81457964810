"""The threshold table: what each rule of acceptance would keep, and how much of that is wrong. No model is asked.

The table of the published SVAMP files shows why it is worth a look before training: a mean of 3 is mostly one
reviewer's word against another's, so that ``>`` or ``>=`` moves more texts than the number beside it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vivavoce.data.acceptance import AcceptRules, decide, rationales
from vivavoce.data.bounds import figure, right, surely_wrong
from vivavoce.data.calibration import FAR, Given, ReviewReport
from vivavoce.graph import Graph
from vivavoce.progress import page_width

THRESHOLDS = (2.0, 2.5, 3.0, 3.5, 4.0, 4.5)


@dataclass(frozen=True)
class RuleOutcome:
    """The rationales that a rule accepts. Shares are of the accepted ones, None if there are none."""

    rule: str
    accepted: int
    questions: int
    """Questions with at least one accepted rationale."""
    surely_wrong: float | None
    """Lower bound of the share of wrong ones: the gold number is nowhere in the text."""
    last_differs: float | None
    """Usually an upper bound: the last number is not gold (where the grader read an answer, its word)."""


class _Text(NamedTuple):
    id: str
    problem: str
    graded: bool | None
    right: bool | None
    surely_wrong: bool


_Check = Callable[[_Text], bool | None]


def sweep(
    graphs: Iterable[Graph], thresholds: Sequence[float] = THRESHOLDS, threshold: float = 3.0
) -> list[RuleOutcome]:
    """One row for each rule: none, the mean over rising ``thresholds``, one or all reviewers, and answer checks.

    Answer checks are by the grader; if gold answers are numbers, also by the last number and by any number of the
    text, because texts that were not asked to mark an answer give a grader little to read.
    """
    graphs = list(graphs)
    texts = [
        _Text(n.id, g.problem.id, n.correct, right(n, g.problem), surely_wrong(n, g.problem))
        for g in graphs
        for n in rationales(g)
    ]

    def kept(name: str, rules: AcceptRules, check: _Check = lambda _: True) -> RuleOutcome:
        accepted = {d.rationale for d in decide(graphs, rules) if d.verdict == "accepted"}
        return _outcome_of(name, [text for text in texts if text.id in accepted and check(text)])

    checks: list[tuple[str, _Check]] = [("graded right", lambda text: text.graded)]
    if any(figure(g.problem.gold) is not None for g in graphs):
        checks.append(("last number right", lambda text: text.right))
        checks.append(("gold number anywhere", lambda text: not text.surely_wrong))
    none, mean = AcceptRules(take="all"), AcceptRules(threshold=threshold)
    lowest, highest = (AcceptRules(threshold=threshold, aggregate=a, min_valid="all") for a in ("min", "max"))
    return [
        kept("none", none),
        *(kept(f"mean > {t:g}", AcceptRules(threshold=t)) for t in thresholds),
        kept(f"min > {threshold:g}, all valid", lowest),
        kept(f"max > {threshold:g}, all valid", highest),
        *(kept(name, none, check) for name, check in checks),
        *(kept(f"{name} and mean > {threshold:g}", mean, check) for name, check in checks),
    ]


def _outcome_of(rule: str, accepted: Sequence[_Text]) -> RuleOutcome:
    n = len(accepted)
    return RuleOutcome(
        rule,
        n,
        len({text.problem for text in accepted}),
        sum(text.surely_wrong for text in accepted) / n if n else None,
        sum(text.right is False for text in accepted) / n if n else None,
    )


def sweep_text(rows: Iterable[RuleOutcome], calibration: ReviewReport) -> str:
    """Table and calibration as plain text, no wider than the terminal."""
    tau = f"> {calibration.threshold:g}"
    columns = ("accepted", "rejected", "undecided")
    parts: list[Table | Text] = [
        Text("What each rule accepts, and the share of it in % that is wrong, from below and from above"),
        _table(
            ("rule", "accepted", "questions", "surely wrong", "last number differs"),
            ((r.rule, r.accepted, r.questions, _percent(r.surely_wrong), _percent(r.last_differs)) for r in rows),
        ),
        Text(f"Reviewers: scores, and the share in % that is {tau} of all, of right and of wrong texts"),
        _given_table(calibration.reviewers, tau),
    ]
    if len(calibration.reviewers_of) > len(calibration.reviewers):
        parts += [Text("Reviewers, by the author of the text"), _given_table(calibration.reviewers_of, tau)]
    if calibration.agreements:
        parts += [
            Text(f"Two reviewers of one text: share in % on which both find {tau}, or neither"),
            _table(
                ("author", "reviewers", "texts", "agree", "kappa", f"{FAR} or more apart"),
                (
                    (a.author, f"{a.first}, {a.second}", a.texts, _percent(a.same), _number(a.kappa), _percent(a.far))
                    for a in calibration.agreements
                ),
                names=2,
            ),
        ]
    if calibration.self_preference:
        parts += [
            Text("Mean score of an author's own texts, by itself and by the others"),
            _table(
                ("author", "texts", "itself", "others"),
                ((s.reviewer, s.texts, _number(s.own), _number(s.others)) for s in calibration.self_preference),
            ),
        ]
    parts += [
        Text(f"Authors: right, as far as can be told, and accepted by the rule (threshold {calibration.threshold:g})"),
        _table(
            ("author", "texts", "right", "surely wrong", "accepted", "surely wrong among them"),
            (
                (a.author, a.rationales, a.right, a.surely_wrong, a.accepted, a.surely_wrong_accepted)
                for a in calibration.authors
            ),
        ),
        _table(("answer", *columns), ((a, *(of[c] for c in columns)) for a, of in calibration.verdicts.items())),
    ]
    return _render(parts)


def _given_table(rows: Sequence[Given], tau: str) -> Table:
    scores = sorted({score for row in rows for score in row.counts}, key=float)
    by_author = any(row.author is not None for row in rows)
    return _table(
        (*(["author"] if by_author else []), "reviewer", *scores, "invalid", "mean", tau, "right", "wrong", "AUROC"),
        (
            (
                *([row.author] if by_author else []),
                row.reviewer,
                *(row.counts.get(score, 0) for score in scores),
                row.invalid,
                _number(row.mean),
                *map(_percent, (row.lenient, row.lenient_right, row.lenient_wrong)),
                _number(row.auroc),
            )
            for row in rows
        ),
        names=1 + by_author,
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], names: int = 1) -> Table:
    """The first ``names`` columns hold names, which came from outside and may steer no terminal."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(head):
        shown.add_column(column, justify="left" if i < names else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(_clean(str(value))) for value in row))
    return shown


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _render(parts: Iterable[Table | Text]) -> str:
    out = io.StringIO()
    console = Console(file=out, width=page_width(), highlight=False, markup=False, emoji=False, force_terminal=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


__all__ = ["THRESHOLDS", "RuleOutcome", "sweep", "sweep_text"]
