"""The schoolhouse as a task: its pieces, its checker and the probability of its digits."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.errors import DataError, RecipeError
from vivavoce.records import Problem, Token
from vivavoce.schoolhouse import world
from vivavoce.tasks import open_task
from vivavoce.tasks.schoolhouse import Options, Schoolhouse

TASK = Schoolhouse(Options(train=50, test=20))
QUESTION = "a=4; b=a-3; c=b+5; c?"  # b = 4-3 = 1, c = 1+5 = 6
PROBLEM = Problem("1", QUESTION, "6")


def test_ids_are_unique_over_both_splits_and_kinds_are_groups() -> None:
    problems = TASK.problems("train") + TASK.problems("test")
    assert len({problem.id for problem in problems}) == 70
    assert {problem.group for problem in problems} == {"sum", "mul", "bit", "div", "mix"}
    assert TASK.problems("train") == open_task("schoolhouse", {"train": 50}).problems("train")
    assert TASK.problems("train") != open_task("schoolhouse", {"train": 50, "seed": 1}).problems("train")
    with pytest.raises(DataError, match="unknown split"):
        TASK.problems("dev")


def test_kinds_restrict_both_splits_so_that_one_can_train_on_some_and_test_on_others() -> None:
    subset = open_task("schoolhouse", {"train": 20, "test": 9, "kinds": ["sum", "mix"]})
    assert [len(subset.problems(split)) for split in ("train", "test")] == [20, 9]
    for split in ("train", "test"):
        assert {p.group for p in subset.problems(split)} == {"sum", "mix"}
    every = open_task("schoolhouse", {"train": 50, "test": 20, "kinds": list(world.KINDS)})
    assert every.problems("train") == TASK.problems("train"), "all kinds are what no restriction gives"
    for kinds in ([], ["tens"]):
        with pytest.raises(RecipeError):
            open_task("schoolhouse", {"kinds": kinds})


def test_every_gold_chain_is_right_and_a_changed_digit_is_found() -> None:
    for problem in TASK.problems("test"):
        chain = world.gold(problem.question)
        text = world.write(chain, marks={0}, confidence="15")
        assert TASK.grade(problem, text).correct is True
        assert TASK.first_wrong_step(problem, text) is None
        assert "".join(TASK.steps(text)) == text
        assert len(TASK.steps(text)) == len(chain) + 1
        for i, step in enumerate(chain):
            wrong = [*chain[:i], step._replace(value=(step.value + 1) % 10), *chain[i + 1 :]]
            assert TASK.first_wrong_step(problem, world.write(wrong)) == i


def test_pieces_begin_with_their_separator() -> None:
    assert TASK.steps("b=4-3=1; c=1*5=7?; ans=7 conf=15") == ["b=4-3=1", "; c=1*5=7?", "; ans=7 conf=15"]
    assert TASK.steps("") == []


@pytest.mark.parametrize(
    ("text", "answer", "right", "first_wrong"),
    [
        ("b=4-3=1; c=1+5=6; ans=6", "6", True, None),
        ("b=4-3=1?; c=1+5=6; ans=6 conf=15", "6", True, None),
        ("b=4-3=1; c=1+5=6", None, False, None),  # cut short: every piece that stands is right
        ("b=4-3=1; c=1+5=6; ans=7", "7", False, 2),
        ("b=4-3=2; c=2+5=7; ans=7", "7", False, 0),
        ("b=4-3=2; c=1+5=6; ans=6", "6", True, 0),
        ("b=4-3=1; c=1+5=7; ans=6", "6", True, 1),
        ("b=4-3=1; ans=6", "6", True, 1),
        ("ans=6", "6", True, 0),
        ("b=4-3=1; hm; c=1+5=6; ans=6", "6", True, 1),
        ("b=4-3=1; c=1+5=6; d=6+1=7; ans=6", "6", True, 2),
        ("I do not know", None, False, 0),
        ("", None, False, None),
    ],
)
def test_answer_and_steps_are_judged_apart(text: str, answer: str | None, right: bool, first_wrong: int | None) -> None:
    grade = TASK.grade(PROBLEM, text)
    assert (grade.answer, grade.correct) == (answer, right)
    assert grade.status == ("no_answer" if answer is None else "ok")
    assert TASK.first_wrong_step(PROBLEM, text) == first_wrong


def spell(text: str, sure: dict[int, float], width: int = 1) -> list[Token]:
    """The text as tokens of ``width`` characters, each of probability 1 but those that hold a given position."""
    tokens = []
    for start in range(0, len(text), width):
        p = math.prod(q for at, q in sure.items() if start <= at < start + width)
        tokens.append(Token(text[start : start + width], math.log(p)))
    return tokens


@pytest.mark.parametrize("width", [1, 3])
def test_only_the_result_digits_make_the_probability(width: int) -> None:
    text = "b=4-3=1; c=1+5=6?; ans=6"
    results = {text.index("=1;") + 1: 0.9, text.index("=6?") + 1: 0.5}
    assert TASK.probability(text, spell(text, results, width)) == pytest.approx((0.9 * 0.5) ** 4)
    copied = {text.index("4"): 0.1, text.index("ans"): 0.1}
    assert TASK.probability(text, spell(text, copied)) == pytest.approx(1.0)


def test_a_text_without_results_has_no_probability() -> None:
    assert TASK.probability("ans=6", spell("ans=6", {})) == 0.0
    assert TASK.probability("b=4-3=1", []) == 0.0


_PIECES = st.sampled_from(["b=4-3=1", "; ", "c=1+5=6", "?", "ans=6", " conf=15", ";"])


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(_PIECES).map("".join)))
def test_no_text_makes_it_raise_and_pieces_join_back(text: str) -> None:
    pieces = TASK.steps(text)
    assert "".join(pieces) == text
    TASK.grade(PROBLEM, text)
    first = TASK.first_wrong_step(PROBLEM, text)
    assert first is None or 0 <= first < len(pieces)
    assert 0 <= TASK.probability(text, spell(text, {0: 0.5})) <= 1
