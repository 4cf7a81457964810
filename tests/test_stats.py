"""Intervals and tests against hand values, scipy where it is installed, and their own definitions."""

import math
import time
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.stats import (
    Interval,
    auroc,
    flip_test,
    holm,
    mcnemar,
    mean_interval,
    mean_of_intervals,
    mean_sd,
    unpaired_interval,
    wilson,
)


def paired(a_only: int, b_only: int, both: int = 3) -> tuple[list[bool], list[bool]]:
    return [True] * a_only + [False] * b_only + [True] * both, [False] * a_only + [True] * b_only + [True] * both


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Stat. Med. 17:857, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
        (81, 100, 0.7222, 0.8749),
    ],
)
def test_wilson_gives_the_published_intervals(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(st.integers(0, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.01, 0.999))
def test_wilson_stays_within_0_and_1_and_contains_the_proportion(pair: tuple[int, int], level: float) -> None:
    right, n = pair
    low, high = wilson(right, n, level)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= right / n <= high


def test_wilson_narrows_with_more_questions_and_knows_nothing_without_any() -> None:
    assert wilson(0, 0) == (0, 1)
    widths = [high - low for low, high in (wilson(n // 2, n) for n in (10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("right", "n", "level"), [(5, 4, 0.95), (-1, 4, 0.95), (1, 4, 1.0), (1, 4, 0.0), (0, -1, 0.5)])
def test_wilson_refuses_what_is_no_proportion(right: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson(right, n, level)


@pytest.mark.parametrize(
    ("a_only", "b_only", "p"),
    [(5, 1, 0.21875), (1, 5, 0.21875), (0, 0, 1.0), (4, 4, 1.0), (1, 0, 1.0), (0, 6, 0.03125), (0, 10, 2 / 1024)],
)
def test_mcnemar_gives_the_binomial_sum(a_only: int, b_only: int, p: float) -> None:
    result = mcnemar(*paired(a_only, b_only))
    assert (result.a_only, result.b_only) == (a_only, b_only)
    assert result.p == pytest.approx(p, rel=1e-12)


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_exact_and_symmetric(a_only: int, b_only: int) -> None:
    n, k = a_only + b_only, min(a_only, b_only)
    exact = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    assert mcnemar(*paired(a_only, b_only)).p == pytest.approx(exact, rel=1e-10)
    assert mcnemar(*paired(b_only, a_only)).p == mcnemar(*paired(a_only, b_only)).p


def test_mcnemar_of_a_million_questions_is_quick() -> None:
    start = time.process_time()
    assert 0 < mcnemar(*paired(500_700, 499_300)).p < 1
    assert mcnemar(*paired(600_000, 400_000)).p == pytest.approx(0.0, abs=1e-300)
    assert time.process_time() - start < 60  # summing the tail term by term would take hours


def test_mcnemar_refuses_different_questions() -> None:
    with pytest.raises(ValueError, match="shorter"):
        mcnemar([True], [])


@pytest.mark.parametrize(
    ("scores", "labels", "area"),
    [
        ([0.1, 0.4, 0.35, 0.8], [False, False, True, True], 0.75),
        ([0.1, 0.2], [True, False], 0.0),
        ([0.5, 0.5, 0.5], [True, False, True], 0.5),
        ([1, 2, 2, 3], [False, True, False, True], 0.875),
    ],
)
def test_auroc_of_small_cases_worked_by_hand(scores: list[float], labels: list[bool], area: float) -> None:
    assert auroc(scores, labels) == area


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40))
def test_auroc_is_the_share_of_pairs_in_the_right_order_with_ties_at_half(rows: list[tuple[int, bool]]) -> None:
    right, wrong = [s for s, label in rows if label], [s for s, label in rows if not label]
    area = auroc([s for s, _ in rows], [label for _, label in rows])
    if not right or not wrong:
        assert area is None
    else:
        won = sum(1.0 if r > w else 0.5 if r == w else 0.0 for r, w in product(right, wrong))
        assert area == pytest.approx(won / (len(right) * len(wrong)))


def test_auroc_refuses_nan_and_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="NaN"):
        auroc([math.nan, 1.0], [True, False])
    with pytest.raises(ValueError, match="shorter"):
        auroc([1.0], [])


def test_mean_and_sample_deviation() -> None:
    assert mean_sd([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx((5, math.sqrt(32 / 7)))
    assert mean_sd([0.5]) == (0.5, None)
    with pytest.raises(ValueError, match="no values"):
        mean_sd([])


def test_all_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for right, n, level in [(7, 10, 0.95), (0, 3, 0.9), (640, 660, 0.99)]:
        interval = stats.binomtest(right, n).proportion_ci(level, method="wilson")
        assert wilson(right, n, level) == pytest.approx((interval.low, interval.high), abs=1e-12)
    for a_only, b_only in [(0, 1), (3, 17), (240, 260), (4_000, 4_300)]:
        p = stats.binomtest(a_only, a_only + b_only).pvalue
        assert mcnemar(*paired(a_only, b_only)).p == pytest.approx(p, rel=1e-9)
    scores, labels = [0.1, 0.5, 0.5, 0.7, 0.9, 0.2], [False, True, False, True, True, False]
    right, wrong = [s for s, y in zip(scores, labels, strict=True) if y], [0.1, 0.5, 0.2]
    assert auroc(scores, labels) == pytest.approx(stats.mannwhitneyu(right, wrong).statistic / 9)


def test_the_interval_of_a_mean_of_shares_does_not_collapse_if_all_are_equal() -> None:
    assert mean_interval([1.0] * 10) == pytest.approx((0.679, 1), abs=1e-3)
    assert mean_interval([0.0] * 10) == pytest.approx((0, 0.321), abs=1e-3)
    low, high = mean_interval([0.25])
    assert 0 <= low < 0.25 < high < 1
    for bad in ([], [math.nan], [1.5]):
        with pytest.raises(ValueError, match="no shares"):
            mean_interval(bad)


def test_the_mean_of_figures_stays_where_figures_can_be() -> None:
    one = wilson(10, 10)
    low, high = mean_of_intervals([(1.0, one), (1.0, one)])
    assert (1 - low) == pytest.approx((1 - one.low) / math.sqrt(2))
    assert high == 1
    assert mean_of_intervals([(0.5, Interval(0.4, 0.7))]) == pytest.approx((0.4, 0.7))
    assert mean_of_intervals([(0.0, Interval(-2, 2))], -1) == (-1, 1)
    with pytest.raises(ValueError, match="no figures"):
        mean_of_intervals([])


def test_hard_families_and_counts_are_refused_in_words() -> None:
    for family, of in (([math.nan, 0.1], None), ([0.1, 0.2], 1)):
        with pytest.raises(ValueError, match="no family"):
            holm(family, of)
    assert holm([]) == []
    with pytest.raises(ValueError, match="no answers to compare"):
        unpaired_interval(0, 0, 1, 2)


@pytest.mark.parametrize(
    ("totals", "p"), [([10**6, -3, 17], 0.5), ([10**6], 1.0), ([0, 0], 1.0), ([500] * 6 + [3], 2 / 2**7)]
)
def test_totals_of_very_unequal_size_have_an_exact_p(totals: list[int], p: float) -> None:
    signs = list(product((1, -1), repeat=len(totals)))
    far = sum(abs(sum(s * abs(t) for s, t in zip(row, totals, strict=True))) >= abs(sum(totals)) for row in signs)
    assert flip_test(totals) == pytest.approx(far / len(signs)) == pytest.approx(p)
