"""Golden tests: loss and gradients of a packed update are those of TRL's trainers on the rows that we export."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from datasets import load_dataset
from tests.train.students import tiny_model, tree
from transformers import PreTrainedTokenizerFast, TrainingArguments
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from vivavoce.data.export import SFTForm, preference_rows, sft_rows, write_rows
from vivavoce.records import Example, Tree
from vivavoce.train import SFTSettings, TreeDPOSettings, reference, supervised
from vivavoce.train.scoring import Method, attending
from vivavoce.train.sft import Plain
from vivavoce.train.tokens import score_rows
from vivavoce.train.tree_dpo import TreeDPOTrainer
from vivavoce.train.trees import Updates, branchings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

Result = tuple[float, dict[str, torch.Tensor]]


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def theirs(tokenizer: PreTrainedTokenizerFast, trees: list[Tree], folder: Path, **changes: Any) -> Result:
    model = tiny_model(seed=0)
    write_rows(folder / "pairs.jsonl", preference_rows(trees))
    pairs = load_dataset("json", data_files=str(folder / "pairs.jsonl"), split="train", cache_dir=str(folder / "cache"))
    config = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=len(pairs),
        max_length=None,
        beta=0.3,
        report_to="none",
        use_cpu=True,
        activation_checkpointing=False,
        bf16=False,
        **changes,
    )
    trainer = DPOTrainer(model, tiny_model(seed=5), args=config, train_dataset=pairs, processing_class=tokenizer)
    (batch,) = trainer.get_train_dataloader()
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    return loss.item(), gradients(model)


def ours(tokenizer: PreTrainedTokenizerFast, trees: list[Tree], folder: Path, **changes: Any) -> Result:
    model, other = tiny_model(seed=0), tiny_model(seed=5)
    wanted = TreeDPOSettings.model_validate(
        {"beta": 0.3, "trees_per_step": len(trees), "max_steps": 1, "lora": None, "device": "cpu", **changes}
    )
    steps = Updates(branchings(tokenizer, trees, 500), wanted, 1, seed=1)
    known = reference._compute(other, steps, Method("blocks"), False, set(), 0)
    arguments = TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True)
    trainer = TreeDPOTrainer(model, arguments, steps, known, wanted, Method("blocks"))
    with attending(model, Method("blocks")):
        loss = trainer.training_step(model, steps[0])
    return loss.item(), gradients(model)


def assert_same(left: Result, right: Result) -> None:
    assert left[0] == pytest.approx(right[0], rel=1e-5)
    assert left[1].keys() == right[1].keys()
    for name, gradient in left[1].items():
        assert (gradient - right[1][name]).norm() <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("budget", [4096, 48])
def test_loss_and_gradients_are_trl_s(
    any_tokenizer: PreTrainedTokenizerFast, trees: list[Tree], tmp_path: Path, budget: int
):
    whole = [tree for tree in trees if tree.complete]
    assert_same(theirs(any_tokenizer, whole, tmp_path), ours(any_tokenizer, whole, tmp_path, token_budget=budget))


def test_the_nll_term_is_trl_s_where_both_are_defined(
    tokenizer: PreTrainedTokenizerFast, trees: list[Tree], tmp_path: Path
):
    one = [tree for tree in trees if len(tree.chosen) == len(tree.rejected) == 1 and tree.complete]
    assert len(one) == 1  # for one pair, TRL's mean over the batch's tokens is RPO's mean over the answer's
    assert_same(
        theirs(tokenizer, one, tmp_path, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.7]),
        ours(tokenizer, one, tmp_path, nll_weight=0.7),
    )


def test_a_tree_that_branches_inside_the_answer_is_trl_s_pairs_of_whole_answers(
    any_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    steps = [tree((" then 7 = 42.", " and 7 = 42"), (" then 7 = 48.",), prefix="Check each step, 6 *")]
    assert_same(theirs(any_tokenizer, steps, tmp_path), ours(any_tokenizer, steps, tmp_path))


@pytest.mark.parametrize("budget", [4096, 48])
def test_an_sft_update_has_the_loss_and_gradients_of_trl_s(
    any_tokenizer: PreTrainedTokenizerFast, trees: list[Tree], tmp_path: Path, budget: int
):
    rows = [Example(t.problem, t.prompt, c.text, ("n",)) for t in trees for c in (*t.chosen, *t.rejected)]
    write_rows(tmp_path / "rows.jsonl", sft_rows(rows, "prompt-completion"))
    loaded = load_dataset("json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path))
    config = SFTConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=len(rows),
        report_to="none",
        use_cpu=True,
        bf16=False,
        max_length=None,
        activation_checkpointing=False,
    )
    model = tiny_model(seed=0)
    trainer = SFTTrainer(model, args=config, train_dataset=loaded, processing_class=any_tokenizer)
    (batch,) = trainer.get_train_dataloader()
    loss = cast(torch.Tensor, trainer.compute_loss(model, batch))
    loss.backward()

    tiny, wanted = tiny_model(seed=0), SFTSettings(lora=None, rows_per_step=len(rows), max_steps=1, device="cpu")
    taught, _ = supervised._rows(any_tokenizer, rows, wanted, tmp_path, None)
    steps = supervised.Updates(taught, Plain.of(taught, wanted, 1), budget)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    method = Method("blocks")
    ours = supervised.SupervisedTrainer(tiny, arguments, steps, wanted, method, ["answer"])
    with attending(tiny, method):
        loss_value = ours.training_step(tiny, steps[0])
    assert_same((loss.item(), gradients(model)), (loss_value.item(), gradients(tiny)))
    assert len(steps[0]["parts"]) == 1 or budget == 48


@pytest.mark.parametrize("form", ["messages", "prompt-completion"])
def test_trl_reads_exported_examples_as_the_tokens_that_we_train_on(
    tokenizer: PreTrainedTokenizerFast, trees: list[Tree], tmp_path: Path, form: SFTForm
):
    rows = [Example(t.problem, t.prompt, t.chosen[0].text, ("n",)) for t in trees if t.complete]
    write_rows(tmp_path / "rows.jsonl", sft_rows(rows, form))
    loaded = load_dataset("json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path))
    config = SFTConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, max_length=None)
    trainer = SFTTrainer(tiny_model(), args=config, train_dataset=loaded, processing_class=tokenizer)
    for row, read in zip(rows, cast(Any, trainer.train_dataset), strict=True):
        (scores,) = score_rows(tokenizer, row.prompt, [row.completion])
        assert tuple(read["input_ids"]) == scores.ids
        if form == "prompt-completion":
            assert read["labels"] == [-100] * scores.start + list(scores.completion)
