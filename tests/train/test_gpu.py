"""What only a GPU can show: FlexAttention over packed trees, bfloat16, training there. Skipped without one."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch
from tests.train.students import tiny_model

from vivavoce.records import Completion, Message, State, Tree, View
from vivavoce.train import TreeDPOSettings
from vivavoce.train.choosing import choose
from vivavoce.train.objective import OnPolicySettings, Scorer
from vivavoce.train.on_policy import train_on_policy
from vivavoce.train.packing import Packed, pack
from vivavoce.train.scoring import Method, attending, autocast, logprobs
from vivavoce.train.tokens import ScoredRow
from vivavoce.train.tree_dpo import train_tree_dpo

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def on_gpu() -> torch.nn.Module:
    return cast(torch.nn.Module, tiny_model(head_dim=32)).to("cuda")  # FlexAttention takes no narrower heads than 16


def packed(length: int) -> Packed:
    stem = [i % 400 for i in range(length)]
    return pack([ScoredRow((*stem, 390 + i, *((7 * i + k) % 400 for k in range(40 + i))), length) for i in range(5)])


def scored(model: torch.nn.Module, row: Packed, method: Method) -> torch.Tensor:
    with attending(model, method):
        return logprobs(model, row, method)


@pytest.mark.parametrize("how", [Method("flex"), Method("flex", compiled=True), Method("blocks")])
def test_a_packed_row_scores_as_rows_of_their_own_do_gradients_included(how: Method):
    model = on_gpu()
    parts = []
    for method in (how, Method("rows")):
        model.zero_grad()
        values = scored(model, packed(100), method)
        values.sum().backward()
        parts.append([values.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for one, other in zip(*parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_rows_of_many_lengths_are_scored_right_one_after_the_other():
    model = on_gpu()
    method = choose(model, "auto", 0)
    assert method == Method("flex", compiled=True)
    with torch.no_grad():
        for length in (30, 101, 257, 640, 33, 500, 128, 129, 1000, 77, 310, 411):
            row = packed(length)
            torch.testing.assert_close(
                scored(model, row, method), scored(model, row, Method("rows")), rtol=1e-4, atol=1e-3
            )


def test_bfloat16_is_near_float32():
    model = on_gpu()
    method = choose(model, "auto", 0)
    row = packed(200)
    with torch.no_grad():
        exact = scored(model, row, method)
        with autocast(torch.device("cuda"), True):
            rounded = scored(model, row, method)
    torch.testing.assert_close(rounded, exact, rtol=2e-2, atol=0.5)


@pytest.mark.parametrize("bf16", [False, True])
def test_trees_are_learnt_on_a_gpu_as_on_a_cpu(student: Path, trees: list[Tree], tmp_path: Path, bf16: bool):
    common = {"lora": None, "learning_rate": 1e-3, "max_steps": 4, "warmup_ratio": 0.0, "log_steps": 1}
    losses = []
    for device in ("auto", "cpu"):
        settings = TreeDPOSettings.model_validate({**common, "device": device, "bf16": bf16 and device == "auto"})
        losses.append([p["loss"] for p in train_tree_dpo(student, trees, settings, tmp_path / device, seed=0).history])
    assert losses[0] == pytest.approx(losses[1], rel=0.1 if bf16 else 1e-2)
    assert losses[0][-1] < losses[0][0]


def test_the_student_moves_towards_its_teacher_on_its_own_answers(student: Path, tokenizer, tmp_path: Path):
    teacher = tmp_path / "teacher"
    tiny_model(seed=1).save_pretrained(teacher)
    tokenizer.save_pretrained(teacher)
    prompts = [(Message(role="user", content=f"what is {i} + 30?"),) for i in range(8)]
    states = [State(f"q{i}", p, (View(p, 1.0),), (Completion("42", ""),)) for i, p in enumerate(prompts)]
    settings = OnPolicySettings.model_validate(
        {
            "scorers": [Scorer(name="teacher", model=str(teacher))],
            "lora": None,
            "learning_rate": 3e-3,
            "max_steps": 10,
            "states_per_step": 8,
            "max_new_tokens": 12,
            "bf16": True,
            "log_steps": 1,
        }
    )
    done = train_on_policy(student, states, settings, tmp_path / "out", seed=0)
    assert done.last_loss < 0.8 * done.first_loss
