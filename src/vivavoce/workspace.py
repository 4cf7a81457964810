"""The runs of a workspace lend each other what they have paid for.

::

    runs/a   debates, trains             ◀── runs/b   --set dpo.beta=0.2: asks no teacher, trains
    runs/c   seed 1: asks its own calls, because the seed is part of a call

A workspace is the folder that a run lies in, and the folder ``runs`` within it or around it. A call is known by all
that determines its reply, the seed included, so a run only takes what it would have asked for itself. What it takes
stands in its own journal, and the folder of a run stays whole wherever it is carried.
"""

from __future__ import annotations

import fcntl
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from vivavoce.config import Recipe
from vivavoce.run import manifest_of

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""A recipe of a sweep is read in milliseconds by it, and every run of the workspace has one."""
_WHO = ("backend", "model", "function", "base_url", "preset")


def earlier_runs(path: Path, recipe: Recipe, part: bool = False) -> list[Path]:
    """Runs of the workspace of ``path`` that have asked agents of the recipe, in the order in which they were begun.

    So a run that goes on finds its replies in the same order as before. Empty if the run in ``path`` was begun alone
    (``viva run --alone``). A part of a run (``part``) takes nothing from other parts, and no run takes from one that
    another machine is at work in, because its journal cannot be read meanwhile.
    """
    if manifest_of(path).get("alone"):
        return []
    wanted, runs = _agents(recipe.model_dump(mode="json")), dict[Path, tuple[str, Path]]()
    root = path.parent.parent if path.parent.name == "runs" else path.parent
    for file in (*root.glob("*/journal.sqlite"), *root.glob("runs/*/journal.sqlite")):
        run = file.parent
        if run.resolve() == path.resolve() or run.resolve() in runs:
            continue
        with suppress(OSError, ValueError, yaml.YAMLError):  # a damaged run is passed over
            manifest = manifest_of(run)
            asked = _agents(yaml.load((run / "recipe.yaml").read_text("utf-8"), _LOADER))
            if wanted & asked and not (part and "part" in manifest) and not _elsewhere(run):
                runs[run.resolve()] = str(manifest.get("started", "")), run
    return [run for _, run in sorted(runs.values())]


def _agents(recipe: Any) -> set[tuple[str, ...]]:
    """What tells the agents of a resolved recipe apart: who answers, less how."""
    return {tuple(str(spec.get(key)) for key in _WHO) for spec in _specs(recipe)}


def _specs(values: Any) -> Iterator[dict[str, Any]]:
    if isinstance(values, dict):
        if "backend" in values:
            yield values
        values = values.values()
    elif not isinstance(values, list):
        return
    for value in values:
        yield from _specs(value)


def _elsewhere(run: Path) -> bool:
    """Whether another machine, which sees the same disk, is at work in a run."""
    lock = run / "run.lock"
    if not lock.is_file() or lock.read_text("utf-8") in ("", platform.node()):
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


__all__ = ["earlier_runs"]
