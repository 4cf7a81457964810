"""The recipes of FAIR's tables: planned and examined on official questions without weights; their twins run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.methods.carry import carry_out

from vivavoce.config import load_recipe
from vivavoce.methods import peer_review
from vivavoce.methods.doctor import examine

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = {
    "gsm8k": {"train_path": "gsm8k/train.jsonl.gz", "test_path": "gsm8k/test_first_half.jsonl"},
    "svamp": {"path": "svamp/SVAMP_first_half.json"},
    "strategyqa": {"train_path": "strategyqa/train.json.gz", "test_path": "strategyqa/dev_first_half.json"},
    "logiqa": {"train_path": "logiqa/Eval.txt", "test_path": "logiqa/Test_first_half.txt"},
}


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_of_the_paper_is_planned_and_examined_without_weights(
    name: str, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("OPENAI_API_KEY", "GEMINI_API_KEY", "DEEPINFRA_API_KEY"):
        monkeypatch.setenv(key, "none")
    given = [f"task.{key}={official / file}" for key, file in FILES[name].items()]
    few = ["task.train_limit=20", "task.test_limit=6"]
    recipe = load_recipe(RECIPES / "fair" / f"{name}.yaml", [*given, *few])
    assert isinstance(recipe, peer_review.Options)
    planned = peer_review.plan(recipe)
    wrong = 20 * (1 - recipe.student.expected_right)
    asked = {p.agent: p.calls for p in planned if p.stage == "review:train"}
    for teacher in ("gpt", "gemini", "mistral"):  # of the paper's 12 calls a mistake, 4 of each teacher
        assert asked[teacher].most == 20 * 4
        assert asked[teacher].expected == pytest.approx(4 * wrong, rel=0.35)
    models = 1 + len(recipe.wanted)
    assert sum(p.calls.most for p in planned if p.stage == "test") == 6 * models
    rows = list(examine(recipe, tmp_path / "run", True))
    assert not [f for f in rows if f.level == "failed"]


@pytest.mark.parametrize("name", FILES)
def test_a_twin_has_the_arms_and_the_way_of_training_of_its_recipe(name: str) -> None:
    paper = load_recipe(RECIPES / "fair" / f"{name}.yaml")
    twin = load_recipe(RECIPES / "schoolhouse" / f"fair_{name}.yaml")
    assert isinstance(paper, peer_review.Options)
    assert isinstance(twin, peer_review.Options)
    assert twin.arms == paper.arms
    assert (twin.accept, twin.seeds) == (paper.accept, paper.seeds)
    for key in ("alpha", "pairing", "normalisation", "micro_batch", "rows_per_step"):
        assert getattr(twin.two_task, key) == getattr(paper.two_task, key)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_twin_runs_to_its_results(name: str, tmp_path: Path) -> None:
    few = ["task.train=40", "task.test=20", "two_task.max_steps=6", "parallel=1"]
    recipe = load_recipe(RECIPES / "schoolhouse" / f"fair_{name}.yaml", few)
    results, _ = carry_out(recipe.model_dump(), tmp_path)
    assert len(results["arms"]) >= 12
