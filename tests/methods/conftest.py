"""A whole committee for the methods: scripted teachers, and a real if untaught student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.serving import save_tiny_model

TEACHERS = Path(__file__).parent / "teachers.py"


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untaught student."""
    return save_tiny_model(tmp_path_factory.mktemp("student"), context=512)


@pytest.fixture
def short_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan rehearses few debates: for tests that do not ask how near its figures come."""
    for number, few in (("_SAMPLE", 10), ("_REHEARSED", 20), ("_TALKED", 10)):
        monkeypatch.setattr(f"vivavoce.methods.plan.{number}", few)


@pytest.fixture
def recipe(student: Path) -> dict[str, Any]:
    """A recipe as plain values, small enough for a test."""
    return plain_recipe(student)


def plain_recipe(student: Path) -> dict[str, Any]:
    """The same, for a student in any folder."""
    quick = {"max_steps": 3, "lora": None, "threads": 1, "max_length": 400, "log_steps": 1}
    return {
        "method": "debate_reflect",
        "name": "test",
        "seeds": [0, 1],
        "task": {"name": "schoolhouse", "train": 30, "test": 20},
        "teachers": [{"name": n, "backend": "scripted", "function": f"{TEACHERS}:{n}"} for n in ("ada", "bob", "cyd")],
        "student": {"name": "student", "model": str(student), "dtype": "float32", "max_new_tokens": 12, "samples": 2},
        "debate": {
            "prompts": "schoolhouse",
            "max_rounds": 2,
            "stop": "consensus",
            "student": "first_round",
            "shuffle": "per_agent",
        },
        "sft": {**quick, "rows_per_step": 8, "learning_rate": 1e-3},
        "attempts": {"samples": 1},
        "trees": {"branch": "answer", "context": "none"},
        "dpo": {**quick, "trees_per_step": 4, "learning_rate": 1e-3},
        "test": {"max_new_tokens": 40},
    }


def review_recipe(recipe: dict[str, Any], arms: list[str]) -> dict[str, Any]:
    """The tests' recipe of a debate, as a recipe of peer review with these arms."""
    quick = {k: v for k, v in recipe["sft"].items() if k != "rows_per_step"}
    kept = {k: recipe[k] for k in ("name", "seeds", "task", "teachers", "student", "dpo", "test")}
    return {
        **kept,
        "method": "peer_review",
        "student": {**recipe["student"], "samples": 1, "max_new_tokens": 40},
        "review": {"prompts": "schoolhouse", "gold_shown": False, "classes": ["wrong", "no_answer", "truncated"]},
        "arms": arms,
        "two_task": {**quick, "rows_per_step": 8, "learning_rate": 1e-3},
    }
