"""The common parts of tasks whose answers a :class:`~vivavoce.tasks.grading.Grader` reads."""

from __future__ import annotations

from collections.abc import Sequence

from vivavoce.records import Grade, Problem, Token
from vivavoce.tasks.confidence import geometric_mean
from vivavoce.tasks.grading import Grader
from vivavoce.tasks.splitting import lines_and_sentences


class Prose:
    """The part of a :class:`~vivavoce.tasks.Task` that all answers in prose share, whatever grades them."""

    name: str

    def steps(self, text: str) -> list[str]:
        """Lines and sentences."""
        return lines_and_sentences(text)

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """Raises NotImplementedError: no program can check a step."""
        raise NotImplementedError(f"{self.name} has no checker of steps")

    def probability(self, text: str, tokens: Sequence[Token]) -> float:
        """Geometric mean probability of a token of the reply."""
        return geometric_mean(tokens)


class Graded(Prose):
    """A task without its problems: answers in prose with a stated end."""

    answer_format: str
    grader: Grader

    def grade(self, problem: Problem, text: str) -> Grade:
        """The stated answer against the gold one, by the task's grader."""
        return self.grader.grade(problem.gold, text)

    def written(self, problem: Problem) -> str:
        """The gold answer in the form of ``answer_format``, with nothing before it."""
        return self.grader.written(problem.gold)

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """Whether two answers that ``grade`` read are one answer, whatever the gold answer is."""
        return self.grader.same(a, b)


__all__ = ["Graded", "Prose"]
