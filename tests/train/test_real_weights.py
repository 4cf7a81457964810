"""What is true of tiny random models is true of a real one, whose weights lie in the folder VIVA_REAL_WEIGHTS."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.gains import gain, scores
from tests.train.students import tree
from transformers import AutoModelForCausalLM, AutoTokenizer

from vivavoce.agents import weights
from vivavoce.train import TreeDPOSettings
from vivavoce.train.packing import pack
from vivavoce.train.tree_dpo import train_tree_dpo
from vivavoce.train.trees import branchings

logger = logging.getLogger(__name__)
pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore::FutureWarning")]

SUMS = [(17, 25), (48, 31), (6, 88), (73, 19), (54, 27), (39, 44), (82, 15), (66, 28)]
TREES = [
    tree(
        (f"{a} plus {b} is {a + b}, so the answer is {a + b}.",),
        (f"{a} plus {b} is {a + b + 10}, so the answer is {a + b + 10}.",),
        f"Ada has {a} pens and Bob gives her {b} more. How many has she now?",
    )
    for a, b in SUMS
]


def test_what_lora_in_bfloat16_gained_survives_saving_and_loading(
    smollm2: Path, tmp_path: Path, trained: list[Any]
) -> None:
    """T-DPO at its default settings, a few updates."""
    how = TreeDPOSettings(bf16=True, max_steps=20, max_length=200, device="cpu", log_steps=5, warmup_ratio=0)
    train_tree_dpo(smollm2, TREES, how, tmp_path, seed=0)
    rows = [pack(branch.rows) for branch in branchings(AutoTokenizer.from_pretrained(smollm2), TREES, 200)]
    tokens = sum(len(answer) for row in rows for answer in row.answers)
    base: Any = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    exact: Any = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    rounding = float((scores(base, rows, True) - scores(exact, rows, False)).abs().sum()) / tokens

    inside, before = scores(trained[0], rows, True), scores(base, rows, True)
    served = scores(weights.load(tmp_path, "auto", "cpu", False)[0], rows, False)
    plainly = scores(base, rows, False)
    off = float((served - inside).abs().sum()) / tokens
    logger.info(f"gain in training {gain(inside, before):.4f}, served {gain(served, plainly):.4f} nats a tree")
    logger.info(f"served against training {off:.2e} nats a token; bfloat16 against float32 {rounding:.2e}")
    assert off <= 3 * rounding  # both sides are rounded, and the adapter once more
    trained[0].float()
    learnt = gain(scores(trained[0], rows, False), scores(exact, rows, False))
    kept = gain(scores(weights.load(tmp_path, "float32", "cpu", False)[0], rows, False), scores(exact, rows, False))
    logger.info(f"in float32: gain in training {learnt:.4f}, saved and loaded {kept:.4f}")
    assert learnt > 0.01
    assert kept == pytest.approx(learnt, rel=0.01)
