"""The comparison table: counts and intervals for every arm, paired comparisons between them, means over tasks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from vivavoce.config import Statistics
from vivavoce.exams.arms import Arm, Pair
from vivavoce.exams.examine import Judged
from vivavoce.exams.pairs import BySeed, paired_entries
from vivavoce.stats import Interval, mean_of_intervals, mean_sd, wilson

Tested = Mapping[str, BySeed]
"""Arm name to training seed to its judged test questions; an arm that was not trained has the one seed 0."""
_USUAL = Statistics()
OUTCOMES = "outcomes.json"
"""File of a run that holds :func:`outcomes`."""


def results(
    task: str, tested: Tested, pairs: Sequence[Pair], wall_s: float, arms: Mapping[str, Arm] = {}, **facts: Any
) -> dict[str, Any]:
    """The content of ``results.json``: the comparison on the task, and facts about the run.

    ``statistics`` and ``clusters`` among the facts are those of :func:`compare_arms`. If there are further tasks
    (``also``), ``macro`` is the mean over all tasks, each counting the same.
    """
    settings = {key: facts.pop(key) for key in ("statistics", "clusters") if key in facts}
    table = {**compare_arms(task, tested, pairs, arms, **settings), "wall_s": round(wall_s, 1), **facts}
    return {**table, "macro": macro(table, table["also"])} if table.get("also") else table


def compare_arms(
    task: str,
    tested: Tested,
    pairs: Sequence[Pair],
    arms: Mapping[str, Arm] = {},
    statistics: Statistics = _USUAL,
    clusters: Mapping[str, str] = {},
) -> dict[str, Any]:
    """The comparison of arms on one set of test questions. ``arms`` describe them; an arm that is not there is a
    student.

    An arm's headline figures are those of its first seed, so that its interval is about one model on one set of
    questions; ``seeds`` holds every seed and ``mean``/``sd`` are over seeds. A question without a parseable answer
    counts as wrong and is counted apart in ``unparsed``, one whose call failed in ``failed_calls``.

    ``paired`` is :func:`vivavoce.exams.pairs.paired_entries`. Its ``repaired`` is the share of the first arm's wrong
    answers that the second gets right, ``regressed`` the share of the first arm's right answers that the second gets
    wrong: a student that learns from its mistakes alone may forget the rest. ``untested`` are those of ``pairs`` of
    which an arm was not tested, for want of rows to learn from: p-values are corrected for them too, because they
    were planned. ``matters`` is the gain below which a difference is of no interest.
    """
    return {
        "task": task,
        "n": len(next(iter(next(iter(tested.values())).values()))),
        "arms": [_arm(arms.get(name) or Arm(name), seeds) for name, seeds in tested.items()],
        "paired": paired_entries(tested, pairs, clusters),
        "untested": [[a, b] for a, b in pairs if a not in tested or b not in tested],
        "matters": statistics.matters,
    }


def outcomes(task: str, tested: Tested, clusters: Mapping[str, str] = {}) -> dict[str, Any]:
    """Every answer of every arm as one letter, by which runs are compared later: right ``1``, wrong ``0``, no readable
    answer ``.``, failed call ``!``."""
    first = next(iter(next(iter(tested.values())).values()))

    def letter(j: Judged) -> str:
        return "1" if j.correct else "!" if j.status == "error" else "." if j.answer is None else "0"

    letters = {a: {str(s): "".join(map(letter, rows)) for s, rows in seeds.items()} for a, seeds in tested.items()}
    return {
        "task": task,
        "questions": [j.problem for j in first],
        "clusters": [clusters.get(j.problem, j.problem) for j in first],
        "arms": letters,
    }


def macro(main: Mapping[str, Any], also: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Means over tasks, each counting the same whatever its number of questions: accuracies and paired gains.

    ::

        mean = sum x_t / T        interval: :func:`vivavoce.stats.mean_of_intervals`

    x_t is the accuracy over all seeds on task t, or the gain there. The interval of an accuracy is as wide as that of
    the first seed. Only arms and pairs that are on every task take part.
    """
    parts = [main, *also.values()]
    names = [a["name"] for a in main["arms"] if all(a["name"] in {b["name"] for b in p["arms"]} for p in parts)]
    keys = [(p["a"], p["b"]) for p in main["paired"]]
    pairs = [key for key in keys if all(key in {(p["a"], p["b"]) for p in part["paired"]} for part in parts)]
    arms = [[next(a for a in part["arms"] if a["name"] == name) for part in parts] for name in names]
    gains = [[next(p["pooled"] for p in part["paired"] if (p["a"], p["b"]) == key) for part in parts] for key in pairs]
    return {
        "tasks": [part["task"] for part in parts],
        "arms": [
            {"name": name, **_mean([(a["mean"], a["accuracy"], a["wilson95"]) for a in each], 0.0)}
            for name, each in zip(names, arms, strict=True)
        ],
        "paired": [
            {"a": a, "b": b, **_mean([(p["gain"], p["gain"], p["interval95"]) for p in each], -1.0)}
            for (a, b), each in zip(pairs, gains, strict=True)
        ],
    }


def _mean(values: Sequence[tuple[float, float, Sequence[float]]], least: float) -> dict[str, Any]:
    """The mean of figures, each with the figure that its interval is about."""
    parts = [(value, Interval(value - (about - low), value + (high - about))) for value, about, (low, high) in values]
    ends = mean_of_intervals(parts, least)
    mean = math.fsum(value for value, _ in parts) / len(parts)
    return {"mean": round(mean, 6), "interval95": [round(end, 6) for end in ends]}


def accuracies(table: Mapping[str, Any]) -> list[dict[str, float]]:
    """Figures of a comparison for trackers, one step for each training seed: every arm's accuracy, and of the first
    seed the ends of its 95 % interval. Further tests have their name before that of the figure."""
    steps: list[dict[str, float]] = []
    for name, one in [("", table), *((f"{name}/", one) for name, one in table.get("also", {}).items())]:
        for arm in one["arms"]:
            for step, seed in enumerate(arm["seeds"]):
                steps += [{}] * (step + 1 - len(steps))
                steps[step] = {**steps[step], f"{name}accuracy/{arm['name']}": seed["accuracy"]}
            low, high = arm["wilson95"]
            steps[0] |= {f"{name}low95/{arm['name']}": low, f"{name}high95/{arm['name']}": high}
    return steps


def _arm(arm: Arm, seeds: BySeed) -> dict[str, Any]:
    first = next(iter(seeds.values()))
    right, n = _right(first), len(first)
    interval = wilson(right, n)
    accuracies = [_right(rows) / len(rows) for rows in seeds.values()]
    mean, sd = mean_sd(accuracies)
    prompt, completion = (sum(getattr(j.usage, kind) for j in first) / n for kind in ("prompt", "completion"))
    groups: defaultdict[str, list[Judged]] = defaultdict(list)
    for j in first:
        groups[j.group].append(j)
    return {
        **arm.facts(),
        "right": right,
        "n": n,
        "accuracy": right / n,
        "wilson95": [interval[0], interval[1]],
        "unparsed": sum(j.answer is None and j.status != "error" for j in first),
        "ungradable": sum(j.correct is None for j in first),
        "failed_calls": sum(j.status == "error" for j in first),
        "tokens_per_problem": round(prompt + completion, 2),
        "prompt_tokens_per_problem": round(prompt, 2),
        "completion_tokens_per_problem": round(completion, 2),
        "groups": {g: {"right": _right(rows), "n": len(rows)} for g, rows in sorted(groups.items())},
        "seeds": [
            {"seed": s, "right": _right(rows), "accuracy": a}
            for (s, rows), a in zip(seeds.items(), accuracies, strict=True)
        ],
        "mean": mean,
        "sd": sd,
    }


def _right(rows: Sequence[Judged]) -> int:
    return sum(bool(j.correct) for j in rows)


__all__ = ["OUTCOMES", "Tested", "compare_arms", "macro", "outcomes", "results"]
