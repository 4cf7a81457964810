"""The training benchmarks on a GPU, at the size that people train: bfloat16, Qwen3-0.6B's dimensions, random weights.

Equality of loss and gradients is checked in float32 first, as on a CPU; then both sides run under bfloat16 autocast
over float32 weights, which is what either trainer does by default. Frozen teachers are bfloat16.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch

from vivavoce.bench import on_policy, sft, tree_dpo
from vivavoce.bench.models import QWEN3_06B
from vivavoce.bench.side_by_side import Hardware, LossComparison


def available() -> bool:
    """Whether torch sees a CUDA device."""
    return torch.cuda.is_available()


def run(repeats: int = 5) -> Iterator[LossComparison]:
    """Measure one work after the other. Raises AssertionError if the sides differ."""
    hardware = Hardware("cuda", bf16=True, threads=None)
    for right, wrong in ((1, 1), (2, 2), (3, 3)):
        yield tree_dpo.run(
            tree_dpo.TreeShape(right, wrong),
            QWEN3_06B,
            hardware,
            trees=4,
            budget=16384,
            repeats=repeats,
            batch_sizes=(4, 8, 16),
        )
        _free()
    shape = on_policy.UpdateShape(states=8, prompt=256, answer=512)
    yield from on_policy.run(shape, QWEN3_06B, hardware, repeats=repeats)
    _free()
    yield from sft.run(QWEN3_06B, hardware, budget=16384, repeats=repeats)


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


__all__ = ["available", "run"]
