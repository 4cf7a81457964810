"""Training stops before it learns from what is no number, and says which update and which rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.students import messages, tree
from transformers import AutoModelForCausalLM, AutoTokenizer

from vivavoce.errors import DataError, Diverged
from vivavoce.records import Example, Tree, to_json
from vivavoce.train.jobs import Job, train
from vivavoce.train.settings import SFTSettings, TreeDPOSettings, TwoTaskSettings
from vivavoce.train.sft import train_sft
from vivavoce.train.tree_dpo import train_tree_dpo
from vivavoce.train.two_task import train_two_task

HOW: dict[str, Any] = {"lora": None, "log_steps": 1, "device": "cpu", "max_steps": 6, "max_length": 200}
WILD = {**HOW, "learning_rate": 1e30, "max_grad_norm": 1e30, "warmup_ratio": 0}
QUESTIONS = ["What is 12 + 30?", "6 * 7?", "Is it 41 or 42?"]
ROWS = [Example(f"p{i}", messages(q), "The answer is 42.", ("n",)) for i, q in enumerate(QUESTIONS)]
BOTH = [*ROWS, *(replace(row, stream="feedback", completion="41 is wrong.") for row in ROWS)]
TREES = [tree(("It is 42.",), ("It is 41.",), q, id=f"t{i}", problem=f"p{i}") for i, q in enumerate(QUESTIONS)]


def sft(student: Path, rows: list[Any], out: Path, how: dict[str, Any], **rest: Any) -> object:
    return train_sft(student, rows, SFTSettings(rows_per_step=3, **how), out, seed=0, **rest)


def two_task(student: Path, rows: list[Any], out: Path, how: dict[str, Any], **rest: Any) -> object:
    return train_two_task(student, rows, TwoTaskSettings(rows_per_step=3, **how), out, seed=0, **rest)


def tree_dpo(student: Path, rows: list[Any], out: Path, how: dict[str, Any], **rest: Any) -> object:
    return train_tree_dpo(student, rows, TreeDPOSettings(trees_per_step=3, **how), out, seed=0, **rest)


TRAININGS = pytest.mark.parametrize(
    ("train_on", "rows"), [(sft, ROWS), (two_task, BOTH), (tree_dpo, TREES)], ids=["sft", "two tasks", "t-dpo"]
)


@TRAININGS
@pytest.mark.parametrize("weight", [math.nan, math.inf, -1.0])
def test_a_weight_that_is_no_weight_is_refused_with_file_and_row(
    train_on: Callable[..., object], rows: list[Any], weight: float, student: Path, tmp_path: Path
) -> None:
    bad = [rows[0], replace(rows[1], weight=weight), *rows[2:]]
    with pytest.raises(DataError, match=rf"weight` is {weight}\n.*row 2 of data/rows.jsonl .*p1") as refused:
        train_on(student, bad, tmp_path / "out", HOW, source=Path("data/rows.jsonl"))
    assert refused.value.exit_code == 2
    assert not (tmp_path / "out").exists()


@TRAININGS
def test_a_training_that_blows_up_stops_and_keeps_nothing_as_finished(
    train_on: Callable[..., object], rows: list[Any], student: Path, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match=r"update \d") as stopped:
        train_on(student, rows, tmp_path, WILD, source=Path("rows.jsonl"))
    assert "row " in stopped.value.where
    assert "of rows.jsonl" in stopped.value.where
    assert "learning_rate" in stopped.value.do
    assert not (tmp_path / "train_result.json").exists()
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(("kind", "row"), [("sft", "row 2 of"), ("t-dpo", "row 2 of")])
def test_the_row_that_scores_as_no_number_is_named(kind: str, row: str, student: Path, tmp_path: Path) -> None:
    """One token's embedding is not a number; one row alone has that token."""
    tokenizer = AutoTokenizer.from_pretrained(student)
    model: Any = AutoModelForCausalLM.from_pretrained(student)
    texts = [QUESTIONS[1], QUESTIONS[0], QUESTIONS[2], "The answer is 42. It is 42. It is 41."]
    first_ids, *others = (set(tokenizer(text)["input_ids"]) for text in texts)
    token = min(first_ids.difference(*others))
    with torch.no_grad():
        untied = model.model.embed_tokens.weight.clone()
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(untied.clone())
        untied[token] = math.nan
        model.model.embed_tokens.weight = torch.nn.Parameter(untied)
    model.save_pretrained(tmp_path / "broken")
    tokenizer.save_pretrained(tmp_path / "broken")
    rows: list[Any] = ROWS if kind == "sft" else TREES
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(to_json(r) + "\n" for r in rows))
    how = {**HOW, "token_budget": 30}
    settings = SFTSettings(rows_per_step=3, **how) if kind == "sft" else TreeDPOSettings(trees_per_step=3, **how)
    with pytest.raises(Diverged, match="update 1 is nan") as stopped:
        train(Job("student", tmp_path / "broken", "", file, settings, 0), tmp_path / "out")
    assert stopped.value.where.startswith(f"{row} {file}")
    assert stopped.value.where.endswith("problem p1)"), "and no other"


def test_a_gradient_that_is_no_number_stops_though_the_loss_is_one(student: Path, tmp_path: Path) -> None:
    def poisoned(done: int, total: int, logs: dict[str, float]) -> None:
        raise AssertionError(f"update {done} was made")

    class Root(torch.autograd.Function):
        """Its value is 0, its slope infinite."""

        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x)

        @staticmethod
        def backward(ctx: Any, *grad_outputs: torch.Tensor) -> torch.Tensor:
            return torch.full_like(grad_outputs[0], math.inf)

    with pytest.MonkeyPatch.context() as patch:
        from vivavoce.train import supervised

        plain = supervised.logprobs
        patch.setattr(supervised, "logprobs", lambda *args: plain(*args) + Root.apply(plain(*args)))
        with pytest.raises(Diverged, match="gradient of update 1"):
            sft(student, ROWS, tmp_path, HOW, progress=poisoned)


def test_weights_that_the_last_update_ruins_are_not_saved(student: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="after update 1"):
        sft(student, ROWS, tmp_path, {**WILD, "learning_rate": 1e39, "max_steps": 1})
    assert not list(tmp_path.glob("*.safetensors"))


def test_trees_that_count_nothing_are_not_read(student: Path, tmp_path: Path) -> None:
    silent: list[Tree] = [replace(TREES[0], weight=0.0), *TREES[1:]]
    result: Any = tree_dpo(student, silent, tmp_path / "out", {**HOW, "max_steps": 1, "log_steps": 1})
    assert (result.rows_used, result.rows_dropped) == (2, 0)
    assert result.first_loss == pytest.approx(math.log(2))
    with pytest.raises(DataError, match="no trees"):
        tree_dpo(student, [silent[0]], tmp_path / "none", HOW)
