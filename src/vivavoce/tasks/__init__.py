"""Tasks: questions, and the grading of answers to them.

One benchmark a file: ``tasks/foo.py`` defines ``Options`` (a pydantic model of the keys that a recipe may give it) and
``task(options) -> Task``. The file name is the task's name; a path to a Python file works too, so adding a benchmark
edits nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from vivavoce import plugins
from vivavoce.records import Grade, Problem, Token
from vivavoce.tasks.characters import blank


class Task(Protocol):
    """A source of problems and the judge of answers to them."""

    name: str
    answer_format: str
    """One sentence for prompts: the form in which the final answer must be written."""

    def problems(self, split: str) -> list[Problem]:
        """The problems of ``train`` or ``test``, ids unique over both, in a fixed order."""
        ...

    def grade(self, problem: Problem, text: str) -> Grade:
        """Judge a whole reply. Never raises on any text."""
        ...

    def steps(self, text: str) -> list[str]:
        """Cut an answer into steps that, joined, are the text again."""
        ...

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """Index of the first wrong step, if the task can check steps; None if all are right.

        Raises NotImplementedError if the task cannot check steps.
        """
        ...

    def probability(self, text: str, tokens: Sequence[Token]) -> float:
        """The probability, 0 to 1, that the author gives its own answer, from the log-probabilities of its tokens."""
        ...


async def grade_of(task: Task, problem: Problem, text: str, cut: bool = False, stage: str = "") -> Grade:
    """The grade of a reply: ``task.grade``, and the one rule for replies that are empty or were cut.

    A reply that its token limit ``cut`` is ``truncated`` if it has no answer, or if the answer might have gone on: the
    cut may be inside ``18``. It then has no answer, so that nothing is taught of it, as right or as wrong. The answer
    is complete if the reply without its last line, which is the one that was cut, gives it too. A task that knows more
    defines ``uncut(text)``, the part of a cut reply that no continuation changes.

    A task whose ``grade`` waits (for programs to run, for example) is asked in a thread, so that as many wait at once
    as the machine can serve, and replies are drawn meanwhile.

    A task with judges (:class:`vivavoce.committee.judges.JudgedTask`) asks them; ``stage`` names the work that the
    reply belongs to, for the ledger.
    """
    if blank(text):
        return Grade(None, False, "empty")
    if (ruled := getattr(task, "ruled", None)) is not None:
        return await ruled(problem, text, cut, stage)
    grade = await _grade_aside(task, problem, text)
    if not cut:
        return grade
    certain = getattr(task, "uncut", whole_lines)(text)
    if grade.answer is not None and certain.strip():
        before = grade if certain == text else await _grade_aside(task, problem, certain)
        if before.answer == grade.answer:
            return grade
    return Grade(None, False, "truncated")


async def _grade_aside(task: Task, problem: Problem, text: str) -> Grade:
    if getattr(task, "waits", False):
        return await asyncio.to_thread(task.grade, problem, text)
    return task.grade(problem, text)


def whole_lines(text: str) -> str:
    """The text without its last line, which is the one that a token limit cuts."""
    return text[: text.rfind("\n") + 1]


def open_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task called ``name`` (``gsm8k``, or a path to a Python file such as ``exam/mine.py``), with its options.

    Nothing is read or downloaded before the task is asked for problems, but a task may check at once what it can.

    Raises RecipeError if there is no such task or file, or no such option; DataError if the task read its input here
    already and found it wrong.
    """
    module = plugins.load("tasks", name, "task.name")
    made = module.task(plugins.check(module.Options, options, f"task {name}"))
    if plugins.is_own(module.__name__):
        from vivavoce.tasks.own import check_own

        check_own(made, module, name)
    return made


__all__ = ["Task", "grade_of", "open_task", "whole_lines"]
