"""Prompts without gold: the shapes of published files, as states to learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vivavoce.config import check_recipe
from vivavoce.errors import DataError
from vivavoce.methods.debate_opd import Options, plan
from vivavoce.tasks import open_task
from vivavoce.tasks.prompts import Prompts

EXAM = {"name": "schoolhouse", "train": 0, "test": 4}
TOOLACE = {
    "system": "You may call: market(country).",
    "tools": "[]",
    "conversations": [
        {"from": "human", "value": "How is the market?"},
        {"from": "function_call", "value": '{"name": "market", "arguments": {"country": "us"}}'},
        {"from": "observation", "value": "up 2 %"},
        {"from": "gpt", "value": "It is up by 2 %."},
        {"from": "human", "value": "And in France?"},
        {"from": "gpt", "value": "Shall I look?"},
    ],
}
THOUGHTS = [
    {"domain": domain, "source": "s", "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
    for domain, q, a in (("code", "Sort a list.", "sorted(x)"), ("math", "2 + 2?", "4"), ("code", "Add.", "a + b"))
]


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def opened(path: Path, **options: Any) -> Prompts:
    made = open_task("prompts", {"path": path, "exam": EXAM, **options})
    assert isinstance(made, Prompts)
    return made


def test_every_turn_of_the_assistant_is_a_state_that_holds_what_came_before_and_nothing_later(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", TOOLACE)
    task = opened(path, turns="all")
    first, second, third = task.problems("train")
    assert [m["role"] for m in first.history] == ["system", "user"]
    assert [m["role"] for m in second.history] == ["system", "user", "assistant", "user"]
    assert second.history[2]["content"].startswith("<tool_call>")
    assert second.history[3]["content"] == "<tool_response>\nup 2 %\n</tool_response>"
    assert third.history[:4] == second.history
    assert (third.question, task.worked(third)) == ("And in France?", "Shall I look?")
    assert task.worked(first).startswith("<tool_call>")
    assert {p.gold for p in task.problems("train")} == {""}
    assert opened(path, turns="first").problems("train") == [first]
    assert opened(path).problems("train") == [third]


def test_rows_are_taken_by_their_fields_and_the_first_ones_within_a_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *THOUGHTS, THOUGHTS[0])
    task = opened(path, where={"domain": "code"}, turns="first", group_field="domain")
    assert [p.question for p in task.problems("train")] == ["Sort a list.", "Add."], "an equal prompt is one state"
    assert {p.group for p in task.problems("train")} == {"code"}
    few = opened(path, where={"domain": "code"}, turns="first", train_limit=1, limit_takes="first")
    assert [p.question for p in few.problems("train")] == ["Sort a list."]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Why?"}]},
        {"prompt": "Why?"},
        {"prompt": [{"role": "user", "content": "Why?"}]},
        {"question": "Why?", "answer": "Because."},
        {"conversations": [{"from": "user", "value": "Why?"}]},
    ],
)
def test_a_prompt_may_stand_there_in_any_usual_shape(row: dict[str, Any], tmp_path: Path) -> None:
    (problem,) = opened(write(tmp_path / "a.jsonl", row)).problems("train")
    assert problem.history == ({"role": "user", "content": "Why?"},)


def test_an_answer_to_a_prompt_is_neither_right_nor_wrong_and_the_exam_grades_its_own(tmp_path: Path) -> None:
    task = opened(write(tmp_path / "a.jsonl", *THOUGHTS))
    prompt, question = task.problems("train")[0], task.problems("test")[0]
    assert task.grade(prompt, " x = 1 ").answer == "x = 1"
    assert task.grade(prompt, "x = 1").correct is None
    assert task.grade(question, task.worked(question)).correct
    assert len(task.problems("test")) == 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": [{"from": "narrator", "value": "x"}]}, "turn 1 has no author"),
        ({"messages": [{"role": "user"}]}, "turn 1 has no author and text"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "holds no message of a user"),
        ({"text": "x"}, "no field messages, conversations, prompt"),
    ],
)
def test_what_cannot_be_read_is_told_with_file_and_row(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as error:
        opened(write(tmp_path / "a.jsonl", *THOUGHTS, row))
    assert "row 4" in str(error.value)


def test_rows_that_no_field_chooses_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row has a prompt that is wanted"):
        opened(write(tmp_path / "a.jsonl", *THOUGHTS), where={"domain": "law"})


def test_a_published_sample_gives_states_and_a_plan(tmp_path: Path) -> None:
    sample = Path(__file__).parents[3] / "shared" / "data" / "toolace_sample"
    if not sample.is_dir():
        pytest.skip("the ToolACE sample is not beside the checkout")
    task = {"name": "prompts", "path": str(sample / "sharegpt_func_fixed.json"), "turns": "all", "exam": EXAM}
    assert len(open_task("prompts", {k: v for k, v in task.items() if k != "name"}).problems("train")) == 478
    agent = {"backend": "openai_chat", "model": "m", "base_url": "http://localhost:1/v1"}
    values = {
        "method": "debate_opd",
        "name": "t",
        "task": {**task, "train_limit": 20},
        "teachers": [{"name": "ada", **agent}],
        "scorers": [{"name": "bob", "model": "schoolhouse:ada"}],
        "student": {"name": "student", "model": "schoolhouse:student"},
        "debate": {"protocol": "act_debate"},
        "test": {"committee": False},
    }
    made = check_recipe(values, Path("test.yaml"))
    assert isinstance(made, Options)
    asked = {p.stage: p.calls.expected for p in plan(made)}
    assert asked["debate:states"] == 2 * 20
