"""Comparisons over seeds and questions: by hand, against scipy, and in drawn worlds of which the truth is known."""

from __future__ import annotations

import itertools
import random

import pytest

from vivavoce.config import Statistics
from vivavoce.exams.examine import Judged
from vivavoce.exams.pairs import clusters_of, paired_entries
from vivavoce.exams.table import compare_arms, macro, outcomes
from vivavoce.records import Problem, Usage
from vivavoce.stats import difference, flip_test, mcnemar, t_quantile, t_tail, unpaired_interval
from vivavoce.tasks import open_task


def rows(right: str, group: str = "") -> list[Judged]:
    """An answer for each letter, right where it is R; the questions of a group are called after it."""
    return [Judged(f"{group}{i}", group, "", "1", c == "R", "ok", Usage()) for i, c in enumerate(right)]


# --- one test over clusters


def test_with_one_seed_the_test_is_mcnemars() -> None:
    for a, b in ((0, 1), (3, 9), (9, 3), (40, 60), (0, 0), (5, 5), (700, 20)):
        flips = flip_test([-1] * a + [1] * b + [0] * 7)
        assert flips == pytest.approx(mcnemar([True] * a + [False] * b, [False] * a + [True] * b).p, rel=1e-12)


def test_p_is_the_share_of_sign_flips_that_go_as_far() -> None:
    drawn = random.Random(1)
    for _ in range(10):
        totals = [drawn.choice([-3, -2, -1, 0, 1, 2, 3, 3]) for _ in range(9)]
        all_signs = [
            abs(sum(s * t for s, t in zip(signs, totals, strict=True)))
            for signs in itertools.product((-1, 1), repeat=9)
        ]
        share = sum(one >= abs(sum(totals)) for one in all_signs) / len(all_signs)
        assert flip_test(totals) == pytest.approx(share, rel=1e-9)


def test_answers_of_several_seeds_to_one_question_are_one_observation() -> None:
    """Three seeds that answer alike say no more about other questions than one of them."""
    one, three = [(1, 1)] * 6 + [(0, 1)] * 30, [(3, 3)] * 6 + [(0, 3)] * 30
    assert difference(one).p == pytest.approx(2 / 64)
    assert difference(three).p == pytest.approx(2 / 64)
    assert difference(one).interval == pytest.approx(difference(three).interval)
    apart = [(1, 3)] * 18 + [(0, 3)] * 18
    assert difference(apart).gain == difference(three).gain
    assert difference(apart).p < difference(three).p, "spread over more questions, the same gain is better attested"


def test_the_interval_is_bonett_and_prices_with_one_seed() -> None:
    """n = 100, b = 5, c = 15: p12 = 6/102, p21 = 16/102; sd² = (.2157 - .0980²) / 101; t(101) = 1.98373."""
    gain = difference([(-1, 1)] * 5 + [(1, 1)] * 15 + [(0, 1)] * 80)
    middle, half = 10 / 102, 1.98373 * ((22 / 102 - (10 / 102) ** 2) / 101) ** 0.5
    assert gain.interval == pytest.approx((middle - half, middle + half), abs=1e-5)
    assert gain.gain == 0.1


def test_an_interval_does_not_collapse_if_no_answer_differs() -> None:
    low, high = difference([(0, 1)] * 50).interval
    assert (low, high) == (pytest.approx(-high), pytest.approx(0.055, abs=0.001))
    assert difference([(1, 1)] * 10).interval.high == 1.0


@pytest.mark.parametrize(
    ("n", "a_only", "b_only", "alike"), [(50, 0.1, 0.1, 0), (60, 0.2, 0.3, 0.8), (40, 0.02, 0.1, 1)]
)
def test_intervals_hold_the_truth_in_19_of_20_worlds(n: int, a_only: float, b_only: float, alike: float) -> None:
    """``alike`` is how often another seed answers as the first did."""
    drawn, held, worlds = random.Random(n), 0, 200
    for _ in range(worlds):
        clusters = []
        for _ in range(n):
            first, total = drawn.random(), 0
            for _ in range(3):
                u = first if drawn.random() < alike else drawn.random()
                total += 1 if u < b_only else -1 if u < b_only + a_only else 0
            clusters.append((total, 3))
        low, high = difference(clusters).interval
        held += low <= b_only - a_only <= high
    assert held / worlds > 0.92


def test_the_detectable_gain_is_found_in_four_of_five_worlds() -> None:
    drawn, detected = random.Random(0), 0
    gain = difference([(drawn.choice([1, -1, 0, 0, 0]), 1) for _ in range(300)]).detectable
    assert gain is not None
    for _ in range(300):
        totals = drawn.choices([1, -1, 0], [(0.4 + gain) / 2, (0.4 - gain) / 2, 0.6], k=300)
        detected += flip_test(totals) < 0.05
    assert 0.7 < detected / 300 < 0.9
    assert difference([(0, 1)] * 30).detectable == pytest.approx(6 / 30, abs=0.07)
    assert difference([(1, 1)] * 5).detectable is None  # p would be .0625 at best
    more = [difference([(1, 1), (-1, 1), *[(0, 1)] * 8] * k).detectable or 1.0 for k in (2, 20, 200)]
    assert more == sorted(more, reverse=True)


def test_student_t_and_binomials_are_scipys() -> None:
    scipy = pytest.importorskip("scipy.stats")
    for df in (1, 2, 3.5, 10, 100, 3000):
        for q in (0.6, 0.9, 0.975, 0.999):
            assert t_quantile(q, df) == pytest.approx(scipy.t.ppf(q, df), rel=1e-7)
        assert t_tail(2.5, df) == pytest.approx(scipy.t.sf(2.5, df), rel=1e-9)
    for k, n in ((3, 12), (60, 160), (20, 720)):
        p = flip_test([1] * (n - k) + [-1] * k)
        assert p == pytest.approx(scipy.binomtest(k, n).pvalue, rel=1e-9)


def test_the_difference_on_other_questions_is_newcombes() -> None:
    """His example: 56 of 70 against 48 of 80, with the sign of what the second gains."""
    assert unpaired_interval(56, 70, 48, 80) == pytest.approx((-0.3339, -0.0524), abs=1e-4)


# --- what belongs together


def test_questions_that_belong_together_count_once() -> None:
    old, new = {0: rows("W" * 12)}, {0: rows("R" * 12)}
    (alone,) = paired_entries({"a": old, "b": new}, [("a", "b")])
    (grouped,) = paired_entries({"a": old, "b": new}, [("a", "b")], {str(i): f"passage {i // 4}" for i in range(12)})
    assert (alone["pooled"]["clusters"], grouped["pooled"]["clusters"]) == (12, 3)
    assert alone["pooled"]["p"] == pytest.approx(2 / 2**12)
    assert grouped["pooled"]["p"] == pytest.approx(2 / 2**3)
    assert grouped["pooled"]["interval95"][0] < alone["pooled"]["interval95"][0]
    assert grouped["p"] == alone["p"], "McNemar's test of the first seed stays what it was"


def test_a_recipe_may_say_that_groups_are_what_is_drawn() -> None:
    task = open_task("schoolhouse", {"test": 8})
    problems = task.problems("test")
    assert clusters_of(task, problems, Statistics()) == {}
    by_group = clusters_of(task, problems, Statistics(cluster="group"))
    assert set(by_group.values()) == {p.group for p in problems}


def test_logiqas_questions_about_one_passage_belong_together(tmp_path) -> None:
    record = "\n{a}\n{passage}\n{q}\nA.one\nB.two\nC.three\nD.four"
    texts = [("b", "Rain falls.", "Why?"), ("a", "Rain falls.", "Where?"), ("c", "Sun shines.", "Why then?")]
    made = "\n".join(record.format(a=a, passage=p, q=q) for a, p, q in texts)
    (tmp_path / "test.txt").write_text(made + "\n", "utf-8")
    (tmp_path / "train.txt").write_text(record.format(a="a", passage="Snow.", q="When?") + "\n", "utf-8")
    task = open_task("logiqa", {"train_path": tmp_path / "train.txt", "test_path": tmp_path / "test.txt"})
    first, second, third = clusters_of(task, task.problems("test"), Statistics()).values()
    assert first == second != third


# --- the family, words, and means over tasks


def test_the_family_is_what_was_planned_whether_or_not_it_could_be_tested() -> None:
    tested = {"a": {0: rows("W" * 10)}, "b": {0: rows("R" * 10)}}
    (pair,) = paired_entries(tested, [("a", "b"), ("a", "c"), ("b", "c")])
    assert pair["p_holm"] == pytest.approx(3 * pair["pooled"]["p"])


def test_a_gain_too_small_to_matter_is_told_from_too_few_questions() -> None:
    from vivavoce.report.comparison import paired_tests

    def verdict(n: int, matters: float) -> str:
        arms = {"a": {0: rows("WR" + "R" * n)}, "b": {0: rows("RW" + "R" * n)}}
        (test,) = paired_tests({**compare_arms("t", arms, [("a", "b")], statistics=Statistics(matters=matters))})
        return test.doubt

    assert verdict(30, 0.02).startswith("not significant: too few questions to tell less than")
    assert verdict(3000, 0.02) == "no difference of 2 points or more"
    assert verdict(3000, 0.001).startswith("not significant: too few questions")
    assert verdict(1, 0.02) == "not significant: too few questions to show any gain"


def test_the_mean_over_tasks_counts_each_task_the_same() -> None:
    def task(n: int, right: int) -> dict:
        arms = {"a": {0: rows("W" * n)}, "b": {0: rows("R" * right + "W" * (n - right))}}
        return compare_arms(f"of {n}", arms, [("a", "b")])

    large, small = task(1000, 500), task(10, 1)
    means = macro(large, {"small": small})
    assert means["tasks"] == ["of 1000", "of 10"]
    assert [arm["mean"] for arm in means["arms"]] == [0.0, 0.3]
    (pair,) = means["paired"]
    assert pair["mean"] == pytest.approx(0.3)
    low, high = small["paired"][0]["pooled"]["interval95"]
    assert pair["interval95"][1] - pair["interval95"][0] == pytest.approx((high - low) / 2, rel=0.05)
    right = compare_arms("right", {"a": {0: rows("R")}, "b": {0: rows("R")}}, [("a", "b")])
    whole = macro(right, {"again": right})
    assert all(0 <= end <= 1 for arm in whole["arms"] for end in arm["interval95"])
    assert all(-1 <= end <= 1 for pair in whole["paired"] for end in pair["interval95"])


def test_a_table_of_one_question_is_told_in_words() -> None:
    from vivavoce.report.comparison import table

    arms = {"a": {0: rows("W")}, "b": {0: rows("R"), 1: rows("R")}}
    shown = table({**compare_arms("t", arms, [("a", "b"), ("b", "a")]), "also": {}})
    assert "nan" not in shown.lower()
    assert "it could be chance" in " ".join(shown.split())


def test_every_answer_is_kept_as_a_letter_for_later_comparisons() -> None:
    letters = [
        *rows("RW"),
        Judged("2", "", "", None, False, "no_answer", Usage()),
        Judged("3", "", "", None, False, "error", Usage()),
    ]
    outcome_list = outcomes("t", {"student": {0: letters, 7: rows("RRRR")}}, {"1": "p", "0": "p"})
    assert outcome_list == {
        "task": "t",
        "questions": ["0", "1", "2", "3"],
        "clusters": ["p", "p", "2", "3"],
        "arms": {"student": {"0": "10.!", "7": "1111"}},
    }


def test_problems_of_a_task_without_clusters_stand_for_themselves() -> None:
    class Own:
        name = "own"

    assert clusters_of(Own(), [Problem("p", "?", "1")], Statistics()) == {}  # type: ignore[arg-type]
