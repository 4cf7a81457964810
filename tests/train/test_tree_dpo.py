"""T-DPO training: where it starts, what it computes, what it leaves out, and that a killed run goes on."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.students import Killed, die_at, equal, tiny_model, tree
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, TrainingArguments

from vivavoce.errors import DataError, RecipeError, RunConflict
from vivavoce.records import Tree
from vivavoce.train import LoRASettings, TreeDPOSettings, reference
from vivavoce.train.scoring import Method, attending
from vivavoce.train.tree_dpo import TreeDPOTrainer, train_tree_dpo, tree_loss
from vivavoce.train.trees import Updates, branchings

FULL = {"lora": None, "log_steps": 1, "device": "cpu", "adam_eps": 1e-3}


def settings(**changes: Any) -> TreeDPOSettings:
    usual = {"max_steps": 3, "trees_per_step": 5, "learning_rate": 1e-3}
    return TreeDPOSettings.model_validate({**FULL, **usual, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lora": {"r": 4, "alpha": 8}},
        {"token_budget": 32},
        {"bf16": True},
        {"attention": "rows"},
        {"gradient_checkpointing": True},
        {"pair_weight": "tree"},
    ],
    ids=["full", "lora", "many rows", "bf16", "row by row", "recomputed", "tree weight"],
)
def test_training_starts_at_exactly_ln_2_with_zero_margins(
    student: Path, trees: list[Tree], tmp_path: Path, changes: dict[str, Any]
):
    result = train_tree_dpo(student, trees, settings(max_steps=1, **changes), tmp_path, seed=1)
    assert result.first_loss == torch.tensor(math.log(2)).item()
    start = result.history[0]
    assert start["rewards/margins"] == start["rewards/chosen"] == start["rewards/rejected"] == 0.0
    assert start["logps/chosen"] < 0


def test_listwise_starts_at_the_share_of_right_answers(student: Path, tmp_path: Path):
    two_by_two = tree(("42", "So 42."), ("41", "48"))
    result = train_tree_dpo(student, [two_by_two], settings(max_steps=1, objective="listwise"), tmp_path, seed=1)
    assert result.first_loss == torch.tensor(math.log(2)).item()
    one_of_four = tree(("42",), ("41", "48", "12"))
    other = train_tree_dpo(
        student, [one_of_four], settings(max_steps=1, objective="listwise"), tmp_path / "other", seed=1
    )
    assert other.first_loss == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    "changes", [{}, {"objective": "listwise"}, {"lora": {"r": 16, "alpha": 32}}], ids=["pairs", "listwise", "lora"]
)
def test_it_overfits_a_few_trees(student: Path, trees: list[Tree], tmp_path: Path, changes: dict[str, Any]):
    wanted = settings(max_steps=25, learning_rate=3e-2, adam_eps=1e-8, warmup_ratio=0, **changes)
    result = train_tree_dpo(student, trees, wanted, tmp_path, seed=1)
    assert result.last_loss < (0.3 if wanted.lora else 0.1) * result.first_loss
    assert result.history[-1]["rewards/accuracies"] == 1.0


def test_the_nll_term_makes_right_answers_likelier(student: Path, trees: list[Tree], tmp_path: Path):
    after = {}
    for nll in (0.0, 1.0):
        wanted = settings(max_steps=15, learning_rate=1e-2, adam_eps=1e-8, nll_weight=nll)
        result = train_tree_dpo(student, trees, wanted, tmp_path / str(nll), seed=1)
        after[nll] = result.history[-1]["logps/chosen"]
        if nll:
            assert result.first_loss > math.log(2) + 1  # a random model gives every token about ln 400
    assert after[1.0] > after[0.0] + 5


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many answers each pass of the reference scored."""
    counts: list[int] = []
    inner = reference.logprobs

    def logprobs(model: Any, packed: Any, method: Any) -> torch.Tensor:
        counts.append(len(packed.answers))
        return inner(model, packed, method)

    monkeypatch.setattr(reference, "logprobs", logprobs)
    return counts


def test_the_reference_is_computed_once_per_answer_and_kept(
    student: Path, trees: list[Tree], tmp_path: Path, counted: list[int]
):
    wanted = settings(max_steps=None, epochs=3, trees_per_step=2)
    result = train_tree_dpo(student, trees, wanted, tmp_path, seed=1)
    answers = sum(len(t.chosen) + len(t.rejected) for t in trees)
    # The first epoch's last step is filled up with trees of the second one, which lie in a row that is computed anyway.
    assert sum(counted) - answers < 8
    assert result.details["answers"] == answers
    counted.clear()
    (tmp_path / "train_result.json").unlink()
    assert train_tree_dpo(student, trees, wanted, tmp_path, seed=1).history == result.history
    assert not counted


def test_another_model_as_reference_changes_the_start(student: Path, trees: list[Tree], tmp_path: Path):
    other = tmp_path / "other"
    tiny_model(seed=5).save_pretrained(other)
    AutoTokenizer.from_pretrained(student).save_pretrained(other)
    result = train_tree_dpo(student, trees, settings(max_steps=1), tmp_path / "out", seed=1, reference=other)
    assert result.first_loss != pytest.approx(math.log(2), abs=1e-3)


def step_gradients(student: Path, trees: list[Tree], changes: dict[str, Any]) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of one update, against a reference of another seed so that margins are not zero."""
    model, other = AutoModelForCausalLM.from_pretrained(student), tiny_model(seed=5)
    tokenizer = AutoTokenizer.from_pretrained(student)
    wanted = settings(max_steps=1, **changes)
    steps = Updates(branchings(tokenizer, trees, 500), wanted, 1, seed=1)
    method = Method(wanted.attention if wanted.attention == "rows" else "blocks")
    out = Path(str(student) + "-unused")
    known = reference._compute(other, steps, method, False, set(), 0)
    arguments = TrainingArguments(output_dir=str(out), report_to="none", use_cpu=True)
    trainer = TreeDPOTrainer(model, arguments, steps, known, wanted, method)
    with attending(model, method):
        loss = trainer.training_step(model, steps[0])
    return float(loss), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objective": "listwise"},
        {"pair_weight": "tree", "nll_weight": 0.5},
        {"nll_average": "answer", "nll_weight": 1},
    ],
)
def test_splitting_an_update_into_rows_changes_nothing(student: Path, trees: list[Tree], changes: dict[str, Any]):
    loss, gradients = step_gradients(student, trees, changes)
    for other in ({"token_budget": 16}, {"attention": "rows"}):
        split_loss, split_gradients = step_gradients(student, trees, {**changes, **other})
        assert split_loss == pytest.approx(loss, rel=1e-5)
        for a, b in zip(gradients, split_gradients, strict=True):
            assert (a - b).norm() <= 1e-4 * a.norm()


def test_weights_count(student: Path, tokenizer: PreTrainedTokenizerFast, trees: list[Tree]):
    (two_by_two, one_by_three, *_) = branchings(tokenizer, trees, 500)
    policy, before = torch.randn(4), torch.randn(4)
    assert tree_loss(policy, before, two_by_two, settings())[1] == 4
    assert tree_loss(policy, before, one_by_three, settings())[1] == 3
    assert tree_loss(policy, before, two_by_two, settings(pair_weight="tree"))[1] == 1
    assert tree_loss(policy, before, two_by_two, settings(objective="listwise"))[1] == 1
    assert tree_loss(policy, before, two_by_two, settings(objective="kto"))[1] == 4
    losses = {
        o: float(tree_loss(policy, before, two_by_two, settings(objective=o))[0]) for o in ("pairs", "orpo", "kto")
    }
    assert len(set(losses.values())) == 3
    wide, narrow = (settings(objective="simpo", beta=2.0, gamma=gamma) for gamma in (2.0, 0.0))
    assert tree_loss(policy, before, two_by_two, wide)[0] > tree_loss(policy, before, two_by_two, narrow)[0]
    heavy = branchings(tokenizer, [tree(("42",), ("41",), weight=0.5)], 500)[0]
    for how in ({}, {"pair_weight": "tree"}, {"objective": "listwise"}):
        assert tree_loss(policy[:2], before[:2], heavy, settings(**how))[1] == 0.5


def test_over_long_trees_are_dropped_counted_and_said(
    student: Path, trees: list[Tree], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    long = tree(("42 " * 200,), ("41",), "Too long?")
    result = train_tree_dpo(student, [*trees, long], settings(max_steps=1, max_length=150), tmp_path, seed=1)
    assert (result.rows_used, result.rows_dropped) == (5, 1)
    assert "left out 1 of 6 trees" in caplog.text
    with pytest.raises(DataError, match="all 1 trees are longer than 150 tokens"):
        train_tree_dpo(student, [long], settings(max_length=150), tmp_path / "none", seed=1)


def test_trees_without_two_sides_and_adapters_without_targets_are_refused(
    student: Path, trees: list[Tree], tmp_path: Path
):
    with pytest.raises(DataError, match="right and wrong"):
        train_tree_dpo(student, [tree(("42",), ())], settings(), tmp_path, seed=1)
    with pytest.raises(DataError, match="no trees"):
        train_tree_dpo(student, [], settings(), tmp_path, seed=1)
    with pytest.raises(RecipeError, match="adapter"):
        train_tree_dpo(student, trees, settings(lora=LoRASettings(targets=("nowhere",))), tmp_path, seed=1)
    with pytest.raises(DataError, match="cannot open"):
        train_tree_dpo(tmp_path / "absent", trees, settings(), tmp_path, seed=1)


@pytest.mark.parametrize("lora", [None, {"r": 4, "alpha": 8}], ids=["full", "lora"])
def test_a_killed_run_goes_on_to_the_same_weights(
    student: Path, trees: list[Tree], tmp_path: Path, lora: dict[str, Any] | None
):
    wanted = settings(max_steps=7, trees_per_step=2, save_steps=2, lora=lora)
    whole = train_tree_dpo(student, trees, wanted, tmp_path / "whole", seed=1)
    with pytest.raises(Killed):
        train_tree_dpo(student, trees, wanted, tmp_path / "killed", seed=1, progress=die_at(5))
    seen: list[int] = []
    result = train_tree_dpo(
        student, trees, wanted, tmp_path / "killed", seed=1, progress=lambda done, total, logs: seen.append(done)
    )
    assert seen == [5, 6, 7]
    assert equal(tmp_path / "whole", tmp_path / "killed")
    assert result.history == whole.history
    assert result.tokens_seen == whole.tokens_seen
    assert not equal(student, tmp_path / "killed")


def test_a_folder_belongs_to_one_run(student: Path, trees: list[Tree], tmp_path: Path):
    first = train_tree_dpo(student, trees, settings(), tmp_path, seed=1)
    second = train_tree_dpo(student, trees, settings(), tmp_path, seed=1, progress=die_at(1))
    assert second == first
    with pytest.raises(RunConflict):
        train_tree_dpo(student, trees, settings(), tmp_path, seed=2)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT still reads it
def test_the_result_loads_and_tells_what_was_done(student: Path, trees: list[Tree], tmp_path: Path):
    result = train_tree_dpo(student, trees, settings(lora={"r": 4, "alpha": 8}), tmp_path, seed=1)
    loaded = AutoModelForCausalLM.from_pretrained(result.path).eval()
    assert AutoTokenizer.from_pretrained(result.path).chat_template
    assert not equal(student, tmp_path)
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(student).eval()
    adapted = PeftModel.from_pretrained(base, tmp_path).eval()
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, loaded(ids).logits, rtol=1e-4, atol=1e-4)
    curve = [json.loads(line) for line in (tmp_path / "loss.jsonl").read_text().splitlines()]
    assert tuple(curve) == result.history
    assert [point["step"] for point in curve] == [1, 2, 3]
    assert result.details["pairs"] == sum(len(t.chosen) * len(t.rejected) for t in trees)
    assert result.details["tokens_packed"] < result.details["tokens_pairwise"]
    assert not (tmp_path / "checkpoints").exists()
