"""A loss of projected hidden states, chunk by chunk: whole logits never exist, and nothing is projected twice.

    loss = sum over chunks of f(head(hidden[chunk]), chunk)

A checkpointed chunk would be projected again in the backward pass. Here each chunk's gradient is taken at once, while
its logits are there, and only the gradients of the hidden states and of the head are kept: (N, H) and (V, H) numbers in
place of (N, V) logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Of = Callable[[Tensor, slice], Tensor]
"""The loss, a scalar, of one chunk's logits (n, V); the slice says which positions they are."""


def chunked_loss(head: torch.nn.Module, hidden: Tensor, size: int, of: Of) -> Tensor:
    """Sum of ``of`` over chunks of at most ``size`` positions, a scalar with gradient to ``hidden`` and ``head``.

    ``hidden`` has shape (N, H). ``of`` may close over anything, but gradients reach its logits alone.
    """
    if not torch.is_grad_enabled():  # inside the function it never is, and what requires a gradient says so still
        return _Chunked.apply(head, of, size, hidden.detach())  # type: ignore[no-any-return]
    trained = [p for p in head.parameters() if p.requires_grad]
    return _Chunked.apply(head, of, size, hidden, *trained)  # type: ignore[no-any-return]


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, head: torch.nn.Module, of: Of, size: int, hidden: Tensor, *trained: Tensor) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        total = hidden.new_zeros((), dtype=torch.float32)
        towards_hidden = torch.empty_like(hidden) if wanted else None
        towards_head = [torch.zeros_like(p) for p in trained] if wanted else []
        for start in range(0, len(hidden), size):
            part = slice(start, min(start + size, len(hidden)))
            if towards_hidden is None:
                total += of(head(hidden[part]), part)
                continue
            with torch.enable_grad():
                leaf = hidden[part].detach().requires_grad_()
                loss = of(head(leaf), part)
            gradients = torch.autograd.grad(loss, [leaf, *trained])
            total += loss.detach()
            towards_hidden[part] = gradients[0]
            for sum_, gradient in zip(towards_head, gradients[1:], strict=True):
                sum_ += gradient
        if towards_hidden is not None:
            ctx.save_for_backward(towards_hidden, *towards_head)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        towards_hidden, *towards_head = ctx.saved_tensors
        (scale,) = outer
        return None, None, None, scale * towards_hidden, *(scale * g for g in towards_head)


__all__ = ["Of", "chunked_loss"]
