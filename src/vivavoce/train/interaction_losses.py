"""Losses of a discussion beside its right answers: pure functions of embeddings, without tokens.

Paper: arXiv:2402.01620 (MAGDi), objectives 2 and 3. Notation: a discussion has n stands (an agent's answer in a round),
``embedded`` (n, H) is the student's embedding of each, ``edges`` are pairs ``(from, to)`` of stands.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LABELS = ("wrong", "right", "missing")
"""The classes of stands, in their order."""


def position_weighted(states: Tensor) -> Tensor:
    """The mean of a text's hidden states (T, H) in which the t-th of them, from 1, weighs t: shape (H,).

    Under causal attention later tokens have read more (arXiv:2202.08904).

    >>> position_weighted(torch.tensor([[0.0], [3.0]])).tolist()
    [2.0]
    """
    weights = torch.arange(1, len(states) + 1, device=states.device, dtype=states.dtype)
    return (weights[:, None] * states).sum(0) / weights.sum()


def adjacency(edges: Sequence[tuple[int, int]], n: int) -> Tensor:
    """The normalised adjacency of a graph with a loop at every node, shape (n, n): row ``to``, column ``from``.

        A[to, from] = 1 / sqrt(d(to) d(from)),   d(i) = 1 + number of edges that lead to i

    Paper: arXiv:1609.02907, Eq. 2, for a directed graph, as in PyTorch Geometric's GCNConv. An edge counts once.

    By hand, for one edge 0 → 1: d = (1, 2), so that node 1 takes 1/2 of itself and 1/sqrt(2) of node 0.

    >>> adjacency([(0, 1)], 2).round(decimals=4).tolist()
    [[1.0, 0.0], [0.7070999741554260, 0.5]]
    """
    links = torch.eye(n)
    for before, after in edges:
        links[after, before] = 1.0
    scale = links.sum(1).rsqrt()
    return scale[:, None] * links * scale[None, :]


def node_losses(scores: Tensor, labels: Sequence[str]) -> Tensor:
    """Cross-entropy of every stand's class, shape (n,), from class scores (n, 3). Objective 3.

    >>> node_losses(torch.zeros(1, 3), ["right"]).round(decimals=4).tolist()
    [1.0986000299453735]
    """
    wanted = torch.tensor([LABELS.index(label) for label in labels], device=scores.device)
    return torch.nn.functional.cross_entropy(scores, wanted, reduction="none")


def margin_losses(right: Tensor, wrong: Tensor, margin: float) -> Tensor:
    """max(0, margin - s(right) + s(wrong)) of every pair, shape (C, R), from scores (C,) and (R,). Objective 2.

    >>> margin_losses(torch.tensor([0.5]), torch.tensor([0.25, -0.75]), 1.0).tolist()
    [[0.75, 0.0]]
    """
    return (margin - right[:, None] + wrong[None, :]).clamp(min=0)


class GraphEncoder(torch.nn.Module):
    """Two graph convolutions that classify stands: ``softmax(A relu(A X W1) W2)``, with dropout between them."""

    def __init__(self, size: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(size, hidden), torch.nn.Linear(hidden, len(LABELS))
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, embedded: Tensor, adjacent: Tensor) -> Tensor:
        """Class scores (n, 3) from embeddings (n, H) and a normalised adjacency (n, n)."""
        hidden = torch.relu(_with_bias(self.first, embedded, adjacent))
        return _with_bias(self.second, self.dropout(hidden), adjacent)


def _with_bias(layer: torch.nn.Linear, x: Tensor, adjacent: Tensor) -> Tensor:
    return adjacent @ (x @ layer.weight.T) + layer.bias  # as in GCNConv, neighbours do not add the bias again


class ScoreHead(torch.nn.Module):
    """A score between -1 and 1 for each answer, from its embedding."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(size, hidden), torch.nn.Linear(hidden, 1)

    def forward(self, embedded: Tensor) -> Tensor:
        """Scores (n,) from embeddings (n, H)."""
        return torch.tanh(self.second(torch.relu(self.first(embedded))))[:, 0]


class EmbeddingReaders(torch.nn.Module):
    """Both readers of a student's embeddings. They are trained with it, and left behind."""

    def __init__(self, size: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.graph, self.scorer = GraphEncoder(size, hidden, dropout), ScoreHead(size, hidden)


__all__ = [
    "LABELS",
    "EmbeddingReaders",
    "GraphEncoder",
    "ScoreHead",
    "adjacency",
    "margin_losses",
    "node_losses",
    "position_weighted",
]
