"""Weights & Biases: a run for each series, in the project ``vivavoce`` and the group of the run's folder.

Offline, in ``tracking/wandb``, unless ``WANDB_MODE`` says otherwise; ``wandb sync`` sends it later. A series that is
begun again goes on in its run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from vivavoce.records import digest
from vivavoce.trackers import PROJECT, RunDescription, Tracker


class Wandb:
    """Several runs at once, each of its own."""

    def __init__(self, description: RunDescription) -> None:
        self._description, self._runs = description, dict[str, Any]()
        (description.folder / "tracking").mkdir(parents=True, exist_ok=True)

    def log(self, series: str, figures: Mapping[str, float], step: int) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        if series not in self._runs:
            self._runs[series] = wandb.init(
                project=PROJECT,
                group=self._description.group,
                job_type=series.partition("/")[0],
                name=f"{self._description.group}/{series}",
                id=digest([str(self._description.folder.resolve()), series])[:16],
                resume="allow",
                reinit="create_new",
                dir=str(self._description.folder / "tracking"),
                mode=os.environ.get("WANDB_MODE", "offline"),
                config=dict(self._description.config),
                settings=wandb.Settings(silent=True, console="off"),
            )
        self._runs[series].log(dict(figures), step=step)

    def close(self) -> None:
        for run in self._runs.values():
            run.finish()
        self._runs.clear()


def open_tracker(description: RunDescription) -> Tracker:
    """Open the tracker. It writes nothing before the first figure."""
    return Wandb(description)
