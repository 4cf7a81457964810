"""Figures from several answers, or episodes, to each question: pass@k, pass^k, and the best of n by a vote or a score.

    pass@k = E over problems of  1 − C(n−c, k) / C(n, k)          one of k is right: n drawn, c of them right
    pass^k = E over problems of  C(c, k) / C(n, k)                all k are right: how far an agent can be relied on

Papers: Chen et al. 2021, arXiv:2107.03374, Eq. 1; Yao et al. 2024 (τ-bench), arXiv:2406.12045, section 3. Taking the
first k, or powers of c/n, would be noisier or biased. pass@1 and pass^1 are the mean over all draws.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from vivavoce.exams.examine import Judged
from vivavoce.records import Problem, seed_of
from vivavoce.stats import mean_interval, mean_sd
from vivavoce.tasks import Task
from vivavoce.tasks.acting import Acting
from vivavoce.tasks.agreement import classes


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate for one problem, by a product that neither overflows nor cancels.

    Raises ValueError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    _check("@", n, c, k)
    if n - c < k:
        return 1.0
    return 1.0 - prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def pass_hat_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of the chance that all of k draws are right, for one problem. Raises as :func:`pass_at_k`.

    >>> [pass_hat_k(4, 3, k) for k in (1, 2, 4)]
    [0.75, 0.5, 0.0]
    """
    _check("^", n, c, k)
    return prod((c - i) / (n - i) for i in range(k)) if c >= k else 0.0


def _check(sign: str, n: int, c: int, k: int) -> None:
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass{sign}{k} needs 0 <= c <= n and 1 <= k <= n, got n = {n}, c = {c}")


def pass_at_k_figures(drawn: Sequence[Sequence[Judged]], task: Task, problems: Sequence[Problem]) -> dict[str, Any]:
    """The entries of ``results.json`` for several answers to each problem, ``drawn`` one by one in the order of
    ``problems``.

    They are means over problems for k = 1, 2, 4, … and the number drawn, with 95 % intervals over problems.
    ``k`` is pass@k, ``all`` is pass^k. The others are of one of the first k, chosen without gold: the answer that
    most gave (``vote``), the one to which the student gives the greatest probability (``likeliest``), or the one that
    judges scored highest (``judged``), if such scores were asked for. Nothing is chosen among episodes. An answer that
    could not be parsed or graded counts as wrong.
    """
    n, by_problem = len(drawn), list(zip(*drawn, strict=True))
    right = [sum(bool(j.correct) for j in answers) for answers in by_problem]
    ks = [2**i for i in range(n.bit_length()) if 2**i < n] + [n]
    made: dict[str, Any] = {
        "drawn": n,
        "k": {str(k): _estimate([pass_at_k(n, c, k) for c in right]) for k in ks},
        "all": {str(k): _estimate([pass_hat_k(n, c, k) for c in right]) for k in ks},
    }
    if not isinstance(task, Acting):
        by_id = {p.id: p for p in problems}
        choices: dict[str, Callable[[Sequence[Judged]], int]] = {
            "vote": lambda answers: most_given(task, by_id[answers[0].problem], answers)
        }
        every = [j for answers in by_problem for j in answers]
        if any(j.probability is not None for j in every):
            choices["likeliest"] = lambda answers: highest(answers, [j.probability for j in answers])
        if any(j.score is not None for j in every):
            choices["judged"] = lambda answers: highest(answers, [j.score for j in answers])
        for kind, choose in choices.items():
            made[kind] = {
                str(k): _estimate([float(bool(of[:k][choose(of[:k])].correct)) for of in by_problem]) for k in ks
            }
    return made


def highest(answers: Sequence[Judged], scores: Sequence[float | None]) -> int:
    """The index of the answer with the highest score; gold is not looked at.

    Equals are drawn by a seed of the problem. An answer that cannot be read is chosen only if none can, and one without
    a score (None or NaN) only if none has one.
    """
    ranks = [
        (-math.inf if score is None or math.isnan(score) else score) if j.answer is not None else None
        for j, score in zip(answers, scores, strict=True)
    ]
    readable = [rank for rank in ranks if rank is not None]
    if not readable:
        return 0
    best = [i for i, rank in enumerate(ranks) if rank == max(readable)]
    return random.Random(seed_of("best of n", answers[0].problem)).choice(best)


def most_given(task: Task, problem: Problem, answers: Sequence[Judged]) -> int:
    """The index of the answer that most of ``answers`` agree with, by the task's equality; gold is not looked at.

    Equals are drawn by a seed of the problem. An answer that could not be read has no vote; the first one if none has.
    """
    groups = classes(task, problem, [j.answer for j in answers])
    votes = Counter(group for group in groups if group is not None)
    if not votes:
        return 0
    most = max(votes.values())
    equals = sorted(group for group, count in votes.items() if count == most)
    return groups.index(random.Random(seed_of("best of n", problem.id)).choice(equals))


def _estimate(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": mean_sd(values).mean, "interval95": list(mean_interval(values))}


__all__ = ["highest", "most_given", "pass_at_k", "pass_at_k_figures", "pass_hat_k"]
