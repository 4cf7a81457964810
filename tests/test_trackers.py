"""Trackers: a run's figures in each tool, read back with that tool; off unless named, and never in a run's way."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving import save_tiny_model

from vivavoce import plugins
from vivavoce.config import check_recipe
from vivavoce.errors import MissingDependency
from vivavoce.exams.table import accuracies
from vivavoce.methods import debate_reflect
from vivavoce.run import open_run
from vivavoce.trackers import RunDescription, Trackers, need_trackers, open_trackers

TEACHERS = Path(__file__).parent / "methods" / "teachers.py"
CURVE = [(1, 2.0), (2, 1.5), (3, 1.25)]


@pytest.fixture
def description(tmp_path: Path) -> RunDescription:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    return RunDescription(tmp_path / "runs" / "mine", {"name": "mine", "sft": {"learning_rate": 1e-4}})


def write(name: Any, description: RunDescription) -> None:
    """A curve of two sessions, and a figure of another series between its points."""
    for points in (CURVE[:2], CURVE[2:]):
        trackers = open_trackers([name], description)
        for step, loss in points:
            trackers.log("train/a-0", {"loss": loss, "note": "no number", "nan": float("nan")}, step)
            trackers.log("test", {"accuracy/single:ada@lr=1": 0.5}, 0)
        assert trackers, "no tracker failed"
        trackers.close()


def curve_of(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return [(event.step, event.value) for event in read.Scalars(tag)]


def test_tensorboard_reads_what_was_written(description: RunDescription) -> None:
    pytest.importorskip("tensorboard")
    write("tensorboard", description)
    kept = description.folder / "tracking" / "tensorboard"
    assert curve_of(kept / "train" / "a-0", "loss") == CURVE
    assert curve_of(kept / "test", "accuracy/single:ada@lr=1")[0] == (0, 0.5)


def test_mlflow_reads_what_was_written(description: RunDescription, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write("mlflow", description)
    client = MlflowClient((description.folder.parent / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("vivavoce")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["mine/test", "mine/train/a-0"]
    run = runs["mine/train/a-0"]
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == CURVE
    assert run.data.tags["group"] == "mine"
    assert run.data.params["sft.learning_rate"] == "0.0001"
    assert run.info.status == "FINISHED"


def test_trackio_reads_what_was_written(
    description: RunDescription, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    from trackio.sqlite_storage import SQLiteStorage  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio", raising=False)
    write("trackio", description)
    runs = SQLiteStorage.get_runs("vivavoce")
    assert sorted(runs) == ["mine/test", "mine/train/a-0"]
    logs = SQLiteStorage.get_logs("vivavoce", "mine/train/a-0")
    assert [(one["step"], one["loss"]) for one in logs] == CURVE


def records_of(file: Path) -> Iterator[bytes]:
    """The records of a file of wandb's. It has LevelDB's form: blocks of 32 KiB, whose chunks have a CRC, a length and
    a kind (1 whole, 2 first, 3 middle, 4 last).
    """
    data, at, begun = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        begun += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield begun
            begun = b""


def test_wandb_writes_offline_and_two_runs_are_two_groups(
    tmp_path: Path, description: RunDescription, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportMissingImports]

    monkeypatch.delenv("WANDB_MODE", raising=False)
    (tmp_path / "runs" / "other").mkdir()
    curves: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for one in (description, RunDescription(tmp_path / "runs" / "other", {"name": "other"})):
        write("wandb", one)
        for file in sorted((one.folder / "tracking").rglob("*.wandb")):
            run: tuple[str, str] = ("", "")
            for data in records_of(file):
                record = Record.FromString(data)
                if record.HasField("run"):
                    assert record.run.project == "vivavoce"
                    run = (record.run.run_group, record.run.display_name)
                items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                if "loss" in items:
                    curves.setdefault(run, []).append((items["_step"], items["loss"]))
    assert curves == {("mine", "mine/train/a-0"): CURVE, ("other", "other/train/a-0"): CURVE}


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def log(self, series: str, figures: Any, step: int) -> None:
            raise OSError("disk full")

        def close(self) -> None:
            raise OSError("disk full")

    class Kept:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def log(self, series: str, figures: Any, step: int) -> None:
            self.seen.append((series, figures, step))

        def close(self) -> None: ...

    kept = Kept()
    trackers = Trackers({"broken": Broken(), "kept": kept})
    trackers.log("train/a-0", {"loss": 1, "flag": True}, 1)
    trackers.log("train/a-0", {"loss": 2}, 2)
    trackers.close()
    assert kept.seen == [("train/a-0", {"loss": 1.0}, 1), ("train/a-0", {"loss": 2.0}, 2)]
    assert capsys.readouterr().err.count("disk full") == 1


def test_a_tracker_that_is_not_installed_is_told_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(MissingDependency, match="mlflow-skinny"):
        need_trackers(["mlflow"])


def test_a_run_shows_spend_rounds_losses_and_accuracies(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    student = save_tiny_model(tmp_path / "student", context=512)
    values = {
        "method": "debate_reflect",
        "task": {"name": "schoolhouse", "train": 12, "test": 6},
        "teachers": [{"name": n, "backend": "scripted", "function": f"{TEACHERS}:{n}"} for n in ("ada", "bob")],
        "student": {"name": "student", "model": str(student), "dtype": "float32", "max_new_tokens": 8},
        "debate": {"prompts": "schoolhouse", "max_rounds": 2, "stop": "cap_only"},
        "arms": ["debate_reflect_sft"],
        "sft": {"max_steps": 3, "lora": None, "threads": 1, "max_length": 400, "log_steps": 1},
        "test": {"max_new_tokens": 8},
        "track": ["tensorboard"],
    }
    recipe = check_recipe(values, tmp_path / "recipe.yaml")
    method = plugins.load("methods", recipe.method, "method")
    assert method is debate_reflect
    with open_run(tmp_path / "run", recipe) as run:
        results = asyncio.run(method.distill(recipe, run))
        for step, figures in enumerate(accuracies(results)):
            run.track("test", figures, step)
    kept = tmp_path / "run" / "tracking" / "tensorboard"
    assert [step for step, _ in curve_of(kept / "train" / "debate_reflect_sft-0", "loss")] == [1, 2, 3]
    assert [step for step, _ in curve_of(kept / "debate" / "train", "agree")] == [0, 1]
    assert curve_of(kept / "debate" / "train", "questions") == [(0, 12.0)]
    tokens = [value for _, value in curve_of(kept / "spend", "tokens")]
    assert tokens == sorted(tokens)
    assert tokens[-1] > 0
    by_name = {arm["name"]: arm for arm in results["arms"]}
    ((_, ada),) = curve_of(kept / "test", "accuracy/teacher:ada")
    assert ada == pytest.approx(by_name["teacher:ada"]["accuracy"])
    assert curve_of(kept / "test", "low95/teacher:ada")[0][1] < ada
    # nothing is tracked unless it is asked for, and asking for it changes nothing of what comes
    plain = check_recipe({**values, "track": []}, tmp_path / "recipe.yaml")
    with open_run(tmp_path / "run", plain) as run:
        second = asyncio.run(method.distill(plain, run))
    assert second["arms"] == results["arms"]
