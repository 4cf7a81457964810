"""Arms of a recipe's list: by name, by pattern, changed after ``@``; the same way for every method."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from vivavoce.config import override
from vivavoce.errors import RecipeError
from vivavoce.exams.arms import Arm, Material
from vivavoce.mistakes import Misplaced
from vivavoce.plugins import near
from vivavoce.train.gate import together

A = TypeVar("A", bound=BaseModel)
T = TypeVar("T")


class OfEach(NamedTuple, Generic[A]):
    """A pattern for several arms: one for each teacher, or for each of the given values, called ``label:TEACHER``."""

    label: str
    arms: Mapping[str, A]
    teachers: bool = True
    """Whether they are of teachers."""


@dataclass(frozen=True)
class ListedArm(Generic[A]):
    """An arm that a recipe lists, and the settings of its training."""

    name: str
    base: str
    teacher: str | None
    changes: str
    options: A

    @property
    def plain(self) -> str:
        """The material that it is made of, if nothing was changed; else empty."""
        return "" if self.changes else self.base

    def arm(self, method: str, material: Material, start: str | None = None) -> Arm:
        """The arm's description in a comparison."""
        return Arm(self.name, "student", self.base, self.teacher, self.changes, material, method, start)


def by_name(
    names: Sequence[str], own: Mapping[str, A], standard: Mapping[str, A], each: Mapping[str, OfEach[A]]
) -> dict[str, ListedArm[A]]:
    """The arms that ``names`` stand for: a pattern of ``each`` for all of its arms; one of those, the user's own, or a
    standard one for itself.

    ``name@key=value,key=value`` changes keys of the arm, or of every arm of a pattern; ``key.sub=value`` reaches into
    a section that the arm has. Raises ValueError if there is no such name, or no such key of an arm.
    """
    known: dict[str, list[ListedArm[A]]] = {
        name: [ListedArm(name, name, None, "", options)] for name, options in {**standard, **own}.items()
    }
    for pattern, (label, hows, teachers) in each.items():
        made = [
            ListedArm(f"{label}:{of}", pattern, of if teachers else None, "", options) for of, options in hows.items()
        ]
        known |= {one.name: [one] for one in made} | {pattern: made}
    listed: dict[str, ListedArm[A]] = {}
    for i, name in enumerate(names):
        base, at, changes = name.partition("@")
        if base not in known:
            raise Misplaced(f"unknown arm `{base}`{near(base, [*each, *known])}", "arms", i)
        for one in known[base]:
            options = _change(one.options, changes, i) if at else one.options
            listed[f"{one.name}{at}{changes}"] = ListedArm(
                f"{one.name}{at}{changes}", one.base, one.teacher, changes, options
            )
    return listed


async def after_what_they_need(
    needs: Mapping[str, Collection[str]],
    do: Callable[[str, Mapping[str, T]], Awaitable[T]],
    then: Callable[[str, T], Awaitable[object]],
) -> dict[str, T]:
    """Run ``do`` for every name, all at the same time, but each only when the names that it needs are done; returns the
    results.

    ``then`` is run for a name when the names that need it are done too, because others wait only for ``do``.
    """
    done: dict[str, asyncio.Future[T]] = {name: asyncio.get_running_loop().create_future() for name in needs}

    async def one(name: str) -> T:
        made = await do(name, {before: await done[before] for before in needs[name]})
        done[name].set_result(made)
        for other, before in needs.items():
            if name in before:
                await done[other]
        await then(name, made)
        return made

    return dict(zip(needs, await together(*map(one, needs)), strict=True))


def _change(arm: A, changes: str, place: int) -> A:
    values = arm.model_dump()
    for change in changes.split(","):
        try:
            override(values, change, f"@{changes}")
        except RecipeError as e:
            raise Misplaced(f"`@{changes}`: {e.what}", "arms", place) from None
    return type(arm).model_validate(values)


__all__ = ["ListedArm", "OfEach", "after_what_they_need", "by_name"]
