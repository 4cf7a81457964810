"""Arms of different runs on the questions that all of them were asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vivavoce.config import Statistics
from vivavoce.errors import DataError
from vivavoce.exams.arms import Arm, Pair
from vivavoce.exams.examine import Judged
from vivavoce.exams.table import OUTCOMES, compare_arms
from vivavoce.files import file_name, read_records
from vivavoce.records import Status, Usage
from vivavoce.stats import unpaired_interval


@dataclass(frozen=True)
class RunTests:
    """The tests that a run keeps."""

    name: str
    """The name of the run in the comparison."""
    results: dict[str, Any]
    arms: dict[str, dict[int, dict[str, Judged]]]
    """Arm to training seed to problem to its answer."""
    clusters: dict[str, str]

    @property
    def questions(self) -> list[str]:
        """Ids of the test questions, in order."""
        return list(next(iter(next(iter(self.arms.values())).values())))

    @property
    def main(self) -> str | None:
        """The arm that the run is about."""
        return self.results.get("main")


def kept_tests(path: Path, name: str) -> RunTests:
    """The tests that the run in ``path`` keeps. Raises DataError if it is no run, or has not come to its tests."""
    file = path / "results.json"
    if not file.is_file():
        raise DataError("there are no results", str(file), "give the folder of a run that has ended")
    results = json.loads(file.read_text("utf-8"))
    if (path / OUTCOMES).is_file():
        outcomes = json.loads((path / OUTCOMES).read_text("utf-8"))
        arms = {
            arm: {
                int(s): dict(zip(outcomes["questions"], map(_judged_row, outcomes["questions"], letters), strict=True))
                for s, letters in seeds.items()
            }
            for arm, seeds in outcomes["arms"].items()
        }
        return RunTests(name, results, arms, dict(zip(outcomes["questions"], outcomes["clusters"], strict=True)))
    arms = {}  # of an earlier version: students alone, from what they answered
    for arm in results["arms"]:
        files = {s["seed"]: path / "evaluations" / f"{file_name(arm['name'])}-{s['seed']}.jsonl" for s in arm["seeds"]}
        if all(one.is_file() for one in files.values()):
            arms[arm["name"]] = {s: {j.problem: j for j in read_records(one, Judged)} for s, one in files.items()}
    if not arms:
        raise DataError(
            "the run keeps no answers to test questions", str(path), f"run `viva run {path}`, which writes them again"
        )
    return RunTests(name, results, arms, {})


def _judged_row(problem: str, letter: str) -> Judged:
    status: Status = "error" if letter == "!" else "no_answer" if letter == "." else "ok"
    answer = None if letter in "!." else letter
    return Judged(problem, "", "", answer, letter == "1", status, Usage())


def across(runs: Sequence[RunTests], arms: Sequence[str] = (), statistics: Statistics | None = None) -> dict[str, Any]:
    """Arms of several runs, in the form of ``results.json``; an arm is called ``RUN: ARM``.

    Each run but the first is compared with the first: arms of equal names, the runs' main arms, or ``arms`` alone. They
    are compared on the questions that all runs were asked, paired. If there is none, ``apart`` holds the difference on
    each run's own questions with Newcombe's interval.

    Raises DataError if a run has none of ``arms``, or no two arms can be compared.
    """
    first, *others = runs
    for run in runs:
        if missing := [arm for arm in arms if arm not in run.arms]:
            there = ", ".join(run.arms)
            raise DataError(f"the run has no arm `{missing[0]}`", run.name, f"its arms are {there}")
    pairs = [pair for other in others for pair in _pairs(first, other, arms)]
    if not pairs:
        raise DataError("the runs have no arm name in common", ", ".join(r.name for r in runs), "name them by --arm")
    wanted = dict.fromkeys(side for pair in pairs for side in pair)
    shared = [q for q in first.questions if all(q in set(run.questions) for run in others)]
    questions = {name: shared or run.questions for run in runs for name in wanted if name[0] == run.name}
    by_name = {run.name: run for run in runs}
    tested = {
        _arm_label(name): {s: [rows[q] for q in questions[name]] for s, rows in by_name[name[0]].arms[name[1]].items()}
        for name in wanted
    }
    facts = {_arm_label(name): _fact(by_name[name[0]], name[1], _arm_label(name)) for name in wanted}
    named: list[Pair] = [(_arm_label(a), _arm_label(b)) for a, b in pairs]
    task = " and ".join(dict.fromkeys(str(run.results["task"]) for run in runs))
    if shared:
        table = compare_arms(task, tested, named, facts, statistics or Statistics(), first.clusters)
        return {**table, "questions": {run.name: len(run.questions) for run in runs}, "apart": []}
    table = compare_arms(task, tested, [], facts, statistics or Statistics())
    return {**table, "questions": {run.name: len(run.questions) for run in runs}, "apart": _apart(tested, named)}


def _pairs(first: RunTests, other: RunTests, arms: Sequence[str]) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    names = list(arms) or [arm for arm in first.arms if arm in other.arms]
    same_arms = [((first.name, arm), (other.name, arm)) for arm in names]
    if not arms and first.main in first.arms and other.main in other.arms and first.main != other.main:
        same_arms.append(((first.name, str(first.main)), (other.name, str(other.main))))
    return same_arms


def _arm_label(side: tuple[str, str]) -> str:
    return f"{side[0]}: {side[1]}"


def _fact(run: RunTests, arm: str, called: str) -> Arm:
    known = next((a for a in run.results["arms"] if a["name"] == arm), {})
    kept = {key: known[key] for key in Arm.__dataclass_fields__ if key in known}
    return replace(Arm(**kept), name=called, start=None) if kept else Arm(called)


def _apart(tested: dict[str, dict[int, list[Judged]]], pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    differences = []
    for a, b in pairs:
        (right_a, n_a), (right_b, n_b) = (
            (sum(bool(j.correct) for j in rows), len(rows)) for rows in (next(iter(tested[x].values())) for x in (a, b))
        )
        gain = right_b / n_b - right_a / n_a
        interval = unpaired_interval(right_a, n_a, right_b, n_b)
        differences.append({"a": a, "b": b, "gain": round(gain, 6), "interval95": [round(end, 6) for end in interval]})
    return differences


__all__ = ["RunTests", "across", "kept_tests"]
