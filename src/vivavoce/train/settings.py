"""The knobs of training, and what training hands back: plain pydantic, importable without torch.

Every default says whose number it is: *authors* is the Debate & Reflect release (arXiv:2506.03541), *TRL* and
*transformers* are those libraries' own defaults, *ours* is a choice of this project.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.agents.quantised import Quantise, need_quantiser
from vivavoce.errors import MissingDependency
from vivavoce.files import json_lines

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (updates done, updates in all, what was logged, if anything) after every update; may raise, to stop."""


class LoRASettings(BaseModel):
    """A low-rank adapter (arXiv:2106.09685) instead of training every weight."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    r: int = Field(default=16, ge=1, description="Rank (paper).")
    alpha: float = Field(default=32, gt=0, description="The update is scaled by alpha / r (paper).")
    dropout: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="On the adapter's input, in SFT (authors). T-DPO trains without dropout, as TRL's DPOTrainer does: "
        "noise in the policy and none in the reference would be read as a preference.",
    )
    targets: tuple[str, ...] = Field(
        default=("q_proj", "v_proj"), min_length=1, description="Modules to adapt (authors)."
    )


class MuonSettings(BaseModel):
    """Muon for the hidden matrices and AdamW for the other weights (:mod:`vivavoce.train.muon`): fewer updates of
    about the same cost.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Peak learning rate of the matrices; None: AdamW's, for updates are as large (arXiv:2502.16982).",
    )
    momentum: float = Field(
        default=0.95,
        ge=0,
        lt=1,
        description="Momentum: share of the earlier gradients in an update (arXiv:2502.16982).",
    )


class TrainSettings(BaseModel):
    """Settings that supervised and preference training share."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    learning_rate: float = Field(gt=0, description="Peak learning rate.")
    epochs: float = Field(gt=0, description="Passes over the data; max_steps, if set, wins.")
    max_steps: int | None = Field(
        default=None, ge=1, description="Updates in all; None: as many as the epochs give (ours)."
    )
    warmup_ratio: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the updates with a linearly rising rate."
    )
    lr_scheduler: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="Decay after the warm-up (transformers)."
    )
    adam_betas: tuple[float, float] = Field(default=(0.9, 0.999), description="AdamW's two decay rates (transformers).")
    adam_eps: float = Field(default=1e-8, gt=0, description="AdamW's epsilon (transformers).")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled decay (transformers).")
    adam_bits: Literal[8, 32] = Field(
        default=32,
        description="Bits of each of AdamW's two states of a weight; 8 keeps them in blocks with a scale each, in a "
        "quarter of the memory, by the package torchao (arXiv:2110.02861).",
    )
    muon: MuonSettings | None = Field(
        default=None, description="Train the hidden matrices with Muon; None: everything with AdamW (transformers)."
    )
    max_grad_norm: float = Field(
        default=1.0, ge=0, description="Gradients are clipped to this norm; 0 never (transformers)."
    )
    max_length: int = Field(
        default=2000,
        ge=8,
        description="Tokens of prompt and answer together (paper). A longer row is dropped, counted and reported; "
        "nothing is ever truncated (ours: the authors' code cut the question away).",
    )
    lora: LoRASettings | None = Field(
        default_factory=LoRASettings,
        description="None trains every weight. The result is an adapter over the model that training started from.",
    )
    quantise: Quantise | None = Field(
        default=None,
        description="nf4: an adapter is trained beside weights in 4 bits, by the package bitsandbytes (QLoRA, "
        "arXiv:2305.14314). A run fills in the student's. None: beside the weights as they are.",
    )
    bf16: bool = Field(
        default=False, description="Compute in bfloat16; weights stay float32 if all are trained (ours)."
    )
    compile: bool = Field(
        default=True,
        description="Compile the decoder layers if FlexAttention is used, that is on CUDA (ours): twice as fast, "
        "after some ten seconds at the start.",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations: less memory, more time (ours)."
    )
    log_steps: int = Field(default=10, ge=1, description="Updates between two points of the loss curve (ours).")
    save_steps: int | None = Field(
        default=None,
        ge=1,
        description="Updates between checkpoints, from which a killed run goes on; None: none (ours).",
    )
    device: Literal["auto", "cpu"] = Field(
        default="auto", description="auto takes an accelerator if there is one (ours)."
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of torch while training; None: torch's choice."
    )
    template: dict[str, Any] = Field(
        default={},
        description="Further arguments of the student's chat template; a run fills in the student's "
        "chat_template_kwargs, so that rows are what is served.",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.muon and self.lora:
            raise ValueError("muon trains whole matrices and lora leaves them as they are: set one of them to null")
        if self.quantise and not self.lora:
            what = "weights in 4 bits cannot be trained, only an adapter beside them"
            raise ValueError(f"{what}: keep lora, or set quantise to null")
        if self.muon and self.adam_bits == 8:
            raise ValueError("muon keeps a state of its own in float32: set muon to null, or adam_bits to 32")
        return self

    def need_packages(self) -> None:
        """Raise MissingDependency if training needs a package that is not there."""
        if self.adam_bits == 8 and importlib.util.find_spec("torchao") is None:
            what = "AdamW with states of 8 bits needs the package torchao"
            raise MissingDependency(what, "adam_bits", 'pip install "vivavoce[torchao]", or set it to 32')
        if self.quantise:
            need_quantiser("quantise", self.device)

    def updates(self, rows: int, size: int) -> int:
        """The updates of a training on so many rows, ``size`` in each: ``max_steps``, or what the epochs give."""
        return self.max_steps or max(1, math.ceil(rows * self.epochs / size))


class SupervisedSettings(TrainSettings):
    """Settings that trainings on given answers share."""

    token_budget: int = Field(
        default=4096,
        ge=8,
        description="Distinct tokens of one forward pass at most; texts to one prompt share it (ours).",
    )
    attention: Literal["auto", "flex", "blocks", "rows"] = Field(
        default="auto", description="How texts attend, as for T-DPO (ours)."
    )


class SFTSettings(SupervisedSettings):
    """Supervised fine-tuning on right answers: -log p(completion | prompt), mean over the completion tokens."""

    learning_rate: float = Field(default=2e-4, gt=0, description="Peak learning rate (authors).")
    epochs: float = Field(default=2, gt=0, description="Passes over the rows (authors); max_steps, if set, wins.")
    rows_per_step: int = Field(default=16, ge=1, description="Rows of one update, over all devices (authors: 16).")


class TreeDPOSettings(TrainSettings):
    """Tree-structured direct preference optimisation (T-DPO, arXiv:2506.03541) on packed preference trees."""

    learning_rate: float = Field(default=5e-6, gt=0, description="Peak learning rate (authors).")
    epochs: float = Field(default=3, gt=0, description="Passes over the trees (authors); max_steps, if set, wins.")
    warmup_ratio: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the updates with a rising rate (authors)."
    )
    trees_per_step: int = Field(
        default=8,
        ge=1,
        description="Trees of one update, over all devices (ours). Eight trees of four answers hold 24 to 32 pairs; "
        "the authors' update holds 32 pairs if their four GPU placeholders are meant.",
    )
    beta: float = Field(default=0.1, gt=0, description="β: strength of the pull towards the reference (authors).")
    objective: Literal["pairs", "listwise", "orpo", "simpo", "kto"] = Field(
        default="pairs",
        description="pairs: every right answer against every wrong one (paper). listwise: a softmax over all answers "
        "of the branching (ours). orpo (arXiv:2403.07691; beta is its lambda, and it wants nll_weight 1), simpo "
        "(2405.14734; its beta is 2 or more) and kto (2402.01306; every answer for itself) in place of DPO.",
    )
    gamma: float = Field(default=0.5, ge=0, description="simpo: the margin that a right answer should have (paper).")
    pair_weight: Literal["pair", "tree"] = Field(
        default="pair",
        description="What counts one in the mean: each pair (authors), or each tree, its pairs sharing (ours).",
    )
    nll_weight: float = Field(
        default=0.0, ge=0, description="Weight of -log p(right answer) beside the preference, as in RPO (authors: 0)."
    )
    nll_average: Literal["token", "answer"] = Field(
        default="token",
        description="The NLL term: mean over an answer's tokens (RPO, arXiv:2404.19733) or their sum (ours).",
    )
    token_budget: int = Field(
        default=4096,
        ge=8,
        description="Distinct tokens of one forward pass on one device, at most; trees share rows up to it, and a tree "
        "larger than it gets a row of its own (ours).",
    )
    group_by_problem: bool = Field(
        default=True,
        description="Keep the trees of one problem in one update, so that they share their common prefix (ours).",
    )
    attention: Literal["auto", "flex", "blocks", "rows"] = Field(
        default="auto",
        description="How trees attend. flex: FlexAttention (CUDA); blocks: SDPA block by block; rows: no sharing, one "
        "row per answer; auto: the first of these that the model can take, found by trying (ours).",
    )


class TwoTaskSettings(SupervisedSettings):
    """Joint training on feedback and rationales (peer review, arXiv:2410.03663)."""

    learning_rate: float = Field(default=1e-5, gt=0, description="Peak learning rate (authors).")
    epochs: float = Field(default=10, gt=0, description="Passes over the longer stream (authors: 10); max_steps wins.")
    alpha: float = Field(
        default=0.5, ge=0, le=1, description="α: weight of the feedback task, 1 - α of rationales (authors)."
    )
    pairing: Literal["independent", "paired-fixed", "paired-resampled", "flat-weighted"] = Field(
        default="independent",
        description="independent: each stream in its own order, the shorter one starting again (ours). paired-fixed: "
        "one feedback and one rationale of each problem, drawn once, problems without both left out (authors). "
        "paired-resampled: drawn again every epoch (ours). flat-weighted: one mixed stream (ours).",
    )
    rows_per_step: int = Field(
        default=16, ge=1, description="Rows of each stream in an update, or of the mix (authors: 16)."
    )
    normalisation: Literal["step_tokens", "sequence_mean", "micro_batch"] = Field(
        default="step_tokens",
        description="Each task's loss: mean over the update's target tokens (ours), over its rows, or over "
        "micro-batches of the means over their tokens, so that the split changes the loss (authors).",
    )
    micro_batch: int = Field(default=8, ge=1, description="Rows of each stream in a micro-batch (authors: 8).")
    padding: Literal["none", "learnt"] = Field(
        default="none",
        description="learnt: every row is filled up to max_length with end-of-turn tokens, which are learnt. A defect "
        "of the authors' code, to explain a gap in reproduction; most of what is learnt is padding then.",
    )


class MAGDiSettings(TrainSettings):
    """Learning from discussions as graphs (MAGDi, arXiv:2402.01620): see :mod:`vivavoce.train.magdi`.

    *authors* is that paper's release here.
    """

    learning_rate: float = Field(default=5e-6, gt=0, description="Peak learning rate (authors).")
    epochs: float = Field(default=10, gt=0, description="Passes over the graphs (authors); max_steps, if set, wins.")
    graphs_per_step: int = Field(default=16, ge=1, description="Graphs of one update, over all devices (authors: 16).")
    answer_weight: float = Field(
        default=1.0, ge=0, description="alpha: weight of -log p of right answers, a mean over their tokens (authors)."
    )
    node_weight: float = Field(
        default=1.0,
        ge=0,
        description="beta: weight of the loss that classifies stands in the "
        "graph as right, wrong or missing (authors).",
    )
    margin_weight: float = Field(
        default=0.1, ge=0, description="gamma: weight of the loss that scores right answers above wrong ones (authors)."
    )
    margin: float = Field(
        default=1.0, gt=0, description="Margin by which a right answer should score higher (authors)."
    )
    hidden: int = Field(default=512, ge=1, description="Width of the graph encoder and of the scorer (authors: 512).")
    dropout: float = Field(
        default=0.5, ge=0, lt=1, description="Dropout between the graph encoder's two layers (authors)."
    )
    detached: bool = Field(
        default=False,
        description="Keep the gradient of classifying stands from the student, which then learns nothing from it "
        "(authors' code, which computes what the encoder reads once, before training).",
    )
    token_budget: int = Field(
        default=4096, ge=8, description="Distinct tokens of one forward pass at most; graphs share passes up to it."
    )
    attention: Literal["auto", "flex", "blocks", "rows"] = Field(
        default="auto", description="How texts attend, as for T-DPO (ours)."
    )


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The outcome of a training run. Written next to the weights as ``train_result.json``, less the history."""

    path: Path
    """A folder that ``AutoModelForCausalLM.from_pretrained`` and ``AutoTokenizer.from_pretrained`` load: the model, or
    its LoRA adapter with the name of its base."""
    steps: int
    """Updates."""
    first_loss: float
    last_loss: float
    rows_used: int
    """Examples (SFT) or trees (T-DPO)."""
    rows_dropped: int
    """Longer than ``max_length``."""
    tokens_seen: int
    """Tokens that passed through the model in training, padding left out, shared tokens counted once per pass."""
    seconds: float
    """Wall-clock of the training loop, this process only; the reference pass and loading are not in it."""
    details: dict[str, Any] = field(default_factory=dict)
    """Facts of one method: T-DPO reports answers, pairs, tokens saved by sharing and the attention that it used."""
    history: tuple[dict[str, float], ...] = ()
    """The loss curve, also in ``loss.jsonl``: step, loss, learning rate and the method's own figures."""


def read_curve(file: Path) -> list[dict[str, float]]:
    """The points of a curve; the last line of one that is being written may be half a line."""
    points = []
    for _, line in json_lines(file):
        try:
            point = json.loads(line)
        except json.JSONDecodeError:
            break
        if isinstance(point.get("loss"), int | float) and "step" in point:
            points.append(point)
    return points


__all__ = [
    "LoRASettings",
    "MAGDiSettings",
    "MuonSettings",
    "Progress",
    "SFTSettings",
    "SupervisedSettings",
    "TrainResult",
    "TrainSettings",
    "TreeDPOSettings",
    "TwoTaskSettings",
    "read_curve",
]
