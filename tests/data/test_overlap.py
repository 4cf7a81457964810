"""A test question that was trained on is found, changed a little too; one that only shares a template is not."""

from __future__ import annotations

import pytest

from vivavoce.data.overlap import overlap
from vivavoce.records import Problem

TEXT = "On Monday Ada has 12 apples and buys 30 more at the market in the old town. How many apples has she then?"


@pytest.mark.parametrize(
    ("text", "same", "near"),
    [
        (TEXT, 1, 0),
        (TEXT.upper().replace(" ", "\n "), 1, 0),
        (TEXT.replace("then?", "then??"), 0, 1),
        (TEXT.replace("has she then", "does she have"), 0, 1),
        (TEXT.replace("Ada", "Bob").replace("12", "17").replace("30", "51").replace("apples", "stamps"), 0, 0),
        ("How many apples has she then?", 0, 0),
        ("apples", 0, 0),
        ("", 0, 0),
    ],
)
def test_overlap_of_one_question(text: str, same: int, near: int) -> None:
    train = [Problem("t0", "What is two and two?", "4"), Problem("t1", TEXT, "42")]
    pairs = overlap(train, [Problem("x", text, "42")])
    assert tuple(map(len, pairs)) == (same, near)
    assert set(pairs[0] + pairs[1]) <= {("t1", "x")}
