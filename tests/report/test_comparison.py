from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.report.whole_run import judged_rows, some_results

from vivavoce.exams.arms import Arm
from vivavoce.exams.examine import Judged
from vivavoce.exams.table import results
from vivavoce.records import Usage
from vivavoce.report import table
from vivavoce.report.comparison import (
    duration,
    families,
    final_arm,
    holm,
    p_value,
    paired_tests,
    signed,
    strongest_without_debate,
)

GOLDEN = Path(__file__).parent / "golden"


def small() -> dict:
    """Three arms, one of them trained on two seeds, and tests that go both ways or nowhere."""
    arms = {
        "student": {0: judged_rows(50, 0.3, 1)},
        "vote:majority": {0: judged_rows(50, 0.5, 2, (200, 90))},
        "debate_reflect": {0: judged_rows(50, 0.7, 3), 1: judged_rows(50, 0.5, 4)},
    }
    pairs = [("student", "debate_reflect"), ("vote:majority", "debate_reflect"), ("student", "student")]
    return results("sums", arms, pairs, 12.5, {"vote:majority": Arm("vote:majority", "committee")})


@pytest.mark.parametrize("columns", [80, 60])
def test_on_a_narrow_terminal_no_name_is_broken_and_what_belongs_to_a_row_stands_set_in_below_it(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    results = some_results(seeds=(0, 1))
    lines = table(results).splitlines()
    assert max(map(len, lines)) <= columns
    for name in [arm["name"] for arm in results["arms"]]:
        assert any(line.strip().removesuffix(" *").startswith(name) for line in lines), name
    for pair in results["paired"]:
        assert any(f"{pair['a']} → {pair['b']}" in line for line in lines), pair["a"]
        of = pair["pooled"]
        low, high = (signed(100 * end) for end in of["interval95"])
        assert any(f"{signed(100 * of['gain'])} ({low}, {high})" in line for line in lines)
    below = [line for line in lines if "regressed" in line and "%" in line]
    assert below
    assert all(line.startswith("  ") for line in below), below
    legend = " ".join(" ".join(lines).split())
    assert "that only the first / only the second got right" in legend
    breaks = [i for i, line in enumerate(lines) if line.endswith("only the")]
    assert all(len(lines[i]) > columns - 20 for i in breaks), "no line is broken twice"


def test_calls_that_failed_are_told_apart_from_answers_that_could_not_be_read() -> None:
    rows = judged_rows(50, 0.7, 3)
    unread = sum(j.answer is None for j in rows)
    assert unread
    lost = [Judged(j.problem, j.group, "", None, False, "error", Usage()) for j in rows[:9]]
    figures = results("sums", {"student": {0: rows}, "sft": {0: [*lost, *rows[9:]]}}, [], 1.0)
    whole, part = figures["arms"]
    assert (whole["unparsed"], whole["failed_calls"]) == (unread, 0)
    assert (part["unparsed"], part["failed_calls"]) == (sum(j.answer is None for j in rows[9:]), 9)
    shown = [line.split() for line in table(figures).splitlines()]
    assert "failed" in next(line for line in shown if "unparsed" in line)
    assert next(line for line in shown if line[:1] == ["sft"])[-4] == "9"
    assert "failed" not in table(small())


def test_the_table_is_as_it_was() -> None:
    assert table(small()) + "\n" == (GOLDEN / "table.txt").read_text("utf-8")


def test_the_table_names_every_arm_and_p_and_fits_100_columns() -> None:
    figures = some_results()
    shown = table(figures)
    assert max(map(len, shown.splitlines())) <= 100
    assert "\x1b" not in shown
    for arm in figures["arms"]:
        assert any(
            line.split()[:1] == [arm["name"]] and f"{arm['right']}/{arm['n']}" in line for line in shown.splitlines()
        ), arm["name"]
    for pair in figures["paired"]:
        line = next(x for x in shown.splitlines() if f" {pair['a']} → {pair['b']} " in x)
        of = pair["pooled"]
        assert p_value(of["p"]) in line
        assert f"{of['a_only']} / {of['b_only']}" in line
        low, high = (signed(100 * end) for end in of["interval95"])
        assert f"{signed(100 * of['gain'])} ({low}, {high})" in line


def test_names_that_are_long_or_look_like_markup_neither_break_the_width_nor_colour_the_text() -> None:
    name = "single:" + "a-very-long-name-" * 6 + "[red]x[/red]"
    rows = judged_rows(20, 0.5, 1)
    shown = table(results("t", {"student": {0: rows}, name: {0: rows}}, [("student", name)], 1.0))
    assert max(map(len, shown.splitlines())) <= 100
    assert "[red]" in "".join(shown.split())


def test_one_arm_without_tests_makes_a_table() -> None:
    shown = table(results("t", {"some/model": {0: judged_rows(10, 0.5, 1)}}, [], 1.0))
    assert "some/model" in shown
    assert "Paired" not in shown


def test_a_gain_is_what_the_second_has_more_than_the_first() -> None:
    result = small()
    accuracy = {arm["name"]: arm["mean"] for arm in result["arms"]}
    for test in paired_tests(result):
        assert test.gain == pytest.approx(100 * (accuracy[test.b] - accuracy[test.a]))


def rows_of(right: str) -> list[Judged]:
    """An answer for each letter, right where it is R."""
    return [Judged(str(i), "", "", "1", c == "R", "ok", Usage()) for i, c in enumerate(right)]


def test_repaired_and_regressed_are_as_worked_by_hand() -> None:
    """Of 3 wrong 2 are mended, of 5 right 1 is lost; on the second seed 0 of 3 and 5 of 5."""
    arms = {"student": {0: rows_of("WWWRRRRR")}, "new": {0: rows_of("RRWWRRRR"), 1: rows_of("WWWWWWWW")}}
    (pair,) = results("t", arms, [("student", "new")], 1.0)["paired"]
    assert (pair["repaired"], pair["regressed"]) == (pytest.approx(2 / 3, abs=1e-6), 0.2)
    assert [(s["repaired"], s["regressed"]) for s in pair["seeds"]] == [(pair["repaired"], 0.2), (0, 1)]
    assert (pair["pooled"]["repaired"], pair["pooled"]["regressed"]) == (pytest.approx(1 / 3, abs=1e-6), 0.6)
    assert "repaired 33.3 %, regressed 60.0 %" in table(results("t", arms, [("student", "new")], 1.0))


@pytest.mark.parametrize(("first", "shares"), [("RRRR", (None, 0.5)), ("WWWW", (0.5, None))])
def test_there_is_no_share_of_nothing(first: str, shares: tuple[float | None, float | None]) -> None:
    arms = {"student": {0: rows_of(first)}, "new": {0: rows_of("RRWW")}}
    figures = results("t", arms, [("student", "new")], 1.0)
    assert (figures["paired"][0]["repaired"], figures["paired"][0]["regressed"]) == shares
    assert "–" in next(line for line in table(figures).splitlines() if "%, regressed" in line)


def test_other_tests_have_tables_of_their_own_and_pairs_with_the_student_alone() -> None:
    figures = some_results(200)
    shown = table({**figures, "also": {"far": some_results(100)}})
    main, _, other = shown.partition("Also tested on far (schoolhouse): 100 questions")
    assert main.strip() == table(figures).strip()
    assert all(arm["name"] in other for arm in some_results(100)["arms"])
    assert re.findall(r"\S+ → \S+", other) == ["first → second", "student → debate_reflect"]
    assert max(map(len, shown.splitlines())) <= 100


def test_results_of_before_have_neither_shares_nor_other_tests_and_are_shown_all_the_same() -> None:
    old = small()
    for pair in old["paired"]:
        for key in ("repaired", "regressed", "pooled", "p_holm"):
            del pair[key]
    del old["matters"]
    assert "repaired – %, regressed – %" in table(old)


def test_no_difference_is_called_better_unless_it_stays_significant_after_correction() -> None:
    figures = some_results()
    by_pair = {(t.a, t.b): t for t in paired_tests(figures)}
    clear, none = by_pair["student", "debate_reflect"], by_pair["sft_continued", "debate_reflect"]
    assert (clear.winner, clear.doubt, clear.verdict) == ("debate_reflect", "", "second is better")
    assert none.winner is None
    assert none.doubt == "not significant: too few questions to tell less than 3.2 points"
    assert none.verdict == "too few to tell"
    rows = {name: {0: rows_of(right)} for name, right in (("a", "W" * 8 + "RR"), ("b", "R" * 10))}
    marginal, *_ = paired_tests(results("t", rows, [("a", "b"), *[("b", str(i)) for i in range(9)]], 1.0))
    assert marginal.p < 0.05 < marginal.p_holm
    assert marginal.winner is None
    assert marginal.doubt.startswith("not significant (Holm): too few questions to tell less than")
    assert marginal.verdict == "not shown (Holm)"
    assert paired_tests(small())[2].doubt == "the same on every question"


def test_nobody_is_better_whom_one_training_seed_speaks_against() -> None:
    arms = {"old": {0: rows_of("W" * 20 + "R" * 20)}, "new": {0: rows_of("R" * 40), 1: rows_of("W" * 22 + "R" * 18)}}
    (lucky,) = paired_tests(results("t", arms, [("old", "new")], 1.0))
    assert lucky.p_holm < 0.05
    assert [gain > 0 for _, gain, _ in lucky.seeds] == [True, False]
    assert (lucky.winner, lucky.doubt, lucky.verdict) == (None, "seeds disagree", "seeds disagree")


def test_the_loser_may_be_the_second() -> None:
    better, worse = judged_rows(200, 0.8, 1), judged_rows(200, 0.3, 2)
    (test,) = paired_tests(results("t", {"old": {0: better}, "new": {0: worse}}, [("old", "new")], 1.0))
    assert test.winner == "old"
    assert test.gain < 0


def test_holm_is_as_worked_by_hand_and_never_below_the_raw_value() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_p_is_corrected_for_tests_that_were_planned_and_could_not_be_made() -> None:
    rows = {name: {0: rows_of(right)} for name, right in (("a", "W" * 8 + "RR"), ("b", "R" * 10))}
    made, planned = [("a", "b")], [("a", "b"), ("b", "c"), ("a", "c")]
    alone, of_three = (paired_tests(results("t", rows, pairs, 1.0))[0] for pairs in (made, planned))
    assert alone.p_holm == alone.p == of_three.p
    assert of_three.p_holm == pytest.approx(3 * alone.p)
    shown = table(results("t", rows, planned, 1.0))
    assert "correction for 3 tests" in shown
    assert "Not tested, because an arm is missing: b → c, a → c" in shown


def test_results_that_say_nothing_of_what_arms_are_are_shown_in_one_family() -> None:
    old = some_results(50)
    old["arms"] = [{k: v for k, v in arm.items() if k not in ("family", "material")} for arm in old["arms"]]
    (family,) = families(old)
    assert len(family.arms) == len(old["arms"])
    assert strongest_without_debate(old) == {}
    assert "vote:debate" in table(old)


def test_what_an_arm_is_stands_beside_its_name_and_is_not_read_from_it() -> None:
    rows = {
        name: {0: judged_rows(40, share, i)} for i, (name, share) in enumerate((("a", 0.3), ("b", 0.5), ("c", 0.6)))
    }
    facts = {"a": Arm("a", material="drafts"), "b": Arm("b", material="drafts"), "c": Arm("c", "debate")}
    figures = results("t", rows, [], 1.0, facts)
    assert [[arm["name"] for arm in family.arms] for family in families(figures)] == [["a", "b"], ["c"]]
    assert strongest_without_debate(figures) == {"b": "strongest student without debate"}


def test_arms_fall_into_families_and_the_strongest_without_debate_are_marked() -> None:
    figures = some_results()
    names = [[arm["name"] for arm in family.arms] for family in families(figures)]
    assert names[0][0] == "student"
    assert "sft_continued" in names[0]
    assert all(n.startswith(("teacher:", "vote:")) for n in names[1])
    assert names[2] == ["vote:debate"]
    right = {arm["name"]: arm["right"] for arm in figures["arms"]}
    for name in strongest_without_debate(figures):
        taught = [n for n in names[0] if n.startswith("single:") or n == "multi_teacher"]
        rivals = names[1] if name in names[1] else taught
        assert right[name] == max(right[n] for n in rivals)


def test_the_run_is_about_its_method_or_about_what_most_tests_are_about() -> None:
    figures = some_results()
    assert final_arm(figures, "debate_reflect") == "debate_reflect"
    assert final_arm(figures, "another_method") == "vote:debate"
    assert final_arm(results("t", {"m": {0: judged_rows(5, 0.5, 1)}}, [], 1.0), None) is None


def test_p_values_and_times_are_short_and_never_zero() -> None:
    assert [p_value(p) for p in (1.0, 0.2187, 0.04999, 0.001, 0.00042, 3e-12, 0.0)] == [
        "1.00",
        "0.22",
        "0.050",
        "0.001",
        "4e-4",
        "3e-12",
        "<1e-99",
    ]
    assert [duration(s) for s in (8.2, 59.7, 250, 11100)] == ["8 s", "60 s", "4 min 10 s", "3 h 5 min"]


def test_a_gain_has_one_sign_in_the_results_and_in_the_report() -> None:
    figures = some_results(200)
    mean = {arm["name"]: arm["mean"] for arm in figures["arms"]}
    by_pair = {(p["a"], p["b"]): p for p in figures["paired"]}
    for test in paired_tests(figures):
        pair = by_pair[test.a, test.b]
        for of in (pair, pair["pooled"], *pair.get("seeds", ())):
            assert of["gain"] * (of["b_only"] - of["a_only"]) >= 0, "never the other way"
        assert 100 * pair["pooled"]["gain"] == pytest.approx(test.gain, abs=1e-3)
        assert test.gain == pytest.approx(100 * (mean[test.b] - mean[test.a]), abs=1e-3)
    assert by_pair["student", "debate_reflect"]["gain"] > 0, "b has more right than a"


def test_rows_that_were_too_long_are_named_with_their_arm_and_seed() -> None:
    kept, cut = ({"seed": s, "steps": 3, "rows_used": 10, "rows_dropped": n} for s, n in ((0, 0), (1, 2)))
    shown = table({**some_results(100), "training": {"debate_reflect": [kept, cut]}})
    assert "debate_reflect, seed 1: 2 of 12 rows were longer than max_length and were left out" in shown
    assert "seed 0:" not in shown
