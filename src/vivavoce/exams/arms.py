"""Descriptions of arms, the contestants of a comparison, as facts, so that they are not guessed from names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

Family = Literal["student", "committee", "debate"]
Material = Literal["", "drafts", "debate", "review", "gold"]


@dataclass(frozen=True, slots=True)
class Arm:
    """A student, a teacher or a vote that takes the test."""

    name: str
    family: Family = "student"
    """student: one model answers, alone or after a second look at its answer; committee: teachers that have not read
    each other, or a vote of them; debate: their vote after they have read each other."""
    base: str = ""
    """The recipe's name for it without teacher and changes: ``single`` of ``single:ada@alpha=0.5``."""
    teacher: str | None = None
    """The one teacher that the arm is about: it taught alone, was left out, or answers itself. None: no single one."""
    changes: str = ""
    """Keys that the recipe changed after ``@``."""
    material: Material = ""
    """The material that a student learned from: the teachers' drafts, their texts after a debate or a review, or the
    gold answers. Empty for an untaught student and for a committee.
    """
    method: str = ""
    """The method that made it."""
    start: str | None = None
    """The arm whose training went on in it; None: it started from the student as it came."""
    stage: str = ""
    """The stage of a chain that made it."""

    def facts(self) -> dict[str, Any]:
        """The description for ``results.json``."""
        return asdict(self)


Pair = tuple[str, str]
"""Names of two arms that are tested against each other: what the second gains over the first."""
ListedPairs = Sequence[Pair] | Literal["all"]
"""Pairs that a recipe asks for."""


def planned_pairs(usual: Iterable[Pair], listed: ListedPairs, names: Sequence[str]) -> list[Pair]:
    """The pairs that a method tests as a rule, then those that its recipe asks for; no two arms are tested twice.

    ``all`` asks for every pair of ``names``, each against all that come after it.
    """
    more = combinations(names, 2) if listed == "all" else listed
    planned: dict[frozenset[str], Pair] = {}
    for a, b in (*usual, *more):
        if a != b:
            planned.setdefault(frozenset((a, b)), (a, b))
    return list(planned.values())


__all__ = ["Arm", "Family", "ListedPairs", "Material", "Pair", "planned_pairs"]
