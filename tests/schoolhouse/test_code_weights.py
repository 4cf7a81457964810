"""The shipped programmers write programs that run, debate, and know what they do not know, on unseen questions."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.shut_in import needs_sandbox  # noqa: E402

from schoolhouse import code_gates as gate  # noqa: E402
from schoolhouse.speak import Speaker  # noqa: E402
from vivavoce.schoolhouse import NAMES, weights  # noqa: E402
from vivavoce.schoolhouse import code_world as world  # noqa: E402
from vivavoce.schoolhouse.tokenizer import prompt  # noqa: E402

pytestmark = [
    needs_sandbox,
    pytest.mark.skipif(not weights("code/ada").is_dir(), reason="the models are not built: see schoolhouse/README.md"),
]


@pytest.fixture(scope="module")
def speakers() -> dict[str, Speaker]:
    return {name: Speaker.load(weights(f"code/{name}")) for name in NAMES}


def test_the_weights_that_ship_passed_their_gates() -> None:
    measured = json.loads((weights("code/ada").parent / "measured.json").read_text())
    assert all(measured["gates"].values()), [name for name, ok in measured["gates"].items() if not ok]


def test_each_folder_of_weights_is_small() -> None:
    for name in NAMES:
        assert sum(file.stat().st_size for file in weights(f"code/{name}").iterdir()) < 1_000_000


@pytest.mark.slow
def test_debating_programmers_beat_their_drafts_on_unseen_questions(speakers: dict[str, Speaker]) -> None:
    made = gate.measure_debate({name: speakers[name] for name in gate.TEACHERS}, 200, seed=21)
    for name, teacher in made["teachers"].items():
        for skill in world.SKILLS:
            alone = teacher["alone"][skill]
            assert alone > 0.7 if skill in world.STRONG[name] else alone < 0.5
        assert teacher["auroc said"] > 0.75
        assert teacher["unknown steps marked"] > 0.8
    votes = {name: row["all"] for name, row in made["votes"].items()}
    assert votes["one round, weighted (probability)"] > votes["drafts, majority"] + 0.1


def test_the_student_writes_plainly_and_knows_the_common_functions(speakers: dict[str, Speaker]) -> None:
    made = gate.measure_student(speakers["student"], 100, seed=23)
    assert made["known functions"] > 0.93
    assert made["all questions"]["all"] < 0.5
    reply = speakers["student"].replies([prompt("solve", next(world.questions("test", 1)).text)])[0]
    assert "conf" not in reply
    assert "?" not in reply
