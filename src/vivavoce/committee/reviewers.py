"""The roles of teachers in a review, and the choice of reviewers for each author."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from vivavoce.committee.table import Member, Table
from vivavoce.committee.wording import Talk
from vivavoce.records import seed_of

Role = Literal["authors", "commenters", "reviewers"]
ROLES: tuple[Role, ...] = ("authors", "commenters", "reviewers")


class Roles(Talk):
    """The teachers that write, explain and review."""

    authors: list[str] | None = Field(default=None, description="teachers that write rationales; None: all (paper)")
    commenters: list[str] | None = Field(default=None, description="teachers that explain mistakes; None: all (paper)")
    reviewers: list[str] | None = Field(default=None, description="teachers that review; None: all (paper)")
    scope: Literal["others", "all", "self"] = Field(
        default="others",
        description="who reviews: every reviewer but the author (paper), the author too, or the author alone",
    )
    reviewers_each: int | None = Field(
        default=None,
        ge=1,
        description="so many reviewers of each rationale, at random with equal load; None: all (paper)",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.scope == "self" and self.reviewers_each is not None:
            raise ValueError("scope: self has one reviewer; leave reviewers_each out")
        return self

    def holders(self, role: Role, teachers: Sequence[str]) -> list[str]:
        """The teachers that hold a role, in the order of the recipe. Raises ValueError for a name that is not a
        teacher.
        """
        wanted: list[str] | None = getattr(self, role)
        if unknown := [name for name in wanted or () if name not in teachers]:
            raise ValueError(
                f"review.{role} names `{unknown[0]}`, which is not a teacher; the teachers are {', '.join(teachers)}"
            )
        return [name for name in teachers if wanted is None or name in wanted]


def holding(role: Role, table: Table) -> list[Member]:
    """The members of the committee that hold a role, in the order of the recipe."""
    names = table.options.holders(role, [m.name for m in table.teachers])
    return [m for m in table.teachers if m.name in names]


def reviewers_of(author: str, table: Table) -> list[Member]:
    """The reviewers of a text of ``author``.

    With ``reviewers_each`` k they are the k at the same seeded places after the author in the cyclic order of
    reviewers. Each reviewer then gets equally many for every question, and the choice for one question depends on no
    other.
    """
    o, everyone = table.options, holding("reviewers", table)
    names = [m.name for m in everyone]
    if o.scope == "self":
        return [m for m in everyone if m.name == author]
    at = names.index(author) if author in names else _place(author, table)
    after = [everyone[(at + i) % len(everyone)] for i in range(len(everyone))]
    eligible = [m for m in after if o.scope == "all" or m.name != author]
    if o.reviewers_each is None or o.reviewers_each >= len(eligible):
        return eligible
    rng = random.Random(seed_of(table.seed, table.question.id, "reviewers"))
    return [eligible[i] for i in sorted(rng.sample(range(len(eligible)), o.reviewers_each))]


def _place(author: str, table: Table) -> int:
    """The place of an author that is no reviewer, among those that write as it does."""
    writers = [[m.name for m in holding(role, table)] for role in ("authors", "commenters")]
    return next(names.index(author) for names in writers if author in names)


__all__ = ["ROLES", "Role", "Roles", "holding", "reviewers_of"]
