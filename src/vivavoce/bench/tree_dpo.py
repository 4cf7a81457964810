"""Packed T-DPO against TRL's DPOTrainer on the same pairs: equal loss and gradients first, then time and memory.

Both sides pay for one epoch of one update: the reference's log-probabilities, forward, backward, optimiser. TRL runs at
each batch size, with its default reference and with ``precompute_ref_log_probs``, and its best is what counts. The two
best then alternate, so that a busy machine slows both; processor time is measured beside the clock for the same reason.
"""

from __future__ import annotations

import gc
import logging
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainingArguments
from trl import DPOConfig, DPOTrainer

from vivavoce.records import Completion, Message, Tree
from vivavoce.train import TreeDPOSettings
from vivavoce.train.checkpoint import threads as torch_threads
from vivavoce.train.reference import reference_logprobs
from vivavoce.train.scoring import attending, choose
from vivavoce.train.tree_dpo import TreeDPOTrainer
from vivavoce.train.trees import Steps, branchings

logger = logging.getLogger(__name__)

VOCABULARY = 2048
TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] + ' <end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


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
class Timing:
    """Repeated measurements of one side, in seconds: by the clock, and of this process's processors."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    peak_mb: float | None
    """Memory above what was held before, MiB: of the device, or of the process where Linux tells."""


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
    facts: dict[str, str]

    def ratios(self, clock: str = "wall") -> tuple[float, float, float]:
        """TRL's time over ours in neighbouring passes: least, median, greatest."""
        pairs = zip(getattr(self.theirs, clock), getattr(self.ours, clock), strict=True)
        found = [theirs / ours for theirs, ours in pairs]
        return min(found), median(found), max(found)

    def __str__(self) -> str:
        shape = self.shape
        lines = [
            f"T-DPO packed against TRL's DPOTrainer: {shape.right} right x {shape.wrong} wrong, "
            f"context {shape.context}, answers {shape.answer} tokens",
            f"  equal: loss to {self.loss_error:.1e}, gradients to {self.gradient_error:.1e} (relative)",
        ]
        for clock, name in (("wall", "clock"), ("cpu", "processor time")):
            low, middle, high = self.ratios(clock)
            ours, theirs = median(getattr(self.ours, clock)), median(getattr(self.theirs, clock))
            lines.append(f"  {name}: {middle:.2f}x ({low:.2f} to {high:.2f}); {theirs:.2f} s against {ours:.2f} s")
        if self.ours.peak_mb and self.theirs.peak_mb:
            lines.append(f"  peak memory: {self.theirs.peak_mb:.0f} MiB against {self.ours.peak_mb:.0f} MiB")
        tried = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.variants.items())
        lines += [
            f"  tokens: {shape.floor:.2f}x fewer; attention: {self.attention}",
            f"  TRL's best: {self.variant} (of {tried})",
            "  " + ", ".join(f"{name} {value}" for name, value in self.facts.items()),
        ]
        return "\n".join(lines)


def run(
    shape: Shape | None = None,
    *,
    trees: int = 2,
    repeats: int = 5,
    batch_sizes: Sequence[int] = (1, 2, 4, 8),
    hidden: int = 256,
    layers: int = 4,
    threads: int | None = 1,
    device: str = "cpu",
    seed: int = 0,
) -> Result:
    """Measure one shape. A random Qwen3 of ``hidden`` x ``layers``, ``trees`` trees, ``repeats`` alternating passes.

    Raises AssertionError where loss or gradients differ by more than float32 explains.
    """
    shape = shape or Shape()
    torch.manual_seed(seed)
    tokenizer, rows = _tokenizer(), _trees(shape, trees, seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 128),
        head_dim=64,
        max_position_embeddings=8192,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model, other = (cast(torch.nn.Module, Qwen3ForCausalLM(config)).to(device) for _ in range(2))
    # The answers' probabilities must not differ from the reference's by accident of size: start both alike, then move.
    other.load_state_dict(model.state_dict())
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
    ours, attention = _ours(model, other, tokenizer, rows, folder, device)
    passes: dict[str, Callable[[], float]] = {}
    pairs = shape.right * shape.wrong * len(rows)
    for size in dict.fromkeys(min(size, pairs) for size in batch_sizes):
        for precompute in (False, True):
            name = f"batch {size}, {'precomputed' if precompute else 'default'} reference"
            passes[name] = _theirs(model, other, tokenizer, rows, folder, device, size, precompute)
    errors = _equal(model, ours, next(iter(passes.values())))
    variants = {}
    for name, one in passes.items():
        started = time.perf_counter()
        one()
        variants[name] = time.perf_counter() - started
        logger.info("%s: %.2f s", name, variants[name])
    best = min(variants, key=lambda name: variants[name])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    for _ in range(repeats):
        for side, one in (("theirs", passes[best]), ("ours", ours)):
            times[side].append(_timed(one, optimizer, device))
            logger.info("%s: %.2f s, %.2f s of processor", side, *times[side][-1])
    peaks = {side: _peak(one, model, device) for side, one in (("ours", ours), ("theirs", passes[best]))}
    timings = {
        side: Timing(tuple(t[0] for t in found), tuple(t[1] for t in found), peaks[side])
        for side, found in times.items()
    }
    return Result(
        shape,
        timings["ours"],
        timings["theirs"],
        best,
        variants,
        *errors,
        attention,
        _facts(device),
    )


def _ours(
    model: Any, other: Any, tokenizer: PreTrainedTokenizerFast, rows: list[Tree], folder: Path, device: str
) -> tuple[Callable[[], float], str]:
    """One pass over all trees on our side, gradients accumulated; gives the mean loss."""
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

    return one, method.attention


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


def _equal(model: Any, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    found = []
    for one in (theirs, ours):
        model.zero_grad()
        loss = one()
        found.append((loss, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    model.zero_grad()
    (wanted, gradients), (loss, others) = found
    worst = max(float((a - b).norm() / a.norm().clamp(min=1e-12)) for a, b in zip(gradients, others, strict=True))
    error = abs(loss / wanted - 1)
    assert error < 1e-4, f"the loss is {loss}, TRL's is {wanted}"
    assert worst < 1e-3, f"a gradient differs from TRL's by {worst:.1e}"
    return error, worst


def _timed(one: Callable[[], float], optimizer: torch.optim.Optimizer, device: str) -> tuple[float, float]:
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    one()
    optimizer.step()
    optimizer.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def _peak(one: Callable[[], float], model: Any, device: str) -> float | None:
    model.zero_grad()
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        one()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    with suppress(OSError):
        _trim()
        Path("/proc/self/clear_refs").write_text("5")  # sets Linux's high-water mark back
        held = _status("VmRSS")
        one()
        return (_status("VmHWM") - held) / 1024
    return None


def _trim() -> None:
    """Give the C library's free memory back, so that one side does not run in the other's."""
    import ctypes

    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def _facts(device: str) -> dict[str, str]:
    names = ("torch", "transformers", "trl")
    machine = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    if device == "cpu":
        with suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            machine = next((line.split(": ")[1] for line in lines if line.startswith("model name")), machine)
    return {"machine": f"{machine} ({torch.get_num_threads()} threads)", **{name: version(name) for name in names}}


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word, so that lengths are exact."""
    special = ["<pad>", "<end>", "<unk>", "<user>", "<assistant>"]
    words = {token: i for i, token in enumerate([*special, *(f"w{i}" for i in range(VOCABULARY - len(special)))])}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", chat_template=TEMPLATE
    )


def _trees(shape: Shape, count: int, seed: int) -> list[Tree]:
    draw = np.random.default_rng(seed)

    def words(size: int) -> str:
        return " ".join(f"w{i}" for i in draw.integers(0, VOCABULARY - 5, size))

    def answers(size: int) -> tuple[Completion, ...]:
        return tuple(Completion(words(shape.answer - 1), "") for _ in range(size))  # the end of turn is the last token

    def tree(i: int) -> Tree:
        prompt = (Message(role="user", content=words(shape.context - 3)),)  # <user> … <end> <assistant>
        return Tree(f"tree {i}", f"problem {i}", prompt, answers(shape.right), answers(shape.wrong))

    return [tree(i) for i in range(count)]


__all__ = ["Result", "Shape", "Timing", "run"]
