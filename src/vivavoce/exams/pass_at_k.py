"""pass@k: the chance that one of k programs passes, from n that were drawn (Chen et al. 2021, arXiv:2107.03374, Eq. 1).

    pass@k = E over problems of  1 − C(n−c, k) / C(n, k)          n drawn, c of them right

Taking the first k, or 1 − (1 − c/n)^k, would be noisier or biased.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any

from vivavoce.exams.examine import Judged
from vivavoce.stats import mean_sd


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate for one problem, by a product that neither overflows nor cancels.

    Raises ValueError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} needs 0 <= c <= n and 1 <= k <= n, got n = {n}, c = {c}")
    if n - c < k:
        return 1.0
    return 1.0 - prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def told(drawn: Sequence[Sequence[Judged]]) -> dict[str, Any]:
    """The entries of ``results.json`` for several answers to each problem, ``drawn`` one by one in the order of
    problems.

    For k = 1, 2, 4, … and the number drawn: the mean over problems, with its normal 95 % interval over problems. An
    answer that could not be parsed or graded counts as wrong.
    """
    n = len(drawn)
    right = [sum(bool(j.correct) for j in answers) for answers in zip(*drawn, strict=True)]
    ks = [2**i for i in range(n.bit_length()) if 2**i < n] + [n]
    return {"drawn": n, "k": {str(k): _estimate([pass_at_k(n, c, k) for c in right]) for k in ks}}


def _estimate(values: Sequence[float]) -> dict[str, Any]:
    mean, sd = mean_sd(values)
    half = 1.0 if sd is None else 1.96 * sd / sqrt(len(values))
    return {"mean": mean, "interval95": [max(0.0, mean - half), min(1.0, mean + half)]}


__all__ = ["pass_at_k", "told"]
