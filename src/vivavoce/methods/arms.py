"""Arms by name: what the methods share that compare several ways to learn from one set of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel

from vivavoce.config import override
from vivavoce.errors import RecipeError

A = TypeVar("A", bound=BaseModel)


def by_name(
    names: Sequence[str], own: Mapping[str, A], standard: Mapping[str, A], each: Mapping[str, Mapping[str, A]]
) -> dict[str, A]:
    """The arms that ``names`` stand for: a pattern of ``each`` for all of its arms; one of those, the user's own, or a
    standard one for itself.

    ``name@key=value,key=value`` changes keys of the arm, or of every arm of a pattern; ``key.sub=value`` reaches into
    a section that the arm has. Raises ValueError for a name, or a key of an arm, that there is not.
    """
    single = {name: arm for pattern in each.values() for name, arm in pattern.items()}
    known = {name: {name: arm} for name, arm in {**standard, **own, **single}.items()} | dict(each)
    arms: dict[str, A] = {}
    for name in names:
        base, at, changes = name.partition("@")
        if base not in known:
            raise ValueError(f"unknown arm `{base}`; there are {', '.join([*each, *standard, *own])}")
        arms |= {f"{n}{at}{changes}": _changed(arm, changes) if at else arm for n, arm in known[base].items()}
    return arms


def _changed(arm: A, changes: str) -> A:
    values = arm.model_dump()
    for change in changes.split(","):
        try:
            override(values, change, f"@{changes}")
        except RecipeError as e:
            raise ValueError(f"`@{changes}`: {e.what}") from None
    return type(arm).model_validate(values)


__all__ = ["by_name"]
