"""Training by several processes, from a recipe: it ends where one process does, and is refused before anything else."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.carry import carry_out
from tests.methods.conftest import review_recipe
from tests.methods.test_debate_opd import local as local
from tests.train.students import messages, weights
from typer.testing import CliRunner

from vivavoce.cli import app
from vivavoce.config import Recipe, check_recipe, what_decides
from vivavoce.errors import DataError, RecipeError
from vivavoce.methods.devices import check_devices
from vivavoce.records import Example, to_json
from vivavoce.run import Run, open_run
from vivavoce.train.gate import Gate
from vivavoce.train.jobs import Job, Workers
from vivavoce.train.launch import Launch
from vivavoce.train.settings import SFTSettings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
TWO = {"processes": 2}
SHARED = {**TWO, "fsdp": True}


@pytest.fixture
def few(recipe: dict[str, Any]) -> dict[str, Any]:
    """The tests' recipe with one seed and one arm."""
    return {
        **recipe,
        "seeds": [0],
        "task": {"name": "schoolhouse", "train": 12, "test": 4},
        "arms": ["debate_reflect"],
        "attempts": {"samples": 0},
        "test": {"max_new_tokens": 8, "committee": False},
    }


def on_policy(few: dict[str, Any], local: Path) -> dict[str, Any]:
    quick = {k: v for k, v in few["sft"].items() if k != "rows_per_step"}
    return {
        **{k: few[k] for k in ("name", "seeds", "task", "teachers", "student", "test")},
        "method": "debate_opd",
        "debate": {"prompts": "schoolhouse", "reads": "last_round"},
        "scorers": [{"name": n, "model": str(local), "dtype": "float32"} for n in ("ada", "bob")],
        "opd": {**quick, "states_per_step": 4, "max_new_tokens": 12, "learning_rate": 1e-3},
        "arms": ["debate_opd"],
        "value": False,
    }


def alike(one: Path, two: Path, names: list[str]) -> None:
    """The models of two runs: curves and weights, up to rounding."""
    made = sorted(folder.name for folder in (one / "checkpoints").iterdir() if folder.is_dir())
    assert made == names
    for name in made:
        ends = [run / "checkpoints" / name for run in (one, two)]
        curves = [[json.loads(line) for line in (end / "loss.jsonl").read_text().splitlines()] for end in ends]
        assert len(curves[0]) == len(curves[1]) > 1
        for first, second in zip(*curves, strict=True):
            for figure in ("loss", "grad_norm"):
                assert second[figure] == pytest.approx(first[figure], rel=1e-3), (name, figure)
        ended = [weights(end) for end in ends]
        for key in ended[0]:
            torch.testing.assert_close(ended[1][key], ended[0][key], rtol=1e-3, atol=2e-5)


def test_two_processes_of_a_recipe_end_where_one_does(few: dict[str, Any], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    carry_out(few, one)
    results, _ = carry_out({**few, "train": SHARED}, two)
    alike(one, two, ["debate_reflect-0", "debate_reflect_sft-0"])
    assert [arm["name"] for arm in results["arms"]] == ["student", "debate_reflect"]
    second, asked = carry_out({**few, "train": {"processes": 1}}, two)
    assert not asked, "by how many processes it was trained changes nothing that it depends on"
    assert second["arms"] == results["arms"]
    assert not list((two / "training").iterdir()), "logs of what went well are not kept"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *((kind, how) for kind in ("two tasks", "on-policy") for how in (TWO, SHARED, {"processes": 4, "fsdp": True})),
        ("magdi", TWO),
    ],
    ids=str,
)
def test_every_training_of_a_recipe_may_have_several_processes(
    kind: str, how: dict[str, Any], few: dict[str, Any], local: Path, tmp_path: Path
) -> None:
    graphs = {k: v for k, v in few["sft"].items() if k != "rows_per_step"} | {"graphs_per_step": 4, "hidden": 8}
    values, name = {
        "two tasks": (review_recipe(few, ["reviewed"]), "reviewed-0"),
        "on-policy": (on_policy(few, local), "debate_opd-0"),
        "magdi": ({**few, "arms": ["magdi"], "magdi": graphs}, "magdi-0"),
    }[kind]
    carry_out(values, tmp_path / "one")
    carry_out({**values, "train": how}, tmp_path / "two")
    alike(tmp_path / "one", tmp_path / "two", [name])


def checked(values: dict[str, Any], gpus: int = 0) -> None:
    made = check_recipe(values, Path("recipe.yaml"))
    check_devices(made, tuple(map(str, range(gpus))))


def test_several_gpus_without_a_word_are_told_of_before_anything_is_asked(
    few: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=r"8 GPUs are visible.*\n.*\n.*processes: 8"):
        checked(few, 8)
    for fine in ({"processes": 8}, {"processes": 1}, {"processes": 2, "fsdp": True}):
        checked({**few, "train": fine}, 8)
    checked(few, 1)
    checked(few)
    with pytest.raises(RecipeError, match="16 processes train a student, each on a GPU of its own, and 8 are visible"):
        checked({**few, "train": {"processes": 16}}, 8)
    written = tmp_path / "recipe.json"
    written.write_text(json.dumps(few))
    monkeypatch.setattr("vivavoce.methods.devices.visible_gpus", lambda: ("0", "1"))
    refused = CliRunner().invoke(app, ["run", str(written), "--out", str(tmp_path / "run")])
    assert isinstance(refused.exception, RecipeError)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_trained_in_parts_is_refused_before_anything_is_asked(few: dict[str, Any], local: Path) -> None:
    with pytest.raises(RecipeError, match="set processes to 2 or more"):
        checked({**few, "train": {"fsdp": True}})
    muon = {**few["sft"], "muon": {}}
    with pytest.raises(RecipeError, match="Muon needs whole matrices"):
        checked({**few, "sft": muon, "train": SHARED})
    checked({**few, "sft": muon, "train": {"processes": 2}})
    with pytest.raises(RecipeError, match="MAGDi cannot be shared"):
        checked({**few, "arms": ["debate_reflect", "magdi"], "train": SHARED})
    with pytest.raises(RecipeError, match="a row of its own"):
        checked({**few, "dpo": {**few["dpo"], "attention": "rows"}, "train": SHARED})
    values = on_policy(few, local)
    with pytest.raises(RecipeError, match="6 processes share the 4 states of an update"):
        checked({**values, "train": {"processes": 6}})


def test_the_number_of_processes_decides_nothing(few: dict[str, Any]) -> None:
    one, two = (check_recipe({**few, **more}, Path("t")).model_dump(mode="json") for more in ({}, {"train": SHARED}))
    assert what_decides(one) == what_decides(two)


# --- bad days


@pytest.fixture
def run(few: dict[str, Any], tmp_path: Path) -> Any:
    made = check_recipe(few, tmp_path / "recipe.yaml")
    assert isinstance(made, Recipe)
    with open_run(tmp_path / "run", made) as opened:
        yield opened


def job(student: Path, folder: Path, question: str = "12 + 30?", steps: int = 2) -> Job:
    rows = folder / "rows.jsonl"
    rows.write_text(to_json(Example("a", messages(question), "forty-two", ("n1",))) + "\n")
    how = SFTSettings(lora=None, device="cpu", max_steps=steps, max_length=64, threads=1, save_steps=1)
    return Job("student-0", student, "start", rows, how, 0)


async def train(run: Run, of: Job) -> Path:
    with Workers(run, Gate(1), launch=Launch(2, False, logs=run.path / "training")) as workers:
        (folder,) = await workers.train([of])
    return folder


def children() -> list[int]:
    """Processes that train, by what they were started with."""
    numbers = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if b"vivavoce.train.launched" in command and parent == os.getpid():
            numbers.append(int(folder.name))
    return numbers


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_a_process_that_is_killed_ends_the_others_and_the_training_goes_on_from_its_checkpoint(
    run: Run, student: Path, tmp_path: Path
) -> None:
    import asyncio

    of, curve = job(student, tmp_path, steps=4000), run.path / "checkpoints" / "student-0" / "loss.jsonl"

    def kill_one() -> None:
        while not curve.exists() or len(curve.read_text().splitlines()) < 2:
            time.sleep(0.05)
        os.kill(max(children()), signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    with pytest.raises(RuntimeError, match=r"which trained student-0, was killed by SIGKILL; its log is"):
        asyncio.run(train(run, of))
    killer.join()
    assert not children()
    assert not run.manifest.get("stages", {})


def test_what_the_user_can_mend_is_told_as_one_process_tells_it(run: Run, student: Path, tmp_path: Path) -> None:
    import asyncio

    with pytest.raises(DataError, match="longer than 64"):
        asyncio.run(train(run, job(student, tmp_path, "so long " * 60)))
    assert not children()
