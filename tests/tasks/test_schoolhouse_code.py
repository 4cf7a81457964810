"""Programs of the schoolhouse as a task: run to be graded, read step by step, weighed by what had to be known."""

import math

import pytest
from tests.shut_in import needs_sandbox

from vivavoce.errors import DataError, RecipeError
from vivavoce.records import Token
from vivavoce.schoolhouse import code_world as world
from vivavoce.tasks import open_task
from vivavoce.tasks.schoolhouse_code import Options, SchoolhouseCode

TASK = SchoolhouseCode(Options(train=50, test=20))


def test_ids_are_unique_over_both_splits_and_kinds_are_groups() -> None:
    problems = TASK.problems("train") + TASK.problems("test")
    assert len({problem.id for problem in problems}) == 70
    assert {problem.group for problem in problems} == set(world.KINDS)
    subset = open_task("schoolhouse_code", {"train": 20, "test": 9, "kinds": ["sum", "mix"]})
    assert {p.group for p in subset.problems("test")} == {"sum", "mix"}
    with pytest.raises(DataError, match="unknown split"):
        TASK.problems("dev")
    with pytest.raises(RecipeError):
        open_task("schoolhouse_code", {"kinds": ["tens"]})


@needs_sandbox
def test_every_reference_is_right_in_any_style_and_one_that_does_something_else_is_wrong() -> None:
    for problem in TASK.problems("test"):
        grades = [TASK.grade(problem, world.write(world.gold(problem.question, style))) for style in world.STYLES]
        assert all(grade.correct for grade in grades)
        assert len({grade.answer for grade in grades}) == 1, "they vote as one"
        wrong = TASK.grade(problem, "b=a; return b")
        assert wrong.correct is False
        assert wrong.reason.startswith("failed")
    nothing = TASK.grade(TASK.problems("test")[0], "b=(a*3)+2")
    assert (nothing.answer, nothing.correct, nothing.status) == (None, False, "no_answer")


@needs_sandbox
def test_a_reply_that_loops_or_reaches_outside_is_wrong_with_a_reason_and_the_next_one_is_graded() -> None:
    problem = TASK.problems("test")[0]
    ended = {
        "import os; os.fork(); return 1": "forbidden",
        "import socket; return socket.socket()": "forbidden",
        "return [0]*10**10": "memory",
        "return open('/etc/passwd').read()": "error",
    }
    for body, end in ended.items():
        grade = TASK.grade(problem, body)
        assert grade.correct is False
        assert grade.reason.startswith((end, "error", "forbidden")), grade
    assert TASK.grade(problem, problem.gold).correct is True


def test_the_first_wrong_step_is_found_in_any_style() -> None:
    for problem in TASK.problems("test"):
        for style in world.STYLES:
            steps = world.gold(problem.question, style)
            text = world.write(steps, marks={0}, confidence="15")
            assert "".join(TASK.steps(text)) == text
            assert len(TASK.steps(text)) == len(steps) + 1
            assert TASK.first_wrong_step(problem, text) is None
            for i, step in enumerate(steps):
                body = step.body._replace(digit=step.body.digit % 9 + 1)
                wrong = [*steps[:i], step._replace(body=body), *steps[i + 1 :]]
                assert TASK.first_wrong_step(problem, world.write(wrong)) == i


def test_probability_counts_operators_and_digits_before_the_return_alone() -> None:
    text = "b=(a*3)+2?; return b conf=15"
    tokens = [Token(c, math.log(0.5) if c in "*3+2" else math.log(0.1)) for c in text]
    assert TASK.probability(text, tokens) == pytest.approx(0.5**4)
    assert TASK.probability("return a", [Token("return a", -1.0)]) == 0.0
