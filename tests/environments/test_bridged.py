"""Packages of environments, played in a process of their own: to a trained student, where the package is installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.serving import save_tiny_model
from typer.testing import CliRunner

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.cli import app
from vivavoce.environments.bridged import Bridge
from vivavoce.environments.environment import Action, Environment, Leavable, Limits
from vivavoce.environments.episodes import play, read
from vivavoce.errors import DataError, MissingDependency
from vivavoce.records import Reply, Sampling
from vivavoce.tasks import open_task
from vivavoce.tasks.acting import Acting
from vivavoce.tasks.bridged import BridgedTask

CHECKOUT = Path(__file__).parents[2]


def python_of(package: str) -> str:
    """A Python that has the package: the one that VIVA_PYTHON_PACKAGE names, the one that `make environments` made, or
    this one, which is "". Skips if there is none."""
    import importlib.util

    variable = f"VIVA_PYTHON_{package.upper()}"
    made = CHECKOUT / f".venv-{package}" / "bin" / "python"
    if named := os.environ.get(variable, ""):
        return named
    if made.is_file():
        return str(made)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: `make environments`, or {variable}=PYTHON")
    return ""


def played(task: Any, id_: str, *moves: str) -> tuple[list[str], Environment]:
    """What an episode shows, move by move."""

    async def all_of_it() -> tuple[list[str], Environment]:
        world = task.environment()
        seen = [await world.reset(id_, 0)]
        for move in moves:
            if not seen[-1].done:
                seen.append(await world.step(read(Reply(move), world.tools)))
        return ["\n".join(m["content"] for m in one.messages) for one in seen], world

    return asyncio.run(all_of_it())


def opad(folder: Path, task: dict[str, Any], in_flight: int = 8) -> dict[str, Any]:
    """A run of OPAD on random tiny models, from a recipe to its report; what results.json holds."""
    models = {name: str(save_tiny_model(folder / name, context=4096)) for name in ("ada", "bob", "student")}
    small = {"dtype": "float32", "threads": 1, "max_new_tokens": 40}
    values = {
        "method": "opad",
        "name": "played",
        "task": task,
        "teachers": [{"name": n, "model": models[n], **small} for n in ("ada", "bob")],
        "student": {"name": "student", "model": models["student"], "temperature": 1.0, "stop": list("aeiou="), **small},
        "debate": {"max_rounds": 2, "word_limit": 20},
        "iterations": 1,
        "in_flight": in_flight,
        "episodes": 2,
        "opd": {
            "max_steps": 2,
            "states_per_step": 4,
            "max_new_tokens": 6,
            "max_length": 4096,
            "lora": None,
            "threads": 1,
        },
        "arms": ["debate_opd"],
        "test": {"max_new_tokens": 40, "committee": False},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values), "utf-8")
    done = CliRunner().invoke(app, ["run", str(folder / "recipe.yaml"), "--out", str(folder / "run")])
    assert done.exit_code == 0, f"{done.output} {done.exception}"
    assert (folder / "run" / "report.html").is_file()
    assert list((folder / "run" / "checkpoints").glob("debate_opd*/model.safetensors"))
    return json.loads((folder / "run" / "results.json").read_text("utf-8"))


# --- textarena


@pytest.fixture(scope="module")
def games() -> Any:
    python = python_of("textarena")
    names = ["FrozenLake-v0", "GuessTheNumber-v0"]
    return open_task("textarena", {"games": names, "train": 4, "test": 4, "turns": 8, "python": python})


def test_a_game_is_played_by_words_to_its_reward(games: Any) -> None:
    lake, number, *_ = games.problems("test")
    assert isinstance(games, Acting)
    assert (lake.group, number.group) == ("FrozenLake-v0", "GuessTheNumber-v0")
    assert "Available actions" in lake.history[0]["content"]
    seen, world = played(games, number.id, *(f"<think>higher?</think>[{n}]" for n in range(1, 21)))
    assert "higher" in seen[1]
    assert world.succeeded() is True
    seen, world = played(games, lake.id, "swim", "fly")
    assert "invalid move" in seen[1]
    assert world.succeeded() is False


def test_equal_moves_give_equal_games_whatever_is_played_beside_them(games: Any) -> None:
    number = games.problems("test")[1]

    async def side_by_side() -> list[list[str]]:
        worlds = [games.environment() for _ in range(3)]
        for world in worlds:
            await world.reset(number.id, 0)
        seen: list[list[str]] = [[], [], []]
        for move in ("[3]", "[11]", "[20]"):
            for world, shown in zip(worlds, seen, strict=True):
                shown += [m["content"] for m in (await world.step(Action(move))).messages]
        return seen

    first, second, third = asyncio.run(side_by_side())
    assert first == second == third


def test_a_student_learns_from_two_games_by_a_recipe(games: Any, tmp_path: Path) -> None:
    names = ["FrozenLake-v0", "GuessTheNumber-v0"]
    python = python_of("textarena")
    results = opad(tmp_path, {"name": "textarena", "games": names, "train": 2, "test": 2, "turns": 2, "python": python})
    assert [arm["name"] for arm in results["arms"]] == ["student", "debate_opd"]
    assert {*results["arms"][0]["groups"]} == set(names)


# --- openenv


@contextlib.contextmanager
def started(program: Callable[[int], Sequence[str]], folder: Path) -> Iterator[str]:
    """The address of a server of OpenEnv, in a process of its own; ``program`` is its command, by port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(program(port), cwd=folder, stderr=subprocess.PIPE)
    try:
        for _ in range(300):
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, Any]]:
    python = python_of("openenv")
    program = Path(__file__).with_name("openenv_server.py")
    with started(lambda port: [python or sys.executable, str(program), str(port)], program.parent) as url:
        fields = {"action_field": "guess", "observation_field": "hint", "python": python}
        yield {"name": "openenv", "label": "numbers", "url": url, **fields}


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The environment that `openenv init` makes, as it comes: it echoes, rewards length, and serves one session."""
    python, folder = python_of("openenv"), tmp_path_factory.mktemp("openenv")
    there = Path(python or sys.executable)
    subprocess.run([there.with_name("openenv"), "init", "echo_env"], cwd=folder, check=True, capture_output=True)
    command = [str(there), "-m", "uvicorn", "server.app:app", "--host", "127.0.0.1", "--log-level", "warning", "--port"]
    with started(lambda port: [*command, str(port)], folder / "echo_env") as url:
        fields = {"action_field": "message", "observation_field": "echoed_message", "score": "last", "python": python}
        yield {"name": "openenv", "label": "echo", "url": url, **fields}


def opened(server: dict[str, Any], **more: Any) -> Any:
    return open_task("openenv", {**{k: v for k, v in server.items() if k != "name"}, **more})


def test_a_server_is_acted_in_to_its_reward(server: dict[str, Any]) -> None:
    task = opened(server, train=2, test=3)
    assert [p.question for p in task.problems("test")] == [f"Seed {n}. Guess a number from 1 to 9." for n in range(3)]
    assert [p.id for p in task.problems("train")] == ["numbers#3", "numbers#4"]
    seen, world = played(task, "numbers#1", *(f"I say {n}" for n in range(1, 10)))
    assert seen[-1] == "Right."
    assert set(seen[1:-1]) <= {"higher"}
    assert world.succeeded() is True
    _, world = played(task, "numbers#1", "none")
    assert world.succeeded() is None
    with pytest.raises(DataError, match="no field 'text'; it has"):
        opened(server, train=1, test=1, observation_field="text").problems("test")


def test_a_student_learns_from_a_server_by_a_recipe(server: dict[str, Any], tmp_path: Path) -> None:
    results = opad(tmp_path, {**server, "train": 2, "test": 2, "turns": 2})
    assert [arm["name"] for arm in results["arms"]] == ["student", "debate_opd"]


def test_a_student_learns_from_the_environment_that_openenv_makes(echo: dict[str, Any], tmp_path: Path) -> None:
    seen, world = played(opened(echo, test=1, train=0), "echo#0", "hello", "hello again")
    assert seen == ["Echo Env environment ready!", "hello", "hello again"]
    assert world.succeeded() is True
    with pytest.raises(DataError, match="room for no further session, with 0 open here"):
        opened(echo, test=1, train=0).problems("test")
    assert isinstance(world, Leavable)
    asyncio.run(world.leave())
    results = opad(tmp_path, {**echo, "train": 2, "test": 2, "turns": 2}, in_flight=1)
    assert [arm["name"] for arm in results["arms"]] == ["student", "debate_opd"]


def test_a_server_that_is_not_there_is_told(server: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="openenv_bridge, reset"):
        opened(server, url="http://127.0.0.1:9", train=1, test=1).problems("test")


# --- verifiers


WORLDS = Path(__file__).with_name("verifiers_worlds")


def world_of(monkeypatch: pytest.MonkeyPatch, package: str, name: str, **more: Any) -> dict[str, Any]:
    """The task of an environment of ours, which the package imports as it does an installed one."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(WORLDS), os.environ.get("PYTHONPATH", "")]))
    return {"name": "verifiers", "environment": name, "python": python_of(package), **more}


def called(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_a_taskset_is_acted_in_by_words_to_its_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    options = world_of(monkeypatch, "verifiers", "guessing", train=2, test=2, turns=9)
    task = open_task(options.pop("name"), options)
    first, second = task.problems("test")
    assert (first.question, first.history[0]["content"]) == (
        "Game 0. Guess a number from 1 to 9.",
        "Answer with one number.",
    )
    assert [p.question[:7] for p in task.problems("train")] == ["Game 2.", "Game 3."]
    seen, world = played(task, second.id, *map(str, range(1, 10)))
    assert set(seen[1:-1]) == {"higher"}
    assert (seen[-1], world.succeeded()) == ("", True)
    _, world = played(task, second.id, "none")
    assert world.succeeded() is None
    _, world = played(task, second.id, *["none"] * 9)
    assert world.succeeded() is False, "its own limit of turns is ours, and it gives a score then"


def test_tools_of_a_taskset_are_offered_and_called(monkeypatch: pytest.MonkeyPatch) -> None:
    options = world_of(monkeypatch, "verifiers", "pantry", train=0, test=1, turns=4)
    task = open_task(options.pop("name"), options)
    (problem,) = task.problems("test")
    assert "pantry_count" in problem.history[0]["content"], "who debates reads of them too"
    wrong, right = called("pantry_count", thing="flour"), called("pantry_count", item="flour")
    seen, world = played(task, problem.id, wrong, right, "There are 3.")
    assert [tool.name for tool in world.tools] == ["pantry_count"]
    assert "pantry_count lacks item" in seen[1]
    assert (seen[2], world.succeeded()) == ("3", True)


def test_an_environment_with_a_loader_is_acted_in_to_its_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    options = world_of(monkeypatch, "verifiers_loader", "till", train=3, test=2, args={"tasks": 4})
    task = open_task(options.pop("name"), options)
    assert [p.question for p in task.problems("test")] == ["What is 10 and 17?", "What is 11 and 18?"]
    assert len(task.problems("train")) == 2, "it has no rows of its own for tests, and four in all"
    seen, world = played(task, "till#test-0", called("add", first=10, second=17), "It is 27.")
    assert (seen[1], world.succeeded()) == ("27", True)
    _, world = played(task, "till#test-0", "It is 26.")
    assert world.succeeded() is False


def test_a_package_of_somebody_else_is_acted_in() -> None:
    python = python_of("verifiers_loader")
    if subprocess.run(
        [python or sys.executable, "-c", "import sophistry_bench_sprint"], stderr=subprocess.DEVNULL
    ).returncode:
        pytest.skip("sophistry-bench-sprint is not installed there: `make environments`")
    options = {"environment": "sophistry_bench_sprint", "train": 2, "test": 2, "python": python, "right_from": 0.5}
    task = open_task("verifiers", options)
    problem = task.problems("test")[0]
    assert problem.question.startswith("Make your argument for:")
    for claims, good in ((8, True), (40, False)):
        text = "".join(f"<claim>It is so, reason {n}.</claim>" for n in range(claims))
        _, world = played(task, problem.id, text)
        assert world.succeeded() is good


@pytest.mark.parametrize(("package", "name"), [("verifiers", "guessing"), ("verifiers_loader", "till")])
def test_a_student_learns_from_an_environment_of_verifiers_by_a_recipe(
    package: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = opad(tmp_path, world_of(monkeypatch, package, name, train=2, test=2, turns=2))
    assert [arm["name"] for arm in results["arms"]] == ["student", "debate_opd"]
    assert results["n"] == 2


def test_what_is_wrong_with_an_environment_of_verifiers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = world_of(monkeypatch, "verifiers", "no_such_world")
    with pytest.raises(MissingDependency, match="no_such_world"):
        open_task(missing.pop("name"), missing).problems("test")
    few = world_of(monkeypatch, "verifiers", "guessing", args={"taskset": {"tasks": 2}}, train=2, test=2)
    with pytest.raises(DataError, match="no task left for train"):
        open_task(few.pop("name"), few).problems("test")


# --- whatever the package


class Restless(BridgedTask):
    """A task of a package that begins otherwise each time."""

    name = "restless"

    def __init__(self) -> None:
        super().__init__(self, Limits(turns=1), 1.0)  # type: ignore[arg-type]  it is its own bridge
        self.count = 0

    def episode(self) -> str:
        return "e"

    def ids(self, split: str) -> list[tuple[str, str]]:
        return [(f"{split}#0", "")]

    def ask(self, what: str, value: Any) -> dict[str, Any]:
        self.count += 1
        return {"messages": [{"role": "user", "content": f"game {self.count}"}], "done": False, "score": None}


def test_a_task_that_begins_otherwise_each_time_is_told() -> None:
    with pytest.raises(DataError, match="begins with other words each time") as error:
        Restless().problems("test")
    assert "seed" in error.value.do


def test_an_episode_that_a_limit_ends_is_closed_in_the_package(server: dict[str, Any], tmp_path: Path) -> None:
    task = opened(server, train=0, test=1, turns=2)
    with Journal(tmp_path / "journal.sqlite") as journal:
        world = task.environment()
        agent = Scripted("ada", lambda *_: "none")
        episode = asyncio.run(play(world, agent, "numbers#0", 0, Sampling(), journal))
    assert (episode.ended, len(episode.steps)) == ("turns", 2)
    with pytest.raises(DataError, match="step"):  # the session is gone
        asyncio.run(world.step(Action("1")))


def test_a_game_that_the_package_does_not_have_is_told(games: Any) -> None:
    other = open_task("textarena", {"games": ["FrozenPond-v0"], "test": 1, "train": 0, "python": games.options.python})
    with pytest.raises(DataError, match="FrozenPond"):
        other.problems("test")


def test_a_python_without_the_package_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="no Python"):
        Bridge("textarena_bridge", {}, str(tmp_path / "python")).ask("reset", ["e", "x#0", 0])
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', "utf-8")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(MissingDependency, match="pip install textarena"):
        Bridge("textarena_bridge", {}, str(tmp_path / "python"), "pip install textarena").ask("reset", ["e", "x#0", 0])
