"""pass@k: the chance that one of k programs passes, from n that were drawn (Chen et al. 2021, arXiv:2107.03374, Eq. 1).

    pass@k = E over problems of  1 − C(n−c, k) / C(n, k)          n drawn, c of them right

Taking the first k, or 1 − (1 − c/n)^k, would be noisier or biased.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate for one problem, by a product that neither overflows nor cancels.

    Raises ValueError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} needs 0 <= c <= n and 1 <= k <= n, got n = {n}, c = {c}")
    if n - c < k:
        return 1.0
    return 1.0 - prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def mean_pass_at_k(judged: Sequence[Sequence[bool]], k: int) -> float:
    """Over problems, each with the verdicts on its samples; ungradable samples are no verdicts and are left out."""
    return sum(pass_at_k(len(verdicts), sum(verdicts), k) for verdicts in judged) / len(judged)


__all__ = ["mean_pass_at_k", "pass_at_k"]
