"""What a recipe says of statistics reaches the comparison of its run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vivavoce.config import check_recipe
from vivavoce.exams.arms import Arm
from vivavoce.exams.examine import Judged
from vivavoce.methods.comparing import comparison
from vivavoce.records import Usage
from vivavoce.run import open_run
from vivavoce.tasks import open_task


def made(recipe: dict[str, Any], folder: Path, **statistics: Any) -> dict[str, Any]:
    """A comparison of the student as it came, all wrong, and one that is all right but for two questions."""
    loaded = check_recipe({**recipe, "statistics": statistics}, Path("test.yaml"))
    task = open_task("schoolhouse", {"test": 20})
    far = open_task("schoolhouse", {"test": 10, "seed": 3})

    def rows(one: Any, wrong: int) -> list[Judged]:
        problems = one.problems("test")
        return [Judged(p.id, p.group, "", p.gold, i >= wrong, "ok", Usage()) for i, p in enumerate(problems)]

    def tested(one: Any, n: int) -> dict[str, dict[int, list[Judged]]]:
        return {"student": {0: rows(one, n)}, "taught": {0: rows(one, 2)}}

    with open_run(folder, loaded) as run:
        return comparison(
            loaded,
            run,
            (task, {"far": far}),
            (tested(task, 20), {"far": tested(far, 10)}),
            [("student", "taught"), ("taught", "never")],
            {"student": Arm("student"), "taught": Arm("taught", material="drafts")},
            ["student", "taught"],
            {},
            1.0,
            {"main": "taught"},
        )


def test_clusters_what_matters_and_further_tasks_come_from_the_recipe(recipe: dict[str, Any], tmp_path: Path) -> None:
    plain = made(recipe, tmp_path / "plain")
    (pair,) = plain["paired"]
    assert (pair["pooled"]["clusters"], plain["matters"], plain["untested"]) == (20, 0.02, [["taught", "never"]])
    assert pair["p_holm"] == pytest.approx(2 * pair["pooled"]["p"])
    kept = json.loads((tmp_path / "plain" / "outcomes.json").read_text("utf-8"))
    assert kept["arms"]["taught"]["0"] == "00" + "1" * 18
    assert kept["clusters"] == kept["questions"]
    assert [arm["mean"] for arm in plain["macro"]["arms"]] == [0.0, pytest.approx((0.9 + 0.8) / 2)]

    grouped = made(recipe, tmp_path / "grouped", cluster="group", matters=0.1)
    groups = {p.group for p in open_task("schoolhouse", {"test": 20}).problems("test")}
    assert (grouped["paired"][0]["pooled"]["clusters"], grouped["matters"]) == (len(groups), 0.1)
    assert grouped["paired"][0]["pooled"]["p"] > pair["pooled"]["p"]
    far = grouped["also"]["far"]["paired"][0]["pooled"]
    assert far["clusters"] <= len(groups)
