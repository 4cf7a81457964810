"""Recorded attempts come in with their own flags, and the flags are held against the grader."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vivavoce.data.recorded import graphs_of
from vivavoce.errors import DataError
from vivavoce.records import Node, Problem
from vivavoce.tasks import open_task
from vivavoce.tasks.attempts import GSM8K_SOLUTIONS, Attempt, Fields, read_attempts

ATTEMPT = {"agent": "ada", "text": "#### 4", "correct": True}
UNFLAGGED = {"agent": "bob", "text": "#### 4"}
ROW = {"id": "q1", "question": "2 + 2?", "gold": "4", "attempts": [ATTEMPT, UNFLAGGED]}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_the_documented_form_is_read(tmp_path: Path) -> None:
    (record,) = read_attempts(write(tmp_path / "a.jsonl", ROW))
    assert record.problem == Problem("q1", "2 + 2?", "4")
    assert record.attempts == (Attempt("ada", "#### 4", True), Attempt("bob", "#### 4", None))


def test_one_column_per_agent_is_read_and_the_gold_found_in_the_worked_solution(tmp_path: Path) -> None:
    row = {"question": "2 + 2?", "ground_truth": "It is 4.\nA: 4", "6b": {"is_correct": False, "solution": "A: 5"}}
    (record,) = read_attempts(write(tmp_path / "a.jsonl", row), GSM8K_SOLUTIONS, "gsm8k")
    assert record.problem.gold == "4"
    assert record.attempts == (Attempt("6b", "A: 5", False),)


def test_attempts_meet_the_problems_of_the_task_by_their_id(tmp_path: Path) -> None:
    gsm8k = write(tmp_path / "test.jsonl", {"question": "2 + 2?", "answer": "#### 4"})
    recorded = write(tmp_path / "a.jsonl", {"question": "2 + 2?", "ground_truth": "4", "6b": {"solution": "A: 5"}})
    (record,) = read_attempts(recorded, GSM8K_SOLUTIONS, "gsm8k")
    assert [record.problem] == open_task("gsm8k", {"test_path": gsm8k}).problems("test")


def test_a_flag_that_the_grader_contradicts_is_reported(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"id": "q2", "attempts": [ATTEMPT | {"correct": False}, ATTEMPT | {"agent": "bob"}]}]
    contradicted: list[Node] = []
    list(graphs_of(read_attempts(write(tmp_path / "a.jsonl", *rows)), open_task("gsm8k", {}), contradicted))
    assert [(n.problem, n.agent, n.correct) for n in contradicted] == [("q2", "ada", False)]


@pytest.mark.parametrize(
    ("change", "fields", "message"),
    [
        ({"attempts": None}, Fields(), "no list of attempts in field 'attempts'"),
        ({"attempts": ["text"]}, Fields(), "without the name of its agent"),
        ({"attempts": [ATTEMPT | {"text": None}]}, Fields(), "'ada' has no text"),
        ({"attempts": [ATTEMPT | {"correct": "yes"}]}, Fields(), "is 'yes', not true or false"),
        ({"attempts": [ATTEMPT, ATTEMPT]}, Fields(), "an agent appears twice"),
        ({"gold": "many"}, Fields(grader="number"), "cannot read the gold answer 'many'"),
        ({"gold": ""}, Fields(), "field 'gold' is empty"),
        ({}, Fields(attempts=None), "no column holds an object with 'text'"),
        ({}, Fields(id="key"), "no field 'key'"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], fields: Fields, message: str) -> None:
    path = write(tmp_path / "a.jsonl", ROW | change)
    with pytest.raises(DataError, match=message) as caught:
        list(read_attempts(path, fields))
    assert f"{path}, row 1" in caught.value.where


def test_a_question_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 2, and before it .*row 1"):
        list(read_attempts(write(tmp_path / "a.jsonl", ROW, ROW)))


def test_the_grader_agrees_with_every_flag_of_the_published_gsm8k_solutions(gsm8k: Path) -> None:
    solutions = gsm8k / "example_model_solutions_first_half.jsonl.gz"
    records = list(read_attempts(solutions, GSM8K_SOLUTIONS, "gsm8k"))
    contradicted: list[Node] = []
    graphs = list(graphs_of(records, open_task("gsm8k", {}), contradicted))
    assert len(records) == 660
    assert contradicted == []
    judged = Counter((n.correct, n.status) for graph in graphs for n in graph.nodes)
    # seven replies run on to their length limit without an answer
    assert judged == {(True, "ok"): 1008, (False, "ok"): 1625, (False, "no_answer"): 7}


def test_what_was_only_thought_is_no_part_of_a_recorded_attempt(tmp_path: Path) -> None:
    row = ROW | {"attempts": [ATTEMPT | {"text": "<think>#### 5</think>\n#### 4"}]}
    (record,) = read_attempts(write(tmp_path / "a.jsonl", row))
    assert [attempt.text for attempt in record.attempts] == ["#### 4"]
