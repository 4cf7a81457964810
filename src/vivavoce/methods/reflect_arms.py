"""The ways to learn from debates: an arm says which debates and rows it uses, which arm it starts from, and how it is
trained.

A new arm is one more entry here. Its changes are keys of ``debate``, ``examples``, ``trees``, ``attempts``, ``sft``,
``dpo`` or ``magdi``, as the recipe has them. An arm that changes ``debate`` has debates of its own; calls that several
of them share are made once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vivavoce import plugins
from vivavoce.exams.arms import Material
from vivavoce.methods.arms import ListedArm, OfEach, by_name

M = TypeVar("M", bound=BaseModel)


class Attempts(BaseModel):
    """Our extension: after SFT the student tries the training questions again, and the trees reject its wrong answers.
    Mistakes that only others make, or that it no longer makes, would teach it nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    samples: int = Field(default=0, ge=0, description="answers to each training question; 0: none (paper)")
    temperature: float = Field(default=1.0, ge=0, description="sampling temperature of these answers")


class ReflectArm(BaseModel):
    """One way to learn from the same debates."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    learn: Literal["answers", "trees", "graphs"] = Field(
        default="answers",
        description="what the arm learns: answers, by SFT; trees, by T-DPO on right against wrong; graphs, by MAGDi",
    )
    start: str | None = Field(
        default=None, description="the arm that it starts from, which is trained too; None: the student as it came"
    )
    teachers: list[str] | None = Field(
        default=None, description="agents whose answers are learnt; None: all that debated"
    )
    share: float = Field(default=1.0, gt=0, le=1, description="share of the questions to learn from, the first ones")
    debate: dict[str, Any] = Field(
        default={}, description="changes to the recipe's `debate:`; such debates are held beside the recipe's own"
    )
    examples: dict[str, Any] = Field(default={}, description="changes to the recipe's `examples:`")
    attempts: dict[str, Any] = Field(default={}, description="changes to the recipe's `attempts:`")
    trees: dict[str, Any] = Field(default={}, description="changes to the recipe's `trees:`")
    sft: dict[str, Any] = Field(default={}, description="changes to the recipe's `sft:`")
    dpo: dict[str, Any] = Field(default={}, description="changes to the recipe's `dpo:`")
    magdi: dict[str, Any] = Field(default={}, description="changes to the recipe's `magdi:`")
    updates_of: str | None = Field(
        default=None,
        description="answers: make as many updates as that arm of T-DPO took, "
        "at its learning rate; None: as `sft` says",
    )
    seconds_of: str | None = Field(
        default=None,
        description="answers: train for as many seconds as that arm of T-DPO took, at its learning rate, reckoned by "
        "the pace of the SFT that this arm starts from",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ReflectArm:
        if self.learn != "answers" and (self.updates_of or self.seconds_of) is not None:
            key = "updates_of" if self.updates_of is not None else "seconds_of"
            own = "T-DPO has dpo.max_steps" if self.learn == "trees" else "MAGDi has magdi.max_steps"
            raise ValueError(f"{key} is for arms that learn answers: {own}")
        if self.updates_of is not None and self.seconds_of is not None:
            raise ValueError("updates_of and seconds_of: give one of them")
        if self.seconds_of is not None and self.start is None:
            raise ValueError("seconds_of needs a start that learnt answers, whose pace it goes by")
        return self

    @property
    def needs(self) -> list[str]:
        """The arms that have to be trained before this one."""
        names = (self.start, self.updates_of, self.seconds_of)
        return list(dict.fromkeys(name for name in names if name is not None))

    @property
    def as_long_as(self) -> str | None:
        """The arm of T-DPO whose number of updates or seconds it takes."""
        return self.updates_of or self.seconds_of

    @property
    def material(self) -> Material:
        """The material that it learns from."""
        first = self.examples.get("rounds") == [0] or self.debate.get("max_rounds") == 1
        return "drafts" if self.learn == "answers" and self.start is None and first else "debate"


_SECTIONS = ("debate", "examples", "attempts", "trees", "sft", "dpo", "magdi")


def changed_section(section: M, changes: Mapping[str, Any]) -> M:
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
            changed_section(getattr(recipe, section), getattr(arm, section))
        except ValueError as e:
            raise ValueError(f"arm `{name}`, {section}: {e}") from None


# In round 0 no agent has read another. The student's own drafts are left out, because it learns from its teachers.
_DRAFTS: dict[str, Any] = {"rounds": [0], "include_student": False}
_RIGHT: dict[str, Any] = {**_DRAFTS, "take": "right"}
_NO_REFLECTION: dict[str, Any] = {"reflect": False}
_NO_FEEDBACK: dict[str, Any] = {"feedback_from": "none"}
_SILENT = {**_NO_REFLECTION, **_NO_FEEDBACK}
SILENT: dict[str, dict[str, Any]] = {"": _SILENT, "reflection": _NO_REFLECTION, "critique": _NO_FEEDBACK}
"""Changes that leave notes of a kind out of debates; the empty key: of any kind."""
_ALONE: dict[str, Any] = {"student": "never"}
_PAPERS: dict[str, Any] = {"branch": "answer", "pairing": "cross_product", "context": "full", "weight": "per_question"}
_NONE: dict[str, Any] = {"samples": 0}


def _in_two(name: str, **changes: Any) -> dict[str, ReflectArm]:
    """SFT, and T-DPO after it, on debates of their own."""
    return {f"{name}_sft": ReflectArm(**changes), name: ReflectArm(learn="trees", start=f"{name}_sft", **changes)}


def _answer_trees(trees: Mapping[str, Any] = {}, **dpo: Any) -> ReflectArm:
    """T-DPO on the published trees."""
    tried: dict[str, Any] = {"trees": {**_PAPERS, **trees}, "attempts": _NONE}
    return ReflectArm(learn="trees", start="debate_reflect_sft", dpo=dpo, **tried)


def _magdi(**weights: Any) -> ReflectArm:
    """MAGDi on the teachers' discussions, which have no student and no notes."""
    return ReflectArm(learn="graphs", debate={**_SILENT, **_ALONE}, magdi=weights)


STANDARD: dict[str, ReflectArm] = {
    "multi_teacher": ReflectArm(examples=_RIGHT),
    "multi_teacher_vote": ReflectArm(examples=_DRAFTS),
    "debate_reflect_sft": ReflectArm(),
    "debate_reflect": ReflectArm(learn="trees", start="debate_reflect_sft"),
    "sft_continued": ReflectArm(start="debate_reflect_sft", updates_of="debate_reflect"),
    "sft_continued_seconds": ReflectArm(start="debate_reflect_sft", seconds_of="debate_reflect"),
    # the paper's Table 2
    **_in_two("no_reflection", debate=_NO_REFLECTION),
    **_in_two("no_feedback", debate=_NO_FEEDBACK),
    **_in_two("no_notes", debate=_SILENT),
    **_in_two("teachers_only", debate=_ALONE),
    # objectives
    "t_dpo_only": ReflectArm(learn="trees"),
    "answer_trees": _answer_trees(nll_weight=0.0),
    "answer_trees_no_context": _answer_trees({"context": "none"}, nll_weight=0.0),
    "rpo": _answer_trees(nll_weight=1.0, nll_average="token"),
    "magdi": _magdi(),
    "magdi_answers": _magdi(node_weight=0.0, margin_weight=0.0),
    "magdi_no_nodes": _magdi(node_weight=0.0),
    "magdi_no_margins": _magdi(margin_weight=0.0),
    "magdi_detached": _magdi(detached=True),
}
"""The method and its baselines, by name; docs/debate-reflect.md explains each.

`single` stands for one arm for each teacher. `rounds` and `debates` stand for the method after so many answer rounds,
and on so large a share of the debates; `rounds_sft` and `debates_sft` for its SFT alone.
"""
USUAL = (
    "multi_teacher",
    "multi_teacher_vote",
    "debate_reflect_sft",
    "debate_reflect",
    "sft_continued",
)
SHARES = {"10%": 0.1, "30%": 0.3, "60%": 0.6, "100%": 1.0}
"""Shares of the debates: about the paper's 100, 300, 600 and 974."""


def usual(take: str) -> list[str]:
    """The arms of a recipe that names none. If all right answers are taken, the best of the drafts is one of them."""
    return ["single", *(name for name in USUAL if name != "multi_teacher_vote" or take != "right")]


def arms_of(
    names: Sequence[str], own: Mapping[str, ReflectArm], teachers: Sequence[str], rounds: int = 1
) -> dict[str, ListedArm[ReflectArm]]:
    """The arms that a recipe lists; `key=value` after a name, as in `debate_reflect@dpo.beta=0.2`, changes one key.

    ``rounds`` are the answer rounds of the recipe's debates at most. Raises ValueError if there is no such name, or no
    such key of an arm.
    """
    each = {"single": OfEach("single", {t: ReflectArm(teachers=[t], examples=_RIGHT) for t in teachers})}
    each |= _patterns("rounds", {str(r): {"debate": {"max_rounds": r}} for r in range(1, rounds + 1)})
    each |= _patterns("debates", {name: {"share": share} for name, share in SHARES.items()})
    return by_name(names, own, STANDARD, each)


def _patterns(label: str, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, OfEach[ReflectArm]]:
    sft = {name: ReflectArm(**options) for name, options in changes.items()}
    whole = {k: ReflectArm(learn="trees", start=f"{label}_sft:{k}", **options) for k, options in changes.items()}
    return {f"{label}_sft": OfEach(f"{label}_sft", sft, False), label: OfEach(label, whole, False)}


def needed_arms(
    names: Sequence[str], own: Mapping[str, ReflectArm], teachers: Sequence[str], rounds: int = 1
) -> dict[str, ListedArm[ReflectArm]]:
    """The arms that ``names`` stand for, and those that they start from; an arm comes after all that it needs.

    Raises ValueError, too, if an arm needs itself, or several.
    """
    listed: dict[str, ListedArm[ReflectArm]] = {}

    def find(one: ListedArm[ReflectArm], above: tuple[str, ...]) -> None:
        if one.name in above:
            raise ValueError(f"arm `{one.name}` starts from itself: {' → '.join([*above, one.name])}")
        for name in one.options.needs:
            before = arms_of([name], own, teachers, rounds)
            if list(before) != [name]:
                raise ValueError(f"arm `{one.name}` cannot start from `{name}`: name one of these: {', '.join(before)}")
            find(before[name], (*above, one.name))
        listed.setdefault(one.name, one)

    for one in arms_of(names, own, teachers, rounds).values():
        find(one, ())
    return listed


__all__ = [
    "SILENT",
    "STANDARD",
    "Attempts",
    "ReflectArm",
    "arms_of",
    "changed_section",
    "check",
    "needed_arms",
    "usual",
]
