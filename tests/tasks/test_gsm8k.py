"""GSM8K: the official files, every gold answer, and the hub where no file is given."""

import gzip
import json
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.errors import DataError, MissingDependency
from vivavoce.records import Problem, Token
from vivavoce.tasks import open_task
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.rows import read_rows

ROW = {"question": "2 dozen eggs?", "answer": "It is 2 * 12 = <<2*12=24>>24.\n#### 24"}


def write(path: Path, *rows: object) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_an_official_split_is_whole_and_its_worked_answers_are_right(gsm8k: Path) -> None:
    path = gsm8k / "test_first_half.jsonl"
    task = open_task("gsm8k", {"train_path": gsm8k / "train.jsonl.gz", "test_path": path})
    problems = task.problems("test")
    assert len(problems) == len({problem.id for problem in problems}) == 660
    assert len(task.problems("train")) == 7473
    for problem, row in zip(problems, read_rows(path), strict=True):
        worked = row.text("answer")
        assert problem.gold == worked.rpartition("#### ")[2].replace(",", "")
        assert task.grade(problem, worked).correct is True
        assert "".join(task.steps(worked)) == worked
        wrong = GRADERS["number"].perturb(problem.gold)
        assert task.grade(problem, f"{worked}\nFinal answer: {wrong}").correct is False


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz"])
def test_the_official_form_is_read_plain_and_gzipped(tmp_path: Path, name: str) -> None:
    rows = [ROW, ROW | {"question": "Negative?", "answer": "#### -1,000"}]
    task = open_task("gsm8k", {"train_path": write(tmp_path / name, *rows)})
    assert [problem.gold for problem in task.problems("train")] == ["24", "-1000"]
    limited = open_task("gsm8k", {"train_path": tmp_path / name, "train_limit": 1, "limit_takes": "first"})
    assert limited.problems("train") == task.problems("train")[:1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?"}, "no field 'answer'"),
        ({"question": " ", "answer": "#### 4"}, "field 'question' is empty"),
        ({"question": ["?"], "answer": "#### 4"}, "field 'question' is a list, not text"),
        ({"question": "?", "answer": "4"}, "does not end with '#### '"),
        ({"question": "?", "answer": "#### many"}, "does not end with '#### '"),
        ([1], "a list is not an object"),
    ],
)
def test_a_bad_row_is_named_by_file_and_row(tmp_path: Path, row: object, message: str) -> None:
    path = write(tmp_path / "train.jsonl", ROW, row)
    with pytest.raises(DataError, match=message) as caught:
        open_task("gsm8k", {"train_path": path}).problems("train")
    assert caught.value.where == f"{path}, row 2"


@pytest.mark.parametrize(
    ("name", "content"), [("gone.jsonl", None), ("x.jsonl.gz", b"not gzip"), ("y.jsonl", b"{\xff"), ("z.jsonl", b"{")]
)
def test_an_unreadable_file_is_a_data_error(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        open_task("gsm8k", {"train_path": tmp_path / name}).problems("train")


def test_a_test_question_in_train_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "both.jsonl", ROW)
    task = open_task("gsm8k", {"train_path": path, "test_path": path})
    task.problems("train")
    with pytest.raises(DataError, match="both in train and in test"):
        task.problems("test")


CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: train.jsonl}
  - {split: test, path: test.jsonl}
---
"""


def test_without_a_path_the_split_comes_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder laid out like a data set of the hub, read by the library that reads the hub."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "README.md").write_text(CARD, "utf-8")
    for split, question in (("train", "3 dozen?"), ("test", "2 dozen?")):
        write(tmp_path / "hub" / f"{split}.jsonl", ROW | {"question": question})
    task = open_task("gsm8k", {"hub_id": str(tmp_path / "hub")})
    assert [problem.question for problem in task.problems("test")] == ["2 dozen?"]
    assert [problem.gold for problem in task.problems("train")] == ["24"]


def test_an_unreachable_hub_and_a_missing_package_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"cannot load openai/gsm8k(?s:.*)set test_path"):
        open_task("gsm8k", {}).problems("test")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match="vivavoce"):
        open_task("gsm8k", {}).problems("test")


def test_a_question_that_the_official_file_has_twice_is_asked_twice(tmp_path: Path) -> None:
    problems = open_task("gsm8k", {"train_path": write(tmp_path / "train.jsonl", ROW, ROW)}).problems("train")
    assert len({problem.id for problem in problems}) == len(problems) == 2
    assert problems[0].question == problems[1].question


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="unknown split 'dev'"):
        open_task("gsm8k", {}).problems("dev")


def test_the_asked_format_is_the_one_that_is_graded() -> None:
    task = open_task("gsm8k", {})
    assert "'Final answer: '" in task.answer_format
    assert task.grade(Problem("1", "?", "24"), "It is 24.\nFinal answer: 24").correct is True


def test_a_step_of_prose_cannot_be_checked() -> None:
    with pytest.raises(NotImplementedError, match="gsm8k"):
        open_task("gsm8k", {}).first_wrong_step(Problem("1", "?", "24"), "It is 24.")


def test_the_probability_is_the_geometric_mean_of_the_tokens() -> None:
    task = open_task("gsm8k", {})
    tokens = [Token("2", math.log(0.5)), Token("4", math.log(0.125))]
    assert task.probability("24", tokens) == pytest.approx(0.25)
    assert task.probability("", []) == 0.0


@settings(deadline=None)
@given(st.lists(st.floats(max_value=0, allow_nan=False), min_size=1))
def test_the_probability_stays_within_0_and_1(logprobs: list[float]) -> None:
    probability = open_task("gsm8k", {}).probability("", [Token("", p) for p in logprobs])
    assert 0 <= probability <= 1
