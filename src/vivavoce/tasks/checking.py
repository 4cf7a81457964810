"""A check that tasks grade official data right: every gold answer accepted, every wrong one beside it rejected.

A task takes part if its module names its official data: ``OFFICIAL``, a list of options whose paths are patterns below
the data folder (a task that makes its questions has none). The task also needs ``samples(split)``
(:class:`~vivavoce.tasks.samples.Sample`). A :class:`~vivavoce.tasks.benchmark.Benchmark` has it; a task that runs code
says itself which texts it accepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vivavoce import plugins
from vivavoce.errors import DataError
from vivavoce.tasks import Task, open_task
from vivavoce.tasks.samples import Sample


@runtime_checkable
class Checkable(Protocol):
    """The members that a task needs for this check."""

    left_out: list[str]

    def samples(self, split: str) -> Iterator[Sample]: ...


@dataclass
class Checked:
    """The outcome for one task on one set of files."""

    task: str
    files: list[str]
    rows: int = 0
    accepted: int = 0
    """Rows whose gold answer, written as the task asks for it, is graded right."""
    unknown: int = 0
    """Rows without a known right answer; ``odd`` says which."""
    rejected: int = 0
    """Rows whose wrong answers are all graded wrong."""
    apart: int = 0
    """Wrong answers that nothing distinguishes from right ones; ``odd`` gives the reason for each."""
    solutions: int = 0
    solutions_accepted: int = 0
    """Rows whose official solution is graded right."""
    off: list[str] = field(default_factory=list)
    """Deviations from the expected grades."""
    odd: list[str] = field(default_factory=list)
    """Rows that are wrong in the official data itself, and how each was handled."""


def check_tasks(data: Path, names: Sequence[str] = ()) -> Iterator[Checked]:
    """Check the tasks (all of them, or those of these names or paths) on the files below ``data``.

    Files that are not there are passed over; so are tasks that make their questions, unless they are named. Raises
    DataError if no task has files there.
    """
    patterns = [
        (name, pattern)
        for name in names or plugins.names("tasks")
        for pattern in getattr(plugins.load("tasks", name, "--task"), "OFFICIAL", ())
        if names or _has_files(pattern)
    ]
    if not data.is_dir() and any(_has_files(pattern) for _, pattern in patterns):
        raise DataError("there is no such folder", str(data), "give the folder that holds gsm8k/, math/, …")
    any_problem = False
    for name, pattern in patterns:
        if (options := _files(data, pattern)) is not None:
            any_problem = True
            yield _check(open_task(name, options), options)
    if not any_problem:
        raise DataError("no official file of any task is there", str(data), "see OFFICIAL in vivavoce/tasks/*.py")


def _has_files(pattern: dict[str, Any]) -> bool:
    return any(key.endswith("path") for key in pattern)


def _files(data: Path, pattern: dict[str, Any]) -> dict[str, Any] | None:
    """The options with the first file of each pattern; None if one has none."""
    options = dict(pattern)
    for key, value in pattern.items():
        if key.endswith("path"):
            paths = sorted(data.glob(value))
            if not paths:
                return None
            options[key] = paths[0]
    return options


def _check(task: Task, options: dict[str, Any]) -> Checked:
    paths = {key: path for key, path in options.items() if key.endswith("path")}
    checked = Checked(task.name, [path.name for path in paths.values()])
    assert isinstance(task, Checkable), f"{task.name} has no samples"
    splits = [split for split in ("train", "test") if not paths or "path" in paths or f"{split}_path" in paths]
    # in threads, because a grader may wait for another process
    with ThreadPoolExecutor(4) as pool:
        for split in splits:
            _count(pool.map(lambda sample: _judge(task, sample), task.samples(split)), checked)
    checked.odd += task.left_out
    return checked


def _count(judged: Iterable[tuple[Sample, list[bool], list[bool]]], checked: Checked) -> None:
    for sample, right, wrong in judged:
        checked.rows += 1
        checked.unknown += not right
        checked.accepted += all(right[:1]) and bool(right)
        checked.solutions += len(right[1:])
        checked.solutions_accepted += sum(right[1:])
        checked.rejected += all(wrong)
        texts = [*zip(sample.right, right, strict=True), *zip(sample.wrong, wrong, strict=True)]
        checked.off += [f"{sample.where}: {text[-80:]!r}, gold {sample.problem.gold!r}" for text, ok in texts if not ok]
        if sample.odd:
            checked.odd.append(f"{sample.where}: {sample.odd}")


def _judge(task: Task, sample: Sample) -> tuple[Sample, list[bool], list[bool]]:
    right = [task.grade(sample.problem, text).correct is True for text in sample.right]
    return sample, right, [task.grade(sample.problem, text).correct is False for text in sample.wrong]


__all__ = ["Checkable", "Checked", "check_tasks"]
