"""The least that a step costs: operations that it cannot do without, at the rate of the machine's matrix products."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from vivavoce.train.packing import Packed


def forward_flops(model: Any, packed: Sequence[Packed]) -> float:
    """Floating-point operations of one forward pass over packed rows.

    Every distinct token goes through the layers once, every scored token through the head once, and every query meets
    the keys that it attends to; masked-out scores, norms, activations and softmaxes are not counted.
    """
    config = model.config
    head = model.get_output_embeddings()
    linear = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    width = config.num_attention_heads * (
        getattr(config, "head_dim", 0) or config.hidden_size // config.num_attention_heads
    )
    tokens = sum(len(row) for row in packed)
    scored = sum(len({int(i) for answer in row.answers for i in answer}) for row in packed)
    met = sum(int(row.position_ids.sum()) + len(row) for row in packed)
    return 2.0 * (linear * tokens + head.weight.numel() * scored) + 4.0 * config.num_hidden_layers * width * met


def matmul_rate(device: str, bf16: bool = False) -> float:
    """Operations a second that this machine's matrix product reaches, the best of several."""
    size, dtype = (8192 if device == "cuda" else 1024), (torch.bfloat16 if bf16 else torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(5):
        if device == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(3):
            torch.matmul(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 3 * 2.0 * size**3 / (time.perf_counter() - begun))
    return best


__all__ = ["forward_flops", "matmul_rate"]
