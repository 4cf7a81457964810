"""The world grades what it asks, and keeps its splits and its secrets apart."""

import random

import pytest

from vivavoce.schoolhouse import world


def test_every_operator_is_a_latin_square_so_answers_are_uniform():
    digits = set(range(10))
    for op in world.OPERATORS:
        assert all({world.apply(op, x, y) for y in range(10)} == digits for x in range(10))
        assert all({world.apply(op, x, y) for x in range(10)} == digits for y in range(10))


def test_every_agent_knows_the_common_facts_and_teachers_know_their_strong_skills():
    common = world.taught_facts("student")
    assert 0.33 < len(common) / len(world.FACTS) < 0.40
    for teacher, strong in world.STRONG.items():
        facts = world.taught_facts(teacher)
        assert common < facts
        for skill in world.SKILLS:
            rest = [f for f in world.FACTS if world.SKILL_OF[f[0]] == skill and f not in common]
            share = sum(f in facts for f in rest) / len(rest)
            assert share > 0.85 if skill in strong else share < 0.3


def test_an_unknown_agent_is_named_in_the_error():
    with pytest.raises(ValueError, match=r"'zoe'.*ada"):
        world.taught_facts("zoe")


def test_gold_answers_grade_right_in_every_format():
    for question in world.questions("train", 100, seed=3):
        steps = world.gold(question.text)
        assert world.check(question.text, world.write(steps)) == (True, None)
        assert world.check(question.text, world.write(steps, marks={0, 1}, confidence="15")) == (True, None)
        assert world.steps_of(world.write(steps, marks={0})) == steps


def test_a_worked_example():
    question = "a=4; b=a-3; c=b*5; c?"
    assert world.write(world.gold(question)) == "b=4-3=1; c=1*5=9; ans=9"  # 3*1 + 7*5 + 1 = 39
    assert world.write(world.gold(question), marks={1}, confidence="15") == "b=4-3=1; c=1*5=9?; ans=9 conf=15"


def test_grading_tells_the_answer_from_the_chain():
    question = "a=4; b=a-3; c=b*5; c?"
    assert world.check(question, "b=4-3=2; c=1*5=9; ans=9") == (True, 0)
    assert world.check(question, "b=4-3=1; c=1*5=3; ans=3") == (False, 1)
    assert world.check(question, "b=4-3=1") == (False, 1)
    assert world.check(question, "") == (False, 0)


def test_cleaning_leaves_the_plain_chain():
    assert world.clean("b=4-3=1; c=1*5=7?; ans=7 conf=15") == "b=4-3=1; c=1*5=7; ans=7"


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_are_distinct_balanced_repeatable_and_of_their_split(split):
    asked = list(world.questions(split, 500, seed=5))
    assert asked == list(world.questions(split, 500, seed=5))
    assert len({q.text for q in asked}) == 500
    assert [q.kind for q in asked[:5]] == list(world.KINDS)
    assert all(world.split_of(q.text) == split for q in asked)


def test_the_kind_of_a_question_is_what_its_operators_say():
    for question in world.questions("test", 200):
        skills = {world.SKILL_OF[link.op] for link in world.parse(question.text)[1]}
        assert skills == {question.kind} if question.kind != "mix" else len(skills) > 1


def test_a_question_can_be_confined_to_given_facts():
    facts, rng = world.taught_facts("student"), random.Random(0)
    for _ in range(100):
        assert all(step.fact in facts for step in world.gold(world.draw(rng, facts=facts).text))
