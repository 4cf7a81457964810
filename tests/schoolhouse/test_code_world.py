"""The programmers' world: its programs run, its styles mean the same, and it keeps its splits and secrets apart."""

import random

import pytest
from tests.shut_in import needs_sandbox

from vivavoce.schoolhouse import code_world as world
from vivavoce.schoolhouse.code_grading import judge, judge_all

QUESTIONS = [q.text for q in world.questions("test", 60, seed=9)]


@needs_sandbox
@pytest.mark.parametrize("style", world.STYLES)
def test_reference_programs_of_every_style_pass_their_tests_when_run(style: world.Style) -> None:
    verdicts = judge_all(QUESTIONS, [world.write(world.gold(q, style), {0}, "35") for q in QUESTIONS])
    assert all(v.right for v in verdicts), [v for v in verdicts if not v.right]
    shown = [" ".join(map(str, world.results(q, world.SHOWN))) for q in QUESTIONS]
    assert [v.answer for v in verdicts] == shown, "an answer is what the program returns, whatever its style"


@needs_sandbox
def test_a_program_with_one_function_misremembered_fails_its_tests() -> None:
    rng, right, tried = random.Random(0), 0, 0
    for question in QUESTIONS:
        steps = world.gold(question)
        at = rng.randrange(len(steps))
        other = world.invented_body(rng, world.parse(question)[at].function)
        if other != steps[at].body:
            tried += 1
            verdict = judge(question, world.write([*steps[:at], steps[at]._replace(body=other), *steps[at + 1 :]]))
            right += verdict.right is True
    assert tried > 50
    assert right / tried < 0.12, "hardly a wrong program does the same by luck"


@needs_sandbox
@pytest.mark.parametrize(
    ("text", "answer", "reason"),
    [
        ("b=(a*3)+2; c=(b^5)-a", None, "it returns nothing"),
        ("b=; return b", "def f(a): b=; return b\n", "error: SyntaxError"),
        ("b=q+1; return b", "def f(a): b=q+1; return b\n", "error: NameError"),
        ("b=a; return a", "3 8 31", "failed: AssertionError: another function"),
    ],
)
def test_a_program_that_is_wrong_is_wrong_with_a_reason(text: str, answer: str | None, reason: str) -> None:
    verdict = judge(QUESTIONS[0], text)
    assert verdict.right is False
    assert verdict.reason.startswith(reason)
    assert verdict.answer == answer


def test_what_was_written_is_read_back_with_its_marks() -> None:
    for question in QUESTIONS:
        for style in world.STYLES:
            steps = world.gold(question, style)
            assert world.steps_of(world.write(steps, {1}, "35")) == [(s, i == 1) for i, s in enumerate(steps)]


def test_a_worked_example() -> None:
    step = world.WrittenStep("b", "a", world.Body("*", 3, "-"), "2")
    assert str(step) == "b=(a*3)-2"
    assert str(step._replace(style="swapped")) == "b=-2+(a*3)"
    assert str(step._replace(style="in_two")) == "b=a*3; b-=2"
    assert world.program("b=(a*3)-2?; return b conf=35") == "def f(a): b=(a*3)-2; return b\n"
    assert step.body(5, 2) == 13


def test_the_library_is_one_and_every_agent_knows_its_part_of_it() -> None:
    assert set(world.library()) == set(world.FUNCTIONS)
    assert len(world.FUNCTIONS) == 160
    common = world.taught_functions("student")
    assert 0.3 < len(common) / 160 < 0.45
    for teacher, strong in world.STRONG.items():
        assert common < world.taught_functions(teacher)
        for skill in world.SKILLS:
            rest = [f for f in world.FUNCTIONS if world.SKILL_OF[f[0]] == skill and f not in common]
            share = sum(f in world.taught_functions(teacher) for f in rest) / len(rest)
            assert share > 0.85 if skill in strong else share < 0.35
    with pytest.raises(ValueError, match=r"'zoe'.*ada"):
        world.taught_functions("zoe")


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_are_distinct_balanced_repeatable_of_their_split_and_never_nearly_constant(split: str) -> None:
    asked = list(world.questions(split, 300, seed=5))  # pyright: ignore[reportArgumentType]
    assert asked == list(world.questions(split, 300, seed=5))  # pyright: ignore[reportArgumentType]
    assert len({q.text for q in asked}) == 300
    assert [q.kind for q in asked[:5]] == list(world.KINDS)
    for question in asked:
        assert world.split_of(question.text) == split
        assert len(set(world.results(question.text, world.HIDDEN))) >= 8
        skills = {world.SKILL_OF[call.function[0]] for call in world.parse(question.text)}
        assert skills == {question.kind} if question.kind != "mix" else len(skills) > 1


def test_a_question_can_be_confined_to_given_functions() -> None:
    rng, functions = random.Random(0), world.taught_functions("student")
    for _ in range(100):
        assert {call.function for call in world.parse(world.draw(rng, functions=functions).text)} <= functions
