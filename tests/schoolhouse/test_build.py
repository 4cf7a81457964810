"""The builder trains: a fraction of the student's schooling already binds operands and knows facts."""

import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM  # noqa: E402

from schoolhouse import chains_build as build  # noqa: E402
from schoolhouse import code_build, code_lessons, halls_build, halls_lessons, study  # noqa: E402
from schoolhouse.build import SETS  # noqa: E402
from schoolhouse.lessons import LESSONS, Pupil  # noqa: E402
from schoolhouse.speak import Speaker  # noqa: E402
from vivavoce.schoolhouse import tokenizer, world  # noqa: E402


@pytest.fixture
def speaker():
    return Speaker(study.new_model(study.TEACHER_SHAPE, 0), tokenizer.tokenizer())


def test_rows_are_what_tokenising_the_whole_text_gives(speaker):
    sample = ("a=4; b=a-3; c=b*5; c?", "b=4-3=1; c=1*5=7?; ans=7 conf=15")
    pupil, rng = Pupil(world.taught_facts("bob"), samples=[sample]), random.Random(0)
    made = [kind(rng, pupil) for kind in LESSONS.values() for _ in range(20)]
    for lesson, row in zip(made, study.rows(speaker, made), strict=True):
        whole = tokenizer.prompt(lesson.system, lesson.user) + "".join(t for t, _ in lesson.reply) + tokenizer.END
        assert row.ids == speaker.ids([whole])[0]
        assert len(row.ids) == len(row.weights)


STAGES = [
    (LESSONS, [*build.STUDENT, *build.BASE, *build.TEACHER_FACTS, *build.TEACHER_SELF]),
    (code_lessons.LESSONS, [*code_build.STUDENT, *code_build.BASE, *code_build.TEACHER]),
    (halls_lessons.LESSONS, [*halls_build.STUDENT, *halls_build.BASE, *halls_build.TEACHER]),
]


@pytest.mark.parametrize(("known", "stages"), STAGES, ids=list(SETS))
def test_stages_name_lessons_that_exist_with_shares_that_add_up(known, stages):
    for stage in stages:
        assert set(stage.mixture) <= set(known)
        assert sum(stage.mixture.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("builder", "lessons", "taught_to"),
    [
        (code_build, code_lessons, code_build.world.taught_functions),
        (halls_build, halls_lessons, halls_build.world.taught_rooms),
    ],
    ids=["code", "halls"],
)
def test_a_stage_of_a_few_updates_is_kept_and_not_run_again(builder, lessons, taught_to, tmp_path):
    pupil = lessons.Pupil(taught_to("student"))
    school = builder.school(pupil)._replace(known=lambda speaker: (0.0, 0.0))
    words = tokenizer.tokenizer(school.words)
    stages = [builder.STUDENT[0]._replace(steps=2)]
    untaught = Speaker(study.new_model(study.STUDENT_SHAPE, 0, words), words)
    taught = study.study("student", untaught, school, stages, tmp_path, 0)
    second = study.study("student", untaught, school, stages, tmp_path, 1)
    assert all(torch.equal(a, b) for a, b in zip(taught.model.parameters(), second.model.parameters(), strict=True))


@pytest.mark.slow
def test_a_short_build_learns_known_facts_and_saves_an_ordinary_folder(tmp_path):
    speaker = build.build_student(tmp_path, seed=0, shorten=build.SHORT)
    _, steps = build.known_accuracy(speaker, world.taught_facts("student"), 200)
    assert steps > build.SHORT_STEP_ACCURACY
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert saved.dtype == torch.bfloat16
    assert saved.generation_config.eos_token_id == speaker.ids(["<|end|>"])[0][0]
