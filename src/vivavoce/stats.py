"""Intervals and tests for accuracies, in plain Python: what a table of results needs, and no more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

LEVEL = 0.05
"""Two-sided level of tests; intervals hold 1 - LEVEL."""
_POWER = 0.8
""":attr:`Difference.detectable` would be seen with this chance."""


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

    It stays within [0, 1] and keeps its coverage near the ends; p ± z·sd does neither. 81 of 100 gives
    (0.722, 0.875); no observation gives (0, 1).

    Source: Wilson 1927, J. Am. Stat. Assoc. 22:209; without continuity correction.
    Raises ValueError if ``right`` is not between 0 and ``n``, or ``level`` not between 0 and 1.
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
    Raises ValueError if the lengths differ.
    """
    a_only = sum(bool(x) and not y for x, y in zip(a, b, strict=True))
    b_only = sum(bool(y) and not x for x, y in zip(a, b, strict=True))
    return McNemar(a_only, b_only, _flip_sizes([(1, a_only + b_only)], abs(a_only - b_only)))


def kappa(a: Sequence[bool], b: Sequence[bool]) -> float | None:
    """Cohen's kappa of two judges of the same things: 1 if they always agree, 0 if as often as by chance.

    ``(p - e) / (1 - e)``, p the share on which they agree and e what two judges with their shares of True would agree
    on by chance. None if there is nothing to judge, or if chance alone would make them agree on everything.
    """
    if not a:
        return None
    n = len(a)
    agree = sum(x == y for x, y in zip(a, b, strict=True)) / n
    by_chance = (sum(a) * sum(b) + (n - sum(a)) * (n - sum(b))) / n**2
    return None if by_chance == 1 else (agree - by_chance) / (1 - by_chance)


def auroc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Chance that a random right answer scores above a random wrong one; ties count half.

    ::

        (R - m(m+1)/2) / (m · w),   R = sum of the midranks of the m right ones, w = number of wrong ones

    0.5 says that the score tells nothing. None if all are right or all wrong, because then it is not defined.

    Source: Mann and Whitney 1947; Hanley and McNeil 1982, Radiology 143:29.
    Raises ValueError if the lengths differ or a score is NaN.
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

    Raises ValueError if there is no value.
    """
    if not values:
        raise ValueError("no values")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return MeanSd(mean, None)
    return MeanSd(mean, math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1)))


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Interval of the mean of shares, each between 0 and 1, one of each question.

    ::

        m, sd of the values with z²/2 ones and z²/2 zeros more        interval = m ± z sd / sqrt(n + z²)

    The further values keep the interval from collapsing if all shares are equal: ten shares of 1 give (0.679, 1). For
    shares of 0 and 1 it is Agresti and Coull's interval of a proportion.

    Source: Agresti and Coull 1998, Am. Stat. 52:119. Raises ValueError if there is no share, or one is NaN or outside.
    """
    if not values or not all(0 <= v <= 1 for v in values):
        raise ValueError(f"no shares between 0 and 1: {list(values)[:5]}")
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    n, mean = len(values) + z2, math.fsum(values) / len(values)
    middle = (math.fsum(values) + z2 / 2) / n
    square = (math.fsum((v - middle) ** 2 for v in values) + z2 / 2 * ((1 - middle) ** 2 + middle**2)) / n
    half = math.sqrt(z2 * square / n)
    return Interval(max(0.0, min(middle - half, mean)), min(1.0, max(middle + half, mean)))


def mean_of_intervals(parts: Sequence[tuple[float, Interval]], least: float = 0.0) -> Interval:
    """Interval of the mean of independent figures, from each figure and its interval, all between ``least`` and 1.

    ::

        mean - sqrt(sum (x_t - l_t)²) / T    to    mean + sqrt(sum (u_t - x_t)²) / T

    Each side has a width of its own, so that the interval does not reach past what there can be.

    Source: Zou and Donner 2008, Stat. Med. 27:1693. Raises ValueError if there is no figure.
    """
    if not parts:
        raise ValueError("no figures")
    count = len(parts)
    mean = math.fsum(x for x, _ in parts) / count
    below = math.hypot(*(x - i.low for x, i in parts)) / count
    above = math.hypot(*(i.high - x for x, i in parts)) / count
    return Interval(max(least, mean - below), min(1.0, mean + above))


class Difference(NamedTuple):
    """The gain of ``b`` over ``a`` on the same questions, over all training seeds. Shares of the answers, -1 to 1."""

    gain: float
    interval: Interval
    p: float
    """Two-sided p-value of 'neither is better' (:func:`flip_test`)."""
    detectable: float | None
    """The smallest gain that so many questions would show in four of five such comparisons. None if there are too few
    to show any: p would not be below :data:`LEVEL` even if all spoke for one arm."""
    clusters: int
    """Independent units: questions, or groups of questions."""


def difference(clusters: Sequence[tuple[float, int]], level: float = 0.95) -> Difference:
    """Gain of one arm over another, with its interval and one test over seeds and questions.

    Each cluster is a unit that is drawn by itself, a question or a group of questions, with all training seeds in it:
    ``(T, M)``, T the answers that only ``b`` got right less those that only ``a`` got right, M all of its answers.
    Answers to one question by several seeds are alike, so they are one observation and not several::

        gain = sum T / sum M        d, se of the clusters with two more, (+m, m) and (-m, m), m the mean of M
        d = sum T / sum M           se² = C / (C - 1) · sum (T - d M)² / (sum M)²        interval = d ± t se

    With one seed and single questions this is Bonett and Price's adjusted interval of a paired difference; the two
    pseudo-clusters keep it from collapsing if no answer differs. ``p`` is exact, and McNemar's with one seed. Seeds are
    taken as they are: the interval is about other questions, not about other seeds.

    Source: Bonett and Price 2012, J. Educ. Behav. Stat. 37:479; Liang and Zeger 1986, Biometrika 73:13; recommended by
    Fagerland et al. 2014, Stat. Med. 33:2850. Raises ValueError if there is no answer.
    """
    total = sum(m for _, m in clusters)
    if not total:
        raise ValueError("no answers to compare")
    mean = total / len(clusters)
    more = [*clusters, (mean, mean), (-mean, mean)]
    n, answers = len(more), total + 2 * mean
    d = sum(t for t, _ in more) / answers
    scale = math.sqrt(n / (n - 1)) / answers
    se = scale * math.sqrt(math.fsum((t - d * m) ** 2 for t, m in more))
    half = t_quantile((1 + level) / 2, n - 1) * se
    null = scale * math.sqrt(math.fsum(t * t for t, _ in more))  # if neither were better
    z = NormalDist().inv_cdf(1 - LEVEL / 2) + NormalDist().inv_cdf(_POWER)
    fewest = 1 + math.ceil(-math.log2(LEVEL))  # clusters that must all speak for one arm: 2 / 2**k below the level
    return Difference(
        sum(t for t, _ in clusters) / total,
        Interval(max(-1.0, d - half), min(1.0, d + half)),
        flip_test([t for t, _ in clusters]),
        None if len(clusters) < fewest else min(1.0, max(z * null, fewest / len(clusters))),
        len(clusters),
    )


def flip_test(totals: Sequence[float]) -> float:
    """Exact two-sided p-value of 'neither is better', by flipping the sign of every cluster's total.

    If neither is better, ``T`` and ``-T`` are equally likely, cluster by cluster. With S the sum of all totals::

        p = P(|sum ± |T|| >= |S|)       over all 2ⁿ signs, each as likely

    With totals of -1, 0 and 1 it is McNemar's exact test: 5 against 1 gives 0.21875. Totals are whole numbers. The tail
    is computed under signs that are tilted towards it and weighed back, so that tiny values keep their digits.

    Source: Fisher 1935, The Design of Experiments, ch. 3; Winkler et al. 2015, NeuroImage 123:253 (whole-block flips).
    """
    sizes = Counter(round(abs(t)) for t in totals)
    return _flip_sizes([(size, count) for size, count in sizes.items() if size], abs(round(sum(totals))))


def _flip_sizes(sizes: Sequence[tuple[int, int]], sum_: int) -> float:
    """The same of totals of known size: ``(size, how many)``."""
    if not sum_:
        return 1.0
    tilt = _tilt(sizes, sum_)
    # log of the mean of exp(tilt · sum), by which tilted chances are weighed back
    scale = math.fsum(count * _log_cosh(tilt * size) for size, count in sizes)
    chances = {0: 1.0}
    for size, count in sizes:
        chances = _with(chances, size, count, 1 / (1 + math.exp(-2 * tilt * size)))
    tail = math.fsum(chance * math.exp(tilt * (sum_ - at)) for at, chance in chances.items() if at >= sum_)
    return min(1.0, 2 * tail * math.exp(scale - tilt * sum_)) if tail else 0.0


def _tilt(sizes: Sequence[tuple[int, int]], sum_: int) -> float:
    """The exponent under which the expected sum is ``sum_``, or near the largest one that there can be."""
    largest = sum(size * count for size, count in sizes)
    wanted = min(sum_, largest - 0.5)
    low, high = 0.0, 1.0
    while sum(count * size * math.tanh(high * size) for size, count in sizes) < wanted and high < 50:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if sum(count * size * math.tanh(middle * size) for size, count in sizes) < wanted:
            low = middle
        else:
            high = middle
    return high


def _log_cosh(x: float) -> float:
    return x + math.log1p(math.exp(-2 * x)) - math.log(2)


def _with(chances: dict[int, float], size: int, count: int, plus: float) -> dict[int, float]:
    """The distribution of a sum with ``count`` more terms, each ``size`` by chance ``plus``, else ``-size``."""
    reach = 10 * math.sqrt(count * plus * (1 - plus)) + 10  # beyond it is nothing that a float would hold
    low, high = max(0, int(count * plus - reach)), min(count, int(count * plus + reach))
    step = {size * (2 * k - count): _binomial(count, k, plus) for k in range(low, high + 1)}
    kept = [(at, chance) for at, chance in step.items() if chance > 1e-18]
    sums: dict[int, float] = {}
    for at, chance in chances.items():
        for by, more in kept:
            sums[at + by] = sums.get(at + by, 0.0) + chance * more
    return {at: chance for at, chance in sums.items() if chance > 1e-18}


def _binomial(n: int, k: int, p: float) -> float:
    if p == 1:  # the other sign of a term that is much larger than the others: a float does not hold its chance
        return float(k == n)
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log + (k * math.log(p) if k else 0) + ((n - k) * math.log1p(-p) if n - k else 0))


def unpaired_interval(right_a: int, n_a: int, right_b: int, n_b: int, level: float = 0.95) -> Interval:
    """Newcombe's hybrid score interval of what ``b`` gains over ``a`` on *different* questions.

    ::

        d - sqrt((p_b - l_b)² + (u_a - p_a)²)   to   d + sqrt((u_b - p_b)² + (p_a - l_a)²),    l, u Wilson's

    56 of 70 against 48 of 80 gives (-0.3339, -0.0524), for ``a`` the 56.

    Source: Newcombe 1998, Stat. Med. 17:873, method 10. Raises ValueError if one of them answered nothing.
    """
    if not n_a or not n_b:
        raise ValueError(f"no answers to compare: {n_a} and {n_b}")
    (low_a, high_a), (low_b, high_b) = wilson(right_a, n_a, level), wilson(right_b, n_b, level)
    a, b = right_a / n_a, right_b / n_b
    return Interval(
        b - a - math.hypot(b - low_b, high_a - a),
        b - a + math.hypot(high_b - b, a - low_a),
    )


def holm(ps: Sequence[float], of: int | None = None) -> list[float]:
    """Holm's step-down correction: the k-th smallest of m p-values is multiplied by m - k + 1, made monotone.

    ``of`` is m, the tests that were planned; None: as many as there are. By hand: .01, .04, .03 give .03, .06, .06.

    Source: Holm 1979, Scand. J. Stat. 6:65. Raises ValueError if ``of`` is less than the tests that were made, or a
    p-value is NaN.
    """
    if any(math.isnan(p) for p in ps) or (of is not None and of < len(ps)):
        raise ValueError(f"no family of {of} tests: {list(ps)}")
    corrected, floor, m = list(ps), 0.0, len(ps) if of is None else of
    for k, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        corrected[i] = floor = max(floor, min(1.0, (m - k) * ps[i]))
    return corrected


def t_quantile(q: float, df: float) -> float:
    """Quantile of Student's t distribution: 2.228 for q = .975 and 10 degrees of freedom.

    Raises ValueError unless 0 < q < 1 and df > 0.
    """
    if not 0 < q < 1 or df <= 0:
        raise ValueError(f"no quantile {q} of t with {df} degrees of freedom")
    if q < 0.5:
        return -t_quantile(1 - q, df)
    low, high = 0.0, 1.0
    while 1 - t_tail(high, df) < q:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - t_tail(middle, df) < q else (low, middle)
    return high


def t_tail(t: float, df: float) -> float:
    """Chance that Student's t exceeds ``t`` from 0 up: half of the incomplete beta I(df / (df + t²); df / 2, 1 / 2)."""
    return 0.5 * _incomplete_beta(df / (df + t * t), df / 2, 0.5)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by Lentz's continued fraction (Numerical Recipes, 6.4)."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    h = d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            h *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return front * h / a


__all__ = [
    "LEVEL",
    "Difference",
    "Interval",
    "McNemar",
    "MeanSd",
    "auroc",
    "difference",
    "flip_test",
    "holm",
    "kappa",
    "mcnemar",
    "mean_interval",
    "mean_of_intervals",
    "mean_sd",
    "t_quantile",
    "unpaired_interval",
    "wilson",
]
