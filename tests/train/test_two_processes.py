"""Two processes that share every update, or the weights too, end where one process does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from tests.train.students import curve, weights
from tests.train.trainings import save_models, trainings
from transformers import TrainingArguments

from vivavoce.errors import RecipeError
from vivavoce.train.checkpoint import check_launch
from vivavoce.train.launch import SHARES
from vivavoce.train.objective import OnPolicySettings
from vivavoce.train.settings import MuonSettings, SFTSettings

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft and transformers, one at the other


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, and in ``alone/`` what one process makes of them."""
    folder = tmp_path_factory.mktemp("alone")
    save_models(folder)
    for _, train in trainings(folder, folder / "alone", sharded=False):
        train()
    return folder


@pytest.mark.parametrize(
    "how",
    [pytest.param([], marks=pytest.mark.slow), ["--sharded"]],
    ids=["data parallel", "weights sharded"],
)
def test_two_processes_end_where_one_does(how: list[str], alone: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    with ExitStack() as opened:
        logs = [opened.enter_context((tmp_path / f"log.{rank}").open("wb")) for rank in (0, 1)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.train.trainings", str(alone), str(tmp_path), *how],
                cwd=ROOT,
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=logs[rank],
            )
            for rank in (0, 1)
        ]
        for process in processes:
            opened.callback(process.kill)
        codes = [process.wait(300) for process in processes]
    assert codes == [0, 0], (tmp_path / "log.0").read_text()[-3000:] + (tmp_path / "log.1").read_text()[-3000:]
    for name, _ in trainings(alone, tmp_path, sharded=bool(how)):
        folders = alone / "alone" / name, tmp_path / name
        one, two = (curve(folder) for folder in folders)
        assert len(one) == len(two) == 3
        for first, second in zip(one, two, strict=True):
            for figure in (
                "loss",
                "grad_norm",
                *(["divergence/ada"] if name.split()[0] in ("recorded", "drawn", "averaged") else []),
            ):
                assert second[figure] == pytest.approx(first[figure], rel=1e-3), (name, figure)
        ends = [weights(folder) for folder in folders]
        for key in ends[0]:
            torch.testing.assert_close(ends[1][key], ends[0][key], rtol=1e-3, atol=2e-5)
        assert (folders[1] / "adapter_config.json").is_file() == ("adapted" in name)
        first, second = (json.loads((folder / "train_result.json").read_text()) for folder in folders)
        if "rows" in name or "drawn" in name:  # else devices share less of what answers begin with
            assert first["tokens_seen"] == second["tokens_seen"] > 0
        for count in ("answers", "answer_tokens", "learnt_tokens", "truncated", "scored_tokens"):
            assert first["details"].get(count) == second["details"].get(count)


def test_launches_that_cannot_go_are_refused_before_anything(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    adam, muon = SFTSettings(lora=None), SFTSettings(lora=None, muon=MuonSettings())
    check_launch(arguments, muon)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(RecipeError, match="DeepSpeed"):
        check_launch(arguments, adam)
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RecipeError, match="first version of FSDP"):
        check_launch(arguments, adam)
    for name, value in SHARES.items():
        monkeypatch.setenv(name, value)
    check_launch(arguments, adam)
    with pytest.raises(RecipeError, match="whole matrices"):
        check_launch(arguments, muon)
    with pytest.raises(RecipeError, match="2 devices share the 1 states"):
        check_launch(
            cast(TrainingArguments, SimpleNamespace(n_gpu=1, world_size=2)), OnPolicySettings(states_per_step=1)
        )
