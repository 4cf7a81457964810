"""GSM8K: the official files, every gold answer, and the hub where no file is given."""

import gzip
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.errors import DataError, MissingDependency
from vivavoce.records import Problem, Token
from vivavoce.tasks import open_task
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.rows import read_rows

DATA = Path(__file__).parents[3] / "shared" / "data" / "gsm8k"
ROW = {"question": "2 dozen eggs?", "answer": "It is 2 * 12 = <<2*12=24>>24.\n#### 24"}


def write(path: Path, *rows: object) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.skipif(not DATA.is_dir(), reason="the official files are not beside the repository")
@pytest.mark.parametrize(("split", "rows"), [("train", 7473), ("test", 660)])
def test_every_official_gold_answer_is_right_and_the_next_number_wrong(split: str, rows: int) -> None:
    paths = {"train": DATA / "train.jsonl.gz", "test": DATA / "test_first_half.jsonl"}
    task = open_task("gsm8k", {f"{s}_path": p for s, p in paths.items()})
    problems = task.problems(split)
    assert len(problems) == len({problem.id for problem in problems}) == rows
    task.problems("test" if split == "train" else "train")  # refuses an overlap
    for problem, row in zip(problems, read_rows(paths[split]), strict=True):
        worked = row.text("answer")
        assert problem.gold == worked.rpartition("#### ")[2].replace(",", "")
        assert task.grade(problem, worked).correct is True
        assert "".join(task.steps(worked)) == worked
        assert task.grade(problem, f"Final answer: {problem.gold}").correct is True
        wrong = GRADERS["number"].perturbed(problem.gold)
        assert task.grade(problem, f"{worked}\nFinal answer: {wrong}").correct is False


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz"])
def test_the_official_form_is_read_plain_and_gzipped(tmp_path: Path, name: str) -> None:
    rows = [ROW, ROW | {"question": "Negative?", "answer": "#### -1,000"}]
    task = open_task("gsm8k", {"train_path": write(tmp_path / name, *rows)})
    assert [problem.gold for problem in task.problems("train")] == ["24", "-1000"]
    limited = open_task("gsm8k", {"train_path": tmp_path / name, "train_limit": 1})
    assert limited.problems("train") == task.problems("train")[:1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?"}, "no field 'answer'"),
        ({"question": " ", "answer": "#### 4"}, "field 'question' is empty"),
        ({"question": ["?"], "answer": "#### 4"}, "field 'question' is a list, not text"),
        ({"question": "?", "answer": "4"}, "does not end with '#### '"),
        ({"question": "?", "answer": "#### many"}, "does not end with '#### '"),
        ([1], "a list where an object is needed"),
        (ROW, "stands there twice"),
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
    with pytest.raises(DataError, match="stand in train and in test"):
        task.problems("test")


def test_without_a_path_the_split_comes_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*args: object, **kwargs: object) -> list[dict[str, str]]:
        asked.append((args, kwargs))
        return [ROW]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    task = open_task("gsm8k", {})
    assert not asked
    assert [problem.gold for problem in task.problems("test")] == ["24"]
    assert asked == [(("openai/gsm8k", "main"), {"split": "test", "revision": None})]


def test_an_unreachable_hub_and_a_missing_package_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: object, **kwargs: object) -> None:
        raise ConnectionError("offline")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match=r"offline(?s:.*)set test_path"):
        open_task("gsm8k", {}).problems("test")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match="vivavoce"):
        open_task("gsm8k", {}).problems("test")


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
