"""Supervised fine-tuning: the loss is plain masked cross-entropy, and a killed run goes on."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.students import Killed, die_at, equal, messages, weights
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, get_scheduler

from vivavoce.errors import DataError
from vivavoce.records import Example
from vivavoce.train import SFTSettings
from vivavoce.train.sft import train_sft
from vivavoce.train.tokens import score_rows

ROWS = [
    Example("a", messages("Solve: what is 12 + 30?"), "The sum of twelve and thirty is forty-two.", ("n1",)),
    Example("b", messages("6 * 7?"), "42", ("n2",)),
    Example("c", messages("Die Antwort lautet?"), "zweiundvierzig", ("n3",)),
    Example("d", messages("Check each step."), "Bob said 42, so the answer is 42.", ("n4",)),
]


def settings(**changes: Any) -> SFTSettings:
    return SFTSettings.model_validate(
        {
            "lora": None,
            "log_steps": 1,
            "device": "cpu",
            "max_steps": 3,
            "rows_per_step": 4,
            "learning_rate": 1e-3,
            "adam_eps": 1e-3,
            **changes,
        }
    )


KNOBS: dict[str, Any] = {
    "max_steps": 4,
    "warmup_ratio": 0.5,
    "lr_scheduler": "cosine",
    "adam_betas": (0.8, 0.9),
    "weight_decay": 0.3,
    "max_grad_norm": 0.05,
}


@pytest.mark.parametrize("how", [{"max_steps": 1}, KNOBS], ids=["as it comes", "every setting of the optimiser"])
def test_updates_are_those_of_adamw_on_plain_cross_entropy_over_the_completion(
    student: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, how: dict[str, Any]
):
    wanted = settings(**how)
    model = AutoModelForCausalLM.from_pretrained(student).eval()
    groups = [[p for p in model.parameters() if (p.dim() > 1) == decays] for decays in (True, False)]
    optimizer = torch.optim.AdamW(
        [{"params": g, "weight_decay": d} for g, d in zip(groups, (wanted.weight_decay, 0.0), strict=True)],
        lr=1e-3, eps=1e-3, betas=wanted.adam_betas,
    )  # fmt: skip
    updates = how["max_steps"]
    schedule = get_scheduler(wanted.lr_scheduler, optimizer, math.ceil(updates * wanted.warmup_ratio), updates)
    losses = list[float]()
    for _ in range(updates):
        total, count = torch.zeros(()), 0
        for example in ROWS:
            (row,) = score_rows(tokenizer, example.prompt, [example.completion])
            ids = torch.tensor([row.ids])
            logits = model(ids).logits[0, row.start - 1 : -1]
            total = total + torch.nn.functional.cross_entropy(logits, ids[0, row.start :], reduction="sum")
            count += len(row.completion)
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), wanted.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append((total / count).item())
    result = train_sft(student, ROWS, wanted, tmp_path, seed=1)
    assert [point["loss"] for point in result.history] == pytest.approx(losses, rel=1e-5)
    after = weights(tmp_path)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(after[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_dropout_of_an_adapter_is_noise_in_training(student: Path, tmp_path: Path):
    plain, noisy = (
        train_sft(
            student, ROWS, settings(max_steps=2, lora={"r": 4, "dropout": dropout}), tmp_path / str(dropout), seed=1
        )
        for dropout in (0.0, 0.5)
    )
    assert noisy.first_loss == pytest.approx(plain.first_loss, rel=1e-6), "an adapter begins without effect"
    assert noisy.last_loss != pytest.approx(plain.last_loss, rel=1e-6)


def test_answers_to_one_question_share_it_and_a_row_counts_by_its_weight(student: Path, tmp_path: Path):
    twice = [ROWS[0], replace(ROWS[0], completion="12 + 30 is 42.")]
    plain = train_sft(student, twice, settings(max_steps=1, rows_per_step=2), tmp_path / "plain", seed=1)
    apart = [
        train_sft(student, [e], settings(max_steps=1, rows_per_step=1), tmp_path / e.completion, seed=1) for e in twice
    ]
    assert plain.tokens_seen < sum(result.tokens_seen for result in apart)
    rows = [replace(twice[0], weight=3.0), twice[1], replace(ROWS[1], weight=0.0)]
    weighted = train_sft(student, rows, settings(max_steps=1, rows_per_step=2), tmp_path / "weighted", seed=1)
    second = train_sft(student, [twice[0]] * 3 + [twice[1]], settings(max_steps=1), tmp_path / "again", seed=1)
    assert weighted.rows_used == 2, "what counts nothing is not read"
    assert (
        weighted.first_loss == pytest.approx(second.first_loss, rel=1e-5) != pytest.approx(plain.first_loss, rel=1e-3)
    )


def test_splitting_an_update_into_passes_changes_nothing(student: Path, tmp_path: Path):
    train_sft(student, ROWS, settings(), tmp_path / "whole", seed=1)
    train_sft(student, ROWS, settings(token_budget=40), tmp_path / "split", seed=1)
    whole, split = weights(tmp_path / "whole"), weights(tmp_path / "split")
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert not equal(student, tmp_path / "split")


@pytest.mark.parametrize("lora", [None, {"r": 16, "alpha": 32, "dropout": 0.0}], ids=["full", "lora"])
def test_it_overfits_four_rows(student: Path, tmp_path: Path, lora: dict[str, Any] | None):
    targets = {"targets": ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")} if lora else {}
    wanted = settings(
        max_steps=80, learning_rate=3e-2, adam_eps=1e-8, log_steps=20, lora={**lora, **targets} if lora else None
    )
    result = train_sft(student, ROWS, wanted, tmp_path, seed=1)
    assert result.last_loss < (0.4 if lora else 0.1) * result.first_loss


@pytest.mark.parametrize(
    "how",
    [{}, {"lora": {"r": 4, "alpha": 8, "dropout": 0.1}}, {"muon": {"momentum": 0.8}}],
    ids=["full", "lora with dropout", "muon"],
)
def test_a_killed_run_goes_on_to_the_same_weights(student: Path, tmp_path: Path, how: dict[str, Any]):
    wanted = settings(max_steps=7, rows_per_step=3, save_steps=2, weight_decay=0.01, **how)
    whole = train_sft(student, ROWS, wanted, tmp_path / "whole", seed=1)
    with pytest.raises(Killed):
        train_sft(student, ROWS, wanted, tmp_path / "killed", seed=1, progress=die_at(5))
    seen: list[int] = []
    result = train_sft(
        student, ROWS, wanted, tmp_path / "killed", seed=1, progress=lambda done, total, logs: seen.append(done)
    )
    assert seen == [5, 6, 7]
    assert equal(tmp_path / "whole", tmp_path / "killed")
    assert [point["loss"] for point in result.history] == [point["loss"] for point in whole.history]
    assert result.tokens_seen == whole.tokens_seen


def test_a_checkpoint_cut_off_in_the_writing_is_passed_over(student: Path, tmp_path: Path):
    wanted = settings(max_steps=7, save_steps=2)
    train_sft(student, ROWS, wanted, tmp_path / "whole", seed=1)
    with pytest.raises(Killed):
        train_sft(student, ROWS, wanted, tmp_path / "killed", seed=1, progress=die_at(5))
    (tmp_path / "killed" / "checkpoints" / "checkpoint-4" / "trainer_state.json").unlink()
    seen: list[int] = []
    train_sft(student, ROWS, wanted, tmp_path / "killed", seed=1, progress=lambda done, *_: seen.append(done))
    assert seen == [3, 4, 5, 6, 7]
    assert equal(tmp_path / "whole", tmp_path / "killed")


def test_training_reports_to_nobody():
    from huggingface_hub import constants

    assert constants.HF_HUB_DISABLE_TELEMETRY


def test_progress_is_told_after_every_update(student: Path, tmp_path: Path):
    lines: list[tuple[int, int, bool]] = []
    how = settings(max_steps=5, log_steps=3)
    train_sft(
        student, ROWS, how, tmp_path, seed=1, progress=lambda *shown: lines.append((*shown[:2], "loss" in shown[2]))
    )
    assert lines == [(1, 5, True), (2, 5, False), (3, 5, True), (4, 5, False), (5, 5, True)]


def test_the_curve_has_the_first_and_the_last_update(student: Path, tmp_path: Path):
    result = train_sft(student, ROWS, settings(max_steps=5, log_steps=3), tmp_path, seed=1)
    assert [point["step"] for point in result.history] == [1, 3, 5]
    assert (result.first_loss, result.last_loss) == (result.history[0]["loss"], result.history[-1]["loss"])


def test_over_long_rows_are_dropped_counted_and_said(student: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    long = Example("e", messages("Why?"), "42 " * 100, ())
    result = train_sft(student, [*ROWS, long], settings(max_steps=1, max_length=120), tmp_path, seed=1)
    assert (result.rows_used, result.rows_dropped) == (4, 1)
    assert "left out 1 of 5 rows" in caplog.text
    with pytest.raises(DataError, match="all 1 rows"):
        train_sft(student, [long], settings(max_length=120), tmp_path / "none", seed=1)
    with pytest.raises(DataError, match="no examples"):
        train_sft(student, [], settings(), tmp_path / "none", seed=1)


def test_an_adapter_folder_is_a_student_too(student: Path, tmp_path: Path):
    lora = {"r": 4, "alpha": 8}
    first = train_sft(student, ROWS, settings(lora=lora), tmp_path / "first", seed=1)
    second = train_sft(first.path, ROWS, settings(lora=lora), tmp_path / "second", seed=1)
    assert second.first_loss < first.first_loss


def test_without_a_pad_token_training_still_works(student: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    import copy
    import shutil

    shutil.copytree(student, tmp_path / "unpadded")
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    bare.save_pretrained(tmp_path / "unpadded")
    result = train_sft(tmp_path / "unpadded", ROWS, settings(), tmp_path / "out", seed=1)
    assert result.last_loss < result.first_loss
