"""Muon: updates of the hidden matrices made orthogonal, AdamW for all else.

    M <- m M + (1 - m) G         U = orthogonal(m M + (1 - m) G)         W <- (1 - r d) W - 0.2 sqrt(max(a, b)) r U

for a matrix W of shape (a, b) with gradient G, momentum m, learning rate r and weight decay d. A gradient's few large
directions drown its many small ones; with all of them equally long, a small model learns the same rows in about half
the updates (docs/performance-details.md). Embeddings, output layer, norms and biases are no maps from state to state,
and AdamW moves them.

Source: K. Jordan and others, 2024 (kellerjordan.github.io/posts/muon); the factor 0.2 sqrt(max(a, b)), which makes
updates as large as AdamW's, and the weight decay are arXiv:2502.16982's. ``torch.optim.Muon`` takes one matrix at a
time, in bfloat16; here those of one shape are taken together, and on a CPU in float32: half the time of its step there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from vivavoce.train.settings import TrainSettings

_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_TOGETHER = 2**24
"""Numbers in the matrices that are made orthogonal in one go, which bounds the memory it takes."""


class Muon(torch.optim.Optimizer):
    """The optimiser of a whole model, whose parameters named in ``decays`` decay. All its state is per parameter."""

    def __init__(self, model: nn.Module, settings: TrainSettings, decays: Collection[str]) -> None:
        assert settings.muon is not None
        matrices = hidden_matrices(model)
        others = {n: p for n, p in model.named_parameters() if p.requires_grad and n not in matrices}
        rate, decay = settings.learning_rate, settings.weight_decay
        adam = {"lr": rate, "betas": settings.adam_betas, "eps": settings.adam_eps}
        muon = {"lr": settings.muon.learning_rate or rate, "momentum": settings.muon.momentum}
        groups = [
            {"params": [p for n, p in others.items() if n in decays], "weight_decay": decay, **adam},
            {"params": [p for n, p in others.items() if n not in decays], "weight_decay": 0.0, **adam},
            {"params": list(matrices.values()), "weight_decay": decay, **muon},
        ]
        super().__init__([group for group in groups if group["params"]], {})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of all parameters that have a gradient; ``closure``, if given, makes the gradients and gives
        the loss.
        """
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            learning = [p for p in group["params"] if p.grad is not None]
            if "momentum" in group:
                self._matrices(group, learning)
            else:
                self._update_others(group, learning)
        return loss

    def _matrices(self, group: dict[str, Any], learning: list[Tensor]) -> None:
        alike: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
        for p in learning:
            alike[p.shape].append(p)
        keep = group["momentum"]
        for shape, matrices in alike.items():
            rate = 0.2 * max(shape) ** 0.5 * group["lr"]
            size = max(1, _TOGETHER // shape.numel())
            for chunk in (matrices[i : i + size] for i in range(0, len(matrices), size)):
                ahead = []
                for p in chunk:
                    if not self.state[p]:
                        self.state[p] = {"mean": torch.zeros_like(p)}
                    mean = self.state[p]["mean"].lerp_(_gradient(p), 1 - keep)
                    ahead.append(_gradient(p).lerp(mean, keep))
                for p, update in zip(chunk, orthogonal(torch.stack(ahead)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _update_others(self, group: dict[str, Any], learning: list[Tensor]) -> None:
        for p in learning:
            if not self.state[p]:
                self.state[p] = {"step": torch.zeros(()), "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
        beta1, beta2 = group["betas"]
        adamw(
            learning,
            [_gradient(p) for p in learning],
            [self.state[p]["mean"] for p in learning],
            [self.state[p]["square"] for p in learning],
            [],
            [self.state[p]["step"] for p in learning],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad


def orthogonal(matrices: Tensor) -> Tensor:
    """About the orthogonal factor U V^T of each of ``matrices`` = U S V^T, of shape (n, a, b).

    By a Newton-Schulz iteration of fifth order, which brings large and middling singular values to between 0.7 and 1.2
    and not to 1: it does no harm and is faster. In bfloat16 on a GPU.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def hidden_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that map states to states: all matrices but embeddings, of tokens or positions, and output layer."""
    output = getattr(model, "get_output_embeddings", lambda: None)()
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding)] + ([output] if output is not None else [])
    apart = {id(p) for module in tables for p in module.parameters()}
    return {name: p for name, p in model.named_parameters() if p.ndim == 2 and p.requires_grad and id(p) not in apart}


__all__ = ["Muon", "hidden_matrices", "orthogonal"]
