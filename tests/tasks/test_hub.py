"""Data sets by their columns: a folder in any form that `datasets` reads stands in for the Hub."""

import json
import re
from pathlib import Path

import datasets
import pytest
from pyarrow import Table, parquet

from vivavoce.errors import DataError, RecipeError
from vivavoce.tasks import open_task

ROWS = [
    {"q": f"What is {n} and {n}?", "a": {"value": str(2 * n)}, "kind": "odd" if n % 2 else "even"} for n in range(12)
]
COLUMNS = {"question_field": "q", "answer_field": "a.value", "group_field": "kind", "grader": "number"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    parquet.write_table(Table.from_pylist(ROWS[:8]), tmp_path / "set" / "train-00000.parquet")
    parquet.write_table(Table.from_pylist(ROWS[8:]), tmp_path / "set" / "validation-00000.parquet")
    return tmp_path / "set"


def test_a_data_set_is_read_by_its_columns(folder: Path) -> None:
    task = open_task("hub", {"hub_id": str(folder), "test_split": "validation", **COLUMNS})
    train, test = task.problems("train"), task.problems("test")
    assert (task.name, len(train), len(test)) == ("set", 8, 4)
    assert (test[0].question, test[0].gold, test[0].group) == ("What is 8 and 8?", "16", "even")
    assert task.grade(test[0], "Final answer: 16").correct is True
    assert task.grade(test[0], "Final answer: 17").correct is False


def test_what_was_saved_to_disk_is_read_as_it_is(tmp_path: Path) -> None:
    whole = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS[:8]), "test": datasets.Dataset.from_list(ROWS[8:])}
    )
    whole.save_to_disk(tmp_path / "saved")
    task = open_task("hub", {"hub_id": str(tmp_path / "saved"), "train_limit": 3, **COLUMNS})
    assert (len(task.problems("train")), len(task.problems("test"))) == (3, 4)


def test_a_data_set_with_one_split_is_cut(folder: Path) -> None:
    options = {"hub_id": str(folder), "test_split": "train", "train_share": 0.75, "label": "mine", **COLUMNS}
    task = open_task("hub", options)
    assert (len(task.problems("train")), len(task.problems("test"))) == (6, 2)
    assert task.problems("train")[0].id.startswith("mine/")


def test_a_list_of_choices_within_an_object_is_lettered(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    rows = [
        {"q": f"{n}?", "choices": {"text": ["ant", "bee", f"cow {n}"], "label": ["A", "B", "C"]}, "key": "C"}
        for n in range(3)
    ]
    (tmp_path / "set" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    options = {"question_field": "q", "answer_field": "key", "choices_field": "choices.text", "grader": "choice"}
    task = open_task("hub", {"hub_id": str(tmp_path / "set"), "test_split": "train", **options})
    problem = (task.problems("train") + task.problems("test"))[0]
    assert "A. ant\nB. bee\nC. cow" in problem.question
    assert task.grade(problem, "Final answer: C").correct is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_split": "exam"}, "exam"),
        ({"question_field": "ask"}, "no field 'ask'.*q, a, kind"),
        ({"answer_field": "a.text"}, r"no field 'a\.text'"),
        ({"answer_field": "kind"}, "cannot read the gold answer"),
        ({"hub_id": "nobody/nothing"}, "cannot load nobody/nothing.*unset HF_HUB_OFFLINE, with which"),
    ],
)
def test_a_mistake_is_told_with_what_there_is(folder: Path, changes: dict[str, str], message: str) -> None:
    options = {"hub_id": str(folder), "test_split": "validation", **COLUMNS, **changes}
    with pytest.raises(DataError) as error:
        open_task("hub", options).problems("test")
    assert re.search(message, f"{error.value.what} {error.value.where} {error.value.do}"), error.value


def test_a_recipe_without_a_data_set_says_what_to_give() -> None:
    with pytest.raises(RecipeError, match="give hub_id"):
        open_task("hub", COLUMNS)


def test_a_parquet_file_of_ones_own_is_read_like_json_lines(tmp_path: Path) -> None:
    rows = [{"question": row["q"], "answer": row["a"]["value"]} for row in ROWS]
    parquet.write_table(Table.from_pylist(rows), tmp_path / "mine.parquet")
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    options = {"train_share": 0.5, "seed": 0, "grader": "number"}
    one, other = (
        open_task("jsonl", {"path": tmp_path / f"mine.{kind}", **options}).problems("train")
        for kind in ("parquet", "jsonl")
    )
    assert one == other
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "mine.parquet").read_bytes()[:200])
    with pytest.raises(DataError, match="cannot read it as Parquet"):
        open_task("jsonl", {"path": tmp_path / "cut.parquet", **options})
