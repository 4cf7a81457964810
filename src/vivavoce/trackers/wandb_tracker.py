"""Weights & Biases: a run for each series, in the project ``vivavoce`` and the group of the run's folder.

Offline, in ``tracking/wandb``, unless ``WANDB_MODE`` says otherwise; ``wandb sync`` sends it later. A series that is
begun again goes on in its run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from vivavoce.records import digest
from vivavoce.trackers import PROJECT, Told, Tracker


class Wandb:
    """Several runs at once, each of its own."""

    def __init__(self, told: Told) -> None:
        self._told, self._runs = told, dict[str, Any]()
        (told.folder / "tracking").mkdir(parents=True, exist_ok=True)

    def log(self, series: str, figures: Mapping[str, float], step: int) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        if series not in self._runs:
            self._runs[series] = wandb.init(
                project=PROJECT,
                group=self._told.group,
                job_type=series.partition("/")[0],
                name=f"{self._told.group}/{series}",
                id=digest([str(self._told.folder.resolve()), series])[:16],
                resume="allow",
                reinit="create_new",
                dir=str(self._told.folder / "tracking"),
                mode=os.environ.get("WANDB_MODE", "offline"),
                config=dict(self._told.config),
                settings=wandb.Settings(silent=True, console="off"),
            )
        self._runs[series].log(dict(figures), step=step)

    def close(self) -> None:
        for run in self._runs.values():
            run.finish()
        self._runs.clear()


def open_tracker(told: Told) -> Tracker:
    """Open the tracker. It writes nothing before the first figure."""
    return Wandb(told)
