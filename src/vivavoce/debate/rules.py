"""The rules of a debate, as a recipe states them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.debate.prompting import ACT, DEBATE, STATE, Ask


class DebateRules(BaseModel, frozen=True):
    """Every knob of the debate (arXiv:2506.03541; defaults are the paper's where it states them)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    asks: ClassVar[tuple[Ask, ...]] = DEBATE
    turns: ClassVar[tuple[Ask, Ask]] = ("answer", "debate")
    """Templates of the first answer and of every later one."""

    prompts: str = Field(default="general", description="prompt set: a folder name under debate/prompts, or a path")
    max_rounds: int = Field(
        default=4, ge=1, le=16, description="answer rounds, the independent round 0 included (paper: 4)"
    )
    stop: Literal["consensus", "all_correct", "majority_stable", "cap_only"] = Field(
        default="consensus", description="when to end before max_rounds (paper: consensus; authors' code: all_correct)"
    )
    later_rounds: Literal["always", "if_drafts_disagree", "if_student_wrong"] = Field(
        default="always",
        description="debate only where it pays: go past round 0 only where drafts disagree, or only where a draft of "
        "the student's is not right (training debates; ours)",
    )
    roles: Literal["oracle", "gold_free"] = Field(
        default="oracle",
        description="oracle: correctness decides who reflects and who criticises whom (for training data); "
        "gold_free: everyone reflects and criticises everyone, so that an answer leaks nothing",
    )
    reflect: bool = Field(default=True, description="wrong agents (gold_free: all) reflect on their own answer")
    feedback_from: Literal["all_right", "teachers_only", "none"] = Field(
        default="all_right", description="who criticises; under gold_free roles 'all_right' means all"
    )
    feedback_to: Literal["all_wrong", "student_only"] = Field(
        default="all_wrong", description="whose answers are criticised"
    )
    reflection_sees_gold: bool = Field(
        default=False,
        description="show the right answer to the one who reflects (authors' code: true; it leaks gold into "
        "every later prompt, and the nodes say so)",
    )
    hide_gold_in_context: bool = Field(default=False, description="mask the gold answer where a reflection quotes it")
    last_round_reflect: bool = Field(
        default=False, description="reflect after the last round too, though nothing reads it (authors' code: true)"
    )
    reads: Literal["last_round", "all_rounds"] = Field(
        default="last_round", description="what a later answer is shown: the round before (paper), or all of them"
    )
    topology: Literal["all", "ring", "star"] = Field(
        default="all",
        description="whom a speaker reads beside itself: all (paper), the next one in the order of the recipe, or the "
        "first one, who reads all",
    )
    student: Literal["always", "first_round", "never"] = Field(
        default="always",
        description="rounds in which the student answers; first_round: its attempts are graded and "
        "criticised, but nobody else reads them",
    )
    shuffle: Literal["shared", "per_agent"] = Field(
        default="shared",
        description="order of the speakers in a prompt: one order for all readers (paper), or one for each",
    )
    order_seed: int = Field(default=42, description="seed of that order (authors' code: 42)")
    anonymous: bool = Field(default=True, description="peers appear under numbers, not under their names")
    word_limit: int = Field(
        default=500, ge=1, description="words that prompts allow for an answer or a note (paper: 500)"
    )
    ask_confidence: bool = Field(default=False, description="prompts ask for a stated confidence, and peers read it")
    context_tokens: int | None = Field(
        default=None,
        ge=64,
        description="budget for what the others said, in tokens of the student; longest blocks are "
        "shortened first, question and instruction never (paper: none)",
    )

    @property
    def hears_student(self) -> bool:
        """Whether others read what the student says."""
        return self.student == "always"

    @property
    def needs_gold(self) -> bool:
        """Whether correctness, known from gold, decides who says what or when a debate ends."""
        return self.roles == "oracle" or self.stop == "all_correct" or self.later_rounds == "if_student_wrong"

    @model_validator(mode="after")
    def _consistent(self) -> DebateRules:
        if self.later_rounds == "if_student_wrong":
            if self.student == "never":
                raise ValueError("later_rounds: if_student_wrong needs a student that answers; student is never")
            if self.roles == "gold_free":
                raise ValueError("later_rounds: if_student_wrong looks at gold, which roles: gold_free forbids")
        if self.roles == "gold_free":
            if self.stop == "all_correct":
                raise ValueError("stop: all_correct looks at gold, which roles: gold_free forbids; use consensus")
            if self.reflection_sees_gold:
                raise ValueError("reflection_sees_gold: true contradicts roles: gold_free")
        return self


class StateRules(DebateRules, frozen=True):
    """A debate over the state that a student is in (MAD-OPD, arXiv:2605.01347): the committee answers, reads all that
    was said and answers again, each time with a confidence. Nobody is told who was right, and the student is not heard.
    """

    asks: ClassVar[tuple[Ask, ...]] = STATE
    turns: ClassVar[tuple[Ask, Ask]] = ("discuss", "discuss")

    max_rounds: int = Field(default=2, ge=1, le=16, description="answer rounds R (paper: 2)")
    stop: Literal["cap_only"] = Field(default="cap_only", description="the debate goes to its last round (paper)")
    later_rounds: Literal["always", "if_drafts_disagree"] = Field(
        default="always", description="if_drafts_disagree: no second turn where all first ones agree (ours)"
    )
    roles: Literal["gold_free"] = "gold_free"
    reflect: Literal[False] = False
    feedback_from: Literal["none"] = "none"
    student: Literal["never", "first_round"] = Field(
        default="never",
        description="first_round: the debate is held on an answer of the student's, which all read and nobody changes; "
        "set by arms with sees_action",
    )
    reads: Literal["last_round", "all_rounds"] = Field(
        default="all_rounds", description="what a later turn, and a scorer, is shown (paper: all rounds)"
    )
    ask_confidence: bool = Field(default=True, description="every turn ends with a stated confidence (paper)")

    @property
    def hears_student(self) -> bool:
        return self.student != "never"


class ActionRules(StateRules, frozen=True):
    """A debate over what an agent should do next (OPAD, arXiv:2605.01347): the committee has read what it had read."""

    asks: ClassVar[tuple[Ask, ...]] = ACT
    turns: ClassVar[tuple[Ask, Ask]] = ("act", "act")

    student: Literal["never"] = "never"
