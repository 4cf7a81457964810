"""A student trained with LoRA is saved as what it is, an adapter over its base, and answers as it did in training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.gains import gain, scores
from tests.train.students import Killed, die_at, equal, messages, tiny_model, tree
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from vivavoce.agents import open_agent, weights
from vivavoce.cli import app
from vivavoce.errors import DataError, RecipeError
from vivavoce.records import Example, Tree
from vivavoce.train import SFTSettings, TreeDPOSettings
from vivavoce.train.packing import Packed, pack
from vivavoce.train.sft import train_sft
from vivavoce.train.tree_dpo import train_tree_dpo
from vivavoce.train.trees import branchings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

HOW: dict[str, Any] = {"log_steps": 1, "device": "cpu", "max_length": 200, "threads": 1}
LORA = {"r": 4, "alpha": 8, "dropout": 0.0}
QUESTIONS = ["What is 12 + 30?", "6 * 7? Check each step, then answer.", "Is it 41 or 42?"]
ROWS = [Example(q, messages(q), "So the answer is 42.", ("n",)) for q in QUESTIONS]
TREES = [tree(("It is 42.",), ("It is 41 and not 42, Bob said.",), q) for q in QUESTIONS]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A student in bfloat16, wide enough for its weights to be much larger than an update."""
    folder = tmp_path_factory.mktemp("half")
    model: Any = tiny_model(hidden_size=128, intermediate_size=256, head_dim=32, initializer_range=0.05)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sft(start: Path, out: Path, **changes: Any) -> Any:
    how = {**HOW, "rows_per_step": 3, "learning_rate": 1e-2, "max_steps": 8, "lora": LORA, **changes}
    return train_sft(start, ROWS, SFTSettings.model_validate(how), out, seed=0)


def dpo(start: Path, out: Path, **changes: Any) -> Any:
    how = {**HOW, "trees_per_step": 3, "learning_rate": 2e-5, "max_steps": 30, "lora": LORA, **changes}
    return train_tree_dpo(start, TREES, TreeDPOSettings.model_validate(how), out, seed=0)


def packed(tokenizer: Any, trees: list[Tree] = TREES) -> list[Packed]:
    return [pack(branch.rows) for branch in branchings(tokenizer, trees, 500)]


def test_what_t_dpo_gained_in_bfloat16_is_there_when_the_student_is_loaded(
    half: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, trained: list[Any]
) -> None:
    dpo(half, tmp_path, bf16=True)
    rows = packed(tokenizer)
    before = scores(weights.load(half, "float32", "cpu", False)[0], rows)
    inside = scores(trained[0], rows, bf16=True)
    start = scores(AutoModelForCausalLM.from_pretrained(half, dtype=torch.bfloat16), rows, bf16=True)
    served, _ = weights.load(tmp_path, "auto", "cpu", False)
    assert served.dtype == torch.bfloat16
    tokens = sum(len(a) for row in rows for a in row.answers)
    off = float((scores(served, rows) - inside).abs().sum()) / tokens
    rounding = float((start - before).abs().sum()) / tokens
    assert off <= 2 * rounding, "no further from the trainer's than rounding to bfloat16 takes it"
    exact, _ = weights.load(tmp_path, "float32", "cpu", False)
    # rounding is noise in single answers; in float32 nothing but what was learnt is left
    kept, learnt = gain(scores(exact, rows), before), gain(_in_float32(trained[0], rows), before)
    assert learnt > 0.02
    assert kept == pytest.approx(learnt, rel=0.01)


def _in_float32(model: Any, rows: list[Packed]) -> torch.Tensor:
    return scores(model.float(), rows)


def test_the_folder_of_a_trained_student_is_an_adapter_over_its_base(student: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    sft(student, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(student.resolve())
    assert not list(tmp_path.glob("model*.safetensors"))
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template
    rows = packed(AutoTokenizer.from_pretrained(tmp_path))
    ours = scores(weights.load(tmp_path, "auto", "cpu", False)[0], rows)
    theirs = scores(AutoPeftModelForCausalLM.from_pretrained(tmp_path), rows)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(ours, scores(AutoModelForCausalLM.from_pretrained(tmp_path), rows), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
def test_t_dpo_goes_on_from_an_adapter_and_is_one_adapter_over_the_same_base(
    bf16: bool, half: Path, tmp_path: Path, trained: list[Any]
) -> None:
    """Of other rank and other targets. It starts where the first one ended: margins of zero, its log-probabilities."""
    first = sft(half, tmp_path / "first", bf16=bf16)
    other = {"r": 2, "alpha": 2, "targets": ("v_proj", "up_proj")}
    second = dpo(first.path, tmp_path / "second", bf16=bf16, lora=other, learning_rate=1e-3)
    start = second.history[0]
    assert start["rewards/margins"] == 0.0
    rows = packed(AutoTokenizer.from_pretrained(half))
    between = scores(weights.load(tmp_path / "first", "float32", "cpu", False)[0], rows)
    assert start["logps/chosen"] == pytest.approx(float(between[:, 0].mean()), rel=0.02 if bf16 else 1e-4)
    config = json.loads((tmp_path / "second" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(half.resolve())
    assert (config["r"], sorted(config["target_modules"])) == (6, ["q_proj", "up_proj", "v_proj"])
    loaded = scores(weights.load(tmp_path / "second", "float32", "cpu", False)[0], rows)
    torch.testing.assert_close(loaded, _in_float32(trained[0], rows), rtol=1e-5, atol=1e-3)
    assert gain(loaded, between) > 0.05


def test_a_reference_that_is_an_adapter_is_taken_with_it(student: Path, tmp_path: Path) -> None:
    sft(student, tmp_path / "first")
    how = TreeDPOSettings.model_validate({**HOW, "trees_per_step": 3, "max_steps": 1, "lora": LORA})
    same = train_tree_dpo(tmp_path / "first", TREES, how, tmp_path / "a", seed=0, reference=tmp_path / "first")
    assert same.history[0]["rewards/margins"] == 0.0
    base = train_tree_dpo(tmp_path / "first", TREES, how, tmp_path / "b", seed=0, reference=student)
    assert abs(base.history[0]["rewards/margins"]) > 1e-3


def test_training_on_top_of_an_adapter_goes_on_after_a_kill(student: Path, tmp_path: Path) -> None:
    sft(student, tmp_path / "first")
    how = {**HOW, "trees_per_step": 2, "max_steps": 5, "save_steps": 2, "learning_rate": 1e-3, "lora": LORA}
    settings = TreeDPOSettings.model_validate(how)
    whole = train_tree_dpo(tmp_path / "first", TREES, settings, tmp_path / "whole", seed=1)
    with pytest.raises(Killed):
        train_tree_dpo(tmp_path / "first", TREES, settings, tmp_path / "killed", seed=1, progress=die_at(3))
    second = train_tree_dpo(tmp_path / "first", TREES, settings, tmp_path / "killed", seed=1)
    assert second.history == whole.history
    assert equal(tmp_path / "whole", tmp_path / "killed")


def test_all_weights_can_be_trained_from_an_adapter(student: Path, tmp_path: Path) -> None:
    sft(student, tmp_path / "first")
    rows = packed(AutoTokenizer.from_pretrained(student))
    result = dpo(tmp_path / "first", tmp_path / "second", lora=None, learning_rate=1e-12, max_steps=1)
    assert (result.path / "model.safetensors").is_file()
    first, second = (scores(weights.load(tmp_path / n, "auto", "cpu", False)[0], rows) for n in ("first", "second"))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
def test_an_adapter_on_one_of_two_tied_layers_is_saved_as_it_was_trained(
    target: str, bf16: bool, half: Path, tmp_path: Path, trained: list[Any]
) -> None:
    assert json.loads((half / "config.json").read_text())["tie_word_embeddings"]
    dpo(half, tmp_path / "out", bf16=bf16, learning_rate=5e-3, lora={**LORA, "targets": ("q_proj", target)})
    rows = packed(AutoTokenizer.from_pretrained(half))
    if bf16:
        served, _ = weights.load(tmp_path / "out", "auto", "cpu", False)
        before = scores(AutoModelForCausalLM.from_pretrained(half, dtype=torch.bfloat16), rows)
        assert gain(scores(served, rows), before) > 1
    wanted = _in_float32(trained[0], rows)
    loaded, _ = weights.load(tmp_path / "out", "float32", "cpu", False)
    torch.testing.assert_close(scores(loaded, rows), wanted, rtol=1e-4, atol=5e-3)
    runner(["train", "merge", str(tmp_path / "out"), "--out", str(tmp_path / "merged")])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.dtype == torch.float32
    torch.testing.assert_close(scores(merged, rows), wanted, rtol=1e-4, atol=5e-3)


def runner(arguments: list[str]) -> str:
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_what_cannot_be_merged_is_refused(student: Path, tmp_path: Path) -> None:
    from vivavoce.train.adapters import merge

    with pytest.raises(DataError, match="no adapter to merge"):
        merge(student, tmp_path / "out")
    sft(student, tmp_path / "first", max_steps=1)
    with pytest.raises(DataError, match="not empty"):
        merge(tmp_path / "first", student)


def test_an_adapter_is_known_by_what_it_and_its_base_hold_and_not_by_where_they_lie(
    student: Path, tmp_path: Path
) -> None:
    sft(student, tmp_path / "a", max_steps=1)
    shutil.copytree(student, tmp_path / "moved")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    file = tmp_path / "b" / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "base_model_name_or_path": str(tmp_path / "moved")}))
    assert weights.fingerprint(tmp_path / "a") == weights.fingerprint(tmp_path / "b")
    tiny_model(seed=9).save_pretrained(tmp_path / "moved")
    assert weights.fingerprint(tmp_path / "a") != weights.fingerprint(tmp_path / "b")
    shutil.rmtree(tmp_path / "moved")
    with pytest.raises(RecipeError, match=r"base model is missing[\s\S]*set base_model_name_or_path"):
        weights.load(tmp_path / "b", "auto", "cpu", False)
    with pytest.raises(RecipeError, match="base model is missing"):
        open_agent("student", "hf_local", {"model": str(tmp_path / "b")})


def test_a_base_of_the_hub_is_named_by_its_id(student: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / "0123abcd"
    shutil.copytree(student, snapshot)
    sft(snapshot, tmp_path / "out", max_steps=1)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("someone/tiny", "0123abcd")


def test_adapters_of_another_kind_are_served_and_refused_as_a_start(student: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, PromptTuningConfig, get_peft_model

    for name, config in (
        ("dora", LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], use_dora=True)),
        ("prompt", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)),
    ):
        made: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(student), config)
        made.save_pretrained(tmp_path / name)
    assert weights.load(tmp_path / "dora", "auto", "cpu", False)[0].dtype == torch.float32
    with pytest.raises(RecipeError, match="viva train merge"):
        sft(tmp_path / "dora", tmp_path / "out")
    with pytest.raises(RecipeError, match="PROMPT_TUNING"):
        weights.load(tmp_path / "prompt", "auto", "cpu", False)
