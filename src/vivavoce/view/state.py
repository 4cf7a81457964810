"""The progress of a run, and whether it is at work: a page shows it while the run goes on and after."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivavoce.report import costs
from vivavoce.report.headline import headline
from vivavoce.report.report import told_path
from vivavoce.report.sources import Sources

_FRESH_S = 90
"""Seconds after its last note in which a run counts as at work, on systems that do not tell who holds a lock."""


def at_work(run: Path) -> bool:
    """Whether a process has the run open. Nothing is locked to find out: that would keep a run from starting."""
    lock = run / "run.lock"
    try:
        status = lock.stat()
    except OSError:
        return False
    try:
        held = Path("/proc/locks").read_text()
    except OSError:
        newest = max((p.stat().st_mtime for p in run.glob("*.*")), default=0.0)
        return time.time() - newest < _FRESH_S
    return any(
        line.split()[1] == "FLOCK" and line.split()[5].endswith(f":{status.st_ino}") for line in held.splitlines()
    )


def state(sources: Sources) -> dict[str, Any]:
    """One run in a list of runs."""
    path, manifest, results = sources.path, sources.manifest, sources.results
    running = at_work(path)
    lines, _ = sources.costs()
    total = costs.total(costs.lines(lines, sources.recipe))
    return {
        "name": sources.name,
        "path": told_path(path),
        "method": sources.recipe.get("method", ""),
        "task": (sources.recipe.get("task") or {}).get("name", ""),
        "started": manifest.get("started"),
        "seconds": manifest.get("seconds") or (results or {}).get("wall_s"),
        "running": running,
        "finished": results is not None,
        "stopped": None if running else manifest.get("stopped"),
        "progress": _progress(path) if running else [],
        "training": _training(sources) if running else [],
        "stages": list(manifest.get("stages", {})),
        "calls": total.calls,
        "failures": total.failures,
        "tokens": total.prompt_tokens + total.completion_tokens,
        "money": total.money,
        "currency": sources.recipe.get("currency", "USD"),
        "caps": costs.caps(sources.recipe),
        "failing": [
            {"agent": line.agent, "stage": line.stage, "failures": line.failures, "calls": line.calls}
            for line in lines
            if line.failures
        ],
        "headline": headline(sources).sentence if results else "",
    }


def _progress(path: Path) -> list[Mapping[str, Any]]:
    """The counts of a run that goes on, as it noted them last."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((path / "progress.json").read_text("utf-8"))
    return []


def _training(sources: Sources) -> list[dict[str, Any]]:
    """Models that are being trained, with their last logged update."""
    return [
        {"arm": curve.arm, "seed": curve.seed, "step": curve.points[-1]["step"], "loss": curve.points[-1]["loss"]}
        for curve in sources.curves()
        if curve.result is None and curve.points
    ]


__all__ = ["at_work", "state"]
