"""Local generation for many concurrent debates against transformers' own: `generate`, and its continuous batching.

Each debater is asked once a round. Its prompt is the same instructions for all, a question, and the texts so far, so
that a round only adds to the prompt of the one before. Answers differ in length, which is not known beforehand.
``generate`` takes a round at a time, sorted by length, in batches of the size that is fastest; its rows wait for the
longest of their batch. Ours never waits: a row that is done makes room, and its debate goes on with the next round. So
does the continuous batching of transformers, which is made for attention over pages and has to mask them all on a CPU.

The ends of rows are drawn, not learned, because random weights never end: a stopping criterion ends them for
``generate``, a limit for ours, which its scheduling does not look at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig, StoppingCriteria

from vivavoce.agents.batch import TokenPrompt
from vivavoce.agents.decode import SHARE, Decoder
from vivavoce.bench.models import ModelDimensions, random_model, word_tokenizer
from vivavoce.bench.side_by_side import Figures, Hardware, Timing, alternate, facts, fastest, ratios
from vivavoce.progress import say, say_seldom
from vivavoce.records import Sampling
from vivavoce.train.checkpoint import threads as torch_threads

# Logits nearer to each other than this may change places by rounding, which differs with the shape of a batch.
_TIE = 1e-3
# Tokens of a page of transformers' continuous batching; its own default, 256, is more than a short prompt needs.
_PAGE = 32
_PAGED_LINES = (8, 16, 32)
_DEFAULT = ModelDimensions.narrow(128, 4, 4096)


@dataclass(frozen=True)
class DebateShape:
    """The debates, their texts in tokens, and the model. Answers have lognormal lengths, questions even ones."""

    debates: int = 128
    rounds: int = 3
    instructions: int = 64
    question: tuple[int, int] = (24, 96)
    answer: int = 48
    """Median."""
    spread: float = 0.6
    """Standard deviation of the logarithm of an answer's length."""
    longest: int = 256
    others: int = 1
    """Other debaters, whose answers are read in the next round too."""


@dataclass(frozen=True, slots=True)
class DebaterTurn:
    """The prompt of one debater in one round, and the number of tokens after which its answer ends."""

    debate: int
    ids: tuple[int, ...]
    length: int


@dataclass(frozen=True)
class GenerateComparison(Figures):
    """A comparison of two ways to the same answers; variants are batch sizes of ``generate``, each timed on as many
    debates as the largest has rows."""

    tokens: int
    """Drawn in a pass."""
    same: float
    """Share of answers that are equal token for token; the others part at a token where two logits are as good as
    equal.
    """
    computed: tuple[int, int]
    """Positions that went through the model, padding included: ours, theirs."""
    floor: int
    """Positions that must: distinct beginnings of prompts, and all tokens drawn but the last of an answer."""
    alone: Timing
    """Ours, nothing kept from one round to the next."""
    paged: Timing
    """Transformers' continuous batching, with as many lines as it is fastest with."""

    def summary(self) -> dict[str, Any]:
        return super().summary() | {
            "ratio_without_reuse": ratios(self.alone, self.theirs)[1],
            "ratio_to_continuous_batching": ratios(self.ours, self.paged)[1],
            "tokens_per_second": [self.tokens / self.ours.seconds, self.tokens / self.theirs.seconds],
        }

    def __str__(self) -> str:
        low, middle, high = ratios(self.ours, self.theirs)
        rates = [f"{self.tokens / one.seconds:,.0f}" for one in (self.theirs, self.ours)]
        lines = [
            f"{self.what}: {middle:.2f}x ({low:.2f} to {high:.2f}) of {self.variant}; {self.same:.1%} of answers equal",
            f"  {rates[0]} against {rates[1]} tokens per second",
            f"  positions computed: {self.computed[1]:,} against {self.computed[0]:,}; distinct: {self.floor:,}",
            f"  nothing kept between rounds: {ratios(self.alone, self.theirs)[1]:.2f}x",
            f"  of transformers' continuous batching: {ratios(self.ours, self.paged)[1]:.2f}x",
        ]
        if self.theirs.peak_mb and self.ours.peak_mb:
            lines.append(f"  peak memory {self.theirs.peak_mb:.0f} against {self.ours.peak_mb:.0f} MiB")
        return "\n".join(lines)


def run(
    shape: DebateShape | None = None,
    size: ModelDimensions = _DEFAULT,
    hardware: Hardware | None = None,
    *,
    lines: int = 128,
    remember: int = 2**30,
    sizes: Sequence[int] = (16, 32, 64),
    repeats: int = 2,
    seed: int = 0,
) -> GenerateComparison:
    """Measure both sides. Raises AssertionError if their answers differ.

    Args:
        shape: The work.
        size: Size of the model.
        hardware: The device; with ``bf16``, weights are bfloat16.
        lines: Rows that we decode at a time.
        remember: Bytes that we may keep of prompts, from one round to the next.
        sizes: Batch sizes that ``generate`` is tried with.
        repeats: Passes of each side.
        seed: Seed of texts, lengths and weights.
    """
    shape, hardware = shape or DebateShape(), hardware or Hardware()
    with torch_threads(hardware.threads):
        tokenizer = word_tokenizer(size.vocabulary)
        model = random_model(size, hardware.device, seed).eval()
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        turns, sizes = _turns(shape, size.vocabulary, seed), sorted({min(size, shape.debates) for size in sizes})
        wanted, got = dict[DebaterTurn, list[int]](), dict[DebaterTurn, list[int]]()

        def ours(kept: int) -> float:
            got.update(_by_engine(Decoder(model, tokenizer, kept), turns, lines))
            return 0.0

        def theirs(rows: int, prompts: Sequence[Sequence[DebaterTurn]] = turns) -> float:
            wanted.update(_by_generate(model, prompts, rows))
            return 0.0

        def paged(rows: int, prompts: Sequence[Sequence[DebaterTurn]]) -> float:
            return float(len(_by_continuous_batching(model, prompts, rows)))

        what = f"{shape.debates} debates of {shape.rounds} rounds, {lines} lines"
        say(f"measuring generation, {what}: are the answers equal?")
        our_positions, their_positions = _positions(model, lambda: ours(remember)), 0
        theirs(max(sizes))
        same = _agreement(model, got, wanted)
        say("  they are; now the peers' best batch sizes")
        if hardware.bf16:
            model.to(torch.bfloat16)
        tried = turns[: max(sizes)]
        best = fastest({f"batches of {n}": lambda n=n: theirs(n, tried) for n in sizes}, warm=False)
        rows = int(best.name.split()[-1])
        paged_rows = int(fastest({str(n): lambda n=n: paged(n, turns[:32]) for n in _PAGED_LINES}, warm=False).name)
        say("  all sides in turn")

        def theirs_counted() -> float:
            nonlocal their_positions
            their_positions = _positions(model, lambda: theirs(rows))
            return 0.0

        sides = {
            "theirs": theirs_counted,
            "ours": lambda: ours(remember),
            "alone": lambda: ours(0),
            "paged": lambda: paged(paged_rows, turns),
        }
        times = alternate(sides, torch.nn.Linear(1, 1), hardware.device, repeats, warm=False, peaks=("theirs", "ours"))
        return GenerateComparison(
            what,
            times["ours"],
            times["theirs"],
            f"generate in {best.name}",
            best.seconds,
            sum(turn.length for turns_ in turns for turn in turns_),
            same,
            (our_positions, their_positions),
            _floor(turns),
            times["alone"],
            times["paged"],
            facts=facts(hardware.device, "torch", "transformers"),
        )


def _turns(shape: DebateShape, vocabulary: int, seed: int) -> list[list[DebaterTurn]]:
    """The turns of each debate, in order."""
    draw = np.random.default_rng(seed)

    def text(count: int) -> tuple[int, ...]:
        return tuple(draw.integers(5, vocabulary, count).tolist())

    def length() -> int:
        return int(np.clip(draw.lognormal(np.log(shape.answer), shape.spread), 4, shape.longest))

    instructions, debates = text(shape.instructions), list[list[DebaterTurn]]()
    for i in range(shape.debates):
        ids, turns = instructions + text(int(draw.integers(*shape.question, endpoint=True))), list[DebaterTurn]()
        for _ in range(shape.rounds):
            turns.append(DebaterTurn(i, ids, length()))
            lengths = [turns[-1].length, *(length() for _ in range(shape.others))]
            ids = ids + text(sum(lengths))
        debates.append(turns)
    return debates


def _by_engine(decoder: Decoder, debates: Sequence[Sequence[DebaterTurn]], lines: int) -> dict[DebaterTurn, list[int]]:
    """All debates with our engine: a debate's next turn waits as soon as the one before it is done."""
    rests = {turns[0].debate: deque(turns[1:]) for turns in debates}
    waiting, drawn = deque(turns[0] for turns in debates), dict[DebaterTurn, list[int]]()

    def newcomers(under_way: Sequence[TokenPrompt]) -> list[TokenPrompt]:
        free = min(lines - len(under_way), len(waiting))
        if free < max(1, SHARE * len(under_way)):
            return []
        turns = [waiting.popleft() for _ in range(free)]
        return [TokenPrompt(turn.ids, Sampling(0.0, max_new_tokens=turn.length), 0, turn) for turn in turns]

    def finished(prompt: TokenPrompt, ids: list[int], logprobs: list[float]) -> None:
        turn = prompt.tag
        assert isinstance(turn, DebaterTurn)
        drawn[turn] = ids
        say_seldom(f"  ours: {len(drawn)} answers")
        if rests[turn.debate]:
            waiting.append(rests[turn.debate].popleft())

    decoder.stream(newcomers, finished)
    return drawn


class _Ends(StoppingCriteria):
    """Ends each row after a given number of tokens, as if it had drawn its end-of-sequence token."""

    def __init__(self, lengths: Tensor) -> None:
        self.lengths = lengths

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return input_ids.shape[1] >= self.lengths


@torch.inference_mode()
def _by_generate(model: Any, debates: Sequence[Sequence[DebaterTurn]], size: int) -> dict[DebaterTurn, list[int]]:
    """All debates with ``generate``: a round after the other, prompts alike in length in one batch."""
    drawn = dict[DebaterTurn, list[int]]()
    for turns in zip(*debates, strict=True):
        ordered = sorted(turns, key=lambda turn: len(turn.ids))
        for first in range(0, len(ordered), size):
            batch = ordered[first : first + size]
            width = max(len(turn.ids) for turn in batch)
            ids = torch.tensor([[0] * (width - len(turn.ids)) + list(turn.ids) for turn in batch], device=model.device)
            mask = torch.tensor([[0] * (width - len(turn.ids)) + [1] * len(turn.ids) for turn in batch])
            ends = torch.tensor([width + turn.length for turn in batch], device=model.device)
            config = GenerationConfig(
                max_new_tokens=max(turn.length for turn in batch), do_sample=False, pad_token_id=0, eos_token_id=1
            )
            out = model.generate(
                ids,
                attention_mask=mask.to(model.device),
                generation_config=config,
                stopping_criteria=[_Ends(ends)],
            )[:, width:].tolist()
            say_seldom(f"  generate in batches of {size}: {len(drawn)} answers")
            for turn, row in zip(batch, out, strict=True):
                row = row[: turn.length]
                drawn[turn] = row[: row.index(1) + 1] if 1 in row else row
    return drawn


def _by_continuous_batching(
    model: Any, debates: Sequence[Sequence[DebaterTurn]], lines: int
) -> dict[DebaterTurn, list[int]]:
    """All debates with transformers' continuous batching, as it is made for servers; prefixes shared as it can."""
    turns = {f"{turn.debate}/{i}": turn for debate in debates for i, turn in enumerate(debate)}
    longest = max(len(turn.ids) + turn.length for turn in turns.values())
    paging = ContinuousBatchingConfig(
        page_size=_PAGE,
        num_blocks=lines * -(-longest // _PAGE),
        max_batch_tokens=4 * lines,
        max_requests_per_batch=lines,
    )
    config, drawn = GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=1), dict[DebaterTurn, list[int]]()
    with model.continuous_batching_context_manager(
        generation_config=config, continuous_batching_config=paging, warmup=False
    ) as manager:

        def ask(debate: int, i: int) -> None:
            name = f"{debate}/{i}"
            if name in turns:
                manager.add_request(list(turns[name].ids), name, max_new_tokens=turns[name].length)

        for debate in debates:
            ask(debate[0].debate, 0)
        while len(drawn) < len(turns):
            result = manager.get_result(timeout=1)
            assert result or manager.is_running(), "transformers' continuous batching has stopped"
            if result and result.is_finished():
                debate, i = map(int, result.request_id.split("/"))
                drawn[turns[result.request_id]] = result.generated_tokens
                say_seldom(f"  continuous batching of {lines}: {len(drawn)} answers")
                ask(debate, i + 1)
    return drawn


def _agreement(model: Any, ours: dict[DebaterTurn, list[int]], theirs: dict[DebaterTurn, list[int]]) -> float:
    """Share of equal answers. Raises AssertionError if one parts from the other and its token is no tie."""
    parted = [turn for turn in theirs if ours[turn] != theirs[turn]]
    for turn in parted:
        a, b = ours[turn], theirs[turn]
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        assert at is not None, f"an answer of {len(a)} tokens should have {len(b)}"
        ids = torch.tensor([[*turn.ids, *a[:at]]], device=model.device)
        with torch.inference_mode():
            logits = model(ids, logits_to_keep=1).logits[0, -1].float()
        gap = float(logits[b[at]] - logits[a[at]])
        assert abs(gap) < _TIE, f"ours said a token whose logit is {gap:.1e} below the one that generate says"
    return 1 - len(parted) / len(theirs)


def _positions(model: Any, one: Callable[[], float]) -> int:
    """Positions that go through the model in a pass."""
    counts = list[int]()

    def count(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        counts.append(kwargs["input_ids"].numel())

    watch = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        one()
    finally:
        watch.remove()
    return sum(counts)


def _floor(debates: Sequence[Sequence[DebaterTurn]]) -> int:
    """The fewest tokens that must be read: prompts, their shared beginning once, and answers as they are drawn."""
    shared = 0
    first, *rest = (turns[0].ids for turns in debates)
    while rest and all(ids[shared : shared + 1] == first[shared : shared + 1] != () for ids in rest):
        shared += 1
    prompts = shared + sum(len(turns[-1].ids) - shared for turns in debates)
    return prompts + sum(turn.length - 1 for turns in debates for turn in turns)


__all__ = ["DebateShape", "GenerateComparison", "run"]
