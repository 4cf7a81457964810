"""What goes wrong in the first minute of a run is told in that minute, and mended with the same command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.agents.faulty import FaultyServer
from tests.methods.word_server import Teacher, WordServer, write_problems
from typer.testing import CliRunner, Result

from vivavoce.agents.journal import Journal
from vivavoce.cli import app
from vivavoce.errors import AgentUnusable, BudgetReached, RecipeError, RunConflict


def viva(folder: Path, values: dict[str, Any], *more: str) -> Result:
    (folder / "r.yaml").write_text(yaml.safe_dump(values))
    return CliRunner().invoke(app, ["run", str(folder / "r.yaml"), "--out", str(folder / "run"), *more])


@pytest.fixture
def values(recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    there = {"backend": "openai_chat", "api_key_env": "TEST_KEY", "backoff_s": 0.01}
    teachers = [{"name": name, "model": name, **there} for name in ("ada", "bob")]
    debate = {"max_rounds": 2, "student": "never"}
    return {**recipe, "task": write_problems(tmp_path, 12, 6), "teachers": teachers, "debate": debate}


def test_a_model_that_is_not_there_stops_the_run_and_corrected_it_goes_on(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "k")
    # its list of models does not tell, so that only a call does
    with WordServer({"ada": Teacher(0.8, 20), "bob": Teacher(0.6, 20)}, latency_s=0.05, listed=()) as server:
        for teacher in values["teachers"]:
            teacher["base_url"] = server.base_url
        values["teachers"][1]["model"] = "bop"
        error = viva(tmp_path, values).exception
        assert isinstance(error, AgentUnusable)
        assert "`bob` cannot answer any call: not_found: HTTP 404 model_not_found: no model bop" in error.what
        assert "whether `model` is known there" in error.do
        assert server.requests <= 12, "hers are the first round's at most"
        with Journal(tmp_path / "run" / "journal.sqlite", read_only=True) as journal:
            assert {(call.agent, call.error) for call in journal} == {("ada", None)}
            paid = len(journal)
        values["teachers"][0]["model"] = "else"
        assert isinstance(viva(tmp_path, values).exception, RunConflict), "hers are answered already"
        values["teachers"][0]["model"] = "ada"
        values["teachers"][1]["model"] = "bob"
        before = server.requests
        error = viva(tmp_path, values, "--set", f"budget.run.calls={paid + 20}").exception
        assert isinstance(error, BudgetReached), "it has gone on, as far as it may here"
        assert server.requests - before == 20
        assert len({asked.key for asked in server.asked}) == server.requests, "nothing was asked twice"


def test_a_wrong_key_is_told_and_a_right_one_goes_on_without_flags(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-wrong-0123456789")
    with FaultyServer() as server:
        for teacher in values["teachers"]:
            teacher["base_url"] = server.base_url
        server.script = ["status=401"] * 1000
        error = viva(tmp_path, values).exception
        assert isinstance(error, AgentUnusable)
        assert "cannot answer any call: auth: HTTP 401: no, Bearer ***" in error.what
        assert "check the key in $TEST_KEY" in error.do
        assert len(server.requests) <= 24
        monkeypatch.setenv("TEST_KEY", "sk-right-0123456789")
        server.script = []
        error = viva(tmp_path, values, "--set", "budget.run.calls=20").exception
        assert isinstance(error, BudgetReached)


@pytest.mark.parametrize(
    ("mistake", "problem_text", "do"),
    [
        ({"base_url": "http://127.0.0.1:9/v1"}, "unreachable: ", "whether the server is up"),
        ({"base_url": "{server}"}, "not_found: HTTP 404: not found", "check `base_url` ({server}: the part before"),
        ({"base_url": "{server}/v1/chat/completions"}, "ends in /chat/completions", "write `base_url: {server}/v1`"),
        ({"model": "bop"}, "not_found: HTTP 404 model_not_found: no model bop", "whether `model` is known there"),
    ],
)
def test_a_mistake_in_one_teacher_is_told_before_anybody_is_asked_or_loaded(
    mistake: dict[str, str],
    problem_text: str,
    do: str,
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_KEY", "k")
    broken = tmp_path / "student"
    shutil.copytree(values["student"]["model"], broken)
    # whole, and without a tensor: loading it would be told in its place
    (broken / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    values["student"]["model"] = str(broken)
    values["debate"] = {"max_rounds": 2, "student": "first_round"}
    with WordServer({"ada": Teacher(0.8, 20), "bob": Teacher(0.6, 20)}) as server:
        root = server.base_url.removesuffix("/v1")
        values["teachers"][0]["base_url"] = server.base_url
        values["teachers"][1] |= {"base_url": server.base_url, **{k: v.format(server=root) for k, v in mistake.items()}}
        error = viva(tmp_path, values).exception
    assert isinstance(error, AgentUnusable | RecipeError)
    assert problem_text in error.what
    assert do.format(server=root) in error.do
    assert server.requests == 0
