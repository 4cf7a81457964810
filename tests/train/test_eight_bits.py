"""AdamW with states of 8 bits: it learns as well, its states are small, and a killed training goes on exactly."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.students import Killed, bpe, die_at, equal, messages, tiny_model

from vivavoce.errors import MissingDependency
from vivavoce.records import Example
from vivavoce.train.settings import SFTSettings
from vivavoce.train.sft import train_sft

APART = Path(sys.prefix) / "apart"
ROWS = [Example(q, messages(q), "The answer is 42.", ("n",)) for q in ("What is 12 + 30?", "6 * 7?", "The sum?")]
HOW: dict[str, Any] = {
    "lora": None,
    "max_steps": 6,
    "rows_per_step": 2,
    "log_steps": 1,
    "threads": 1,
    "max_length": 200,
}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, words = tmp_path_factory.mktemp("student"), bpe()
    tiny_model(vocab_size=len(words), hidden_size=64, intermediate_size=128).save_pretrained(
        folder
    )  # blocks are of 256
    words.save_pretrained(folder)
    return folder


def test_without_its_package_it_is_refused_before_anything_is_loaded(
    tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torchao" else find(name, *a))
    with pytest.raises(MissingDependency, match="needs the package torchao"):
        train_sft(student, ROWS, SFTSettings(adam_bits=8, **HOW), tmp_path / "out", seed=0)


@pytest.mark.slow  # it compiles
@pytest.mark.skipif(shutil.which("g++") is None, reason="torchao compiles its update, which needs a compiler")
@pytest.mark.skipif(not APART.is_dir(), reason="torchao is not in the folder that `make setup` puts it in")
def test_states_of_eight_bits_learn_as_well_and_a_killed_training_goes_on_exactly(
    tmp_path: Path, student: Path
) -> None:
    # Its own process has torchao: where it can be imported, Transformers imports it too, and it warns.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.train.test_eight_bits", str(student), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(APART), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    content = json.loads(done.stdout.splitlines()[-1])
    large, small, resumed = (content["loss"][name] for name in ("large", "small", "killed"))
    assert small == pytest.approx(large, rel=0.05)
    assert not equal(tmp_path / "large", tmp_path / "small")
    assert any("8bit" in name for name in content["states"]), content
    assert equal(tmp_path / "small", tmp_path / "killed")
    assert small == resumed


def train_three_times(student: Path, folder: Path) -> dict[str, Any]:
    """Train with states of 32 bits, of 8, and of 8 killed at the fifth update; give losses and the states' types."""
    small = SFTSettings(adam_bits=8, save_steps=2, **HOW)
    train_sft(student, ROWS, SFTSettings(**HOW), folder / "large", seed=0)
    train_sft(student, ROWS, small, folder / "small", seed=0)
    with contextlib.suppress(Killed):
        train_sft(student, ROWS, small, folder / "killed", seed=0, progress=die_at(5))
    (kept,) = (folder / "killed" / "checkpoints").glob("checkpoint-4")
    states = torch.load(kept / "optimizer.pt", weights_only=False)["state"].values()
    train_sft(student, ROWS, small, folder / "killed", seed=0)
    names = ("large", "small", "killed")
    losses = {n: json.loads((folder / n / "train_result.json").read_text())["last_loss"] for n in names}
    return {"loss": losses, "states": [type(s["exp_avg"]).__name__ for s in states]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(train_three_times(Path(sys.argv[1]), Path(sys.argv[2]))))
