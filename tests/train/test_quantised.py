"""Weights in 4 bits: an adapter is trained beside them, saved over the whole weights, and served as it was trained."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.train.students import Killed, bpe, die_at, equal, messages, tiny_model, tree

from vivavoce.agents import open_agent, quantised, weights
from vivavoce.config import check_recipe
from vivavoce.errors import DataError, MissingDependency, RecipeError
from vivavoce.methods.devices import check_devices
from vivavoce.methods.doctor import examine
from vivavoce.methods.memory import ModelSize, in_few_bits
from vivavoce.methods.memory import student as student_bytes
from vivavoce.methods.opening import trained_how
from vivavoce.records import Example
from vivavoce.train.adapters import merge
from vivavoce.train.settings import SFTSettings, TreeDPOSettings
from vivavoce.train.sft import train_sft
from vivavoce.train.tree_dpo import train_tree_dpo

APART = Path(sys.prefix) / "apart-bitsandbytes"
QUESTIONS = ["What is 12 + 30?", "6 * 7? Check each step, then answer.", "Is it 41 or 42?"]
ROWS = [Example(q, messages(q), "So the answer is 42.", ("n",)) for q in QUESTIONS]
TREES = [tree(("It is 42.",), ("It is 41 and not 42, Bob said.",), q) for q in QUESTIONS]
HOW: dict[str, Any] = {"log_steps": 1, "device": "cpu", "max_length": 200, "threads": 1, "quantise": "nf4"}
LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "targets": ("q_proj", "v_proj", "down_proj")}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for blocks of 64 weights, and for rounding to be seen."""
    folder, words = tmp_path_factory.mktemp("student"), bpe()
    tiny_model(
        vocab_size=len(words), hidden_size=128, intermediate_size=256, head_dim=32, initializer_range=0.05
    ).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a))


def test_without_its_package_it_is_refused_before_anything_is_loaded(
    tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "bitsandbytes")
    with pytest.raises(MissingDependency, match=r"vivavoce\[bitsandbytes\]"):
        open_agent("ada", "hf_local", {"model": str(student), "quantise": "nf4"})
    with pytest.raises(MissingDependency, match="4 bits need the package bitsandbytes"):
        train_sft(tmp_path / "none", ROWS, SFTSettings.model_validate(HOW), tmp_path / "out", seed=0)


def test_a_machine_that_cannot_quantise_is_told_so_before_anything_is_loaded(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: object())
    monkeypatch.setattr(quantised, "_fault", lambda device: "no kernel for this processor")
    with pytest.raises(RecipeError, match="cannot quantise on this machine") as refused:
        open_agent("ada", "hf_local", {"model": str(student), "quantise": "nf4"})
    assert "no kernel for this processor" in refused.value.what
    assert "AVX2" in refused.value.do


def test_weights_in_few_bits_are_not_trained_themselves(tmp_path: Path, student: Path) -> None:
    with pytest.raises(ValidationError, match="only an adapter beside them: keep lora"):
        SFTSettings.model_validate({**HOW, "lora": None})
    (stored := tmp_path / "stored").mkdir()
    for file in student.iterdir():
        (stored / file.name).write_bytes(file.read_bytes())
    config = json.loads((stored / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (stored / "config.json").write_text(json.dumps(config))
    whole = SFTSettings.model_validate({**HOW, "quantise": None, "lora": None})
    with pytest.raises(RecipeError, match="all are to be trained"):
        train_sft(stored, ROWS, whole, tmp_path / "out", seed=0)
    (adapter := tmp_path / "adapter").mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(stored), "r": 4}))
    with pytest.raises(DataError, match="loses what was learnt"):
        merge(adapter, tmp_path / "whole")


def test_an_engine_quantises_by_its_own_flags() -> None:
    with pytest.raises(RecipeError, match=r"serve\.args"):
        open_agent("ada", "hf_local", {"model": "schoolhouse:ada", "quantise": "nf4", "serve": {}})


def test_doctor_and_run_refuse_a_recipe_that_would_train_4_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("agents.hf_local", "train.settings"):
        monkeypatch.setattr(f"vivavoce.{module}.need_quantiser", lambda *_: None)
    values = {
        "method": "debate_reflect",
        "task": {"name": "schoolhouse", "train": 4, "test": 2},
        "teachers": [{"name": n, "model": f"schoolhouse:{n}"} for n in ("ada", "bob")],
        "student": {"name": "student", "model": "schoolhouse:student", "quantise": "nf4", "max_new_tokens": 8},
        "debate": {"prompts": "schoolhouse"},
    }
    fine = check_recipe(values, tmp_path / "recipe.yaml")
    assert {how.quantise for _, how in trained_how(fine)} == {"nf4"}, "training takes it over from the student"
    check_devices(fine, ())
    shared = check_recipe({**values, "train": {"processes": 2, "fsdp": True}}, tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match="not shared among processes"):
        check_devices(shared, ())
    whole = check_recipe({**values, "sft": {"lora": None}}, tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match="only an adapter beside them"):
        check_devices(whole, ())
    findings = [f for f in examine(whole, offline=True) if f.what == "train"]
    assert [(f.level, "sft.lora" in f.said) for f in findings] == [("failed", True)]


def test_memory_is_reckoned_at_half_a_byte_a_weight_of_the_linear_layers() -> None:
    size = ModelSize(8e9, 32, 4096, 128_000, 65536, 2.0, inner=14336, known=True)
    ends = 2 * 128_000 * 4096
    assert in_few_bits(size, 2.0) == pytest.approx((8e9 - ends) * 4.127 / 8 + 2 * ends, rel=1e-3)
    whole, few = (
        student_bytes(size, SFTSettings.model_validate({"bf16": True, "quantise": how}), 1) for how in (None, "nf4")
    )
    assert 0.3 * whole < few < 0.4 * whole


@pytest.mark.slow  # its process imports torch anew
@pytest.mark.skipif(not APART.is_dir(), reason="bitsandbytes is not in the folder that `make setup` puts it in")
def test_an_adapter_is_trained_beside_4_bits_and_answers_as_it_did_in_training(tmp_path: Path, student: Path) -> None:
    # Its own process has bitsandbytes: if it can be imported, PEFT imports it too, in every process.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.train.test_quantised", str(student), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(APART)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["bits"] == 4
    assert facts["rounding"] > 0.01, "4 bits are not the whole weights"
    assert facts["losses"]["dpo"][-1] < facts["losses"]["dpo"][0]
    assert facts["losses"]["sft"][-1] < facts["losses"]["sft"][0] - 0.5
    for name in ("sft", "dpo"):
        config = json.loads((tmp_path / name / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(student.resolve())
        assert not list((tmp_path / name).glob("model*.safetensors"))
    assert equal(tmp_path / "sft", tmp_path / "killed"), "a killed training goes on exactly"
    assert facts["served"] == pytest.approx(facts["trained"], abs=1e-4)
    assert facts["merged"] == pytest.approx(facts["beside"], abs=1e-4)
    assert facts["identities"] == 2
    assert facts["text"]


def by_hand(student: Path, folder: Path) -> dict[str, Any]:
    """Train SFT and then T-DPO beside 4 bits; tell the losses, and what is made of texts in training and afterwards."""
    import asyncio

    from tests.train.gains import scores
    from transformers import AutoTokenizer

    from vivavoce.records import Sampling
    from vivavoce.train.packing import pack
    from vivavoce.train.trees import branchings

    sft = SFTSettings.model_validate({**HOW, "lora": LORA, "rows_per_step": 3, "learning_rate": 1e-2, "max_steps": 8})
    first = train_sft(student, ROWS, sft, folder / "sft", seed=0)
    saving = sft.model_copy(update={"save_steps": 3})
    with contextlib.suppress(Killed):
        train_sft(student, ROWS, saving, folder / "killed", seed=0, progress=die_at(5))
    train_sft(student, ROWS, saving, folder / "killed", seed=0)
    dpo = TreeDPOSettings.model_validate(
        {**HOW, "lora": {**LORA, "r": 2}, "trees_per_step": 3, "learning_rate": 1e-3, "max_steps": 10}
    )
    kept: list[Any] = []
    import vivavoce.train.checkpoint as checkpoint

    finish = checkpoint.finish
    checkpoint.finish = lambda trainer, *a, **k: (kept.append(trainer.model), finish(trainer, *a, **k))[1]
    second = train_tree_dpo(first.path, TREES, dpo, folder / "dpo", seed=0)
    rows = [pack(branch.rows) for branch in branchings(AutoTokenizer.from_pretrained(student), TREES, 500)]

    def of(path: Path, quantise: Any = "nf4") -> torch.Tensor:
        return scores(weights.load(path, "float32", "cpu", False, quantise)[0], rows)

    merge(second.path, folder / "whole")
    four = weights.load(student, "float32", "cpu", False, "nf4")[0]
    agents = [open_agent("s", "hf_local", {"model": str(student), "quantise": how}) for how in ("nf4", None)]
    reply = asyncio.run(agents[0].reply([{"role": "user", "content": "6 * 7?"}], Sampling(max_new_tokens=4), 1))
    return {
        "bits": 8 * next(p for n, p in four.named_parameters() if "q_proj" in n).nbytes / (128 * 128),
        "rounding": float((of(student) - of(student, None)).abs().max()),
        "losses": {"sft": [p["loss"] for p in first.history], "dpo": [p["loss"] for p in second.history]},
        "trained": scores(kept[0].eval(), rows).flatten().tolist(),
        "served": of(second.path).flatten().tolist(),
        "merged": of(folder / "whole", None).flatten().tolist(),
        "beside": of(second.path, None).flatten().tolist(),
        "identities": len({one.identity for one in agents}),
        "text": reply.usage.completion > 0,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(by_hand(Path(sys.argv[1]), Path(sys.argv[2]))))
