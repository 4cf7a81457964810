"""Scorers read the student's answers: frozen models, each under its own view of the state, one row for every token.

::

    class            model                    read(views, answers) gives
    LocalScorer      in this process          LocalTargets      whole distributions over the student's tokens
    ServedScorer     on a vLLM server         ServedTargets     its likeliest tokens, and one bucket for the rest
    ForeignScorer    here, other tokenizer    ForeignTargets    groups of tokens that cover the same text

::

    state's view, rendered by the scorer's own template     the student's exact tokens, end of turn included
    <|system|>debate<|user|>… transcript …<|assistant|>     b = 4 - 3 = 1 ; …                         <|end|>
                                                         ^  one prediction before each of them

The answers of one state hang off its view in one packed row, so that a transcript is computed once for n answers.
Differs from the release of MAD-OPD: no sidecars and no re-tokenising; a scorer that cannot give N rows for N tokens
stops the run instead of shifting its weight to the others.
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vivavoce.agents.rendering import rendering
from vivavoce.errors import DataError
from vivavoce.records import State, View
from vivavoce.train.alignment import rows_kept
from vivavoce.train.checkpoint import training_device
from vivavoce.train.choosing import choose
from vivavoce.train.divergences import silence
from vivavoce.train.objective import Objective, OnPolicySettings, Scorer
from vivavoce.train.packing import Packed, pack, rows_of
from vivavoce.train.scoring import Method, attending, autocast, bare, head, predictions
from vivavoce.train.shards import is_sharded, most, shard, whole
from vivavoce.train.tokens import ScoredRow, context_ids

logger = logging.getLogger(__name__)
_SHORTEST = pack([ScoredRow((0, 0), 1)])


class Answer(NamedTuple):
    """One answer of the student: its state in the update, and its tokens."""

    state: int
    ids: tuple[int, ...]
    on_policy: bool = True
    finished: bool = True
    logprobs: tuple[float, ...] = ()
    """The log-probabilities of its tokens by the engine that drew it, in nats; empty if the trainer drew it."""


def packed_rows(contexts: Sequence[Sequence[int]], answers: Sequence[Answer], budget: int) -> Iterator[list[int]]:
    """Share out ``answers`` among packed rows of at most ``budget`` tokens; indices of the answers of each row.

    ``contexts`` are the tokens before the answers, by state. Answers to one state stay together.
    """
    groups: dict[int, list[int]] = {}
    for i, answer in enumerate(answers):
        groups.setdefault(answer.state, []).append(i)
    together = list(groups.values())
    trees = [[row(contexts, answers[i]) for i in group] for group in together]
    for chosen in rows_of(trees, [len(pack(tree)) for tree in trees], budget):
        yield [i for g in chosen for i in together[g]]


def row(contexts: Sequence[Sequence[int]], answer: Answer) -> ScoredRow:
    """An answer after its state's context, joined token by token, so that no merge crosses the boundary."""
    context = contexts[answer.state]
    return ScoredRow((*context, *answer.ids), len(context))


class PartTargets(Protocol):
    """The opinion of a scorer that knows no whole distribution over the student's tokens, on the answers of one update.

    Tokens are numbered over all answers, in order.
    """

    left_out: frozenset[int]
    """Answers that the scorer cannot read, by index. They are not compared."""

    def begin(self, tokens: np.ndarray, log_q: Callable[[], Tensor]) -> None:
        """Prepare the comparison of one packed row: its tokens, and the student's log-probabilities of them, in
        nats.
        """
        ...

    def compare(
        self, logits: Tensor, tokens: np.ndarray, sampled: Tensor, objective: Objective
    ) -> tuple[Tensor, Tensor | None]:
        """The objective at some of the row's tokens, shape (n,), with gradient to the student's ``logits`` (n, V).

        ``sampled`` (n,) are the tokens' ids. Beside it the ids that the scorer finds likeliest, if it has one each.
        """
        ...


@dataclass(frozen=True)
class Marks:
    """Tokens by which teachers talk to the committee and not to the student, by id."""

    never: tuple[int, ...] = ()
    as_end: tuple[int, ...] = ()
    end: int = 0

    @classmethod
    def of(cls, spec: Scorer, tokenizer: PreTrainedTokenizerBase, settings: OnPolicySettings) -> Marks:
        """The ids of a prompt set's marks. Raises DataError if a mark is not one token of the scorer's tokenizer."""

        def one(text: str) -> int:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) != 1:
                what = f"the mark {text!r} is {len(ids)} tokens for the scorer's tokenizer, and not one"
                raise DataError(what, "never, as_end", "leave it out, or use scorers that spell it in one token")
            return int(ids[0])

        end = rendering(tokenizer, spec.chat_template_kwargs).closing[-1]
        return cls(tuple(map(one, settings.never)), tuple(map(one, settings.as_end)), end)


class OpenScorer(ABC):
    """A scorer that is open.

    Attributes:
        columns: Ids of its vocabulary; the rows that only pad an embedding are cut off.
        tokens: Tokens that its model has scored.
        limit: Tokens that the model can take, if it says so.
    """

    def __init__(self, spec: Scorer, tokenizer: PreTrainedTokenizerBase, settings: OnPolicySettings) -> None:
        self.spec, self.tokenizer, self.settings = spec, tokenizer, settings
        self.marks = Marks.of(spec, tokenizer, settings)
        self.columns = max(tokenizer.get_vocab().values()) + 1
        self.tokens, self.limit = 0, cast("int | None", None)
        self._contexts: dict[str, list[int]] = {}

    def context(self, view: View) -> list[int]:
        """The tokens before the student's answer in this scorer's view of the state. Each view is rendered once."""
        key = repr(view.messages)
        if key not in self._contexts:
            where, template = f"scorer {self.spec.name}", self.spec.chat_template_kwargs
            self._contexts[key] = context_ids(self.tokenizer, view.messages, where, template)
        return self._contexts[key]

    def prepare(self, longest: int, device: torch.device | None = None) -> None:  # noqa: B027
        """Move to the ``device``, and find out how rows of up to ``longest`` tokens can be read."""

    @abstractmethod
    def read(self, views: Sequence[View], answers: Sequence[Answer]) -> Targets:
        """Score every token of every answer. ``views`` are those of the update's states."""


class LocalScorer(OpenScorer):
    """A scorer whose model runs in this process. Made by :func:`open_scorer`."""

    def __init__(
        self, spec: Scorer, model: Any, tokenizer: PreTrainedTokenizerBase, settings: OnPolicySettings
    ) -> None:
        super().__init__(spec, tokenizer, settings)
        self.model, self.method = model, Method("rows")
        self.limit = getattr(bare(model).config.get_text_config(), "max_position_embeddings", None)
        rows_kept(self._rows, tokenizer, f"scorer {spec.name}")
        self._kept: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self._in_parts = False
        self.load: Callable[[], Any] | None = None
        """Loads the model once more, if this scorer has let go of it."""

    def prepare(self, longest: int, device: torch.device | None = None) -> None:
        """Move to the ``device``, and find out how the model can be packed there."""
        self.model.to(device or self.model.device)
        with self._there(), autocast(self.model.device, self.settings.bf16 and self.model.dtype != torch.float32):
            compiled = self.settings.compile and self.load is None  # it would be compiled at every turn
            self.method = choose(self.model, self.settings.attention, longest, compiled)
        if is_sharded() and self.frozen:
            self._in_parts = True
            if self.load is None:
                shard(self.model)

    def release(self, load: Callable[[], Any]) -> None:
        """Let go of the model's weights, but for those that make logits, and ``load`` it for each turn."""
        kept = {id(p) for p in bare(self.model).get_output_embeddings().parameters()}
        for parameter in self.model.parameters():
            if id(parameter) not in kept:
                parameter.data = parameter.data.new_empty(0)
        self.load = load

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Have the whole model while the block runs."""
        if self.load is None:
            yield
            return
        released, self.model = self.model, self.load().to(self.model.device)
        if self._in_parts:
            shard(self.model)
        try:
            yield
        finally:
            self.model = released
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    @property
    def _rows(self) -> int:
        return int(bare(self.model).get_output_embeddings().weight.shape[0])

    @property
    def frozen(self) -> bool:
        """Whether its weights stay as they are: all do but the student's moving average."""
        return self.spec.model is not None or self.spec.own == "frozen"

    @property
    def row_bytes(self) -> int:
        """The bytes of :meth:`hidden` for a token."""
        model = bare(self.model)
        width = model.config.get_text_config().hidden_size if self.method.chunked else self._rows
        return int(width * model.dtype.itemsize)

    def read(self, views: Sequence[View], answers: Sequence[Answer]) -> Targets:
        """Score every token of every answer, but for recorded answers that :meth:`keep` has scored."""
        return LocalTargets(self, self.hidden(views, answers))

    def keep(self, views: Sequence[View], answers: Sequence[Answer]) -> None:
        """Score recorded answers now, so that :meth:`hidden` finds them whenever they are asked for again.

        It is done at once and before training, so that a resumed run finds the same numbers to the last bit.
        """
        states = self._hidden(views, answers)
        self._kept = {(repr(views[a.state].messages), a.ids): part for a, part in zip(answers, states, strict=True)}

    def hidden(self, views: Sequence[View], answers: Sequence[Answer]) -> Tensor:
        """The states that predict every token of every answer, answer after answer: shape (tokens, H), on the model's
        device.

        ``views`` are those of the update's states. Raises AssertionError if there are not N rows for N tokens.
        """
        kept = [self._kept.get((repr(views[a.state].messages), a.ids)) if self._kept else None for a in answers]
        missing = [answer for answer, part in zip(answers, kept, strict=True) if part is None]
        new = iter(self._hidden(views, missing) if missing or self._in_parts else ())
        parts = [next(new) if part is None else part for part in kept]
        return torch.cat(parts) if parts else torch.empty(0, 0, device=self.model.device)

    @torch.no_grad()
    def _hidden(self, views: Sequence[View], answers: Sequence[Answer]) -> list[Tensor]:
        """The states that predict each answer, shape (its tokens, H)."""
        contexts = [self.context(view) for view in views]
        parts: list[Tensor | None] = [None] * len(answers)
        with (
            self._there(),
            attending(self.model, self.method),
            autocast(self.model.device, self.settings.bf16),
        ):
            self.model.eval()
            rows = list(packed_rows(contexts, answers, self.settings.token_budget))
            for _ in range(self._silent(rows)):
                predictions(self.model, _SHORTEST, self.method)
            for chosen in rows:
                packed: Packed = pack([row(contexts, answers[i]) for i in chosen])
                self.tokens += packed.unpacked if self.method.attention == "rows" else len(packed)
                states = predictions(self.model, packed, self.method)
                sizes = [len(answers[i].ids) for i in chosen]
                assert len(states) == sum(sizes), f"{self.spec.name}: {len(states)} rows for {sum(sizes)} tokens"
                for i, part in zip(chosen, states.split(sizes), strict=True):
                    parts[i] = part
        return [part for part in parts if part is not None]

    def _silent(self, rows: Sequence[Sequence[int]]) -> int:
        """Passes that this process adds, if each has a part of the model: all have to go through it equally often."""
        if not self._in_parts:
            return 0
        passes = sum(map(len, rows)) if self.method.attention == "rows" else len(rows)
        return most(passes, self.model.device) - passes

    @torch.no_grad()
    def logprobs(self, views: Sequence[View], answers: Sequence[Answer]) -> Tensor:
        """log p of every token of every answer, answer after answer: shape (tokens,), in nats."""
        targets = torch.tensor([token for answer in answers for token in answer.ids], device=self.model.device)
        with autocast(self.model.device, self.settings.bf16):
            logits = self.logits(self.hidden(views, answers))
        return torch.log_softmax(logits.float(), -1).gather(1, targets[:, None])[:, 0]

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits, or log-probabilities, (n, columns): without padding, and without talk to the committee."""
        logits = head(self.model, self.method)(hidden)[:, : self.columns]
        return silence(logits, self.marks.never, self.marks.as_end, self.marks.end)


@dataclass(frozen=True, slots=True, eq=False)
class LocalTargets:
    """A local scorer's predictions of each token: hidden states, shape (tokens, H)."""

    scorer: LocalScorer
    hidden: Tensor
    left_out: frozenset[int] = frozenset()

    def logits(self, tokens: np.ndarray) -> Tensor:
        """The scorer's logits, or log-probabilities, at some tokens, shape (n, V)."""
        return self.scorer.logits(self.hidden[torch.from_numpy(tokens).to(self.hidden.device)])


Targets = LocalTargets | PartTargets
"""A scorer's opinion of the answers of one update."""


def open_scorer(
    spec: Scorer, settings: OnPolicySettings, student: tuple[Any, PreTrainedTokenizerBase] | None = None
) -> LocalScorer:
    """Load a scorer, or copy ``student`` (model and tokenizer) if it is to score itself; frozen, on the CPU as yet.

    It computes as the student does, unless ``spec`` names another type; otherwise rounding would be taught. Raises
    RecipeError if there is no such model.
    """
    if spec.model is None:
        assert student is not None, "only in training can a student score itself"
        model, tokenizer = copy.deepcopy(student[0]), student[1]
    else:
        from vivavoce.agents import weights

        same = "float32" if not settings.bf16 else "bfloat16" if settings.lora else "auto"
        dtype = same if spec.dtype == "auto" else spec.dtype
        if dtype not in (same, "float32") and not settings.bf16:
            logger.warning("scorer %s computes in %s and the student in float32: rounding is taught", spec.name, dtype)
        folder = weights.folder(spec.model)

        def load() -> tuple[Any, PreTrainedTokenizerBase]:
            # Weights in 4 bits are quantised on the device; others move there when all scorers are open.
            device = training_device(settings) if spec.quantise else "cpu"
            model, tokenizer = weights.load(folder, dtype, device, spec.trust_remote_code, spec.quantise)
            if settings.bf16 and not settings.lora and not is_sharded():
                # Layers hand on what embeddings begin with. The student's are float32, so half-precision ones are cast.
                embedding = cast(torch.nn.Module, model.get_input_embeddings())
                embedding.register_forward_hook(lambda module, args, output: output.float())
            return model.requires_grad_(False).eval(), tokenizer

        model, tokenizer = load()
        if settings.resident == "one":
            scorer = LocalScorer(spec, model, tokenizer, settings)
            scorer.release(lambda: load()[0])
            return scorer
    model.requires_grad_(False)
    return LocalScorer(spec, model.eval(), tokenizer, settings)


def check_budget(scorer: OpenScorer, states: Sequence[State], k: int, answers: Sequence[int]) -> int:
    """Check the longest row of a scorer: a view and the longest answer to its state, of which ``answers`` are the
    tokens.

    Raises DataError if one is longer than the scorer takes. It is found before the run: the release cut the student's
    tail, or lost the sample, in the middle of one.
    """
    views = [len(scorer.context(state.views[k])) for state in states]
    rows = [view + n for state, view, n in zip(states, views, answers, strict=True) if state.views[k].weight]
    longest = max(rows, default=0)
    if scorer.limit is not None and longest > scorer.limit:
        over = sum(row > scorer.limit for row in rows)
        what = (
            f"scorer {scorer.spec.name} takes {scorer.limit} tokens, but {over} of {len(rows)} states need more: views "
            f"have up to {max(views)} and answers, recorded ones and max_new_tokens, up to {max(answers)}"
        )
        raise DataError(what, "max_new_tokens", "allow shorter answers or fewer rounds, or show the last round alone")
    return longest


class Average(TrainerCallback):
    """Keeps a scorer at the exponential moving average of the student's weights, over resumed runs too."""

    def __init__(self, scorer: LocalScorer, student: Any, decay: float) -> None:
        self.scorer, self.student, self.decay = scorer, student, decay

    def _pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        average = dict(bare(self.scorer.model).named_parameters())
        for name, value in bare(self.student).named_parameters():
            if value.requires_grad:
                yield name, average[name], whole(value)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step:
            kept = load_file(self._file(args, state))
            for name, average, _ in self._pairs():
                average.data.copy_(kept[name])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        with torch.no_grad():
            for _, average, value in self._pairs():
                average.lerp_(value.to(average.device, average.dtype), 1 - self.decay)
        # Before the checkpoint, so that a whole checkpoint always has its average.
        if control.should_save and state.is_world_process_zero:
            Path(str(args.output_dir)).mkdir(parents=True, exist_ok=True)
            average = dict(bare(self.scorer.model).named_parameters())
            learnt = [name for name, value in bare(self.student).named_parameters() if value.requires_grad]
            save_file({name: average[name].contiguous() for name in learnt}, self._file(args, state))

    @staticmethod
    def _file(args: TrainingArguments, state: TrainerState) -> Path:
        return Path(str(args.output_dir)) / f"average-{state.global_step}.safetensors"


__all__ = [
    "Answer",
    "Average",
    "LocalScorer",
    "LocalTargets",
    "Marks",
    "OpenScorer",
    "PartTargets",
    "Targets",
    "check_budget",
    "open_scorer",
    "packed_rows",
    "row",
]
