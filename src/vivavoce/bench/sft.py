"""Packed SFT against TRL's SFTTrainer on the same rows: equal loss and gradients first, then time and memory.

There are two sets of rows: several answers to each question, as debates and peer reviews leave them, which share the
question; and unrelated rows of mixed lengths, which share nothing and need no padding. TRL's best batch size counts,
rows sorted by length so that it pads little.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, TrainingArguments
from trl import SFTConfig, SFTTrainer

from vivavoce.bench.floor import forward_flops, matmul_rate
from vivavoce.bench.models import ModelDimensions, TextSource, random_model, word_tokenizer
from vivavoce.bench.side_by_side import Hardware, LossComparison, Pass, alternate, apart, facts, fastest
from vivavoce.progress import say
from vivavoce.records import Example
from vivavoce.train import SFTSettings
from vivavoce.train.checkpoint import threads as torch_threads
from vivavoce.train.choosing import choose
from vivavoce.train.packing import Packed
from vivavoce.train.scoring import attending
from vivavoce.train.sft import Plain
from vivavoce.train.supervised import SupervisedTrainer, Taught, Updates
from vivavoce.train.tokens import score_rows

_DEFAULT = ModelDimensions.narrow(256, 4, 2048)


def run(
    size: ModelDimensions = _DEFAULT,
    hardware: Hardware | None = None,
    *,
    budget: int = 4096,
    repeats: int = 3,
    seed: int = 0,
) -> Iterator[LossComparison]:
    """Measure both sets. Raises AssertionError if loss or gradients differ by more than float32 explains."""
    words, hardware = TextSource(size.vocabulary, seed), hardware or Hardware()
    lengths = np.random.default_rng(seed).integers(60, 400, 32).tolist()
    shared = [
        Example(f"q{i}", prompt, words.answer(128), ())
        for i, prompt in enumerate(words.prompt(500) for _ in range(2))
        for _ in range(8)
    ]
    mixed = [Example(f"q{i}", words.prompt(n // 2), words.answer(n - n // 2), ()) for i, n in enumerate(lengths)]
    for what, rows in (
        ("8 answers of 128 tokens to each of 2 prompts of 500", shared),
        ("32 unrelated rows of 60 to 400 tokens", mixed),
    ):
        with torch_threads(hardware.threads):
            measured = _measure(what, rows, size, hardware, budget, repeats, seed)
        yield measured


def _measure(
    what: str, rows: Sequence[Example], size: ModelDimensions, hardware: Hardware, budget: int, repeats: int, seed: int
) -> LossComparison:
    say(f"measuring SFT, {what}")
    tokenizer, model = word_tokenizer(size.vocabulary), random_model(size, hardware.device, seed)
    taught = [Taught(e.problem, e.stream, score_rows(tokenizer, e.prompt, [e.completion])[0], 1.0) for e in rows]
    taught.sort(key=lambda row: len(row.row.ids))
    precise = replace(hardware, bf16=False)
    with tempfile.TemporaryDirectory() as folder:
        passes = {
            f"batch {n}": _theirs(model, taught, tokenizer, n, Path(folder), hardware)
            for n in (1, 2, 4, 8, len(taught))
        }
        exact = _theirs(model, taught, tokenizer, 1, Path(folder), precise)
        own = _ours(model, taught, budget, Path(folder), precise)[0]
        errors = apart(model, own, exact, len(passes) + repeats + 2)
        best = fastest(passes, warm=hardware.bf16, compiling=[model] if hardware.device == "cuda" else [])
        ours, packed = _ours(model, taught, budget, Path(folder), hardware)
        timings = alternate({"theirs": best.one, "ours": ours}, model, hardware.device, repeats)
    return LossComparison(
        f"SFT, {what}",
        timings["ours"],
        timings["theirs"],
        f"TRL's SFTTrainer, {best.name}",
        best.seconds,
        *errors,
        floor=sum(p.unpacked for p in packed) / sum(len(p) for p in packed),
        flops=3 * forward_flops(model, packed),
        rate=matmul_rate(hardware.device, hardware.bf16),
        facts=facts(hardware.device, "torch", "transformers", "trl"),
    )


def _ours(
    model: Any, taught: Sequence[Taught], budget: int, folder: Path, hardware: Hardware
) -> tuple[Pass, list[Packed]]:
    settings = SFTSettings(lora=None, rows_per_step=len(taught), max_steps=1, token_budget=budget, bf16=hardware.bf16)
    steps = Updates(taught, Plain.of(taught, settings, 0), settings.token_budget)
    method = choose(model, "auto", 0, compile=hardware.bf16)
    arguments = TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=hardware.device == "cpu")
    trainer = SupervisedTrainer(model, arguments, steps, settings, method, ["answer"])

    def one() -> float:
        with attending(model, method):
            return float(trainer.training_step(model, steps[0]))

    return one, [part.packed for part in steps[0]["parts"]]


def _theirs(
    model: Any,
    taught: Sequence[Taught],
    tokenizer: PreTrainedTokenizerFast,
    size: int,
    folder: Path,
    hardware: Hardware,
) -> Pass:
    labels = [[-100] * r.row.start + list(r.row.completion) for r in taught]
    rows = Dataset.from_dict({"input_ids": [list(r.row.ids) for r in taught], "labels": labels})
    config = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=size,
        max_length=None,
        report_to="none",
        disable_tqdm=True,
        use_cpu=hardware.device == "cpu",
        bf16=False,  # autocast is put around its passes here, where the trainer's own loop would put it
        activation_checkpointing=False,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer)
    batches = list(trainer.get_train_dataloader())
    tokens = torch.tensor(sum(r.tokens for r in taught))

    def one() -> float:
        model.train()
        total = 0.0
        for batch in batches:
            with hardware.precision():
                loss = trainer.compute_loss(model, batch, num_items_in_batch=tokens)
            trainer.accelerator.backward(loss)
            total += float(loss.detach())
        return total

    return one


__all__ = ["run"]
