"""Texts that scorers read in place of a debate or of its turns: a right hint, a deliberately wrong one, answers alone.

A wrong hint tells whether teachers follow what is true in their context or whatever stands there; answers alone tell
whether they need the reasoning. No model is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from vivavoce.committee.reading import Statement, end_of
from vivavoce.committee.wording import Wording
from vivavoce.graph import Graph
from vivavoce.records import GOLD, Problem, Quote
from vivavoce.tasks.agreement import classes

MADE_UP = "made up"
"""In place of a node's id: a text that the task made and no agent said."""
NO_ANSWER = "(no answer)"


class Hint(NamedTuple):
    """A text that is shown as if an agent had written it, and the final answer in it."""

    text: Quote
    answer: str | None


def right_hint(graph: Graph, wording: Wording) -> Hint | None:
    """The worked solution of a state's question, or its right answer if the task has none; None if it knows neither."""
    problem, worked = graph.problem, getattr(wording.task, "worked", None)
    text = worked(problem) if worked else f"The right answer is {problem.gold}." if problem.gold else ""
    return Hint(Quote(GOLD, text), problem.gold) if text else None


def wrong_hint(graph: Graph, wording: Wording) -> Hint | None:
    """A wrong solution of a state's question: the task's own (``mistaken``), or else the latest wrong answer of the
    debate. None if there is neither, so that nothing wrong can be shown."""
    problem, mistaken = graph.problem, getattr(wording.task, "mistaken", None)
    if mistaken:
        text = mistaken(problem)
        return Hint(Quote(MADE_UP, text), wording.task.grade(problem, text).answer)
    wrong = [n for n in graph.answers() if n.correct is False and n.answer is not None]
    if not wrong:
        return None
    worst = max(wrong, key=lambda n: (n.round, n.confidence or 0.0, n.id))
    return Hint(Quote(worst.id, wording.lesson_of(worst.text)), worst.answer)


def answers_alone(problem: Problem, shown: Sequence[Statement], wording: Wording) -> list[Statement]:
    """The statements with nothing but the end that says the final answer, in the words of its author."""
    reads = wording.reads(problem)

    def end(s: Statement) -> str:
        return NO_ANSWER if s.answer is None else end_of(s.text.text, s.answer, reads) or s.text.text

    return [replace(s, text=Quote(s.text.node, end(s)), reflection=None, critiques=()) for s in shown]


def summary(problem: Problem, shown: Sequence[Statement], wording: Wording) -> list[Statement]:
    """Each different final answer of the last round once, the most frequent one first, and how many gave it.

    It stands under the name of the first who gave it; readers find their own answer under their own name.
    """
    last = [s for s in shown if s.round == max(s.round for s in shown)]
    by_answer: dict[int | None, list[Statement]] = {}
    for s, key in zip(last, classes(wording.task, problem, [s.answer for s in last]), strict=True):
        by_answer.setdefault(key, []).append(s)
    groups = sorted(by_answer.values(), key=lambda same: -len(same))

    def one_of(same: Sequence[Statement]) -> Statement:
        one = next((s for s in same if not s.peer), same[0])
        return replace(one, text=Quote(one.text.node, f"{one.text.text.strip()} ({len(same)} of {len(last)})"))

    return [one_of(same) for same in groups]


__all__ = ["MADE_UP", "NO_ANSWER", "Hint", "answers_alone", "right_hint", "summary", "wrong_hint"]
