"""Cutting loses nothing and depends on nothing but what it is given."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.errors import DataError
from vivavoce.records import Problem
from vivavoce.tasks import open_task
from vivavoce.tasks.splitting import lines_and_sentences, question_id, refuse_overlap, split

_PIECES = st.sampled_from(["A b. ", "Dr. X", "\n", " ", "1. ", "Hm! ", "3.5", "#### 7"])


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(_PIECES).map("".join)))
def test_steps_join_back_to_the_text(text: str) -> None:
    steps = lines_and_sentences(text)
    assert "".join(steps) == text
    assert all(step.strip() for step in steps) or not text.strip()


def test_a_step_is_a_sentence_and_a_break_ends_its_line() -> None:
    text = "Dr. Ada has 3.5 kg. She sells 1. What is left?\n\n1. Subtract.\n#### 2.5"
    assert lines_and_sentences(text) == [
        "Dr. Ada has 3.5 kg.", " She sells 1. What is left?\n\n", "1. Subtract.\n", "#### 2.5",
    ]  # fmt: skip


def test_a_split_has_the_asked_size_and_does_not_depend_on_the_order_of_rows() -> None:
    ids = [f"q{i}" for i in range(101)]
    train, test = split(ids, 0.75, 42)
    assert (len(train), len(test)) == (76, 25)
    assert train | test == set(ids)
    shuffled = random.Random(1).sample(ids, len(ids))
    assert split(shuffled, 0.75, 42) == (train, test)
    assert split(ids, 0.75, 43) != (train, test)


def test_the_id_of_a_question_never_changes() -> None:
    assert question_id("gsm8k", "2 + 2?") == "gsm8k/c8b1ddca4497"


def test_a_question_in_both_splits_is_refused_whatever_its_spacing_and_case() -> None:
    with pytest.raises(DataError, match="1 questions are both in train and in test"):
        refuse_overlap([Problem("a", "Two and two?", "4")], [Problem("b", "two  and\ntwo?", "4")], "files")


def test_questions_left_out_are_known_however_a_story_is_joined_to_its_question(tmp_path: Path) -> None:
    """The released file writes a comma where the official one has none, so that we put a stop there."""
    released, own = tmp_path / "released.jsonl", tmp_path / "own.json"
    released.write_text(json.dumps({"question": "There are 692 girls, How many pupils are there?"}) + "\n")
    rows = [
        {"Body": "There are 692 girls", "Question": "How many pupils are there?"},
        {"Body": "B", "Question": "Why?"},
    ]
    own.write_text(json.dumps([{**row, "Answer": 4, "Type": "t"} for row in rows]))
    task = open_task("svamp", {"path": str(own), "train_share": 0, "leave_out": str(released)})
    assert [p.question for p in task.problems("test")] == ["B. Why?"]


def test_the_official_questions_that_are_not_among_the_released_ones_are_315(fair_svamp: Path) -> None:
    files = {"path": str(next(fair_svamp.parent.glob("svamp/SVAMP*.json"))), "leave_out": str(fair_svamp)}
    assert len(open_task("svamp", {**files, "train_share": 0}).problems("test")) == 315
