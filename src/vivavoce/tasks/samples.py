"""Answers that a task must grade right and wrong: what ``viva check-tasks`` goes through."""

from __future__ import annotations

from typing import NamedTuple

from vivavoce.records import Problem


class Sample(NamedTuple):
    """One problem, texts that its task must accept and texts that it must reject."""

    problem: Problem
    right: tuple[str, ...]
    """The gold answer in the form that the task asks for; then the official solution, if there is one."""
    wrong: tuple[str, ...]
    where: str
    odd: str = ""
    """The fault of the official row itself."""


__all__ = ["Sample"]
