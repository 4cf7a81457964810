"""The ways to learn from the same episodes: by name, which states, which debate and which objective."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator

from vivavoce.data.steps import Stepwise
from vivavoce.methods.arms import ListedArm, OfEach, by_name
from vivavoce.methods.opd_arms import PLAIN, ScoredArm


class StepArm(Stepwise, ScoredArm):
    """On-policy agentic distillation from scorers, with the texts that they read in each state."""

    act_again: bool = Field(
        default=False,
        description="in training the student draws new actions in its states; false: it learns from those it took",
    )

    @model_validator(mode="after")
    def _debate_is_on_what_is_learnt(self) -> StepArm:
        if self.sees_action and (self.act_again or self.debate_at == "start"):
            other = "act_again: true" if self.act_again else "debate_at: start"
            raise ValueError(f"a debate on the student's action in each state (sees_action) does not go with {other}")
        return self


STANDARD: dict[str, StepArm] = {
    "debate_opd": StepArm(),
    "debate_uniform": StepArm(weights="uniform"),
    "mt_opd": StepArm(**PLAIN),
    "trajectory_debate": StepArm(debate_at="start"),
    "gold_states": StepArm(states="gold"),
    "first_error": StepArm(steps="first_error"),
    "one_step": StepArm(steps=1),
    "mean_over_steps": StepArm(over_steps="mean"),
    "act_again": StepArm(act_again=True),
    "mixed": StepArm(reference=0.5),
    "calls_only": StepArm(learn_from="calls"),
    "gold": StepArm(context="gold", weights="uniform"),
    "sees_gold": StepArm(sees_gold=True),
    "sees_action": StepArm(sees_action=True),
    "answers_only": StepArm(shows="answers"),
    "last_round_only": StepArm(shows="last_round"),
    "summary_only": StepArm(shows="summary"),
    "who_disagree": StepArm(later_speakers="who_disagree"),
    "who_doubt": StepArm(later_speakers="who_doubt"),
}
"""Baselines and ablations by name; `opd` stands for one arm for each teacher, `self_debate` too."""

_EACH = ("opd", "self_debate")


def arms_of(names: Sequence[str], own: dict[str, StepArm], teachers: Sequence[str]) -> dict[str, ListedArm[StepArm]]:
    """The arms that a recipe lists; `key=value` after a name, as in `debate_opd@tau=0.1`, changes one key of it.

    Raises ValueError if there is no such name, or no such key of an arm.
    """
    return by_name(names, own, STANDARD, {base: OfEach(base, {t: _each(base, t) for t in teachers}) for base in _EACH})


def _each(base: str, teacher: str) -> StepArm:
    if base == "opd":
        return StepArm(**PLAIN, scorers=[teacher])
    return StepArm(scorers=[teacher], debaters=[teacher])


__all__ = ["STANDARD", "StepArm", "arms_of"]
