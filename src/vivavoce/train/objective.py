"""The knobs of on-policy distillation: plain pydantic, importable without torch.

*Paper* and *scripts* are MAD-OPD (arXiv:2605.01347) and its release; *ours* is a choice of this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.agents import vllm, weights
from vivavoce.agents.engines import Serve
from vivavoce.agents.quantised import Quantise
from vivavoce.train.settings import TrainSettings


class Objective(BaseModel):
    """The loss at every token."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    divergence: Literal[
        "forward_kl", "reverse_kl", "jsd", "clipped_reverse_kl", "log_ratio", "fixed_sign", "fixed_negative"
    ] = Field(
        default="jsd",
        description="direction and form (paper: jsd for agents, reverse_kl for code). Controls: fixed_sign keeps the "
        "sign of log_ratio and gives every token the same size, -advantage; fixed_negative gives every token that "
        "advantage and asks no teacher (arXiv:2608.31046)",
    )
    advantage: float = Field(
        default=-1.0, lt=0, description="fixed_sign, fixed_negative: advantage of a token that is made less likely"
    )
    beta: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="jsd: β, the weight of the teacher in the mixture; 0 is forward, 1 reverse KL",
    )
    form: Literal["gkd", "continuous"] = Field(
        default="gkd",
        description="jsd: as in the literature (GKD, TRL), whose interior fades towards both ends; or divided by "
        "beta (1 - beta), which meets forward and reverse KL at the ends (ours)",
    )
    clip: float = Field(default=2.0, gt=0, description="clipped_reverse_kl: largest log-ratio that counts, in nats")
    temperature: float = Field(
        default=1.0, gt=0, description="divides the logits of both sides; the sampling temperature is another key"
    )
    aggregate: Literal["sum", "arithmetic", "geometric", "max"] = Field(
        default="sum",
        description="sum: weighted sum of the divergences (paper); arithmetic: divergence from the mean of the "
        "probabilities; geometric: from the normalised mean of the logits; max: at every token from one teacher alone",
    )
    max_by: Literal["probability", "entropy", "nearest", "elementwise"] = Field(
        default="probability",
        description="aggregate max: the teacher with the largest top probability, with the lowest entropy, or nearest "
        "to the student (by JSD, β 1/2); or the element-wise maximum of all, normalised",
    )
    by_token: Literal["none", "probability", "entropy"] = Field(
        default="none",
        description="a scorer's certainty of a token, which multiplies its weight there (paper: none): its largest "
        "probability, or minus its entropy in nats. w_kt = w_k exp(s_kt / tau_token), normed over scorers k at every "
        "token t (ours)",
    )
    tau_token: float = Field(default=1.0, gt=0, description="by_token: temperature of that softmax")
    top_k: int | None = Field(
        default=None,
        ge=1,
        description="compare only the likeliest k tokens of each teacher and of the student, the sampled one, and one "
        "bucket with the mass of the rest; None: the whole vocabulary (paper)",
    )

    @property
    def asks_teachers(self) -> bool:
        """Whether what teachers find in the student's tokens matters."""
        return self.divergence != "fixed_negative"

    @property
    def kind(self) -> str:
        """The divergence, with the ends of jsd by their names."""
        if self.divergence == "jsd" and self.beta in (0.0, 1.0):
            return "reverse_kl" if self.beta else "forward_kl"
        return self.divergence


class ServedModel(BaseModel):
    """The engine that serves a model while a student learns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="name of the agent")
    serve: Serve
    state: Path | None = Field(
        description="file in which the run notes the state of its engine; None: an engine that runs already"
    )


class ServedStudent(ServedModel):
    """The engine that serves the student itself."""


class Scorer(BaseModel):
    """A model that scores the student's tokens: a folder, a server, or an earlier state or average of the student
    itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    model: str | None = Field(
        default=None,
        exclude=True,
        description="folder of the model, or of a served one's tokenizer; None: the student",
    )
    fingerprint: str = Field(default="", description="hash of that folder's content, wherever it lies; or the server")
    server: vllm.Options | None = Field(default=None, exclude=True, description="the server that runs the model")
    engine: ServedModel | None = Field(
        default=None, exclude=True, description="the engine of the run that serves the model and scores with it"
    )
    own: Literal["frozen", "ema"] = Field(
        default="frozen",
        description="the student as scorer: as it was at the start, or the exponential moving average of its weights",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="type of its weights; auto: it computes as the student does, so that equals agree"
    )
    quantise: Quantise | None = Field(default=None, description="how its weights are quantised; None: they are whole")
    trust_remote_code: bool = False
    chat_template_kwargs: dict[str, Any] = {}

    @property
    def elsewhere(self) -> bool:
        """Whether its model runs in another program, which is asked."""
        return self.server is not None or self.engine is not None


def local_scorer(name: str, options: Mapping[str, Any]) -> Scorer:
    """A local model as a scorer, by the options of its agent. Its ``dtype`` is that of debates, and not taken over.

    Raises RecipeError if the model is not there.
    """
    folder = weights.folder(options["model"], options.get("revision"), template=options.get("chat_template"))
    kept = {key: options[key] for key in ("trust_remote_code", "chat_template_kwargs", "quantise") if key in options}
    return Scorer(name=name, model=str(folder), fingerprint=weights.fingerprint(folder), **kept)


class OnPolicyOptions(TrainSettings):
    """The ``opd:`` section of a recipe: options of on-policy distillation."""

    learning_rate: float = Field(default=1e-5, gt=0, description="Peak learning rate (paper).")
    epochs: float = Field(default=1, gt=0, description="Passes over the states (paper); max_steps, if set, wins.")
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1, description="Updates with a rising rate, as a share (paper).")
    lr_scheduler: Literal["linear", "cosine", "constant"] = Field(
        default="cosine", description="Decay after the warm-up (paper)."
    )
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's decoupled decay (paper).")
    objective: Objective = Field(default=Objective(), description="What is minimised at every token.")
    states_per_step: int = Field(default=128, ge=1, description="States of one update, over all devices (paper: 128).")
    rollouts: int = Field(default=1, ge=1, description="Answers of the student to each state of an update (paper: 1).")
    on_policy: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of answers that the student samples; the others are recorded (paper: 1).",
    )
    temperature: float = Field(default=0.7, ge=0, description="Sampling temperature of the student (scripts).")
    top_p: float = Field(default=0.8, gt=0, le=1, description="Nucleus of that sampling (scripts).")
    top_k: int = Field(
        default=0,
        ge=0,
        description="Number of likeliest tokens to sample from; 0: all (scripts: 20). The loss is over all.",
    )
    repetition_penalty: float = Field(
        default=1.0,
        gt=0,
        description="Repetition penalty of that sampling, on tokens of the prompt and the answer so far; 1: none "
        "(scripts: 1.2). The loss has none.",
    )
    max_length: int = Field(
        default=8192,
        ge=8,
        description="Tokens of prompt and answer together; a longer state is left out and counted, nothing is ever cut "
        "(ours: room for max_new_tokens).",
    )
    max_new_tokens: int = Field(default=4096, ge=1, description="Tokens of an answer at most (paper, agents).")
    reduction: Literal["sequence", "token"] = Field(
        default="sequence",
        description="Mean over answers of each answer's mean over tokens (paper), or mean over all tokens.",
    )
    informative: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of an answer's tokens that count, those with most information, and at least one (paper: "
        "all; arXiv:2605.26844: 0.05).",
    )
    informative_by: Literal["divergence", "entropy"] = Field(
        default="divergence",
        description="The tokens with most information: those at which teachers are farthest from the student, or the "
        "student is least sure.",
    )
    learn_from: Literal["answer", "calls"] = Field(
        default="answer",
        description="All tokens of an answer (paper), or those of its tool calls alone; an answer without calls then "
        "counts for nothing.",
    )
    never: tuple[str, ...] = Field(
        default=(),
        description="Tokens that teachers write for the committee alone, inside an answer; see the prompt set.",
    )
    as_end: tuple[str, ...] = Field(
        default=(), description="Tokens that begin what teachers write for the committee alone, after an answer."
    )
    min_coverage: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Share of states, and of an update's tokens, that must be scored; below it the run stops (ours).",
    )
    ema_decay: float = Field(
        default=0.99, ge=0, lt=1, description="Decay of the student's average, if that is a scorer."
    )
    token_budget: int = Field(
        default=8192, ge=8, description="Distinct tokens of one forward pass at most; answers to one state share it."
    )
    score_memory: float = Field(
        default=1024,
        ge=0,
        description="MiB of memory for the teachers' scores of recorded answers. If it is enough, they score each "
        "answer once, before training, and not in every epoch (ours).",
    )
    resident: Literal["all", "one"] = Field(
        default="all",
        description="Local scorers in memory. all: each from beginning to end. one: each is loaded for its turn in "
        "every update, reads all answers and is freed, except for the head that makes logits. That takes the memory of "
        "the largest, and loads each scorer once an update (ours).",
    )
    attention: Literal["auto", "flex", "blocks", "rows"] = Field(
        default="auto", description="How answers attend, as for T-DPO (ours)."
    )
    staleness: int = Field(
        default=0,
        ge=0,
        description="If an engine serves the student: updates by which the weights that answer may lag behind those "
        "that learn. 0: answers and updates take turns; n: the engine draws for the next n updates meanwhile (ours).",
    )

    @model_validator(mode="after")
    def _answers_fit(self) -> Self:
        if self.on_policy and self.max_new_tokens >= self.max_length:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens} and max_length {self.max_length}: no prompt leaves room for "
                "such an answer, and nothing would be trained; raise max_length, or lower max_new_tokens"
            )
        return self


class OnPolicySettings(OnPolicyOptions):
    """The settings of one training: a user's options, and the additions of a method."""

    served: ServedStudent | None = Field(
        default=None,
        exclude=True,
        description="The engine that samples the student's answers; None: the trainer itself.",
    )
    sampler: str = Field(default="trainer", description="The same in a word, for what a trained model depends on.")
    scorers: tuple[Scorer, ...] = Field(default=(), description="The scorers, in the order of a state's views.")


def engine_scorer(name: str, options: Mapping[str, Any], engine: ServedModel) -> Scorer:
    """A model that an engine of the run serves as a scorer, by the options of its agent.

    Raises RecipeError if the model is not there.
    """
    folder = weights.folder(options["model"], options.get("revision"), template=options.get("chat_template"))
    kept = {k: options[k] for k in ("dtype", "trust_remote_code", "chat_template_kwargs") if k in options}
    served = f"{engine.serve.engine}:top{engine.serve.top_logprobs}:{kept.get('dtype', 'auto')}"
    return Scorer(
        name=name, model=str(folder), fingerprint=f"{served}:{weights.fingerprint(folder)}", engine=engine, **kept
    )


__all__ = [
    "Objective",
    "OnPolicyOptions",
    "OnPolicySettings",
    "Scorer",
    "ServedModel",
    "ServedStudent",
    "engine_scorer",
    "local_scorer",
]
