"""Recorded attempts as graphs: real right and wrong answers that somebody collected, ready for trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vivavoce.graph import Graph
from vivavoce.records import node
from vivavoce.tasks import Task
from vivavoce.tasks.attempts import Recorded


def graphs_of(recorded: Iterable[Recorded], task: Task) -> Iterator[Graph]:
    """One graph a question, its attempts the answers of round 0.

    The file's own flag says whether an attempt was right; if there is none, the task's grader does. The final
    answer is the one that the grader reads.
    """
    for problem, attempts, _ in recorded:
        nodes = []
        for a in attempts:
            grade = task.grade(problem, a.text)
            correct = grade.correct if a.correct is None else a.correct
            nodes.append(
                node(
                    "answer", problem.id, a.agent, 0, a.text, answer=grade.answer, correct=correct, status=grade.status
                )
            )
        yield Graph(problem, tuple(nodes), "recorded")
