"""A task is found by its name or by its file, and a wrong option is explained before anything is spent."""

from pathlib import Path

import pytest

from vivavoce import plugins
from vivavoce.errors import RecipeError
from vivavoce.tasks import open_task

MINE = """
from pydantic import BaseModel, ConfigDict
from vivavoce.records import Grade, Problem

class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    answer: str = "4"

class Mine:
    name = "mine"
    answer_format = ""
    def __init__(self, options): self.options = options
    def problems(self, split): return [Problem("1", "2 + 2?", self.options.answer)]
    def grade(self, problem, text): return Grade(text, text == problem.gold)

def task(options): return Mine(options)
"""


def test_the_known_tasks_are_the_files_that_define_one() -> None:
    assert {"gsm8k", "jsonl", "math", "mmlu", "schoolhouse"} <= {*plugins.names("tasks")}
    assert not {"grading", "rows", "benchmark", "checking", "mathematics"} & {*plugins.names("tasks")}


def test_a_task_is_found_by_name() -> None:
    assert open_task("schoolhouse", {"train": 3, "test": 2}).name == "schoolhouse"


def test_an_unknown_name_is_answered_with_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"did you mean `gsm8k`\?(?s:.*)use one of .*gsm8k, "):
        open_task("gsm-8k", {})


@pytest.mark.parametrize("name", ["grading", "os", "..records", "", "__init__", "schoolhouse/build"])
def test_a_module_that_is_no_task_cannot_be_opened_as_one(name: str) -> None:
    with pytest.raises(RecipeError, match="unknown task"):
        open_task(name, {})


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="unknown key `train_pth`, did you mean `train_path`") as caught:
        open_task("gsm8k", {"train_pth": "x"})
    assert caught.value.where == "task gsm8k"
    assert "train_path" in caught.value.do


def test_an_ill_typed_option_is_named() -> None:
    with pytest.raises(RecipeError, match="`train`: must be 0 or more"):
        open_task("schoolhouse", {"train": -1})


def test_a_python_file_is_a_task(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE, "utf-8")
    task = open_task(str(file), {"answer": "5"})
    assert task.problems("test")[0].gold == "5"
    with pytest.raises(RecipeError, match="unknown key `anser`, did you mean `answer`"):
        open_task(str(file), {"anser": "5"})


@pytest.mark.parametrize(
    ("source", "message"),
    [("def task(:", "not Python"), ("x = 1", "no pydantic model `Options`")],
    ids=["syntax", "empty"],
)
def test_a_file_that_is_no_task_is_refused(tmp_path: Path, source: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(source, "utf-8")
    with pytest.raises(RecipeError, match=message):
        open_task(str(file), {})


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"no file nowhere\.py"):
        open_task("nowhere.py", {})
