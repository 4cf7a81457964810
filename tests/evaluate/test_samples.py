"""`viva evaluate --samples`: several answers to each question, and pass@k from them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from vivavoce.agents.journal import Journal
from vivavoce.config import Recipe, load_recipe
from vivavoce.errors import RecipeError
from vivavoce.methods.single import evaluate_model
from vivavoce.report import table

STUDENT = "schoolhouse:student"


def recipe(*changes: str) -> Recipe:
    path = Path(__file__).parents[2] / "recipes" / "schoolhouse" / "demo.yaml"
    return load_recipe(path, ["task.test=40", *changes])


def evaluated(out: Path, samples: int, *changes: str) -> dict[str, Any]:
    return asyncio.run(evaluate_model(recipe(*changes), STUDENT, out, samples))


def test_several_answers_give_pass_at_k_and_the_first_ones_are_what_one_gives(tmp_path: Path) -> None:
    hot = "test.temperature=1.0"
    chosen = "test.best_by=[probability]"
    one, four = evaluated(tmp_path / "one", 1, hot), evaluated(tmp_path / "four", 4, hot, chosen)
    assert "pass_at_k" not in one["arms"][0]
    assert four["arms"][0]["right"] == one["arms"][0]["right"]
    sample_four = four["arms"][0]["pass_at_k"]
    assert sample_four["drawn"] == 4
    means = [sample_four["k"][k]["mean"] for k in ("1", "2", "4")]
    assert means == sorted(means)
    assert means[0] < means[2], "four answers of a student that is mostly wrong are not all alike"
    assert f"pass@4 {100 * means[2]:.1f}".removesuffix(".0") in table(four)

    with Journal(tmp_path / "four" / "journal.sqlite", read_only=True) as journal:
        assert len(journal) == 160
    likeliest = [sample_four["likeliest"][k]["mean"] for k in ("1", "4")]
    assert likeliest[0] == one["arms"][0]["right"] / 40
    assert likeliest[0] <= likeliest[1] < means[2], "a student that is sure is right more often"
    assert evaluated(tmp_path / "four", 4, hot, chosen)["arms"] == four["arms"]
    with Journal(tmp_path / "four" / "journal.sqlite", read_only=True) as journal:
        assert len(journal) == 160, "asked again, nothing is generated again"


def test_several_answers_at_temperature_0_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="all the same"):
        evaluated(tmp_path, 4)
    assert not (tmp_path / "journal.sqlite").exists()


def test_a_model_without_room_for_the_answers_is_refused_before_anything_is_generated(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"takes 1,024 tokens, test\.max_new_tokens is 1,020") as caught:
        evaluated(tmp_path, 1, "test.max_new_tokens=1020")
    assert caught.value.where == "test.max_new_tokens"
    assert not (tmp_path / "journal.sqlite").exists()
