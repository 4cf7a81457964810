"""Checks of tasks in a user's own file, so that an error names the place of the mistake."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from vivavoce.errors import RecipeError
from vivavoce.plugins import need_call, need_members, place_of, replace_methods
from vivavoce.records import Grade, Problem

_MEMBERS = ("name", "answer_format", "problems", "grade")


def check_own(task: Any, module: ModuleType, file: str) -> None:
    """Raise RecipeError if ``task`` lacks a member; later, if its problems or grades are none."""
    need_members(task, _MEMBERS, module.task, file)
    kind = type(task)
    need_call(task.problems, 1, "def problems(self, split)", file)
    need_call(task.grade, 2, "def grade(self, problem, text)", file)

    def problems(self: Any, split: str) -> list[Problem]:
        made = kind.problems(self, split)
        if not isinstance(made, list | tuple) or not all(isinstance(one, Problem) for one in made):
            other = next((one for one in made if not isinstance(one, Problem)), None) if _several(made) else made
            what = f"`problems` returned {_describe(other)}, not a list of Problem"
            raise RecipeError(what, place_of(kind.problems, file), "return [Problem(id, question, gold), …]")
        if len({one.id for one in made}) < len(made):
            raise RecipeError("two problems have one id", place_of(kind.problems, file), "give each an id of its own")
        return list(made)

    def grade(self: Any, problem: Problem, text: str) -> Grade:
        outcome = kind.grade(self, problem, text)
        if not isinstance(outcome, Grade):
            what = f"`grade` returned {_describe(outcome)}, not a Grade"
            raise RecipeError(what, place_of(kind.grade, file), "return Grade(answer, correct)")
        return outcome

    replace_methods(task, {"problems": problems, "grade": grade})


def _several(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _describe(value: Any) -> str:
    return f"{repr(value)[:60]} (a {type(value).__name__})"


__all__ = ["check_own"]
