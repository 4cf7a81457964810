"""Your own questions: read as the options say, and refused with file and row where they would spoil a score."""

import json
from pathlib import Path
from typing import Any

import pytest

from vivavoce.errors import DataError, RecipeError
from vivavoce.records import Problem
from vivavoce.tasks import Task, open_task

ROWS = [{"question": f"{i} + 1?", "answer": i + 1, "topic": "sums"} for i in range(10)]
CHOICES = {"question": "Which is prime?", "answer": "C", "options": ["4", "6", "7", "9"]}


@pytest.fixture
def opened(tmp_path: Path):
    def open_rows(rows: list[Any], **options: Any) -> Task:
        path = tmp_path / "mine.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
        return open_task("jsonl", {"path": path, "train_share": 0.5, "seed": 7, "grader": "number"} | options)

    return open_rows


def test_one_file_is_split_by_share_and_seed(opened) -> None:
    task = opened(ROWS, train_share=0.7, group_field="topic", name="sums")
    train, test = task.problems("train"), task.problems("test")
    assert (len(train), len(test)) == (7, 3)
    assert {p.question for p in train + test} == {row["question"] for row in ROWS}
    assert train == opened(ROWS, train_share=0.7, group_field="topic", name="sums").problems("train")
    assert train != opened(ROWS, train_share=0.7, group_field="topic", name="sums", seed=8).problems("train")
    assert {p.group for p in train} == {"sums"}
    assert all(p.id.startswith("sums/") for p in train)
    assert [p.question for p in train] == sorted(p.question for p in train)


def test_two_files_are_a_split(tmp_path: Path) -> None:
    for name, rows in (("train", ROWS[:8]), ("test", ROWS[8:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    paths = {f"{name}_path": tmp_path / f"{name}.jsonl" for name in ("train", "test")}
    task = open_task("jsonl", {"grader": "number", **paths})
    assert (len(task.problems("train")), len(task.problems("test"))) == (8, 2)
    with pytest.raises(DataError, match="8 questions are both in train and in test"):
        open_task("jsonl", {"grader": "number", "train_path": paths["train_path"], "test_path": paths["train_path"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either path, or train_path and test_path"),
        ({"train_path": "a"}, "give either path"),
        ({"path": "a", "test_path": "b"}, "path excludes"),
        ({"path": "a"}, "path needs train_share and seed"),
        ({"path": "a", "train_share": 0.5}, "path needs train_share and seed"),
        ({"train_path": "a", "test_path": "b", "seed": 1}, "belong to path"),
        ({"path": "a", "train_share": 0.5, "seed": 1, "choices_field": "c"}, "choices_field needs grader: choice"),
        ({"path": "a", "train_share": 0.5, "seed": 1, "answer_is": "index"}, "answer_is needs choices_field"),
        ({"path": "a", "train_share": 1.5, "seed": 1}, "must be 1 or less"),
    ],
)
def test_options_that_leave_the_split_open_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        open_task("jsonl", {"grader": "number"} | options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?"}, "no field 'answer'"),
        ({"question": "?", "answer": ""}, "field 'answer' is empty"),
        ({"question": "?", "answer": None}, "field 'answer' is empty"),
        ({"question": float("nan"), "answer": "4"}, "field 'question' is empty"),
        ({"question": "?", "answer": "many"}, "cannot read the gold answer 'many'"),
        ({"question": "?", "answer": "7 or 8"}, "cannot read the gold answer '7 or 8'"),
        (ROWS[0], "appears twice"),
    ],
)
def test_a_row_that_would_spoil_a_score_is_named(opened, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        opened([ROWS[0], row])
    assert "mine.jsonl, row 2" in caught.value.where


def test_a_duplicate_id_is_named_with_both_rows(opened) -> None:
    rows = [{"id": "a", "question": "1?", "answer": 1}, {"id": "a", "question": "2?", "answer": 2}]
    with pytest.raises(DataError, match=r"duplicate id 'a'(?s:.*)row 2, and before it .*row 1"):
        opened(rows, id_field="id")


def test_ids_of_the_file_are_kept(opened) -> None:
    task = opened([{"nr": 5, "question": "1?", "answer": 1}], id_field="nr", train_share=1)
    assert task.problems("train") == [Problem("5", "1?", "1")]


def test_a_field_called_id_is_used_unless_it_is_turned_off(opened, tmp_path: Path) -> None:
    rows = [{"id": i, "question": f"{i}?", "answer": 1} for i in range(2)]
    assert [p.id for p in opened(rows, train_share=1).problems("train")] == ["0", "1"]
    made = opened(rows, train_share=1, id_field=None).problems("train")
    assert all(p.id.startswith("jsonl/") for p in made)
    with pytest.raises(DataError, match="no field 'id'"):
        opened([*rows, {"question": "3?", "answer": 1}])
    with pytest.raises(DataError, match=r"duplicate id '1'(?s:.*)`id_field: null` makes ids"):
        opened([*rows, {**rows[1], "question": "4?"}])
    with pytest.raises(DataError, match="the question appears twice"):
        opened([*rows, {**rows[1], "id": "2"}])
    for name in ("train", "test"):  # each file counts from 0
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": 0, "question": f"{name}?", "answer": 1}))
    paths = {f"{name}_path": tmp_path / f"{name}.jsonl" for name in ("train", "test")}
    with pytest.raises(DataError, match="duplicate id '0'"):
        open_task("jsonl", {"grader": "number", **paths})


def test_choices_that_no_model_would_see_are_asked_about(opened) -> None:
    (doubt,) = opened([CHOICES, {**CHOICES, "question": "?"}], grader="choice").doubts
    assert doubt.message.startswith("2 of 2 questions show no options to choose from")
    assert "choices_field: options" in doubt.do
    (doubt,) = opened([{"question": "Which is prime?", "answer": "C", "A": "4"}], grader="choice").doubts
    assert "write options under the question" in doubt.do
    for seen in ("Which?\nA. 4\nB. 6\nC. 7", "Which? (A) 4 (B) 6", "Which? A) 4 B) 6", "Which?\nA: 4\nB: 6"):
        assert opened([{"question": seen, "answer": "B", "options": ["4", "6"]}], grader="choice").doubts == ()
    assert opened([CHOICES], grader="choice", choices_field="options").doubts == ()


@pytest.mark.parametrize(("answer_is", "answer"), [("letter", "C"), ("letter", "(c)"), ("index", 2), ("text", "7")])
def test_choices_are_lettered_under_the_question(opened, answer_is: str, answer: object) -> None:
    rows = [CHOICES | {"answer": answer}]
    task = opened(rows, grader="choice", choices_field="options", answer_is=answer_is, train_share=1)
    (problem,) = task.problems("train")
    assert problem.question == "Which is prime?\nA. 4\nB. 6\nC. 7\nD. 9"
    assert problem.gold == "C"
    assert task.grade(problem, "Correct: C").correct is True


@pytest.mark.parametrize(
    ("answer_is", "change", "message"),
    [
        ("letter", {"answer": "E"}, "'E' is not the letter of one of 4 choices"),
        ("letter", {"answer": 2}, "'2' is not the letter"),
        ("index", {"answer": 4}, "'4' is not the index"),
        ("text", {"answer": "8"}, "'8' is not the text"),
        ("letter", {"options": "4 6 7 9"}, "no list of 2 to 10 choices"),
        ("letter", {"options": ["4"]}, "no list of 2 to 10 choices"),
        ("letter", {"options": ["4", "4", "7"]}, "appears twice"),
        ("letter", {"options": ["4", None, "7"]}, "a choice is empty"),
    ],
)
def test_a_gold_answer_that_is_no_choice_is_refused(opened, answer_is: str, change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        opened([CHOICES | change], grader="choice", choices_field="options", answer_is=answer_is)
    assert error.value.do


@pytest.mark.parametrize(
    ("grader", "answer", "gold"),
    [("yes_no", True, "yes"), ("yes_no", "false", "no"), ("exact", "Kelvin", "Kelvin"), ("text", "The Hague.", "hague"),
     ("number", "2 * 9 = 18\n#### 18", "18"), ("number", 18.0, "18"), ("number", "$1,000", "1000")],
)  # fmt: skip
def test_gold_answers_are_made_canonical(opened, grader: str, answer: object, gold: str) -> None:
    task = opened([{"question": "?", "answer": answer}], grader=grader, train_share=1)
    assert [p.gold for p in task.problems("train")] == [gold]


@pytest.mark.parametrize("grader", ["number", "choice", "yes_no", "exact", "text"])
def test_the_asked_format_is_the_one_that_is_graded(opened, grader: str) -> None:
    gold = {"number": "18", "choice": "B", "yes_no": "yes"}.get(grader, "Lima")
    task = opened([{"question": "?", "answer": gold}], grader=grader, train_share=1)
    (problem,) = task.problems("train")
    assert "'Final answer: '" in task.answer_format
    assert task.grade(problem, f"Let me see.\nFinal answer: {gold}").correct is True
    second = opened([{"question": "?", "answer": gold}], grader=grader, train_share=1, answer_format="Say it.")
    assert second.answer_format == "Say it."
