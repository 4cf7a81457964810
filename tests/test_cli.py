"""The command line as a user meets it: results on standard output, talk and errors on standard error, exit codes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from tests.command import python, viva

from vivavoce.cli import _user_error
from vivavoce.errors import AgentError
from vivavoce.graph import Graph, write_graphs
from vivavoce.records import Completion, Example, Message, Problem, State, View, node, to_json
from vivavoce.schoolhouse import weights
from vivavoce.tasks import open_task

RECIPE = """\
method: debate_reflect
task: {name: schoolhouse, train: 12, test: 10}
teachers:
  - {name: one, backend: scripted, replies: ["ans=4"]}
  - {name: two, backend: scripted, replies: ["ans=5"]}
student: {name: pupil, model: schoolhouse:student, max_new_tokens: 20}
debate: {prompts: schoolhouse, max_rounds: 2}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_a_plan_spends_nothing_and_counts_each_agent(recipe: Path) -> None:
    done = viva("plan", "recipe.yaml", "--json", "--set", "test.committee=false", cwd=recipe)
    assert done.returncode == 0, done.stderr
    lines = json.loads(done.stdout)["lines"]
    planned = {(p["stage"], p["agent"]): (p["calls"]["least"], p["calls"]["most"]) for p in lines}
    assert planned["debate:train", "one"] == (12, 12 * (2 + 2)), "two answers, and at most two critiques of two others"
    assert planned["test", "pupil"] == (10 * 7, 10 * 7), "untrained, two singles, all, SFT, continued, full"
    assert {p.name for p in recipe.iterdir()} == {"recipe.yaml"}


def test_a_mistake_ends_with_code_2_and_three_lines_and_no_traceback(recipe: Path) -> None:
    done = viva("plan", "recipe.yaml", "--set", "debate.max_round=3", cwd=recipe)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "did you mean `max_rounds`?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stopped_run_says_that_it_can_go_on(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\n"
        "def one(messages, sampling, seed):\n"
        "    pathlib.Path('asked').touch()\n"
        "    time.sleep(1)\n"
        "    return 'ans=4'\n"
    )
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace('replies: ["ans=4"]', "function: slow.py:one"))
    process = python("viva", "run", "recipe.yaml", "--out", "run", cwd=tmp_path, output=tmp_path / "log")
    deadline = time.monotonic() + 120
    while not (tmp_path / "asked").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    printed = (tmp_path / "log").read_text()
    assert "give the same command to go on" in printed
    assert "Traceback" not in printed


def test_a_debate_is_shown_with_who_changed_their_mind(tmp_path: Path) -> None:
    early = node("answer", "p", "ada", 0, "I guess 5.", answer="5", correct=False)
    late = node("answer", "p", "ada", 1, "It is 4.", answer="4", correct=True, parents=(early.id,))
    write_graphs(tmp_path / "graphs.jsonl", [Graph(Problem("p", "2 + 2?", "4"), (early, late))])
    done = viva("graph", "show", "graphs.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 + 2?" in done.stdout
    assert "I guess 5." in done.stdout
    missing = viva("graph", "show", "graphs.jsonl", "q", cwd=tmp_path)
    assert missing.returncode == 2
    assert "no problem `q`" in missing.stderr


def test_recorded_attempts_become_graphs_and_trees(tmp_path: Path) -> None:
    attempts = [{"agent": "ada", "text": "2 and 2.\n#### 4", "correct": True}, {"agent": "bob", "text": "#### 5"}]
    attempts.append({"agent": "cyd", "text": "#### 6", "correct": True})
    (tmp_path / "attempts.jsonl").write_text(
        json.dumps({"id": "q", "question": "2 + 2?", "gold": "4", "attempts": attempts}) + "\n"
    )
    done = viva("import", "attempts", "attempts.jsonl", "--task", "gsm8k", "--out", "graphs.jsonl", cwd=tmp_path)
    assert (done.returncode, "1 graphs, 3 answers (2 right)" in done.stderr) == (0, True), done.stderr
    assert "1 flag says otherwise than the grader, as of cyd on q" in done.stderr
    done = viva("trees", "graphs.jsonl", "--task", "gsm8k", "--out", "trees.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tree,) = [json.loads(line) for line in (tmp_path / "trees.jsonl").read_text().splitlines()]
    assert [c["text"] for c in tree["chosen"]] == ["2 and 2.\n#### 4", "#### 6"]
    assert [c["text"] for c in tree["rejected"]] == ["#### 5"]


@pytest.mark.parametrize(
    ("what", "name"),
    [("tasks", "gsm8k"), ("agents", "hf_local"), ("methods", "debate_reflect"), ("prompts", "general")],
)
def test_what_there_is_can_be_listed(tmp_path: Path, what: str, name: str) -> None:
    assert name in viva("list", what, cwd=tmp_path).stdout.split()


@pytest.mark.parametrize("command", [["list"], ["keys"], ["keys", "debate"]], ids=" ".join)
def test_lists_fit_80_columns(command: list[str], tmp_path: Path) -> None:
    printed = viva(*command, cwd=tmp_path, env={**os.environ, "COLUMNS": "80"}).stdout
    assert printed.strip()
    assert [line for line in printed.splitlines() if len(line) > 80] == []
    assert ":mod:" not in printed


def test_a_list_of_nothing_named_is_of_everything(tmp_path: Path) -> None:
    printed = viva("list", cwd=tmp_path).stdout
    assert {"TASKS", "METHODS", "gsm8k", "hf_local", "debate_reflect", "schoolhouse/demo", "general"} <= set(
        printed.split()
    )


def test_the_benchmark_of_tree_dpo_measures_every_shape(tmp_path: Path) -> None:
    small = ("--shape", "1x2", "--shape", "1x1", "--context", "20", "--answers", "8")
    done = viva("bench", "tree-dpo", *small, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert [one["what"].split(",")[1].strip() for one in content] == ["1 right x 2 wrong", "1 right x 1 wrong"]
    assert all(one["loss_error"] < 1e-4 and one["max_rel_grad_diff"] < 1e-3 for one in content)
    wrong = viva("bench", "tree-dpo", "--shape", "2by2", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "RIGHTxWRONG" in wrong.stderr


def test_the_benchmark_of_generation_compares_the_same_tokens(tmp_path: Path) -> None:
    small = ("--debates", "5", "--rounds", "2", "--hidden", "64", "--layers", "1", "--answer", "6")
    done = viva("bench", "generate", *small, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["spread"][0] <= content["ratio"] <= content["spread"][1]
    assert content["same"] > 0.9
    ours, theirs = content["computed"]
    assert content["floor"] <= ours < theirs


@pytest.mark.skipif(not weights("ada").is_dir(), reason="the models are not built: see schoolhouse/README.md")
def test_rows_of_a_run_are_trained_on_by_hand(tmp_path: Path) -> None:
    problems = open_task("schoolhouse", {"train": 4, "test": 1}).problems("train")
    asked = [(p, (Message(role="user", content=p.question),)) for p in problems]
    examples = [Example(p.id, prompt, f"ans={p.gold}", ("n",)) for p, prompt in asked]
    states = [State(p.id, prompt, (View(prompt, 1.0),), (Completion("ans=4", "n"),)) for p, prompt in asked]
    scorers = "scorers=[{name: ada, model: 'schoolhouse:ada'}]"
    for command, rows, own in (
        ("sft", examples, ["rows_per_step=2"]),
        ("on-policy", states, ["states_per_step=2", "max_new_tokens=20", scorers]),
    ):
        (tmp_path / "rows.jsonl").write_text("".join(to_json(row) + "\n" for row in rows), "utf-8")
        shared = ["lora=null", "max_steps=2", "max_length=100", "device=cpu", "threads=1", *own]
        given = [argument for one in shared for argument in ("--set", one)]
        model = ["--model", "schoolhouse:student", "--out", command]
        done = viva("train", command, "rows.jsonl", *model, *given, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "in 2 updates" in done.stdout
        assert (tmp_path / command / "model.safetensors").is_file()
    wrong = viva("train", "on-policy", "none.jsonl", "--model", "schoolhouse:student", "--out", "x", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "no such file of rows" in wrong.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AgentError("server", "HTTP 500", do="look into its log"), ("HTTP 500", "look into its log; the same command")),
        (sqlite3.DatabaseError("database disk image is malformed"), ("is damaged: database disk image", "from a copy")),
        (sqlite3.OperationalError("database or disk is full"), ("cannot be used: database or disk", "free disk space")),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_the_world_did_is_told_in_words(error: Exception, words: tuple[str, ...]) -> None:
    shown = str(_user_error(error))
    assert all(one in shown for one in words), shown


def test_what_is_our_own_fault_is_not_told_as_the_users() -> None:
    assert _user_error(sqlite3.ProgrammingError("bad parameters")) is None
    assert _user_error(KeyError("x")) is None
