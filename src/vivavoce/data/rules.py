"""The rules of a recipe for taking training material from the graphs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.committee.votes import VoteBy


class ExampleRules(BaseModel):
    """The rules for supervised rows (arXiv:2506.03541, SFT stage: any right answer of the graph)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    take: Literal["right", "winner", "right_winner"] = Field(
        default="right",
        description="right: every right answer (paper); winner: the answer that wins the last round's vote, "
        "gold unseen; right_winner: the winner if it is right",
    )
    vote: VoteBy = Field(default="probability", description="the vote that names the winner")
    rounds: list[int] | None = Field(
        default=None, description="answer rounds whose answers are used; None: all (paper)"
    )
    include_student: bool = Field(
        default=True, description="the student's own right answers too (authors' code: false)"
    )
    max_per_question: int | None = Field(
        default=None, ge=1, description="keep at most this many, those of the latest rounds first"
    )
    dedup: bool = Field(default=True, description="one row for equal texts to one question")


class TreeRules(BaseModel):
    """The rules for growing preference trees from the graphs (arXiv:2506.03541, T-DPO stage)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    branch: Literal["answer", "step"] = Field(
        default="answer",
        description="answer: whole right answers against whole wrong ones under one context (paper); "
        "step: our extension, branch wherever right and wrong answers part",
    )
    rounds: list[int] | None = Field(
        default=None, description="answer rounds whose answers are used; None: all (paper)"
    )
    pairing: Literal["cross_product", "student_rejected_only", "transition_only"] = Field(
        default="cross_product",
        description="all right x all wrong (paper); only the student's wrong answers; or wrong-to-"
        "right changes against right-to-wrong and still-wrong ones",
    )
    rejected_must_parse: bool = Field(
        default=True, description="a wrong answer needs a final answer (authors' code: false)"
    )
    max_pairs: int | None = Field(
        default=None, ge=1, description="most pairs of one tree; the seed draws which completions are kept"
    )
    context: Literal["full", "packed", "none"] = Field(
        default="full",
        description="the others' texts, in the prompt of answers from round 1 on. full: shortened to the budget; "
        "packed: as released, several partial contexts of weight 1/n; none: left out",
    )
    context_budget: int = Field(
        default=1000, ge=64, description="most tokens of the others' texts (authors' code: 1,000)"
    )
    reflections: bool = Field(default=True, description="show reflections in the context")
    feedback: bool = Field(default=True, description="show critiques in the context")
    checked: bool = Field(
        default=True,
        description="step trees: use the task's step checker if it has one, so that a "
        "chosen step is right and not only part of a right answer",
    )
    span: Literal["step", "rest"] = Field(
        default="step", description="step trees: the completion is the one step that differs, or all that follows it"
    )
    weight: Literal["one", "per_question"] = Field(
        default="one", description="weight of a tree: 1, or 1/n for a question with n trees"
    )
