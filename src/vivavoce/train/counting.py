"""The tokens of an answer that count in the on-policy loss: those of tool calls, or those with most information."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vivavoce.agents.call_text import call_spans
from vivavoce.train.alignment import token_bytes


def of_calls(tokenizer: Any, ids: Sequence[int]) -> np.ndarray:
    """Whether each token of an answer belongs to a tool call, tags included: bool, one for each."""
    pieces = token_bytes(tokenizer, ids)
    ends = np.cumsum([len(piece) for piece in pieces])
    inside = np.zeros(len(ids), bool)
    for start, stop in call_spans(b"".join(pieces).decode("latin-1")):  # one character a byte; tags are ASCII
        inside |= (ends > start) & (ends - [len(piece) for piece in pieces] < stop)
    return inside


def informative_factors(
    factors: np.ndarray, information: np.ndarray, answers: Sequence[range], share: float
) -> np.ndarray:
    """The factor of each token if only a share of every answer's tokens counts, those with most information.

    ``factors`` are those without that rule, ``information`` is that of each token, ``answers`` the tokens of each
    answer. An answer counts as much as before, by at least one of its tokens. By hand: 0.4 of five tokens are two.

    >>> informative_factors(np.full(5, 0.2), np.array([3.0, 1.0, 2.0, 0.0, 9.0]), [range(5)], 0.4).tolist()
    [0.5, 0.0, 0.0, 0.0, 0.5]
    """
    weights = np.zeros_like(factors)
    for answer in answers:
        counting = [t for t in answer if factors[t] > 0]
        best = sorted(counting, key=lambda t: (-information[t], t))[: max(1, math.ceil(share * len(counting) - 1e-9))]
        weights[best] = factors[counting].sum() / max(1, len(best))
    return weights


__all__ = ["informative_factors", "of_calls"]
