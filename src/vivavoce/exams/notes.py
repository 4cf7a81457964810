"""The effect of notes on the answers of agents that read them: the same turns, of the same seeds, with notes and
without.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from vivavoce.graph import Graph
from vivavoce.records import Node
from vivavoce.stats import mcnemar, wilson
from vivavoce.tasks import Task
from vivavoce.tasks.agreement import classes

NOTES = ("reflection", "critique")


def effect(task: Task, noted: Sequence[Graph], bare: Sequence[Graph]) -> dict[str, Any] | None:
    """The difference between turns that read notes and the same turns in debates that have fewer kinds of them; None if
    there are no such turns.

    Turns are those of the first round that reads, because their drafts are the same. A turn counts if its prompt prints
    a note that the other's does not. ``answers_changed`` is the share of turns whose answer is another one by the
    task's equality, with Wilson's interval. ``gain`` is the number of right answers with notes less the number without,
    as a share of the turns; its interval and ``p``, an exact sign test, take a question's turns together.
    """
    changed, total, right, before = 0, 0, 0, 0
    by_question: list[tuple[int, int]] = []
    for full, less in zip(noted, bare, strict=True):
        others = {n.agent: n for n in less.stated(1)}
        gains = list[int]()
        for n in full.stated(1):
            other = others.get(n.agent)
            if other is None or len(_notes(full, n)) == len(_notes(less, other)):
                continue
            changed += _differ(task, full, n, other)
            right, before = right + bool(n.correct), before + bool(other.correct)
            gains.append(bool(n.correct) - bool(other.correct))
        if gains:
            total += len(gains)
            by_question.append((sum(gains), len(gains)))
    if not total:
        return None
    gain, low_high = (right - before) / total, wilson(changed, total)
    half = 1.96 * sqrt(sum((g - gain * n) ** 2 for g, n in by_question)) / total
    test = mcnemar([g < 0 for g, _ in by_question], [g > 0 for g, _ in by_question])
    return {
        "turns": total,
        "questions": len(by_question),
        "answers_changed": round(changed / total, 6),
        "interval95": [round(low_high.low, 6), round(low_high.high, 6)],
        "right": right,
        "right_without": before,
        "gain": round(gain, 6),
        "gain_interval95": [round(max(-1.0, gain - half), 6), round(min(1.0, gain + half), 6)],
        "p": test.p,
    }


def _notes(graph: Graph, n: Node) -> list[str]:
    """The notes that a turn read."""
    return [i for i in n.parents if graph.by_id[i].kind in NOTES]


def _differ(task: Task, graph: Graph, a: Node, b: Node) -> bool:
    if a.answer is None or b.answer is None:
        return a.answer is not b.answer
    one, other = classes(task, graph.problem, [a.answer, b.answer])
    return one != other


__all__ = ["NOTES", "effect"]
