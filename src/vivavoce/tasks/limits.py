"""Limits of the number of questions, and the choice of those that a limit keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.records import Problem, digest

T = TypeVar("T")


class Limited(BaseModel):
    """Options of tasks that have more questions than a run may want."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train_limit: int | None = Field(default=None, ge=1, description="most questions to train on; None: all")
    test_limit: int | None = Field(default=None, ge=1, description="most questions to test on; None: all")
    limit_takes: Literal["sample", "first"] = Field(
        default="sample",
        description="which questions a limit keeps. sample: drawn by `seed`, of every group (subject, category) its "
        "share; those of a lower limit are among those of a higher one. first: those that stand first in the file, "
        "which often begins with one subject",
    )
    seed: int = Field(
        default=0, description="draws which questions a limit keeps, and which of a whole set are trained on"
    )

    def within(self, entries: Sequence[T], split: str, problem: Callable[[T], Problem]) -> list[T]:
        """The questions that the limit of a split keeps, in the given order. ``problem`` has id and group."""
        limit = self.train_limit if split == "train" else self.test_limit
        return list(entries[:limit]) if self.limit_takes == "first" else sample(entries, limit, self.seed, problem)


def sample(
    entries: Sequence[T], limit: int | None, seed: int, problem: Callable[[T], Problem] = lambda one: cast(Problem, one)
) -> list[T]:
    """``limit`` of ``entries``, drawn by a hash of seed and id, each group in proportion, in the order of ``entries``.

    The j-th question of a group of n (from 0) comes at (j + 1/2) / n, and the first ``limit`` are taken. These are the
    seats that Sainte-Laguë gives to groups: each has its share, rounded, and a higher limit takes nothing away.
    """
    if limit is None or limit >= len(entries):
        return list(entries)
    groups = defaultdict[str, list[tuple[str, int]]](list)
    for i, one in enumerate(entries):
        groups[problem(one).group].append((digest([seed, problem(one).id]), i))
    places = [((j + 0.5) / len(drawn), lot, i) for drawn in groups.values() for j, (lot, i) in enumerate(sorted(drawn))]
    kept = {i for *_, i in sorted(places)[:limit]}
    return [one for i, one in enumerate(entries) if i in kept]


__all__ = ["Limited", "sample"]
