"""The ways to learn from one debate on the student's states: an arm is a view of it and an objective, by name.

Names and sections: docs/decisions/0005. All arms start from one student and make as many updates on as many answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.committee.wording import Talk
from vivavoce.data.states import Supervision
from vivavoce.errors import RecipeError
from vivavoce.exams.arms import Material
from vivavoce.files import file_name
from vivavoce.methods.arms import ListedArm, OfEach, by_name
from vivavoce.protocols.state_debate import LaterSpeakers


class DebateChoices(NamedTuple):
    """The choices that make a debate another one than the recipe's: who debates, who of them is asked again, and what
    they are told."""

    debaters: tuple[str, ...] | None = None
    """The agents that debate; None: all teachers."""
    later_speakers: LaterSpeakers | None = None
    """The rule by which agents speak again; None: the recipe's. ``sure`` is the same."""
    sure: float | None = None
    sees_gold: bool = False
    """Whether teachers are told the right answer, although the recipe's debate may not tell it."""
    sees_action: bool = False
    """Whether they read what the student did."""
    asks_again: bool = False
    """Whether an agent that stated no confidence is asked for it once more."""

    def stage(self, stage: str) -> str:
        """The name of a stage whose debates are held at this table. Other tables have other names."""
        parts = [] if self.debaters is None else [",".join(map(file_name, self.debaters))]
        parts += [str(one) for one in (self.later_speakers, self.sure) if one is not None]
        parts += ["gold"] * self.sees_gold + ["seen"] * self.sees_action + ["again"] * self.asks_again
        return "-".join([stage, *parts])

    def rules(self, rules: Talk) -> Talk:
        """The rules of its debates, given those of the recipe's. Raises RecipeError if the protocol has no such key."""
        changes: dict[str, Any] = {"later_speakers": self.later_speakers, "sure": self.sure}
        changes = {key: value for key, value in changes.items() if value is not None}
        changes |= {"sees_gold": True} if self.sees_gold else {}
        changes |= {"student": "first_round"} if self.sees_action else {}
        changes |= {"ask_confidence_again": True} if self.asks_again else {}
        for key in changes:
            if key not in type(rules).model_fields:
                what = f"protocol `{rules.protocol}` cannot hold such a debate: it has no `{key}`"
                keys = "later_speakers, sure, sees_gold, sees_action or missing: ask_again"
                do = f"leave out arms with {keys}, or use protocol: state_debate"
                raise RecipeError(what, "arms", do)
        return rules.model_copy(update=changes)


USUAL = DebateChoices()
"""The table of the recipe: all teachers, by its rules."""


class ScoredArm(Supervision):
    """An arm with scorers and debaters, and the training on their texts."""

    scorers: list[str] | None = Field(default=None, description="agents that score; None: all scorers of the recipe")
    debaters: list[str] | None = Field(default=None, description="teachers that debate; None: all")
    later_speakers: LaterSpeakers | None = Field(
        default=None,
        description="teachers that are asked again in a later round of the arm's own debate; None: the recipe's",
    )
    sure: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="who_doubt: confidence from which a teacher rests; None: the recipe's",
    )
    sees_gold: bool = Field(
        default=False,
        description="teachers are told the right answer in the arm's own debate, and argue for it (an upper bound for "
        "debates; scorers read it, and the student learns from its own answers alone)",
    )
    sees_action: bool = Field(
        default=False,
        description="the arm's own debate is held on what the student did: an answer that it gave before training, or "
        "its action in each state, from which it learns; teachers read it from their first turn on (paper: the debate "
        "is blind to it, so that scorers cannot copy it)",
    )
    objective: dict[str, Any] = Field(default={}, description="changes to the recipe's opd.objective")
    own_scorer: Literal["frozen", "ema"] = Field(
        default="frozen",
        description="if the student is among the scorers: as it was before training, or the moving average of its "
        "weights (opd.ema_decay)",
    )

    @property
    def table(self) -> DebateChoices:
        """The table at which the arm's debate is held."""
        debaters = None if self.debaters is None else tuple(self.debaters)
        return DebateChoices(
            debaters, self.later_speakers, self.sure, self.sees_gold, self.sees_action, self.missing == "ask_again"
        )

    @property
    def debates(self) -> bool:
        """Whether anything of a debate is shown or weighed."""
        return self.context != "none" or self.weights != "uniform"

    @property
    def teacherless(self) -> bool:
        """Whether the arm has no scorers, because its objective asks no teacher."""
        return self.objective.get("divergence") == "fixed_negative"

    @property
    def material(self) -> Material:
        """The texts that the scorers read."""
        if self.teacherless:
            return ""
        if self.context in ("gold", "wrong") or (self.sees_gold and self.debates):
            return "gold"
        silent = self.context in ("none", "filler") and self.weights == "uniform"
        return "drafts" if silent or self.rounds == 1 else "debate"


class Start(BaseModel):
    """The model that an arm begins with."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    start: Literal["student", "untrained"] = Field(
        default="student",
        description="the student after the recipe's `warm:`, as other arms, or as it came; the same without `warm:`",
    )


class OnPolicyArm(Start, ScoredArm):
    """On-policy distillation from scorers, with the texts that they read in each state."""

    on_policy: float | None = Field(
        default=None, ge=0, le=1, description="share of sampled answers; None: the recipe's"
    )
    informative: float | None = Field(
        default=None, gt=0, le=1, description="share of an answer's tokens that count; None: the recipe's"
    )
    cold_start: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the arm's updates that imitate the answers that win the debate's vote, before the others "
        "(arXiv:2604.13016)",
    )
    tokens_of: str | None = Field(
        default=None,
        description="train until its teachers have read and written as many tokens as those of that arm, whose debate "
        "counts too, instead of as many updates",
    )


class ImitationArm(Start):
    """Supervised fine-tuning on recorded answers, for as many updates, or for as long, as an on-policy arm."""

    learn: Literal["winner", "drafts", "right", "gold"] = Field(
        default="winner",
        description="winner: the answer that wins the debate's vote, gold unseen; drafts: the teachers' first answers, "
        "unfiltered (SeqKD); right: those of them that are right; gold: the task's worked solutions, or "
        "its right answers if it has none",
    )
    teachers: list[str] | None = Field(default=None, description="teachers whose first answers are used; None: all")
    shares: list[float] | None = Field(
        default=None, description="drafts: share of the questions that each teacher answers; None: every teacher all"
    )
    seconds_of: str | None = Field(
        default=None, description="train for as long as that arm took, instead of as many updates"
    )

    @property
    def material(self) -> Material:
        """The answers that are imitated."""
        return {"winner": "debate", "gold": "gold"}.get(self.learn, "drafts")  # type: ignore[return-value]


class PreferenceArm(Start):
    """DPO on pairs of answers, for as many updates as an on-policy arm. What is right is not looked at.

    Before training the student answers every question several times, and the committee decides which of its answers
    is rejected (MACA, arXiv:2509.15172; there the committee is copies of the student).
    """

    prefer: Literal["majority", "consensus"] = Field(
        description="majority: the student's own answers that agree with the majority of the teachers after the last "
        "round, over those that do not; consensus: the answer that wins the debate's vote, over the student's that "
        "disagree"
    )
    samples: int = Field(default=4, ge=1, description="answers of the student to each question")
    temperature: float = Field(default=1.0, ge=0, description="sampling temperature of these answers")

    @property
    def material(self) -> Material:
        """The source of the pairs."""
        return "debate"


DistilArm = OnPolicyArm | ImitationArm | PreferenceArm

PLAIN: dict[str, Any] = {"context": "none", "weights": "uniform"}
STANDARD: dict[str, DistilArm] = {
    "debate_opd": OnPolicyArm(),
    "debate_uniform": OnPolicyArm(weights="uniform"),
    "mt_opd": OnPolicyArm(**PLAIN),
    "mt_mean": OnPolicyArm(**PLAIN, objective={"aggregate": "arithmetic"}),
    "mt_logits": OnPolicyArm(**PLAIN, objective={"aggregate": "geometric"}),
    "mt_max": OnPolicyArm(**PLAIN, objective={"aggregate": "max"}),
    "mt_confidence": OnPolicyArm(context="none", rounds=1),
    "who_disagree": OnPolicyArm(later_speakers="who_disagree"),
    "who_doubt": OnPolicyArm(later_speakers="who_doubt"),
    "drafts_opd": OnPolicyArm(rounds=1),
    "no_marks": OnPolicyArm(hide_confidence=True),
    "shuffled": OnPolicyArm(context="shuffled"),
    "filler": OnPolicyArm(context="filler", weights="uniform"),
    "last_round_only": OnPolicyArm(shows="last_round"),
    "summary_only": OnPolicyArm(shows="summary"),
    "sees_action": OnPolicyArm(sees_action=True),
    "sees_gold": OnPolicyArm(sees_gold=True),
    "gold": OnPolicyArm(context="gold", weights="uniform"),
    "sft_debate": ImitationArm(),
    "sft_debate_seconds": ImitationArm(seconds_of="debate_opd"),
    "mt_seqkd": ImitationArm(learn="drafts"),
    "mt_seqkd_7_3": ImitationArm(learn="drafts", shares=[0.7, 0.3]),
    "sft_right": ImitationArm(learn="right"),
    "sft_gold": ImitationArm(learn="gold"),
    "forward_kl": OnPolicyArm(objective={"divergence": "forward_kl"}),
    "reverse_kl": OnPolicyArm(objective={"divergence": "reverse_kl"}),
    "clipped": OnPolicyArm(objective={"divergence": "clipped_reverse_kl"}),
    "log_ratio": OnPolicyArm(objective={"divergence": "log_ratio"}),
    "token_probability": OnPolicyArm(objective={"by_token": "probability"}),
    "token_entropy": OnPolicyArm(objective={"by_token": "entropy"}),
    "wrong": OnPolicyArm(context="wrong", weights="uniform"),
    "gold_answer": OnPolicyArm(context="gold", shows="answers", weights="uniform"),
    "wrong_answer": OnPolicyArm(context="wrong", shows="answers", weights="uniform"),
    "answers_only": OnPolicyArm(shows="answers"),
    "fixed_negative": OnPolicyArm(**PLAIN, scorers=[], objective={"divergence": "fixed_negative"}),
    "fixed_sign": OnPolicyArm(objective={"divergence": "fixed_sign"}),
    "informative": OnPolicyArm(informative=0.05),
    "untrained_start": OnPolicyArm(start="untrained"),
    "cold_start": OnPolicyArm(start="untrained", cold_start=0.5),
    "mt_opd_tokens": OnPolicyArm(**PLAIN, tokens_of="debate_opd"),
    "maca": PreferenceArm(prefer="majority"),
    "consensus_pairs": PreferenceArm(prefer="consensus"),
    "self_scored": OnPolicyArm(scorers=["student"], weights="uniform"),
    "self_ema": OnPolicyArm(scorers=["student"], weights="uniform", own_scorer="ema"),
    "calibrated": OnPolicyArm(weights="calibrated"),
    "agreed": OnPolicyArm(weights="agreed"),
    "verified": OnPolicyArm(weights="verified"),
}
"""Baselines and ablations by name; `opd` and `seqkd` stand for one arm for each teacher, `self_debate` too."""

_EACH = ("opd", "seqkd", "self_debate", "shown_to")


def arms_of(
    names: Sequence[str], own: dict[str, DistilArm], teachers: Sequence[str]
) -> dict[str, ListedArm[DistilArm]]:
    """The arms that a recipe lists; `tau=0.1` after a name, as in `debate_opd@tau=0.1`, changes one key of it.

    Raises ValueError if there is no such name, or no such key of an arm.
    """
    return by_name(names, own, STANDARD, {base: OfEach(base, {t: _each(base, t) for t in teachers}) for base in _EACH})


def _each(base: str, teacher: str) -> DistilArm:
    if base == "seqkd":
        return ImitationArm(learn="drafts", teachers=[teacher])
    if base == "opd":
        return OnPolicyArm(**PLAIN, scorers=[teacher])
    if base == "shown_to":
        return OnPolicyArm(shown_to=[teacher])
    return OnPolicyArm(scorers=[teacher], debaters=[teacher])


__all__ = [
    "PLAIN",
    "STANDARD",
    "USUAL",
    "DebateChoices",
    "DistilArm",
    "ImitationArm",
    "OnPolicyArm",
    "PreferenceArm",
    "ScoredArm",
    "arms_of",
]
