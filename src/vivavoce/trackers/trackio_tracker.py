"""Trackio: a run for each series, in the project ``vivavoce`` and the group of the run's folder. ``trackio show``.

It keeps its own database in the folder of ``TRACKIO_DIR``. A series that is begun again goes on in its run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from vivavoce.trackers import PROJECT, RunDescription, Tracker


class Trackio:
    """Several runs at once, each of its own."""

    def __init__(self, description: RunDescription) -> None:
        self._description, self._runs = description, dict[str, Any]()

    def log(self, series: str, figures: Mapping[str, float], step: int) -> None:
        import trackio  # pyright: ignore[reportMissingImports]

        if series not in self._runs:
            with redirect_stdout(sys.stderr):  # standard output is for results
                self._runs[series] = trackio.init(
                    project=PROJECT,
                    name=f"{self._description.group}/{series}",
                    group=self._description.group,
                    config=dict(self._description.config),
                    resume="allow",
                    embed=False,
                    auto_log_gpu=False,
                    auto_log_cpu=False,
                )
        self._runs[series].log(dict(figures), step=step)

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            for run in self._runs.values():
                run.finish()
        self._runs.clear()


def open_tracker(description: RunDescription) -> Tracker:
    """Open the tracker. It writes nothing before the first figure."""
    return Trackio(description)
