"""Joint training of feedback and rationales: the loss is the formula, whatever the split; pairings; exact resume."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.students import Killed, die_at, equal, messages, weights
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from vivavoce.errors import DataError
from vivavoce.records import Example
from vivavoce.train.settings import SFTSettings, TwoTaskSettings
from vivavoce.train.sft import train_sft
from vivavoce.train.supervised import Taught, Updates
from vivavoce.train.tokens import ScoredRow, score_rows
from vivavoce.train.two_task import TwoTasks, pad_row, train_two_task, updates

MISTAKE = messages("What is wrong? 12 + 30 = 41")
ROWS = [
    Example("a", MISTAKE, "You forgot to carry the one.", ("f1",), "feedback"),
    Example("a", MISTAKE, "You forgot it: 12 + 30 is 42.", ("f2",), "feedback", 2.0),
    Example("b", messages("What is wrong? 6 * 7 = 48"), "48 is 6 * 8.", ("f3",), "feedback"),
    Example("a", messages("Solve: what is 12 + 30?"), "The sum of twelve and thirty is forty-two.", ("r1",)),
    Example("c", messages("6 * 7?"), "42", ("r2",), "answer", 0.5),
]


def settings(**changes: Any) -> TwoTaskSettings:
    base = {"lora": None, "log_steps": 1, "device": "cpu", "max_steps": 3, "rows_per_step": 4, "learning_rate": 1e-3}
    return TwoTaskSettings.model_validate({**base, "adam_eps": 1e-3, "alpha": 0.3, **changes})


def by_hand(student: Path, tokenizer: PreTrainedTokenizerFast, rows: list[Example], alpha: float, mean: bool = False):
    """The formula, one row at a time: the loss, and the model with its gradients."""
    model = AutoModelForCausalLM.from_pretrained(student).eval()
    loss = torch.zeros(())
    for share, stream in ((alpha, "feedback"), (1 - alpha, "answer")):
        sums, masses = torch.zeros(()), 0.0
        for e in (e for e in rows if e.stream == stream):
            (row,) = score_rows(tokenizer, e.prompt, [e.completion])
            ids = torch.tensor([row.ids])
            logits = model(ids).logits[0, row.start - 1 : -1]
            nll = torch.nn.functional.cross_entropy(logits, ids[0, row.start :], reduction="sum")
            m = len(row.completion)
            sums, masses = sums + e.weight * (nll / m if mean else nll), masses + e.weight * (1 if mean else m)
        loss = loss + share * sums / masses
    return loss, model


@pytest.mark.parametrize("normalisation", ["step_tokens", "sequence_mean"])
@pytest.mark.parametrize(("attention", "budget"), [("auto", 4096), ("auto", 40), ("rows", 4096)])
def test_one_update_is_the_formula_however_it_is_packed(
    student: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, normalisation: str, attention: str, budget: int
):
    rows = [e for e in ROWS if e.stream == "feedback"] + [e for e in ROWS if e.stream == "answer"]
    loss, model = by_hand(student, tokenizer, rows, 0.3, normalisation == "sequence_mean")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-3, weight_decay=0.0)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    # three feedbacks and two rationales: six rows of each are each stream twice or thrice over
    how = settings(max_steps=1, rows_per_step=6, normalisation=normalisation, attention=attention, token_budget=budget)
    result = train_two_task(student, ROWS, how, tmp_path, seed=1)
    assert result.first_loss == pytest.approx(loss.item(), rel=1e-5)
    after = weights(tmp_path)
    for name, parameter in model.state_dict().items():
        if name in after:
            assert torch.allclose(after[name], parameter, rtol=1e-4, atol=1e-6), name


def row(problem: str, stream: str, tokens: int, weight: float = 1.0) -> Taught:
    return Taught(problem, stream, ScoredRow(tuple(range(tokens + 2)), 2), weight)


def test_micro_batches_count_the_same_whatever_their_tokens() -> None:
    """Two feedbacks of 1 and 3 tokens, then one of 8: means over 4 and over 8 tokens, half of the stream each."""
    rows = [row("a", "feedback", 1), row("a", "answer", 5), row("b", "feedback", 3), row("c", "feedback", 8)]
    how = settings(alpha=0.4, normalisation="micro_batch", micro_batch=2)
    factors = TwoTasks(rows, how, [[0, 1, 2, 3]]).factors([0, 1, 2, 3])
    assert factors == pytest.approx([0.4 / 2 / 4, 0.6 / 5, 0.4 / 2 / 4, 0.4 / 2 / 8])
    one = TwoTasks(rows, settings(alpha=0.4, normalisation="micro_batch", micro_batch=3), [[0, 1, 2, 3]])
    whole = TwoTasks(rows, settings(alpha=0.4), [[0, 1, 2, 3]])
    assert one.factors([0, 1, 2, 3]) == pytest.approx(whole.factors([0, 1, 2, 3])), "one micro-batch is the update"


def test_learnt_padding_is_the_released_defect_and_changes_what_is_learnt(student: Path, tmp_path: Path) -> None:
    filled = pad_row(12)(ScoredRow((5, 6, 7, 2), 2))
    assert filled == ScoredRow((5, 6, 7, *(2,) * 9), 2)
    how = {"max_steps": 1, "max_length": 120}
    plain = train_two_task(student, ROWS, settings(**how), tmp_path / "plain", seed=1)
    learnt = train_two_task(student, ROWS, settings(**how, padding="learnt"), tmp_path / "padded", seed=1)
    assert learnt.tokens_seen > plain.tokens_seen
    assert learnt.first_loss != plain.first_loss


@pytest.mark.parametrize(("alpha", "stream"), [(0.0, "answer"), (1.0, "feedback")])
def test_alpha_0_and_1_are_plain_training_on_one_stream(student: Path, tmp_path: Path, alpha: float, stream: str):
    one = [replace(e, weight=1.0) for e in ROWS if e.stream == stream]
    size = len(one)
    ours = train_two_task(
        student,
        [replace(e, weight=1.0) for e in ROWS],
        settings(alpha=alpha, rows_per_step=size),
        tmp_path / "a",
        seed=1,
    )
    shared = settings().model_dump(include=set(SFTSettings.model_fields) - {"rows_per_step"})
    theirs = train_sft(
        student, one, SFTSettings.model_validate({**shared, "rows_per_step": size}), tmp_path / "b", seed=1
    )
    assert ours.first_loss == pytest.approx(theirs.first_loss, rel=1e-5)
    assert ours.last_loss == pytest.approx(theirs.last_loss, rel=1e-4)
    assert ours.rows_used == size, "the other stream is not even read"


def taught(n: dict[str, tuple[int, int]]) -> list[Taught]:
    row = ScoredRow((1, 2, 3), 1)
    return [
        Taught(problem, stream, row, 1.0)
        for problem, counts in n.items()
        for stream, many in zip(("feedback", "answer"), counts, strict=True)
        for _ in range(many)
    ]


def test_paired_updates_hold_one_of_each_and_leave_out_who_has_not_both():
    rows = taught({"a": (3, 2), "b": (3, 0), "c": (3, 1), "d": (0, 1)})
    made = updates(rows, settings(pairing="paired-fixed", rows_per_step=2, max_steps=10), seed=1)
    assert all(Counter((rows[i].problem, rows[i].stream) for i in u) == Counter(
        {(p, stream): 1 for p in "ac" for stream in ("feedback", "answer")}) for u in made)  # fmt: skip
    assert len({frozenset(u) for u in made}) == 1, "drawn once"
    second = updates(rows, settings(pairing="paired-resampled", rows_per_step=2, max_steps=10), seed=1)
    assert len({frozenset(u) for u in second}) > 1, "drawn every epoch"
    with pytest.raises(DataError, match="both a feedback and a rationale"):
        updates(taught({"a": (1, 0), "b": (0, 1)}), settings(pairing="paired-fixed"), seed=1)


def test_independent_streams_run_at_their_own_pace():
    rows = taught({"a": (6, 1), "b": (6, 2)})
    made = updates(rows, settings(rows_per_step=3, max_steps=None, epochs=2), seed=1)
    assert len(made) == 8, "two passes over the longer stream of 12, three at a time"
    assert all(Counter(rows[i].stream for i in u) == {"feedback": 3, "answer": 3} for u in made)
    assert set(Counter(i for u in made for i in u if rows[i].stream == "feedback").values()) == {2}
    assert set(Counter(i for u in made for i in u if rows[i].stream == "answer").values()) == {8}


def test_the_mixed_stream_has_the_same_objective_over_an_epoch():
    rows = taught({"a": (5, 1), "b": (4, 2)})
    how = settings(pairing="flat-weighted", rows_per_step=3, max_steps=None, epochs=1)
    steps = Updates(rows, TwoTasks(rows, how, updates(rows, how, 1)), how.token_budget)
    factors: Counter[str] = Counter()
    for i in range(len(steps)):
        for part in steps[i]["parts"]:
            for factor, stream in zip(part.factors, part.streams, strict=True):
                factors[stream] += factor / len(steps)  # type: ignore[assignment]
    assert dict(factors) == pytest.approx({"feedback": 0.3 / 2, "answer": 0.7 / 2}), "two tokens a row"


def test_devices_share_an_update_whose_factors_are_those_of_one():
    rows = taught({"a": (3, 2), "b": (3, 1)})
    how = settings(rows_per_step=3)
    schedule = TwoTasks(rows, how, updates(rows, how, 1))
    whole, split = Updates(rows, schedule, how.token_budget), Updates(rows, schedule, how.token_budget, devices=4)
    together = sorted(f for d in range(4) for part in split[d]["parts"] for f in part.factors)
    assert together == sorted(f for part in whole[0]["parts"] for f in part.factors)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_killed_run_goes_on_to_the_same_weights(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    how = settings(max_steps=6, save_steps=2, lora=None if kind == "full" else {"r": 4, "targets": ["q_proj"]})
    train_two_task(student, ROWS, how, tmp_path / "whole", seed=3)
    with pytest.raises(Killed):
        train_two_task(student, ROWS, how, tmp_path / "killed", seed=3, progress=die_at(5))
    result = train_two_task(student, ROWS, how, tmp_path / "killed", seed=3)
    assert equal(tmp_path / "whole", tmp_path / "killed")
    assert train_two_task(student, ROWS, how, tmp_path / "killed", seed=3) == result


def test_over_long_rows_are_counted_and_left_out(student: Path, tmp_path: Path):
    long = Example("z", messages("Say it."), "42 " * 200, ("n",))
    result = train_two_task(student, [*ROWS, long], settings(max_steps=1, max_length=100), tmp_path / "some", seed=1)
    assert (result.rows_used, result.rows_dropped) == (5, 1)
    with pytest.raises(DataError, match="all 1 rows are longer"):
        train_two_task(student, [long], settings(max_length=100), tmp_path / "none", seed=1)


def test_a_stream_that_is_empty_counts_nothing_and_is_reported(
    student: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    answers = [e for e in ROWS if e.stream == "answer"]
    result = train_two_task(student, answers, settings(max_steps=1, rows_per_step=2), tmp_path, seed=1)
    alone, _ = by_hand(student, tokenizer, [*answers, ROWS[0]], 0.0)
    assert result.first_loss == pytest.approx(0.7 * alone.item(), rel=1e-5), "no renormalisation"
    assert result.details["updates_with_one_task"] == 1


def test_it_overfits_both_tasks(student: Path, tmp_path: Path):
    result = train_two_task(student, ROWS, settings(max_steps=60, learning_rate=1e-2, adam_eps=1e-8), tmp_path, seed=1)
    assert result.last_loss < 0.2 * result.first_loss
    assert {"feedback", "answer"} <= set(result.history[0])
