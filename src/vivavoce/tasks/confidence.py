"""The author's probability of its own answer, from the log-probabilities of its tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vivavoce.records import Token


def geometric_mean(tokens: Sequence[Token]) -> float:
    """Geometric mean of the token probabilities, ``exp((1/T) * sum_t log p_t)``: the inverse of the perplexity.

    It is independent of the length, so that a long answer is not thought unlikely for being long. 0 for no tokens.
    """
    if not tokens:
        return 0.0
    return min(1.0, math.exp(sum(token.logprob for token in tokens) / len(tokens)))


def at(tokens: Sequence[Token], positions: Sequence[int]) -> list[float]:
    """The log-probabilities of the tokens that hold these characters of the text, positions in rising order.

    A position past the end of the tokens is left out.
    """
    logprobs, end, i = list[float](), 0, -1
    for position in positions:
        while position >= end and i + 1 < len(tokens):
            i += 1
            end += len(tokens[i].text)
        if position < end:
            logprobs.append(tokens[i].logprob)
    return logprobs


__all__ = ["at", "geometric_mean"]
