"""Intervals and tests for accuracies, in plain Python: what a table of results needs, and no more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    """Lower and upper end."""

    low: float
    high: float


class McNemar(NamedTuple):
    """Paired right and wrong of two methods on the same questions."""

    a_only: int
    """Questions that only the first got right."""
    b_only: int
    p: float
    """Two-sided exact p-value of 'neither is better'."""


class MeanSd(NamedTuple):
    """Mean and sample standard deviation; ``sd`` is None for a single value, which has none."""

    mean: float
    sd: float | None


def wilson(right: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion.

    ::

        (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n),   p = right/n,   z = Φ⁻¹((1 + level)/2)

    It stays within [0, 1] and keeps its coverage near the ends, where p ± z·sd does not. 81 of 100 gives
    (0.722, 0.875); no observation gives (0, 1).

    Source: Wilson 1927, J. Am. Stat. Assoc. 22:209; without continuity correction.
    Raises ValueError where ``right`` is not between 0 and ``n``, or ``level`` not between 0 and 1.
    """
    if not 0 <= right <= n or not 0 < level < 1:
        raise ValueError(f"no proportion: {right} of {n} at level {level}")
    if n == 0:
        return Interval(0.0, 1.0)
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    # right * (n - right) / n is n p (1 - p) without the rounding that would push an end past 0 or 1
    middle = (right + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (right * (n - right) / n + z2 / 4)) / (n + z2)
    return Interval(
        0.0 if right == 0 else max(0.0, min(middle - half, right / n)),
        1.0 if right == n else min(1.0, max(middle + half, right / n)),
    )


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> McNemar:
    """Exact test of whether two methods differ on the same questions, in the same order.

    Only the ``n`` questions count that one got right and the other wrong. Under 'neither is better' each is a fair
    coin, so with ``k`` the smaller count::

        p = min(1, 2 · sum_{i=0..k} C(n, i) / 2ⁿ)

    5 against 1 gives p = 2 · 7/64 = 0.21875. No continuity correction and no mid-p: the p-value never understates.

    Source: McNemar 1947, Psychometrika 12:153; exact form as in Fagerland et al. 2013, BMC Med. Res. Methodol. 13:91.
    Raises ValueError where the lengths differ.
    """
    a_only = sum(bool(x) and not y for x, y in zip(a, b, strict=True))
    b_only = sum(bool(y) and not x for x, y in zip(a, b, strict=True))
    return McNemar(a_only, b_only, _two_sided(a_only, b_only))


def _two_sided(a: int, b: int) -> float:
    n, k = a + b, min(a, b)
    if a == b:
        return 1.0
    # The largest term by log-gamma, the others by their ratios, C(n, i-1) / C(n, i) = i / (n - i + 1) < 1, until they
    # no longer count: exact to rounding, and no large integer is ever made.
    largest = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
    term = total = 1.0
    for i in range(k, 0, -1):
        term *= i / (n - i + 1)
        total += term
        if term < 1e-17 * total:
            break
    return min(1.0, 2 * math.exp(largest) * total)


def auroc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Chance that a random right answer scores above a random wrong one; ties count half.

    ::

        (R - m(m+1)/2) / (m · w),   R = sum of the midranks of the m right ones, w = number of wrong ones

    0.5 says that the score tells nothing. None where all are right or all wrong, because then it is not defined.

    Source: Mann and Whitney 1947; Hanley and McNeil 1982, Radiology 143:29.
    Raises ValueError where the lengths differ or a score is NaN.
    """
    pairs = sorted(zip(scores, labels, strict=True), key=lambda pair: pair[0])
    if any(math.isnan(score) for score, _ in pairs):
        raise ValueError("a score is NaN")
    right = sum(bool(label) for _, label in pairs)
    wrong = len(pairs) - right
    if not right or not wrong:
        return None
    ranks, start = 0.0, 0
    while start < len(pairs):
        end = start
        while end < len(pairs) and pairs[end][0] == pairs[start][0]:
            end += 1
        midrank = (start + 1 + end) / 2
        ranks += midrank * sum(bool(label) for _, label in pairs[start:end])
        start = end
    return (ranks - right * (right + 1) / 2) / (right * wrong)


def mean_sd(values: Sequence[float]) -> MeanSd:
    """Mean and sample standard deviation, ``sqrt(sum (x - mean)² / (n - 1))``, over the seeds of one setting.

    Raises ValueError where there is no value.
    """
    if not values:
        raise ValueError("no values")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return MeanSd(mean, None)
    return MeanSd(mean, math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1)))


__all__ = ["Interval", "McNemar", "MeanSd", "auroc", "mcnemar", "mean_sd", "wilson"]
