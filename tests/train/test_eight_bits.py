"""AdamW with states of 8 bits: it learns as well, its states are small, and a killed training goes on exactly."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.students import Killed, bpe, die_at, equal, messages, tiny_model

from vivavoce.errors import MissingDependency
from vivavoce.records import Example
from vivavoce.train.settings import SFTSettings
from vivavoce.train.sft import train_sft

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


@pytest.mark.skipif(shutil.which("g++") is None, reason="torchao compiles its update, which needs a compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_states_of_eight_bits_learn_as_well_and_a_killed_training_goes_on_exactly(
    tmp_path: Path, student: Path
) -> None:
    pytest.importorskip("torchao")
    large = train_sft(student, ROWS, SFTSettings(**HOW), tmp_path / "large", seed=0)
    small = SFTSettings(adam_bits=8, save_steps=2, **HOW)
    done = train_sft(student, ROWS, small, tmp_path / "small", seed=0)
    assert done.last_loss == pytest.approx(large.last_loss, rel=0.05)
    assert not equal(tmp_path / "large", tmp_path / "small")
    with pytest.raises(Killed):
        train_sft(student, ROWS, small, tmp_path / "killed", seed=0, progress=die_at(5))
    (kept,) = (tmp_path / "killed" / "checkpoints").glob("checkpoint-4")
    states = torch.load(kept / "optimizer.pt", weights_only=False)["state"].values()
    sizes = [type(s["exp_avg"]).__name__ for s in states]
    assert any("8bit" in name for name in sizes), sizes
    train_sft(student, ROWS, small, tmp_path / "killed", seed=0)
    assert equal(tmp_path / "small", tmp_path / "killed")
    curves = [json.loads((tmp_path / n / "train_result.json").read_text())["last_loss"] for n in ("small", "killed")]
    assert curves[0] == curves[1]
