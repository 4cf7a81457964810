"""MLflow: a run for each series, in the experiment ``vivavoce``; by default in the folder ``mlruns`` beside the run's.

``MLFLOW_TRACKING_URI`` names another place. A series that is begun again goes on in its run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from vivavoce.trackers import PROJECT, RunDescription, Tracker

_LONGEST = 250
"""Characters of a parameter."""


class MLflow:
    """Writes by MLflow's client alone, so that no global state of the package is touched."""

    def __init__(self, description: RunDescription) -> None:
        # MLflow 3 wants to be asked for its file store, which needs no database package
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

        place = os.environ.get("MLFLOW_TRACKING_URI") or (description.folder.resolve().parent / "mlruns").as_uri()
        self._description, self._client, self._runs = description, MlflowClient(place), dict[str, str]()
        known = self._client.get_experiment_by_name(PROJECT)
        self._experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)

    def log(self, series: str, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now = int(1000 * time.time())
        # a name may hold letters, digits, _, -, ., space, : and /
        written = [Metric(_plain(name), value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._run(series), metrics=written)

    def close(self) -> None:
        for run in self._runs.values():
            self._client.set_terminated(run)
        self._runs.clear()

    def _run(self, series: str) -> str:
        if series not in self._runs:
            name = f"{self._description.group}/{series}"
            tags = {"vivavoce.folder": str(self._description.folder.resolve()), "vivavoce.series": series}
            wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
            runs = self._client.search_runs([self._experiment], wanted, max_results=1)
            if runs:
                self._runs[series] = runs[0].info.run_id
            else:
                made = self._client.create_run(
                    self._experiment, run_name=name, tags={**tags, "group": self._description.group}
                )
                self._runs[series] = made.info.run_id
                for key, value in _flat(self._description.config).items():
                    self._client.log_param(made.info.run_id, _plain(key), str(value)[:_LONGEST])
        return self._runs[series]


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)


def _flat(values: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Values by dotted key, lists as they are."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{at}.{key}" if at else key
        flat |= _flat(value, name) if isinstance(value, Mapping) else {name: value}
    return flat


def open_tracker(description: RunDescription) -> Tracker:
    """Open the tracker. It makes the experiment at once, and a run for each series with its first figure."""
    return MLflow(description)
