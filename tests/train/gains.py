"""What a preference training gained: log-probabilities of right and wrong answers, before and after."""

from __future__ import annotations

from typing import Any

import torch

from vivavoce.train.packing import Packed
from vivavoce.train.scoring import Method, logprobs


@torch.no_grad()
def scores(model: Any, rows: list[Packed], bf16: bool = False) -> torch.Tensor:
    """log p of right and wrong answer of every tree, shape (trees, 2)."""
    model.eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return torch.stack([logprobs(model, row, Method("rows")) for row in rows])


def gain(after: torch.Tensor, before: torch.Tensor) -> float:
    """How much likelier right answers became than wrong ones, in nats."""
    change = after - before
    return float((change[:, 0] - change[:, 1]).mean())
