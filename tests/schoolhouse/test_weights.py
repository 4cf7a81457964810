"""The shipped weights answer, debate and criticise on unseen questions."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from schoolhouse import gates as gate  # noqa: E402
from schoolhouse.speak import Speaker  # noqa: E402
from vivavoce.schoolhouse import NAMES, weights, world  # noqa: E402
from vivavoce.schoolhouse.tokenizer import prompt  # noqa: E402

built = pytest.mark.skipif(not weights("ada").is_dir(), reason="the models are not built: make schoolhouse")


@pytest.fixture(scope="module")
def speakers():
    return {name: Speaker.load(weights(name)) for name in NAMES}


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"'dan'.*ada, bob, cyd, student"):
        weights("dan")


@built
def test_the_weights_that_ship_passed_their_gates():
    measured = json.loads((weights("ada").parent / "measured.json").read_text())
    assert all(measured["gates"].values()), [name for name, ok in measured["gates"].items() if not ok]


@pytest.mark.slow
@built
def test_debating_teachers_beat_their_drafts_on_unseen_questions(speakers):
    made = gate.measure_debate({name: speakers[name] for name in gate.TEACHERS}, 200, seed=21)
    for name, teacher in made["teachers"].items():
        for skill in world.STRONG[name]:
            assert teacher["alone"][skill] > 0.7
        assert teacher["auroc said"] > 0.75
    votes = {name: row["all"] for name, row in made["votes"].items()}
    assert votes["one round, weighted (probability)"] > votes["drafts, majority"] + 0.1


@built
def test_teachers_criticise_the_students_drafts(speakers):
    made = gate.measure_critique({"ada": speakers["ada"]}, speakers["student"], 200, seed=22)["ada"]["strong"]
    assert made["by word"]["locate"] > 0.65
    assert made["by word"]["false alarm"] < 0.25
    assert made["auroc score"] > 0.75


@built
def test_the_student_speaks_plainly_and_knows_the_common_facts(speakers):
    made = gate.measure_student(speakers["student"], 100, seed=23)
    assert made["known facts"] > 0.93
    assert made["all questions"]["all"] < 0.5
    reply = speakers["student"].replies([prompt("solve", "a=4; b=a-3; c=b*5; c?")])[0]
    assert "conf" not in reply
    assert "?" not in reply
