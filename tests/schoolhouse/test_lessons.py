"""What the models are taught is true where it is trained, and never trains what a pupil was not taught."""

import random

import pytest

from schoolhouse import lessons
from schoolhouse.lessons import LESSONS, Pupil
from vivavoce.schoolhouse import world

FACTS = world.taught_facts("ada")
PUPIL = Pupil(FACTS, samples=[(q.text, world.write(world.gold(q.text))) for q in world.questions("train", 50)])


def reply_of(lesson):
    return "".join(text for text, _ in lesson.reply)


@pytest.mark.parametrize("kind", LESSONS)
def test_no_lesson_is_about_a_test_question(kind):
    rng = random.Random(0)
    for _ in range(100):
        assert world.split_of(LESSONS[kind](rng, PUPIL).user.split("\n")[0]) == "train"


def test_a_trained_digit_is_a_known_fact_or_written_in_the_prompt():
    rng = random.Random(1)
    for kind in ("plain", "drill", "unsure", "own", "debate"):
        for _ in range(200):
            lesson = LESSONS[kind](rng, PUPIL)
            weights = [w for text, w in lesson.reply if text.isdigit() and len(text) == 1]
            for step, weight in zip(world.steps_of(reply_of(lesson)), weights, strict=False):
                known = step.fact in FACTS and step.value == world.apply(*step.fact)
                seen = f"={step.left}{step.op}{step.right}={step.value}" in lesson.user
                assert known or seen or weight == 0, (kind, lesson)


def test_a_critique_names_the_first_wrong_known_step_and_corrects_it():
    rng, named = random.Random(2), 0
    for _ in range(300):
        lesson = lessons.critique(rng, Pupil(frozenset(world.FACTS)))
        question, chain = lesson.user.split("\n")
        first, reply = world.check(question, chain).first_wrong, reply_of(lesson)
        assert reply.count(" wrong") == (first is not None)
        assert world.check(question, reply.replace(" got", "; got")).right
        if first is not None:
            named += 1
            assert reply.split("; ")[first].endswith("wrong")
        assert int(reply[-1]) == (5 if first is None else 1 if 2 * first < len(world.gold(question)) else 2)
    assert 100 < named < 280


def test_a_debate_lesson_has_one_to_three_anonymous_peers_and_one_me():
    rng, sizes = random.Random(3), set()
    for _ in range(200):
        names = [line.split(":")[0] for line in lessons.debate(rng, PUPIL).user.split("\n")[1:]]
        assert sorted(names) == ["me", *(f"p{k + 1}" for k in range(len(names) - 1))]
        sizes.add(len(names))
    assert sizes == {2, 3, 4}


def test_confidence_is_said_in_tens():
    assert [lessons.tens(p) for p in (-0.1, 0.0, 0.349, 0.97, 1.2)] == ["05", "05", "35", "95", "95"]
