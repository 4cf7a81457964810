"""The ways to learn from one set of debates: an arm says which rows, starting from which arm, trained how.

A later arm is one more entry here. What it changes about another one is a key: of ``examples``, ``trees``,
``attempts``, ``sft`` or ``dpo``, as the recipe has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vivavoce import plugins
from vivavoce.exams.arms import Material
from vivavoce.methods.arms import Listed, OfEach, by_name

M = TypeVar("M", bound=BaseModel)


class Attempts(BaseModel):
    """Our extension: after SFT the student tries the training questions again, and the trees reject what it still
    gets wrong. Mistakes that only others make, or that it no longer makes, teach it nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(default=0, ge=0, description="answers to each training question; 0: none (paper)")
    temperature: float = Field(default=1.0, ge=0)


class ReflectArm(BaseModel):
    """One way to learn from the same debates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learn: Literal["answers", "trees"] = Field(
        default="answers", description="answers: SFT on what was said; trees: T-DPO on right against wrong"
    )
    start: str | None = Field(
        default=None, description="the arm that it starts from, which is trained too; None: the student as it came"
    )
    teachers: list[str] | None = Field(default=None, description="whose answers; None: those of all who debated")
    examples: dict[str, Any] = Field(default={}, description="changes to the recipe's `examples:`")
    attempts: dict[str, Any] = Field(default={}, description="changes to the recipe's `attempts:`")
    trees: dict[str, Any] = Field(default={}, description="changes to the recipe's `trees:`")
    sft: dict[str, Any] = Field(default={}, description="changes to the recipe's `sft:`")
    dpo: dict[str, Any] = Field(default={}, description="changes to the recipe's `dpo:`")
    updates_of: str | None = Field(
        default=None,
        description="answers: as many updates as that arm of T-DPO took, at its rate; None: as `sft` has it",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ReflectArm:
        if self.learn == "trees" and self.updates_of is not None:
            raise ValueError("updates_of is for arms that learn answers: T-DPO has dpo.max_steps")
        return self

    @property
    def needs(self) -> list[str]:
        """The arms that have to be trained before this one."""
        return list(dict.fromkeys(name for name in (self.start, self.updates_of) if name is not None))

    @property
    def material(self) -> Material:
        """What it learns from."""
        drafts = self.learn == "answers" and self.start is None and self.examples.get("rounds") == [0]
        return "drafts" if drafts else "debate"


_SECTIONS = ("examples", "attempts", "trees", "sft", "dpo")


def changed(section: M, changes: Mapping[str, Any]) -> M:
    """A section of the recipe as an arm has it. Raises ValueError that names each mistake."""
    try:
        return type(section).model_validate({**section.model_dump(), **changes}) if changes else section
    except ValidationError as e:
        known = list(type(section).model_fields)
        raise ValueError("; ".join(plugins.mistake(p, known) for p in e.errors(include_url=False))) from None


def check(name: str, arm: ReflectArm, recipe: BaseModel) -> None:
    """Raise ValueError if the recipe's sections cannot be changed as the arm says."""
    for section in _SECTIONS:
        try:
            changed(getattr(recipe, section), getattr(arm, section))
        except ValueError as e:
            raise ValueError(f"arm `{name}`, {section}: {e}") from None


# Nobody has heard another one by then. The student has no part in them, for it is to learn from its teachers.
_DRAFTS: dict[str, Any] = {"rounds": [0], "include_student": False}
_RIGHT: dict[str, Any] = {**_DRAFTS, "take": "right"}
STANDARD: dict[str, ReflectArm] = {
    "multi_teacher": ReflectArm(examples=_RIGHT),
    "multi_teacher_vote": ReflectArm(examples=_DRAFTS),
    "debate_reflect_sft": ReflectArm(),
    "debate_reflect": ReflectArm(learn="trees", start="debate_reflect_sft"),
    "sft_continued": ReflectArm(start="debate_reflect_sft", updates_of="debate_reflect"),
}
"""The method and what it is measured against: all teachers without debate, the best of their drafts, SFT without T-DPO,
and SFT that goes on for as long as T-DPO took. `single` stands for one arm for each teacher."""


def usual(take: str) -> list[str]:
    """The arms of a recipe that names none. If all right answers are taken, the best of the drafts is one of them."""
    return ["single", *(name for name in STANDARD if name != "multi_teacher_vote" or take != "right")]


def wanted(
    names: Sequence[str], own: Mapping[str, ReflectArm], teachers: Sequence[str]
) -> dict[str, Listed[ReflectArm]]:
    """The arms that a recipe lists; `key=value` after a name, as in `debate_reflect@dpo.beta=0.2`, changes one key.

    Raises ValueError if there is no such name, or no such key of an arm.
    """
    each = {"single": OfEach("single", {t: ReflectArm(teachers=[t], examples=_RIGHT) for t in teachers})}
    return by_name(names, own, STANDARD, each)


def needed(
    names: Sequence[str], own: Mapping[str, ReflectArm], teachers: Sequence[str]
) -> dict[str, Listed[ReflectArm]]:
    """The arms that ``names`` stand for, and those that they start from; an arm comes after all that it needs.

    Raises ValueError, too, if an arm needs itself, or several.
    """
    found: dict[str, Listed[ReflectArm]] = {}

    def find(one: Listed[ReflectArm], above: tuple[str, ...]) -> None:
        if one.name in above:
            raise ValueError(f"arm `{one.name}` starts from itself: {' → '.join([*above, one.name])}")
        for name in one.how.needs:
            before = wanted([name], own, teachers)
            if list(before) != [name]:
                raise ValueError(f"arm `{one.name}` cannot start from `{name}`: name one of {', '.join(before)}")
            find(before[name], (*above, one.name))
        found.setdefault(one.name, one)

    for one in wanted(names, own, teachers).values():
        find(one, ())
    return found


__all__ = ["STANDARD", "Attempts", "ReflectArm", "changed", "check", "needed", "usual", "wanted"]
