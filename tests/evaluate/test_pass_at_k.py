from __future__ import annotations

import itertools
import random
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.evaluate.pass_at_k import mean_pass_at_k, pass_at_k


@given(st.integers(1, 400), st.data())
def test_it_is_the_published_formula_in_exact_arithmetic(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    exact = 1 - Fraction(comb(n - c, k), comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(exact), abs=1e-12)


def test_it_is_the_share_of_all_draws_of_k_that_hold_a_right_one() -> None:
    verdicts = [True, False, False, True, False, False]
    for k in range(1, 7):
        draws = list(itertools.combinations(verdicts, k))
        assert pass_at_k(6, 2, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_it_is_unbiased_where_the_plug_in_estimate_is_not() -> None:
    rng, p, n, k = random.Random(0), 0.2, 10, 5
    counts = [sum(rng.random() < p for _ in range(n)) for _ in range(20_000)]
    truth = 1 - (1 - p) ** k
    assert sum(pass_at_k(n, c, k) for c in counts) / len(counts) == pytest.approx(truth, abs=0.01)
    assert abs(sum(1 - (1 - c / n) ** k for c in counts) / len(counts) - truth) > 0.03


def test_it_stays_exact_where_the_binomials_overflow_a_float() -> None:
    assert pass_at_k(10_000, 1, 100) == pytest.approx(0.01, rel=1e-9)


def test_the_mean_is_over_problems() -> None:
    assert mean_pass_at_k([[True, False], [False, False]], 1) == 0.25


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="needs"):
        pass_at_k(n, c, k)
