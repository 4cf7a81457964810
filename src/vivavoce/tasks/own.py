"""Checks of tasks in a user's own file, so that a mistake is told with its place."""

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
        found = kind.problems(self, split)
        if not isinstance(found, list | tuple) or not all(isinstance(one, Problem) for one in found):
            other = next((one for one in found if not isinstance(one, Problem)), None) if _several(found) else found
            what = f"`problems` returned {_shown(other)}, not a list of Problem"
            raise RecipeError(what, place_of(kind.problems, file), "return [Problem(id, question, gold), …]")
        if len({one.id for one in found}) < len(found):
            raise RecipeError("two problems have one id", place_of(kind.problems, file), "give each an id of its own")
        return list(found)

    def grade(self: Any, problem: Problem, text: str) -> Grade:
        found = kind.grade(self, problem, text)
        if not isinstance(found, Grade):
            what = f"`grade` returned {_shown(found)}, not a Grade"
            raise RecipeError(what, place_of(kind.grade, file), "return Grade(answer, correct)")
        return found

    replace_methods(task, {"problems": problems, "grade": grade})


def _several(found: Any) -> bool:
    return isinstance(found, list | tuple)


def _shown(value: Any) -> str:
    return f"{repr(value)[:60]} (a {type(value).__name__})"


__all__ = ["check_own"]
