"""Packed T-DPO against TRL's DPOTrainer on the same pairs: equal loss and gradients first, then time and memory.

Both sides pay for one epoch of one update: the reference's log-probabilities, forward, backward, optimiser. TRL runs at
each batch size, with its default reference and with ``precompute_ref_log_probs``, and its best is what counts.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, TrainingArguments
from trl import DPOConfig, DPOTrainer

from vivavoce.bench.floor import forward_flops, matmul_rate
from vivavoce.bench.models import Words, random_model, word_tokenizer
from vivavoce.bench.side_by_side import Timing, alternate, apart, facts, memory_ratio, ratios
from vivavoce.records import Completion, Tree
from vivavoce.train import TreeDPOSettings
from vivavoce.train.checkpoint import threads as torch_threads
from vivavoce.train.packing import Packed
from vivavoce.train.reference import reference_logprobs
from vivavoce.train.scoring import attending, choose
from vivavoce.train.tree_dpo import TreeDPOTrainer
from vivavoce.train.trees import Steps, branchings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shape:
    """The trees: ``right`` and ``wrong`` answers of ``answer`` tokens each after ``context`` tokens."""

    right: int = 2
    wrong: int = 2
    context: int = 1000
    answer: int = 256

    @property
    def floor(self) -> float:
        """Tokens of the pairs over distinct tokens: how much faster sharing can be if only tokens cost."""
        pairwise = 2 * self.right * self.wrong * (self.context + self.answer)
        return pairwise / (self.context + (self.right + self.wrong) * self.answer)


@dataclass(frozen=True)
class Result:
    """What :func:`run` measured."""

    shape: Shape
    ours: Timing
    theirs: Timing
    variant: str
    """TRL's best: batch size and kind of reference."""
    variants: dict[str, float]
    """Wall-clock seconds of every TRL variant, one pass each."""
    loss_error: float
    gradient_error: float
    """Relative differences from TRL, of the loss and of the worst parameter's gradient."""
    attention: str
    flops: float
    """Operations that our pass cannot do without: two forward passes, and a backward one of twice the work."""
    rate: float
    """Operations a second of this machine's matrix product."""
    facts: dict[str, str]

    @property
    def utilisation(self) -> float:
        """Share of the machine's matrix product's rate at which the necessary operations were done."""
        return self.flops / self.ours.seconds / self.rate

    def summary(self) -> dict[str, Any]:
        """The figures that a script wants, and everything that was measured."""
        low, middle, high = ratios(self.ours, self.theirs)
        return {
            "ratio": middle,
            "spread": [low, high],
            "floor": self.shape.floor,
            "of_floor": middle / self.shape.floor,
            "utilisation": self.utilisation,
            "max_rel_grad_diff": self.gradient_error,
            "peak_memory_ratio": memory_ratio(self.ours, self.theirs),
            **asdict(self),
        }

    def __str__(self) -> str:
        shape = self.shape
        lines = [
            f"T-DPO packed against TRL's DPOTrainer: {shape.right} right x {shape.wrong} wrong, "
            f"context {shape.context}, answers {shape.answer} tokens",
            f"  equal: loss to {self.loss_error:.1e}, gradients to {self.gradient_error:.1e} (relative)",
        ]
        for clock, name in (("wall", "clock"), ("cpu", "processor time")):
            low, middle, high = ratios(self.ours, self.theirs, clock)
            ours, theirs = median(getattr(self.ours, clock)), median(getattr(self.theirs, clock))
            lines.append(f"  {name}: {middle:.2f}x ({low:.2f} to {high:.2f}); {theirs:.2f} s against {ours:.2f} s")
        if self.ours.peak_mb and self.theirs.peak_mb:
            lines.append(f"  peak memory: {self.theirs.peak_mb:.0f} MiB against {self.ours.peak_mb:.0f} MiB")
        tried = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.variants.items())
        lines += [
            f"  tokens: {shape.floor:.2f}x fewer; attention: {self.attention}",
            f"  {self.flops / 1e9:.0f} GFLOP necessary, at {self.utilisation:.0%} of {self.rate / 1e9:.0f} GFLOP/s",
            f"  TRL's best: {self.variant} (of {tried})",
            "  " + ", ".join(f"{name} {value}" for name, value in self.facts.items()),
        ]
        return "\n".join(lines)


def run(
    shape: Shape | None = None,
    *,
    trees: int = 1,
    repeats: int = 5,
    batch_sizes: Sequence[int] = (1, 2, 4, 8),
    hidden: int = 512,
    layers: int = 2,
    vocabulary: int = 4096,
    threads: int | None = 1,
    device: str = "cpu",
    seed: int = 0,
) -> Result:
    """Measure one shape: a random Qwen3 of ``hidden`` x ``layers``, ``trees`` trees, ``repeats`` alternating passes.

    The default model is small, but layers, attention and head have about the shares of the work that they have in
    Qwen3-0.6B; attention, of which sharing saves less, counts for more in a narrower one. Raises AssertionError where
    loss or gradients differ by more than float32 explains.
    """
    shape = shape or Shape()
    tokenizer, rows = word_tokenizer(vocabulary), _trees(shape, trees, vocabulary, seed)
    model, other = (random_model(vocabulary, hidden, layers, device, seed) for _ in range(2))
    # The answers' probabilities must not differ from the reference's by accident of size: start both alike, then move.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=1e-3)
    with torch_threads(threads), tempfile.TemporaryDirectory() as folder:
        return _measure(model, other, tokenizer, rows, shape, repeats, batch_sizes, Path(folder), device)


def _measure(
    model: Any,
    other: Any,
    tokenizer: PreTrainedTokenizerFast,
    rows: list[Tree],
    shape: Shape,
    repeats: int,
    batch_sizes: Sequence[int],
    folder: Path,
    device: str,
) -> Result:
    ours, attention, packed = _ours(model, other, tokenizer, rows, folder, device)
    passes: dict[str, Callable[[], float]] = {}
    pairs = shape.right * shape.wrong * len(rows)
    for size in dict.fromkeys(min(size, pairs) for size in batch_sizes):
        for precompute in (False, True):
            name = f"batch {size}, {'precomputed' if precompute else 'default'} reference"
            passes[name] = _theirs(model, other, tokenizer, rows, folder, device, size, precompute)
    errors = apart(model, ours, next(iter(passes.values())))
    variants = {}
    for name, one in passes.items():
        started = time.perf_counter()
        one()
        variants[name] = time.perf_counter() - started
        logger.info("%s: %.2f s", name, variants[name])
    best = min(variants, key=lambda name: variants[name])
    timings = alternate({"theirs": passes[best], "ours": ours}, model, device, repeats)
    return Result(
        shape,
        timings["ours"],
        timings["theirs"],
        best,
        variants,
        *errors,
        attention,
        4 * forward_flops(model, packed),
        matmul_rate(device),
        facts(device, "torch", "transformers", "trl"),
    )


def _ours(
    model: Any, other: Any, tokenizer: PreTrainedTokenizerFast, rows: list[Tree], folder: Path, device: str
) -> tuple[Callable[[], float], str, list[Packed]]:
    """One pass over all trees on our side, which gives the mean loss; how attention is computed; the packed rows."""
    settings = TreeDPOSettings(lora=None, trees_per_step=len(rows), max_steps=1, token_budget=4096)
    steps = Steps(branchings(tokenizer, rows, 10**6), settings, 1, seed=0)
    method = choose(model, "auto", 0)
    arguments = TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=device == "cpu")
    trainer = TreeDPOTrainer(model, arguments, steps, {}, settings, method)

    def one() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as fresh:  # no reference is kept from pass to pass
            trainer.reference = reference_logprobs(other, steps, method, False, Path(fresh), "bench")
        with attending(model, method):
            return float(trainer.training_step(model, steps[0]))

    return one, method.attention, [row.packed for row in steps[0]["rows"]]


def _theirs(
    model: Any,
    other: Any,
    tokenizer: PreTrainedTokenizerFast,
    rows: list[Tree],
    folder: Path,
    device: str,
    size: int,
    precompute: bool,
) -> Callable[[], float]:
    """The same on TRL's side: all pairs, in batches of ``size``."""
    pairs = Dataset.from_list(
        [
            {
                "prompt": [dict(message) for message in tree.prompt],
                "chosen": [{"role": "assistant", "content": chosen.text}],
                "rejected": [{"role": "assistant", "content": rejected.text}],
            }
            for tree in rows
            for chosen in tree.chosen
            for rejected in tree.rejected
        ]
    )
    config = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=size,
        max_length=None,
        report_to="none",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        bf16=False,
        activation_checkpointing=False,
        train_sampling_strategy="sequential",
    )
    trainer = DPOTrainer(model, other, args=config, train_dataset=pairs, processing_class=tokenizer)
    batches = list(trainer.get_train_dataloader())

    def one() -> float:
        total = 0.0
        # What the precomputing trainer does at its start, through the same public method, then trains on.
        known = [trainer.compute_ref_log_probs(other, batch) for batch in batches] if precompute else []
        trainer.precompute_ref_logps = precompute
        for i, batch in enumerate(batches):
            extra = dict(zip(("ref_chosen_logps", "ref_rejected_logps"), known[i], strict=True)) if precompute else {}
            share = len(batch["input_ids"]) / 2 / len(pairs)
            total += share * float(_weighted(trainer, model, {**batch, **extra}, share))
        return total

    return one


def _weighted(trainer: DPOTrainer, model: Any, batch: dict[str, Any], share: float) -> torch.Tensor:
    """Forward and backward of one batch, whose mean counts as its ``share`` of the mean over all pairs."""
    model.train()
    loss = trainer.compute_loss(model, batch)
    trainer.accelerator.backward(loss * share)
    return loss.detach()


def _trees(shape: Shape, count: int, vocabulary: int, seed: int) -> list[Tree]:
    words = Words(vocabulary, seed)

    def answers(size: int) -> tuple[Completion, ...]:
        return tuple(Completion(words.answer(shape.answer), "") for _ in range(size))

    return [
        Tree(f"tree {i}", f"problem {i}", words.prompt(shape.context), answers(shape.right), answers(shape.wrong))
        for i in range(count)
    ]


__all__ = ["Result", "Shape", "run"]
