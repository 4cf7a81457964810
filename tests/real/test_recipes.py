"""Methods on pretrained weights and real questions: real chat templates, tokenizers, LoRA in bfloat16."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from vivavoce import plugins
from vivavoce.config import check_recipe
from vivavoce.run import open_run

RECIPES = Path(__file__).parent.parent.parent / "recipes" / "real"
pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore::FutureWarning")]


async def run(name: str, changes: dict[str, Any], official: Path, smollm2: Path, out: Path) -> dict[str, Any]:
    """A recipe of the folder, made small, on the questions and weights at hand; its results."""
    text = (RECIPES / f"{name}.yaml").read_text("utf-8")
    text = text.replace("build/data", str(official)).replace("build/weights", str(smollm2.parent))
    values = yaml.safe_load(text.replace(".venv-vllm/bin/python", os.environ.get("VIVA_VLLM_PYTHON", "python")))
    for key, change in changes.items():
        values[key] = {**values[key], **change} if isinstance(change, dict) else change
    recipe = check_recipe(values, RECIPES / f"{name}.yaml")
    with open_run(out, recipe) as opened:
        return await plugins.load("methods", recipe.method, name).distill(recipe, opened)


SMALL: dict[str, dict[str, Any]] = {
    "arc_reflect": {
        "task": {"train_limit": 16, "test_limit": 4},
        "sft": {"max_steps": 1, "rows_per_step": 4},
        "dpo": {"max_steps": 1, "trees_per_step": 2},
        "debate": {"max_rounds": 1},
    },
    "strategyqa_review": {
        "task": {"train_limit": 12, "test_limit": 4},
        "two_task": {"max_steps": 1, "rows_per_step": 2},
    },
    "svamp_fair": {
        "task": {"test_limit": 4},
        "seeds": [0],
        "arms": ["checked"],
        "two_task": {"max_steps": 1, "rows_per_step": 4, "save_steps": None},
        "test": {"max_new_tokens": 48},
    },
    "gym_other_family": {
        "task": {"train": 2, "test": 4},
        "opd": {"max_steps": 1, "states_per_step": 2, "max_new_tokens": 24},
    },
    "opd_vllm": {
        "task": {"train_limit": 4, "test_limit": 4},
        "opd": {"max_steps": 2, "states_per_step": 2, "max_new_tokens": 24},
    },
}


@pytest.mark.parametrize("name", list(SMALL))
def test_a_recipe_of_real_models_runs_to_its_results(
    name: str, official: Path, smollm2: Path, gemma3: Path, vllm_python: str, tmp_path: Path
) -> None:
    import asyncio

    figures = asyncio.run(run(name, SMALL[name], official, smollm2, tmp_path))
    arms = {arm["name"]: arm for arm in figures["arms"]} if isinstance(figures["arms"], list) else figures["arms"]
    assert "student" in arms
    assert len(arms) >= 2
    if name == "opd_vllm":
        curve = next(tmp_path.glob("checkpoints/debate_opd-0/loss.jsonl")).read_text().splitlines()
        lines = [json.loads(line)["served_mismatch"] for line in curve if "served_mismatch" in line]
        assert len(lines) == 2
        assert max(lines) <= 5e-2  # here the trainer's logits are rounded to bfloat16, too
        assert (tmp_path / "engines" / "student.log").is_file()


def test_every_recipe_here_is_run() -> None:
    assert set(SMALL) == {path.stem for path in RECIPES.glob("*.yaml")}
