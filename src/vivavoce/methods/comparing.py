"""The content of ``results.json``, made from the answers of every arm: the same for one method and for a chain of
them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vivavoce.config import Recipe
from vivavoce.exams.arms import Arm, Pair
from vivavoce.exams.pairs import clusters_of
from vivavoce.exams.table import OUTCOMES, Tested, compare_arms, outcomes, results
from vivavoce.run import Run
from vivavoce.tasks import Task


def comparison(
    recipe: Recipe,
    run: Run,
    tasks: tuple[Task, Mapping[str, Task]],
    tested: tuple[Tested, Mapping[str, Tested]],
    pairs: Sequence[Pair],
    arms: Mapping[str, Arm],
    students: Collection[str],
    drawn: Mapping[str, Any],
    seconds: float,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The comparison, and every outcome in the run's ``outcomes.json``.

    ``tasks`` and ``tested`` hold the task and further tests by name; on further tests only ``students`` are compared.
    ``drawn`` holds several answers to each question, by arm.
    """
    (task, others), (main, also), statistics = tasks, tested, recipe.statistics

    def clusters(one: Task) -> dict[str, str]:
        return clusters_of(one, one.problems("test"), statistics)

    of_students = [(a, b) for a, b in pairs if a in students and b in students]
    further = {
        name: compare_arms(others[name].name, rows, of_students, arms, statistics, clusters(others[name]))
        for name, rows in also.items()
    }
    belongs = clusters(task)
    run.write(run.path / OUTCOMES, json.dumps(outcomes(task.name, main, belongs)) + "\n")
    further_facts = {"also": further, "statistics": statistics, "clusters": belongs, **facts}
    summary = results(task.name, main, pairs, seconds, arms, **further_facts)
    with_draws = [{**arm, "pass_at_k": drawn[arm["name"]]} if arm["name"] in drawn else arm for arm in summary["arms"]]
    return {**summary, "arms": with_draws, **_by_tokens(summary)}


def _by_tokens(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The curve of gains on the untaught student against the tokens of teachers, cheapest arm first; nothing if no
    tokens were counted."""
    gains = {p["b"]: p["pooled"] for p in summary["paired"] if p["a"] == "student"}
    means = {a["name"]: a["mean"] for a in summary["arms"]}
    points = [
        {
            "arm": name,
            "tokens": sum(spent.values()),
            **spent,
            "accuracy": means[name],
            **({key: gains[name][key] for key in ("gain", "interval95")} if name in gains else {}),
        }
        for name, spent in summary.get("teacher_tokens", {}).items()
        if name in means
    ]
    return {"gain_by_tokens": sorted(points, key=lambda point: point["tokens"])} if points else {}


__all__ = ["comparison"]
