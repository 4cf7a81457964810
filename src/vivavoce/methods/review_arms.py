"""The ways to learn from one set of reviewed texts: an arm is a view, so that all arms cost the calls of one."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.data.acceptance import AcceptRules


class Arm(BaseModel):
    """One way to learn from the same texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teachers: list[str] | None = Field(default=None, description="whose rationales and feedback; None: all")
    accept: AcceptRules | None = Field(default=None, description="which rationales; None: the recipe's `accept:`")
    alpha: float | None = Field(default=None, ge=0, le=1, description="weight of the feedback task; None: the recipe's")
    score_weighted: bool = Field(default=False, description="a rationale counts by how clearly it passed (ours)")
    shuffle_feedback: bool = Field(
        default=False, description="every mistake gets the feedback of another one: a control"
    )
    prefer: bool = Field(
        default=False, description="then T-DPO: accepted rationales over the student's wrong answers (ours)"
    )
    exams: int = Field(default=1, ge=1, description="after each, the student so far sits the next one (ours; paper: 1)")
    fresh: bool = Field(default=False, description="learn from the last exam alone, not from all exams so far")


ALL, CHECKED = AcceptRules(take="all"), AcceptRules(take="all", answer_check=True)
STANDARD = {
    "unreviewed": Arm(accept=ALL),
    "reviewed": Arm(accept=AcceptRules()),
    "checked": Arm(accept=CHECKED),
    "checked_and_reviewed": Arm(accept=AcceptRules(answer_check=True)),
    "random": Arm(accept=AcceptRules(take="random")),
    "rationale_only": Arm(alpha=0.0),
    "feedback_only": Arm(alpha=1.0),
    "shuffled_feedback": Arm(shuffle_feedback=True),
    "score_weighted": Arm(score_weighted=True),
    "preferred": Arm(prefer=True),
    "refreshed": Arm(exams=2),
}
"""Baselines and ablations by name (section numbers: docs/decisions/0004)."""


def wanted(names: Sequence[str], own: dict[str, Arm], teachers: Sequence[str]) -> dict[str, Arm]:
    """The arms that a recipe lists; `single` and `single_checked` are one arm for each teacher.

    Raises ValueError for a name that there is not.
    """
    arms: dict[str, Arm] = {}
    for name in names:
        if name in ("single", "single_checked"):
            accept = ALL if name == "single" else CHECKED
            arms |= {f"{name}:{t}": Arm(teachers=[t], accept=accept) for t in teachers}
        elif name in own or name in STANDARD:
            arms[name] = own[name] if name in own else STANDARD[name]
        else:
            known = ", ".join(["single", "single_checked", *STANDARD, *own])
            raise ValueError(f"unknown arm `{name}`; there are {known}")
    return arms
