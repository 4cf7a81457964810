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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.serving import save_tiny_model
from typer.testing import CliRunner

from vivavoce.cli import app
from vivavoce.environments.bridged import Bridge
from vivavoce.environments.environment import Action, Environment
from vivavoce.errors import DataError, MissingDependency
from vivavoce.tasks import open_task
from vivavoce.tasks.acting import Acting

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def python_of(package: str) -> str:
    """A Python that has the package: this one, or the one that VIVA_PYTHON_PACKAGE names. Skips if there is none."""
    import importlib.util

    named = os.environ.get(f"VIVA_PYTHON_{package.upper()}", "")
    if not named and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed, and VIVA_PYTHON_{package.upper()} names no Python that has it")
    return named


def played(task: Any, id_: str, *moves: str) -> tuple[list[str], Environment]:
    """What an episode shows, move by move."""

    async def all_of_it() -> tuple[list[str], Environment]:
        world = task.environment()
        seen = [await world.reset(id_, 0)]
        for move in moves:
            if not seen[-1].done:
                seen.append(await world.step(Action(move)))
        return ["\n".join(m["content"] for m in one.messages) for one in seen], world

    return asyncio.run(all_of_it())


def opad(folder: Path, task: dict[str, Any]) -> dict[str, Any]:
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
    found = opad(tmp_path, {"name": "textarena", "games": names, "train": 2, "test": 2, "turns": 2, "python": python})
    assert [arm["name"] for arm in found["arms"]] == ["student", "debate_opd"]
    assert {*found["arms"][0]["groups"]} == set(names)


# --- openenv


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, Any]]:
    python = python_of("openenv")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(__file__).with_name("openenv_server.py")
    process = subprocess.Popen([python or sys.executable, str(program), str(port)], stderr=subprocess.PIPE)
    options = {
        "url": f"http://127.0.0.1:{port}",
        "action_field": "guess",
        "observation_field": "hint",
        "python": python,
    }
    try:
        for _ in range(300):
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        yield {"name": "openenv", "label": "numbers", **options}
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


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
    found = opad(tmp_path, {**server, "train": 2, "test": 2, "turns": 2})
    assert [arm["name"] for arm in found["arms"]] == ["student", "debate_opd"]


def test_a_server_that_is_not_there_is_told(server: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="openenv_bridge, reset"):
        opened(server, url="http://127.0.0.1:9", train=1, test=1).problems("test")


# --- whatever the package


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
