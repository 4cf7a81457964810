"""The sources of a report, read from a run directory; a part that is not there yet is None or empty."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vivavoce.agents.journal import Cost, Journal, Lent
from vivavoce.errors import DataError, RunConflict, UserError
from vivavoce.exams.examine import Judged
from vivavoce.files import file_name, read_records
from vivavoce.graph import Graph, graph_file, read_graphs
from vivavoce.records import Problem, Usage
from vivavoce.tasks import Task, open_task
from vivavoce.train.settings import read_curve

_MARKS = ("manifest.json", "results.json", "journal.sqlite", "graphs", "evaluations", "checkpoints")
"""Files and folders that only a run has; a user keeps a recipe.yaml elsewhere too."""


class Curve(NamedTuple):
    """The training of one model: its points as logged, and its summary if it has finished."""

    arm: str
    seed: str
    points: list[dict[str, float]]
    result: dict[str, Any] | None


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory, begun or finished."""
    return any((path / name).exists() for name in _MARKS)


class Sources:
    """The files of a run. Raises DataError if ``path`` is no run directory."""

    def __init__(self, path: Path) -> None:
        if not is_run(path):
            raise DataError("the folder is not a run directory", str(path), "give the folder that `viva run` made")
        self.path = path
        self.results: dict[str, Any] | None = self._json("results.json")
        self.manifest: dict[str, Any] = self._json("manifest.json") or {}
        recipe = path / "recipe.yaml"
        self.recipe_text = recipe.read_text("utf-8") if recipe.is_file() else ""
        self.recipe: dict[str, Any] = yaml.safe_load(self.recipe_text) or {}

    @property
    def name(self) -> str:
        return str(self.recipe.get("name") or self.path.resolve().name)

    @property
    def student(self) -> str | None:
        return self.recipe.get("student", {}).get("name")

    @cached_property
    def task(self) -> Task | None:
        """The run's task, which says which answers are the same; None if it cannot be opened here any more.

        A task that is a file of Python is not opened: to look at a run must not run code that came with it.
        """
        return _task(dict(self.recipe.get("task") or {}))

    def problems(self, of: str) -> dict[str, Problem]:
        """The questions of the run's task that a set of them names, by id: ``train`` or ``test``, or ``test NAME`` of
        another task that the run tests on. Empty if the task cannot be opened here."""
        split, _, also = of.rpartition("/")[2].partition(" ")
        if split not in ("train", "test"):
            return {}
        options = dict((self.recipe.get("also_test") or {}).get(also) or {}) if also else {}
        task = _task(options) if also else self.task
        try:
            return {p.id: p for p in task.problems(split)} if task else {}
        except UserError:
            return {}

    @cached_property
    def parts(self) -> dict[str, Sources]:
        """The stages of a chain that have begun, each a run of its own, by name."""
        by_name = {}
        for stage in self.recipe.get("stages") or ():
            name = stage.get("name") or stage["method"]
            folder = self.path / "stages" / file_name(name)
            if folder.is_dir():
                by_name[name] = Sources(folder)
        return by_name

    def _of_arm(self, arm: str) -> tuple[Sources, str]:
        """The run or stage that made an arm, and what the arm is called there."""
        stage, dot, own = arm.partition(".")
        return (self.parts[stage], own) if dot and stage in self.parts else (self, arm)

    def answers(self, arm: str) -> list[Judged]:
        """The answers of an arm's student of the first seed to the test questions; empty if they are in no file."""
        files = (self.exam(arm, seed) for seed in self.recipe.get("seeds") or [0])
        file = next((file for file in files if file is not None), None)
        return [] if file is None else list(read_records(file, Judged))

    def exam(self, arm: str, seed: int) -> Path | None:
        """The file of an arm's answers to the test questions; None if there is none."""
        if arm == "student" and self.parts:
            return next(iter(self.parts.values())).exam(arm, seed)
        whole, own = self._of_arm(arm)
        file = whole.path / "evaluations" / f"{file_name(own)}-{seed}.jsonl"
        return file if file.is_file() else None

    def questions_of(self, problems: Collection[str]) -> dict[str, tuple[str, str]]:
        """Question and right answer of test questions, by id: from the committee's debates, else from the task."""
        by_problem, wanted = {}, set(problems)
        for graph in self.graphs("test"):
            if graph.problem.id in wanted:
                by_problem[graph.problem.id] = (graph.problem.question, graph.problem.gold)
                if len(by_problem) == len(wanted):
                    return by_problem
        known = self.problems("test")
        return by_problem | {id: (known[id].question, known[id].gold) for id in wanted - set(by_problem) if id in known}

    def checkpoint(self, arm: str) -> Path | None:
        """The folder of an arm's student of the first seed; of several trainings, the last one. None if there is
        none."""
        for seed, folder in ((self.results or {}).get("students", {}).get(arm) or {}).items():
            if (self.path / folder).is_dir() and int(seed) == (self.recipe.get("seeds") or [int(seed)])[0]:
                return self.path / folder
        whole, own = self._of_arm(arm)
        seed = (self.recipe.get("seeds") or [0])[0]
        one = whole.path / "checkpoints" / f"{file_name(own)}-{seed}"
        several = [whole.path / "checkpoints" / f"{file_name(f'{own}.{i}')}-{seed}" for i in range(64)]
        return next((folder for folder in (*reversed(several), one) if (folder / "train_result.json").is_file()), None)

    def graphs(self, stage: str) -> Iterator[Graph]:
        """The debates of a stage, one by one, so that thousands need no memory."""
        file = graph_file(self.path, stage)
        if file.is_file():
            yield from read_graphs(file)

    def costs(self) -> tuple[list[Cost], str]:
        """The ledger, and the reason if there is none."""
        try:
            with Journal(self.path / "journal.sqlite", read_only=True) as journal:
                return journal.costs(), ""
        except (DataError, RunConflict) as error:
            return [], error.what

    def lent(self) -> list[Lent]:
        """The replies that earlier runs have paid for: see :meth:`Journal.lent`."""
        try:
            with Journal(self.path / "journal.sqlite", read_only=True) as journal:
                return journal.lent()
        except (DataError, RunConflict):
            return []

    def under_way(self) -> list[tuple[str, int, Usage]]:
        """Calls of which the ledger has no answer: see :meth:`Journal.under_way`."""
        try:
            with Journal(self.path / "journal.sqlite", read_only=True) as journal:
                return journal.under_way()
        except (DataError, RunConflict):
            return []

    def curves(self, arms: Sequence[str] | None = None) -> list[Curve]:
        """The loss curves, in the order of ``arms`` (None: that of the comparison), then by name."""
        if arms is None:
            arms = [arm["name"] for arm in self.results["arms"]] if self.results else []
        return self._curves({name: name for name in arms})

    def _curves(self, named: Mapping[str, str]) -> list[Curve]:
        """The loss curves; ``named`` are the arms by their names in this run, as the results call them."""
        arms = list(named.values())
        by_folder = {file_name(name): arm for name, arm in named.items()}
        curves = [
            curve if curve.arm in arms else curve._replace(arm=f"{name}.{curve.arm}")
            for name, part in self.parts.items()
            for curve in part._curves({n.removeprefix(f"{name}."): n for n in arms if n.startswith(f"{name}.")})
        ]
        for file in sorted((self.path / "checkpoints").glob("*/loss.jsonl")):
            folder, _, seed = file.parent.name.rpartition("-")
            folder, seed = (folder, seed) if seed.isdigit() else (file.parent.name, "")
            arm = by_folder.get(folder, folder.replace("+", ":"))
            result = self._json(file.parent.relative_to(self.path) / "train_result.json")
            curves.append(Curve(arm, seed, read_curve(file), result))
        order = {arm: i for i, arm in enumerate(arms)}
        return sorted(curves, key=lambda c: (order.get(c.arm, len(arms)), c.arm, int(c.seed or 0)))

    def trainings(self, arms: Collection[str]) -> dict[str, list[dict[str, Any]]]:
        """The rows of each training of these arms: by arm, its seeds with rows used and left out."""
        by_arm: dict[str, list[dict[str, Any]]] = {}
        for curve in self.curves(list(arms)):
            if curve.result is not None and curve.arm.partition(".")[0] in {arm.partition(".")[0] for arm in arms}:
                kept = {key: curve.result[key] for key in ("steps", "rows_used", "rows_dropped")}
                by_arm.setdefault(curve.arm, []).append({"seed": int(curve.seed or 0), **kept})
        return by_arm

    def _json(self, name: str | Path) -> Any:
        file = self.path / name
        try:
            return json.loads(file.read_text("utf-8")) if file.is_file() else None
        except json.JSONDecodeError as error:
            raise DataError(
                f"not JSON: {error.msg}", f"{file}:{error.lineno}", "check whether the file was cut"
            ) from error


def _task(options: dict[str, Any]) -> Task | None:
    name = str(options.pop("name", ""))
    try:
        return None if name.endswith(".py") else open_task(name, options)
    except UserError:
        return None


__all__ = ["Curve", "Sources", "is_run"]
