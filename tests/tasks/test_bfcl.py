from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from vivavoce.agents.call_text import read_calls, without_calls, write_call
from vivavoce.errors import DataError
from vivavoce.records import ToolCall
from vivavoce.tasks import Task, open_task
from vivavoce.tasks.bfcl import CATEGORIES
from vivavoce.tasks.checking import Checkable

AREA = {"type": "dict", "properties": {"base": {"type": "float"}, "unit": {"type": "any"}}, "required": ["base"]}
ROW = {
    "id": "simple_0",
    "question": [[{"role": "user", "content": "What is its area?"}]],
    "function": [{"name": "geo.area", "description": "Of a square.", "parameters": AREA}],
}


def opened(folder: Path, category: str = "simple", wanted: Any = None, **changed: Any) -> Task:
    path = folder / f"BFCL_v4_{category}.json"
    path.write_text(json.dumps({**ROW, **changed}), "utf-8")
    (folder / "possible_answer").mkdir(exist_ok=True)
    answers = json.dumps({"id": "simple_0", "ground_truth": wanted}) if wanted is not None else ""
    (folder / "possible_answer" / path.name).write_text(answers, "utf-8")
    return open_task("bfcl", {"test_path": path})


def graded(task: Task, text: str) -> tuple[bool | None, str]:
    grade = task.grade(task.problems("test")[0], text)
    return grade.correct, grade.reason


@pytest.mark.parametrize("category", CATEGORIES)
def test_official_answers_are_right_and_every_mutation_wrong(category: str, bfcl: Path) -> None:
    """Every so-manieth row; ``viva check-tasks`` goes through all of them."""
    task = open_task("bfcl", {"test_path": next(bfcl.glob(f"BFCL_v4_{category}.json*"))})
    rows = len(task.problems("test"))
    assert isinstance(task, Checkable)
    for sample in islice(task.samples("test"), 0, None, max(1, rows // 25)):
        assert [graded.correct for graded in (task.grade(sample.problem, text) for text in sample.right)] == [True]
        assert sample.wrong
        assert not any(task.grade(sample.problem, text).correct for text in sample.wrong), sample.where


def test_the_question_shows_the_functions_in_the_types_of_json_schema(tmp_path: Path) -> None:
    words, _, title, function = (
        opened(tmp_path, wanted=[{"geo.area": {"base": [2.0]}}]).problems("test")[0].question.split("\n")
    )
    assert (words, title) == ("What is its area?", "Functions:")
    assert json.loads(function)["parameters"] == {
        "type": "object",
        "properties": {"base": {"type": "number"}, "unit": {}},
        "required": ["base"],
    }


def test_a_reply_is_judged_by_its_calls_and_told_what_is_wrong_with_them(tmp_path: Path) -> None:
    task = opened(tmp_path, wanted=[{"geo.area": {"base": [2.0]}}])
    right = write_call(ToolCall("geo.area", {"base": 2.0}))
    assert graded(task, f"Let me see. {right}") == (True, "")
    assert graded(task, f"<think>{right}</think>I do not know.") == (False, "0 calls, and 1 were wanted")
    assert graded(task, right.replace("2.0", "3.0"))[1] == "geo.area: base is 3.0, not one of [2.0]"
    assert "not closed" in graded(task, right.removesuffix("</tool_call>"))[1]


@pytest.mark.parametrize(
    "reply",
    [
        '<tool_call>\n{"name": "geo.area", "arguments": {"unit": "a </think> b", "base": 1}}\n</tool_call>',
        '<tool_call>\n{"name": "geo.area", "arguments": {"unit": "a </tool_call> b", "base": 1}}\n</tool_call>',
        "<think>Let me see which function",
        "<think>None fits.</think>",
        "",
        '```json\n{"name": "geo.area", "arguments": {"base": 1}}\n```',
        '[{"name": "geo.area", "parameters": {"base": 1}}]',
        "[geo.area(base=1)]",
        "geo.area(base=1)",
        "<function=geo.area>{}</function>",
        '[TOOL_CALLS][{"name": "geo.area"}]',
    ],
)
def test_who_calls_or_says_nothing_has_not_said_that_no_function_fits(tmp_path: Path, reply: str) -> None:
    assert graded(opened(tmp_path, "irrelevance"), reply)[0] is False


@pytest.mark.parametrize(
    "reply", ["None of the functions fits: geo.area(base) is of a square.", "<think>geo.area(base=1)\n</think>No."]
)
def test_who_only_speaks_of_a_function_has_not_called_it(tmp_path: Path, reply: str) -> None:
    assert graded(opened(tmp_path, "irrelevance"), reply) == (True, "")


def test_where_no_function_fits_nothing_may_be_called_and_of_relevance_anything(tmp_path: Path) -> None:
    call = write_call(ToolCall("geo.area", {"base": 1}))
    assert graded(opened(tmp_path, "irrelevance"), "None fits.") == (True, "")
    assert graded(opened(tmp_path, "irrelevance"), call)[0] is False
    assert graded(opened(tmp_path, "live_relevance"), call) == (True, "")
    assert graded(opened(tmp_path, "live_relevance"), "None fits.") == (False, "nothing is called")


def test_a_question_without_an_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no answer to it"):
        opened(tmp_path, wanted=[], id="simple_1").problems("test")


def test_calls_are_written_as_they_are_read() -> None:
    calls = [ToolCall("a", {"text": "</p> ü", "n": [1, {"x": None}]}), ToolCall("b", {})]
    text = f"First. {''.join(map(write_call, calls))} Then."
    assert read_calls(text) == calls
    assert without_calls(text) == "First.  Then."
