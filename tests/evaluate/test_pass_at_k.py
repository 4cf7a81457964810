from __future__ import annotations

import itertools
import random
from dataclasses import replace
from fractions import Fraction
from math import comb
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.exams.examine import Judged
from vivavoce.exams.pass_at_k import highest, most_given, pass_at_k, pass_at_k_figures, pass_hat_k
from vivavoce.records import Problem, Usage
from vivavoce.tasks import Task, open_task

P = Problem("p", "", "")
TEXTS = cast(Task, object())
"""A task by which equal texts alone are the same answer."""


class Numbers:
    """A task by which equal numbers are the same answer."""

    def same(self, problem: Problem, a: str, b: str) -> bool:
        return Fraction(a) == Fraction(b)


@settings(deadline=None)  # the first call may wait for a busy machine
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


def judged(correct: bool | None) -> Judged:
    return Judged("p", "", "", "x", correct, "ok", Usage())


def test_the_mean_is_over_problems_and_what_could_not_be_graded_is_wrong() -> None:
    first, second = [judged(True), judged(False)], [judged(None), judged(False)]
    figures = pass_at_k_figures([first, second], TEXTS, [P])
    assert figures["drawn"] == 2
    assert {k: e["mean"] for k, e in figures["k"].items()} == {"1": 0.25, "2": 0.5}
    low, high = figures["k"]["1"]["interval95"]
    assert 0 <= low < 0.25 < high <= 1


def test_the_values_of_k_double_up_to_the_number_drawn() -> None:
    assert list(pass_at_k_figures([[judged(True)]] * 6, TEXTS, [P])["k"]) == ["1", "2", "4", "6"]
    assert list(pass_at_k_figures([[judged(True)]] * 8, TEXTS, [P])["k"]) == ["1", "2", "4", "8"]


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="needs"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_pass_hat_k_is_the_share_of_choices_of_k_draws_that_are_all_right(n: int) -> None:
    """tau-bench's definition, counted."""
    for c in range(n + 1):
        draws = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            choices = list(itertools.combinations(draws, k))
            assert pass_hat_k(n, c, k) == pytest.approx(sum(map(all, choices)) / len(choices))
            assert pass_hat_k(n, c, k) <= c / n + 1e-12
            assert c / n <= pass_at_k(n, c, k) + 1e-12
    with pytest.raises(ValueError, match=r"pass\^6 needs"):
        pass_hat_k(n, 1, 6)


def judged_answer(answer: str | None, correct: bool) -> Judged:
    return Judged("p", "", "", answer, correct, "ok", Usage())


def test_the_best_of_n_is_what_most_answers_say_by_the_tasks_equality() -> None:
    halves = [judged_answer(half, True) for half in ("1/2", "0.5", "2/4")]
    answers = [
        judged_answer("7", False),
        halves[0],
        judged_answer(None, False),
        halves[1],
        judged_answer("7", False),
        halves[2],
    ]
    numbers = cast(Task, Numbers())
    assert most_given(numbers, P, answers) == 1, "three ways to write a half"
    assert most_given(TEXTS, P, answers) == 0, "as texts, two are more than one"
    assert most_given(TEXTS, P, [judged_answer(None, False)] * 2) == 0
    figures = pass_at_k_figures([[one] for one in answers], numbers, [P])
    assert (figures["vote"]["1"]["mean"], figures["vote"]["6"]["mean"]) == (0.0, 1.0)
    assert [figures[kind]["1"]["mean"] for kind in ("all", "k")] == pytest.approx([0.5, 0.5])
    assert figures["all"]["4"]["mean"] == 0.0


def scored(answer: str | None, correct: bool, probability: float | None, score: float | None) -> Judged:
    return Judged("p", "", "", answer, correct, "ok", Usage(), probability=probability, score=score)


def test_the_best_of_n_may_be_chosen_by_the_students_probability_or_by_judges_and_never_by_gold() -> None:
    answers = [
        scored("7", False, 0.2, 9.0),
        scored("8", True, 0.6, None),
        scored("7", False, 0.5, 3.0),
        scored(None, False, 0.99, 10.0),
    ]
    figures = pass_at_k_figures([[one] for one in answers], TEXTS, [P])
    chosen = {kind: [figures[kind][k]["mean"] for k in ("1", "2", "4")] for kind in ("vote", "likeliest", "judged")}
    assert chosen["likeliest"] == [0.0, 1.0, 1.0], "what cannot be read is never chosen"
    assert chosen["judged"] == [0.0, 0.0, 0.0], "judges like the wrong one, and gold does not help"
    assert chosen["vote"][2] == 0.0
    one_way = [highest([replace(a, correct=not a.correct) for a in answers], [0.1, 0.3, 0.2, 0.9])]
    assert one_way == [highest(answers, [0.1, 0.3, 0.2, 0.9])] == [1]
    unscored = pass_at_k_figures([[judged_answer("7", True)]] * 2, TEXTS, [P])
    assert not {"likeliest", "judged"} & set(unscored)


def test_equal_scores_are_drawn_and_answers_without_one_come_last() -> None:
    def of(problem: str) -> list[Judged]:
        return [replace(judged_answer(answer, True), problem=problem) for answer in "ab"]

    assert {highest(of(f"p{i}"), [0.5, 0.5]) for i in range(20)} == {0, 1}
    assert highest(of("p"), [None, 0.0]) == 1
    assert highest([judged_answer(None, False)] * 2, [0.1, 0.2]) == 0


def test_equals_are_drawn_whatever_is_right() -> None:
    two = [judged_answer("a", True), judged_answer("b", False)]
    assert {most_given(TEXTS, Problem(f"p{i}", "", ""), two) for i in range(20)} == {0, 1}


def test_episodes_have_no_vote() -> None:
    halls = open_task("schoolhouse_halls", {"train": 1, "test": 1})
    assert "vote" not in pass_at_k_figures([[judged(True)]] * 2, halls, [P])
