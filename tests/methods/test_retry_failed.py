"""`--retry-failed` asks again for exactly the stages in which a call failed, and for nothing once none has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.methods.carry import carry_out

from vivavoce.graph import read_graphs
from vivavoce.tasks import open_task

KEPT = ("graphs/train.jsonl.gz", "graphs/test.jsonl.gz", "evaluations/student-0.jsonl")


def written(where: Path) -> dict[str, int]:
    """When each of the stages that ask models was written."""
    return {name: (where / name).stat().st_mtime_ns for name in KEPT}


def failures(where: Path, stage: str = "train") -> int:
    return sum(len(g.failures()) for g in read_graphs(where / "graphs" / f"{stage}.jsonl.gz"))


def test_only_stages_with_failures_are_asked_again_and_none_when_none_is_left(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe |= {"seeds": [0], "arms": ["single:ada"], "task": {"name": "schoolhouse", "train": 12, "test": 6}}
    question = open_task("schoolhouse", {"train": 12, "test": 6}).problems("train")[3].question
    monkeypatch.setenv("VIVA_TEST_FAILS", question)
    carry_out(recipe, tmp_path)
    assert (failures(tmp_path) > 0, failures(tmp_path, "test")) == (True, 0)
    first = written(tmp_path)

    carry_out(recipe, tmp_path)
    assert written(tmp_path) == first, "without the option a failure stays one"

    carry_out(recipe, tmp_path, retry_failed=True)
    second = written(tmp_path)
    assert [name for name in KEPT if second[name] != first[name]] == ["graphs/train.jsonl.gz"]
    assert failures(tmp_path) > 0, "it failed again"

    monkeypatch.delenv("VIVA_TEST_FAILS")
    _, paid = carry_out(recipe, tmp_path, retry_failed=True)
    third = written(tmp_path)
    assert (paid > 0, failures(tmp_path)) == (True, 0)
    assert [name for name in KEPT if third[name] != second[name]] == ["graphs/train.jsonl.gz"]

    _, paid = carry_out(recipe, tmp_path, retry_failed=True)
    assert (paid, written(tmp_path)) == (0, third)
