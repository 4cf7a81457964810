"""What the programmers are taught is true where it is trained, and never trains what a pupil was not taught."""

import random

import pytest

from schoolhouse import code_lessons as lessons
from schoolhouse.code_lessons import LESSONS, Pupil
from schoolhouse.lessons import Lesson
from vivavoce.schoolhouse import code_world as world

PUPIL = Pupil(world.taught_functions("ada"), "nested")


def reply_of(lesson: Lesson) -> str:
    return "".join(text for text, _ in lesson.reply)


@pytest.mark.parametrize("kind", LESSONS)
def test_no_lesson_is_about_a_test_question(kind: str) -> None:
    rng = random.Random(0)
    for _ in range(100):
        assert world.split_of(LESSONS[kind](rng, PUPIL).user.split("\n")[0]) == "train"


@pytest.mark.parametrize("kind", LESSONS)
def test_a_trained_step_is_a_known_function_or_written_in_the_prompt(kind: str) -> None:
    rng = random.Random(1)
    for _ in range(200):
        lesson = LESSONS[kind](rng, PUPIL)
        question, *drafts = lesson.user.split("\n")
        written = [step for step, _ in world.steps_of(reply_of(lesson))]
        weights = [weight for text, weight in lesson.reply if "=" in text and "conf" not in text]
        if kind in ("nested", "plain"):
            weights = [1.0] * len(written)
        assert len(written) == len(weights) == len(world.parse(question))
        for call, gold, step, weight in zip(world.parse(question), world.gold(question), written, weights, strict=True):
            known = call.function in PUPIL.functions and step.means(gold)
            assert known or weight == 0 or any(str(step) in draft for draft in drafts), (kind, lesson)


def test_what_a_pupil_does_not_know_is_marked_and_what_it_knows_is_not() -> None:
    rng = random.Random(2)
    for _ in range(200):
        lesson = lessons.unsure(rng, PUPIL)
        calls = world.parse(lesson.user)
        marks = [mark for _, mark in world.steps_of(reply_of(lesson))]
        assert marks == [call.function not in PUPIL.functions for call in calls]


def test_an_unknown_function_does_something_else_in_each_debate_and_peers_who_know_it_agree() -> None:
    rng, seen, agreed = random.Random(3), dict[str, set[world.Body]](), 0
    for _ in range(400):
        lesson = lessons.debate(rng, PUPIL)
        for call, (step, marked) in zip(world.parse(lesson.user), world.steps_of(reply_of(lesson)), strict=True):
            if call.function not in PUPIL.functions and not marked:
                seen.setdefault(call.function, set()).add(step.body)
                agreed += 1
    assert agreed > 100
    often = [bodies for bodies in seen.values() if len(bodies) > 1]
    assert len(often) > len(seen) / 2, "what is taken over is no fact that could be learnt"


def test_a_debate_lesson_has_one_to_three_anonymous_peers_and_one_me() -> None:
    rng, sizes = random.Random(4), set[int]()
    for _ in range(200):
        names = [line.split(":")[0] for line in lessons.debate(rng, PUPIL).user.split("\n")[1:]]
        assert sorted(names) == ["me", *(f"p{k + 1}" for k in range(len(names) - 1))]
        sizes.add(len(names))
    assert sizes == {2, 3, 4}


def test_in_anothers_style_the_first_step_is_read_and_the_others_are_written() -> None:
    rng, styles = random.Random(5), set[str]()
    for _ in range(60):
        lesson = lessons.foreign(rng, PUPIL)
        seen = {step.style for step, _ in world.steps_of(reply_of(lesson))}
        assert len(seen) == 1
        styles |= seen
        assert lesson.reply[0][1] == 0
        assert all(weight > 0 for _, weight in lesson.reply[1:])
    assert styles == set(world.STYLES)
