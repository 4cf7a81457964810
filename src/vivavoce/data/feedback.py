"""The right answer in feedback on a mistake: whether the feedback gives it away, or gives another one.

Teachers see the right answer and are asked what is wrong. Some tell it. Some follow their own sums and tell another,
and a student that learns such a text learns a mistake. Only a text that is offered as the answer counts (``the correct
answer is 18``, a marked final answer), not every number of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from vivavoce.data.bounds import figures
from vivavoce.graph import Graph
from vivavoce.records import Node, Problem
from vivavoce.tasks import Task
from vivavoce.tasks.answers import polar
from vivavoce.tasks.grading import Grader

FeedbackRule = Literal["all", "consistent", "silent", "reviewed"]
_OFFERED = re.compile(
    r"\b(?:correct|right|actual|true|final)\s+(?:final\s+)?(?:answer|solution|result|option|choice|conclusion)\b"
    r"(?:[^.\n:=]{0,60}?)\b(?:is|was|are|be|being)\b\s*:?|"
    r"\b(?:correct|right|actual|final)\s+(?:answer|solution|result|option|choice)\s*[:=]|"
    r"\banswer\s+(?:should|must|would)\s+(?:be|have\s+been)\b|"
    r"\bshould\s+(?:be|have\s+been)\s+answered\s+(?:with|by|as)?\b",
    re.IGNORECASE,
)
_REACH = 150
"""Characters behind such words in which the answer stands."""


class Claims(NamedTuple):
    """The answers that a text offers as right."""

    gold: bool
    """Whether it offers the right answer."""
    other: bool
    """Whether it offers another answer, and never the right one."""


def claims(note: Node, problem: Problem, task: Task) -> Claims:
    """The answers that feedback offers as right; none, if that cannot be read."""
    grader = getattr(task, "grader", None)
    if not isinstance(grader, Grader):
        grade = task.grade(problem, note.text)
        return Claims(bool(grade.correct), grade.answer is not None and grade.correct is False)
    offered = [answer for answer in (grader.answer(note.text), *_offers_of(note.text, grader)) if answer is not None]
    right = [bool(grader.same(problem.gold, answer)) for answer in offered]
    return Claims(any(right), bool(right) and not any(right))


def _offers_of(text: str, grader: Grader) -> Iterable[str | None]:
    for match in _OFFERED.finditer(text):
        phrase = text[match.end() : match.end() + _REACH]
        phrase = re.split(r"[\n;]|\.(?:\s|$)", phrase)[0]
        if re.match(r"\s*(?:not|wrong|incorrect|different|the\s+same)\b", phrase, re.IGNORECASE):
            continue
        if grader.name in ("number", "math"):
            values = figures(re.split(r"=|\bequals?\b", phrase)[-1])  # of 13 + 8 = 21, the 21
            yield grader.canonical(f"{values[0]:f}") if values else None
        elif grader.name == "yes_no":
            values = polar(phrase)
            yield values[0] if values else None
        else:
            yield grader.canonical(phrase.strip(" \"'*_`"))


def keeps_feedback(note: Node, problem: Problem, task: Task, rule: FeedbackRule) -> bool:
    """Whether feedback is learned, by what it says: ``consistent`` leaves out feedback with a wrong answer, ``silent``
    feedback with any.
    """
    if rule in ("all", "reviewed"):
        return True
    claim = claims(note, problem, task)
    return not claim.other and not (rule == "silent" and claim.gold)


def counts(graphs: Iterable[Graph], task: Task) -> dict[str, dict[str, int]]:
    """Counts by author: feedback texts, those that offer the right answer, and those that offer another one."""
    by_agent: dict[str, dict[str, int]] = {}
    for g in graphs:
        for n in g.nodes:
            if n.kind == "critique" and n.status == "ok":
                claim, of = (
                    claims(n, g.problem, task),
                    by_agent.setdefault(n.agent, {"texts": 0, "gold": 0, "other": 0}),
                )
                of["texts"] += 1
                of["gold"] += claim.gold
                of["other"] += claim.other
    return by_agent


__all__ = ["Claims", "FeedbackRule", "claims", "counts", "keeps_feedback"]
