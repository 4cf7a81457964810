"""Whether the tasks grade official data right: every gold answer accepted, every wrong one beside it rejected.

A task takes part if its module names what it is checked on: ``OFFICIAL``, a list of options whose paths are patterns
below the data folder (a task that makes its questions has none), and if the task has ``samples(split)``
(:class:`~vivavoce.tasks.samples.Sample`).
A :class:`~vivavoce.tasks.benchmark.Benchmark` has it; a task that runs code says itself what it accepts.
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
    """What a task needs beyond being one."""

    left_out: list[str]

    def samples(self, split: str) -> Iterator[Sample]: ...


@dataclass
class Checked:
    """What came of one task on one set of files."""

    task: str
    files: list[str]
    rows: int = 0
    accepted: int = 0
    """Rows whose gold answer, written as the task asks for it, is graded right."""
    unknown: int = 0
    """Rows of which nobody knows an answer that is right; ``odd`` says which."""
    rejected: int = 0
    """Rows of whose wrong answers every one is graded wrong."""
    apart: int = 0
    """Wrong answers that nothing tells from right ones; ``odd`` says of each why."""
    solutions: int = 0
    solutions_accepted: int = 0
    """Rows whose official solution is graded right."""
    off: list[str] = field(default_factory=list)
    """What is not as it should be."""
    odd: list[str] = field(default_factory=list)
    """Rows that the official data itself has wrong, and what was done about each."""


def check_tasks(data: Path, names: Sequence[str] = ()) -> Iterator[Checked]:
    """Check the tasks (all of them, or those of these names or paths) on the files below ``data``.

    Files that are not there are passed over; so are tasks that make their questions, unless they are named. Raises
    DataError where none of any task is.
    """
    patterns = [
        (name, pattern)
        for name in names or plugins.names("tasks")
        for pattern in getattr(plugins.load("tasks", name, "--task"), "OFFICIAL", ())
        if names or _has_files(pattern)
    ]
    if not data.is_dir() and any(_has_files(pattern) for _, pattern in patterns):
        raise DataError("there is no such folder", str(data), "give the folder that holds gsm8k/, math/, …")
    found = False
    for name, pattern in patterns:
        if (options := _files(data, pattern)) is not None:
            found = True
            yield _check(open_task(name, options), options)
    if not found:
        raise DataError("no official file of any task is there", str(data), "see OFFICIAL in vivavoce/tasks/*.py")


def _has_files(pattern: dict[str, Any]) -> bool:
    return any(key.endswith("path") for key in pattern)


def _files(data: Path, pattern: dict[str, Any]) -> dict[str, Any] | None:
    """The options with the first file of each pattern; None where one has none."""
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
