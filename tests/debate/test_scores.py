"""Scores of reviews: the released reading to the letter, and a strict one that takes nothing for a 5 that is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.committee.scores import Score, on_scale, read_score

OFF = Score(None, "out_of_range")
NONE = Score(None, "no_answer")


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("[5]", 5),
        ("Sound. [4/5]", 4),
        ("[4.5]", 5),
        ("[4.5/5]", None),
        ("4 out of 5", 5),
        ("[3-4]", 4),
        ("[Score]", None),
        ("", None),
        ("The solution ends at 83", None),
        ("[2], or rather [4]", 4),
        ("[0]", None),
        ("[6]", None),
        ("[]", None),
        ("I cannot say.", None),
        (f"[{'9' * 5000}]", None),
    ],
)
def test_compat_reads_as_the_released_code_does(text: str, score: int | None) -> None:
    assert read_score(text, "compat") == (OFF if score is None else Score(score, "ok"))


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Every step follows. [5]", Score(5, "ok")),
        ("[4/5]", Score(4, "ok")),
        ("[ 4 / 5 ].", Score(4, "ok")),
        ("[4]/5", Score(4, "ok")),
        ("**[4]**", Score(4, "ok")),
        ("[[3]]", Score(3, "ok")),
        ("Step [1] is fine, step [2] is not.\nMy verdict: [2]\n\nAsk me if in doubt.", Score(2, "ok")),
        ("Sound.\nScore: 4", Score(4, "ok")),
        ("Sound.\n**Score:** 4/5\n", Score(4, "ok")),
        ("See [1].\nFinal score: 3.", Score(3, "ok")),
        ("Score: [2]", Score(2, "ok")),
        ("<think>surely [5]</think>No. [1]", Score(1, "ok")),
        ("[4.5]", NONE),
        ("[4.5/5]", NONE),
        ("4 out of 5", NONE),
        ("4 out of [5]", NONE),
        ("[4] of [5]", NONE),
        ("[4]/[5]", NONE),
        ("[1], [2], [3], [4] or [5]", NONE),
        ("between [1] and [5]", NONE),
        ("[3-4]", NONE),
        ("[4/10]", NONE),
        ("[-3]", NONE),
        ("[Score]", NONE),
        ("[5] See [my note].", NONE),
        ("On clarity [5].\nScore: 4.5", NONE),
        ("On clarity [5].\nScore: 4 out of 5", NONE),
        ("Score: 4\nThank you.", NONE),
        ("", NONE),
        ("The solution ends at 83", NONE),
        ("[83]", OFF),
        ("[0]", OFF),
        ("[9/5]", OFF),
        ("Score: 7", OFF),
    ],
)
def test_strict_reads_one_whole_number_that_is_plainly_given(text: str, score: Score) -> None:
    assert read_score(text) == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        # no score at all
        ("x[3] = 7 is right. Excellent.", None),
        ("See step [2]. All wrong.", None),
        ("All wrong, see step [2].", None),
        ("It fails at line [4]", None),
        ("The list is [3]", None),
        ("The final answer is [3].", None),
        ("So x = [3].", None),
        ("It returns a[i][3].", None),
        ("As [2] shows, this is wrong.", None),
        ("Sources: [1], [2], [3]", None),
        ('The author quotes "[4]".', None),
        ("See `x[3]`.", None),
        ("This follows from \\[ 4 \\]", None),
        ("[2] for clarity and [5] for style.", None),
        ("Compare [3] and see.", None),
        ("The score is [4] because of [2] errors", None),
        ("[5] [4]", None),
        # a score, and numbers in brackets around it
        ("x[3] = 7 is right. [5]", 5),
        ("[4]\nHere x[3] = 7 is right.", 4),
        ("Score: [4]\nStep [2] is a bit short.", 4),
        ("Step [2] is short. [4]\n\nThank you!", 4),
        ("I give it [4]. Thank you!", 4),
        ("My score is [4], for step [2] is short.", 4),
        ("I would rate this a [4].", 4),
        ("Rating: [3]", 3),
        ("**Verdict:** **[4]**", 4),
        ("Sound throughout, so [5]", 5),
        ("The reasoning is sound [5].", 5),
        ("- [4]", 4),
        ("`[4]`", 4),
        ("([4])", 4),
        ("[4] out of 5", 4),
        ("[4] / 5.", 4),
        ("[4]/10", None),
        ("Sound. [4] points.", 4),
        ("[4] or rather [4.5]", None),
        ("Score: [4]\nOr rather [4.5]?", None),
        ("<think>[5]", None),
        ("<think>[5] or [4]?</think>", None),
        ("[5] at first.\n</think>\n[2]", 2),
        ("[THINK][5][/THINK][2]", 2),
    ],
)
def test_a_score_is_read_only_where_it_is_one(text: str, score: int | None) -> None:
    assert read_score(text) == (NONE if score is None else Score(score, "ok"))


@pytest.mark.parametrize("form", ["strict", "compat"])
def test_a_score_that_is_only_thought_of_is_none(form: Any) -> None:
    assert read_score("<think>Surely [5]", form).value is None
    assert read_score("<think>Surely [5]</think>[2]", form) == Score(2, "ok")


def test_the_scale_may_be_another_one() -> None:
    assert read_score("[4/10]", highest=10) == Score(4, "ok")
    assert read_score("[0]", lowest=0) == Score(0, "ok")
    assert read_score("Score: 4/5", highest=10) == NONE
    assert read_score("[7]", "compat", highest=10) == Score(7, "ok")


@given(st.text(alphabet="[]/0123456789.,-: \nScoreoutf*", max_size=40))
def test_a_score_lies_on_the_scale_or_there_is_none(text: str) -> None:
    for form in ("strict", "compat"):
        value, status = read_score(text, form)
        assert (value is None) == (status != "ok")
        assert value is None or (value in (1, 2, 3, 4, 5))


@given(st.text(max_size=60), st.integers(1, 5))
def test_a_score_at_the_end_is_read_whatever_stands_before_it(text: str, score: int) -> None:
    assert read_score(f"{text}\nVerdict: [{score}]") == read_score(f"{text}\nScore: {score}") == on_scale(score)
