"""Recorded attempts as graphs: real right and wrong answers that somebody collected, ready for trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from vivavoce.graph import Graph
from vivavoce.records import Node, node
from vivavoce.tasks import Task
from vivavoce.tasks.attempts import Recorded


def graphs_of(recorded: Iterable[Recorded], task: Task, contradicted: list[Node] | None = None) -> Iterator[Graph]:
    """One graph a question, its attempts the answers of round 0.

    The file's own flag says whether an attempt was right; if there is none, the task's grader does. The final
    answer is the one that the grader reads. ``contradicted`` takes the answers whose flag the grader contradicts: look
    at each before use.
    """
    for problem, attempts, _ in recorded:
        nodes = []
        for a in attempts:
            grade = task.grade(problem, a.text)
            correct = grade.correct if a.correct is None else a.correct
            read: dict[str, Any] = {"answer": grade.answer, "correct": correct, "status": grade.status}
            nodes.append(node("answer", problem.id, a.agent, 0, a.text, **read))
            if contradicted is not None and correct is not grade.correct:
                contradicted.append(nodes[-1])
        yield Graph(problem, tuple(nodes), "recorded")
