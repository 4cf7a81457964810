"""Packed T-DPO against TRL's DPOTrainer on the same pairs: equal loss and gradients first, then time and memory.

Both sides pay for one epoch of one update: the reference's log-probabilities, forward, backward, optimiser. TRL runs at
each batch size, with its default reference and with ``precompute_ref_log_probs``, and its best is what counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, TrainingArguments
from trl import DPOConfig, DPOTrainer

from vivavoce.bench.floor import forward_flops, matmul_rate
from vivavoce.bench.models import ModelDimensions, TextSource, random_model, word_tokenizer
from vivavoce.bench.side_by_side import Hardware, LossComparison, Pass, alternate, apart, facts, fastest
from vivavoce.progress import say
from vivavoce.records import Completion, Tree
from vivavoce.train import TreeDPOSettings
from vivavoce.train.checkpoint import threads as torch_threads
from vivavoce.train.choosing import choose
from vivavoce.train.packing import Packed
from vivavoce.train.reference import reference_logprobs
from vivavoce.train.scoring import attending
from vivavoce.train.tree_dpo import TreeDPOTrainer
from vivavoce.train.trees import Updates, branchings

_DEFAULT = ModelDimensions.narrow(512, 2, 4096)


@dataclass(frozen=True)
class TreeShape:
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


def run(
    shape: TreeShape | None = None,
    size: ModelDimensions = _DEFAULT,
    hardware: Hardware | None = None,
    *,
    trees: int = 1,
    budget: int = 4096,
    repeats: int = 3,
    batch_sizes: Sequence[int] = (1, 2, 4, 8),
    seed: int = 0,
) -> LossComparison:
    """Measure one shape: ``trees`` trees in packed rows of ``budget`` tokens, ``repeats`` alternating passes.

    The default model is small, but layers, attention and head have about the shares of the work that they have in
    Qwen3-0.6B; attention, of which sharing saves less, counts for more in a narrower one. Raises AssertionError if
    loss or gradients differ by more than float32 explains.
    """
    shape, hardware = shape or TreeShape(), hardware or Hardware()
    tokenizer, rows = word_tokenizer(size.vocabulary), _trees(shape, trees, size.vocabulary, seed)
    model, other = (random_model(size, hardware.device, seed) for _ in range(2))
    # The answers' probabilities must not differ from the reference's by accident of size: start both alike, then move.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=1e-3)
    with torch_threads(hardware.threads), tempfile.TemporaryDirectory() as folder:
        sides = _Sides(model, other, tokenizer, rows, budget, Path(folder), hardware)
        return _measure(sides, shape, repeats, batch_sizes)


def _measure(sides: _Sides, shape: TreeShape, repeats: int, batch_sizes: Sequence[int]) -> LossComparison:
    device, bf16 = sides.hardware.device, sides.hardware.bf16
    what = f"T-DPO, {shape.right} right x {shape.wrong} wrong, context {shape.context}, answers {shape.answer} tokens"
    say(f"measuring {what}")
    pairs = shape.right * shape.wrong * len(sides.rows)
    sizes = dict.fromkeys(min(size, pairs) for size in batch_sizes)
    passes = {
        f"batch {n}, {'precomputed' if kept else 'default'} reference": sides.theirs(n, kept, bf16)
        for n in sizes
        for kept in (False, True)
    }
    to_come = len(passes) + repeats + 2
    errors = apart(sides.model, sides.ours(bf16=False)[0], sides.theirs(min(sizes), False, bf16=False), to_come)
    best = fastest(passes, warm=bf16, compiling=[sides.model, sides.other] if device == "cuda" else [])
    ours, attention, packed = sides.ours(bf16)
    timings = alternate({"theirs": best.one, "ours": ours}, sides.model, device, repeats)
    return LossComparison(
        what,
        timings["ours"],
        timings["theirs"],
        f"TRL's DPOTrainer, {best.name}",
        best.seconds,
        *errors,
        floor=shape.floor,
        flops=4 * forward_flops(sides.model, packed),  # two forward passes, and a backward one of twice the work
        rate=matmul_rate(device, bf16),
        facts={"attention": attention, **facts(device, "torch", "transformers", "trl")},
    )


@dataclass(frozen=True)
class _Sides:
    """One pass over all trees, on either side; each gives the mean loss."""

    model: Any
    other: Any
    tokenizer: PreTrainedTokenizerFast
    rows: list[Tree]
    budget: int
    folder: Path
    hardware: Hardware

    def ours(self, bf16: bool) -> tuple[Pass, str, list[Packed]]:
        """The pass, how attention is computed, and the packed rows."""
        settings = TreeDPOSettings(
            lora=None, trees_per_step=len(self.rows), max_steps=1, token_budget=self.budget, bf16=bf16
        )
        steps = Updates(branchings(self.tokenizer, self.rows, 10**6), settings, 1, seed=0)
        method = choose(self.model, "auto", 0, compile=bf16)
        arguments = TrainingArguments(
            output_dir=str(self.folder), report_to="none", use_cpu=self.hardware.device == "cpu"
        )
        trainer = TreeDPOTrainer(self.model, arguments, steps, {}, settings, method)

        def one() -> float:
            with tempfile.TemporaryDirectory(dir=self.folder) as fresh:  # no reference is kept from pass to pass
                trainer.reference = reference_logprobs(self.other, steps, method, bf16, Path(fresh), "bench")
            with attending(self.model, method):
                return float(trainer.training_step(self.model, steps[0]))

        return one, method.attention, [row.packed for row in steps[0]["rows"]]

    def theirs(self, size: int, precompute: bool, bf16: bool) -> Pass:
        """All pairs, in batches of ``size``."""
        trainer = self._trainer(size)
        batches = list(trainer.get_train_dataloader())
        pairs = sum(len(batch["input_ids"]) // 2 for batch in batches)
        precision = replace(self.hardware, bf16=bf16).precision

        def one() -> float:
            total = 0.0
            # What the precomputing trainer does at its start, through the same public method, then trains on.
            with precision():
                known = [trainer.compute_ref_log_probs(self.other, b) for b in batches] if precompute else []
            trainer.precompute_ref_logps = precompute
            for i, batch in enumerate(batches):
                extra = dict(zip(("ref_chosen_logps", "ref_rejected_logps"), known[i], strict=True)) if known else {}
                share = len(batch["input_ids"]) / 2 / pairs  # a batch's mean counts so much in the mean over all pairs
                self.model.train()
                with precision():
                    loss = trainer.compute_loss(self.model, {**batch, **extra})
                trainer.accelerator.backward(loss * share)
                total += share * float(loss.detach())
            return total

        return one

    def _trainer(self, size: int) -> DPOTrainer:
        pairs = Dataset.from_list(
            [
                {
                    "prompt": [dict(message) for message in tree.prompt],
                    "chosen": [{"role": "assistant", "content": chosen.text}],
                    "rejected": [{"role": "assistant", "content": rejected.text}],
                }
                for tree in self.rows
                for chosen in tree.chosen
                for rejected in tree.rejected
            ]
        )
        config = DPOConfig(
            output_dir=str(self.folder),
            per_device_train_batch_size=size,
            max_length=None,
            report_to="none",
            disable_tqdm=True,
            use_cpu=self.hardware.device == "cpu",
            bf16=False,  # autocast is put around its passes here, where the trainer's own loop would put it
            activation_checkpointing=False,
            train_sampling_strategy="sequential",
        )
        return DPOTrainer(self.model, self.other, args=config, train_dataset=pairs, processing_class=self.tokenizer)


def _trees(shape: TreeShape, count: int, vocabulary: int, seed: int) -> list[Tree]:
    words = TextSource(vocabulary, seed)

    def answers(size: int) -> tuple[Completion, ...]:
        return tuple(Completion(words.answer(shape.answer), "") for _ in range(size))

    return [
        Tree(f"tree {i}", f"problem {i}", words.prompt(shape.context), answers(shape.right), answers(shape.wrong))
        for i in range(count)
    ]


__all__ = ["TreeShape", "run"]
