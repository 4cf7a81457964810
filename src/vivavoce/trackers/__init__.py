"""Trackers: the figures of a run in the tool that its user looks at. None is on unless a recipe's ``track`` names it.

::

    run ──log(series, figures, step)──▶ Trackers ──▶ trackio | wandb | mlflow | tensorboard

A series is one curve sheet: ``debate``, ``test``, or ``train/ARM-SEED`` for each model. In a tracker each is a run of
its own, all in the group of the run's folder, in the project ``vivavoce``. Nothing leaves the machine unless the user's
environment says so, in the tracker's own way (``WANDB_MODE=online``, ``MLFLOW_TRACKING_URI=…``). One tracker a file: it
defines ``open_tracker(RunDescription) -> Tracker``.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from vivavoce.errors import MissingDependency
from vivavoce.progress import say

TrackerName = Literal["trackio", "wandb", "mlflow", "tensorboard"]
PROJECT = "vivavoce"


@dataclass(frozen=True)
class RunDescription:
    """Facts about a run for a tracker, before it starts."""

    folder: Path
    """The run's; a tracker that keeps files of its own keeps them in ``tracking/NAME`` below it."""
    config: Mapping[str, Any]
    """The recipe, as plain values."""

    @property
    def group(self) -> str:
        """The name that all series of a run share."""
        return self.folder.resolve().name


class Tracker(Protocol):
    """A tracker: it writes figures."""

    def log(self, series: str, figures: Mapping[str, float], step: int) -> None:
        """Write figures of one step of a series. Steps of a series that is begun again may come twice."""
        ...

    def close(self) -> None:
        """Write what is pending."""
        ...


class Trackers:
    """The trackers of a recipe, as one. A tracker that fails is reported once and left out; the run goes on."""

    def __init__(self, trackers: Mapping[str, Tracker] = {}) -> None:
        self._trackers = dict(trackers)

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def log(self, series: str, figures: Mapping[str, Any], step: int) -> None:
        """Write figures of one step of a series, by name; what is no finite number is left out."""
        kept = {
            key: float(value)
            for key, value in figures.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
        if kept:
            self._each(lambda tracker: tracker.log(series, kept, step))

    def close(self) -> None:
        """Write what is pending."""
        self._each(lambda tracker: tracker.close())

    def _each(self, do: Any) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                do(tracker)
            except Exception as error:  # noqa: BLE001  whatever a tracker raises, the run goes on
                del self._trackers[name]
                say(f"{name} failed and is left out from here on: {type(error).__name__}: {error}")


def need_trackers(names: Sequence[TrackerName]) -> None:
    """Raise MissingDependency if a tracker is not installed."""
    for name in names:
        package = _PACKAGES[name]
        try:
            importlib.import_module(package)
        except ImportError as error:
            do = f"pip install {'mlflow-skinny' if name == 'mlflow' else name}, or take it out of `track`"
            raise MissingDependency(f"the tracker {name} is not installed", "track", do) from error


_PACKAGES = {"trackio": "trackio", "wandb": "wandb", "mlflow": "mlflow", "tensorboard": "tensorboard"}


def open_trackers(names: Sequence[TrackerName], description: RunDescription) -> Trackers:
    """The trackers of these names. Raises MissingDependency if one is not installed."""
    need_trackers(names)
    made = {name: importlib.import_module(f"vivavoce.trackers.{name}_tracker") for name in dict.fromkeys(names)}
    return Trackers({name: module.open_tracker(description) for name, module in made.items()})


__all__ = ["PROJECT", "RunDescription", "Tracker", "TrackerName", "Trackers", "need_trackers", "open_trackers"]
