"""The trainings of a run: models of each arm, their updates, and their time if an update was ever measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vivavoce.methods.measured import Measured
from vivavoce.train.jobs import Settings, kind_of
from vivavoce.train.objective import OnPolicyOptions


@dataclass(frozen=True, slots=True)
class Training:
    """The models of one arm that are trained in one way."""

    arm: str
    kind: str
    """The kind: ``SFT``, ``T-DPO``, ``two tasks``, ``MAGDi`` or ``on-policy``."""
    models: int
    """The number of models: one for each training seed, times the method's repetitions."""
    updates: int | None
    """Updates of each model; None: as many as its rows give, which do not exist yet."""
    seconds: float | None
    """Seconds of all models, one after the other, at the measured time of an update; None: not known."""


def training(
    arm: str, models: int, settings: Settings | OnPolicyOptions, measured: Measured | None, known: bool = True
) -> Training:
    """A line of the plan; ``known`` tells whether the updates are those of ``settings``."""
    kind, updates = kind_of(settings), settings.max_steps if known else None
    pace = measured.pace(kind) if measured else None
    return Training(arm, kind, models, updates, None if pace is None or updates is None else models * updates * pace)


def total_of(lines_given: Iterable[Training]) -> Training:
    """All lines in one. A value that is not known for one of them is not known for all."""
    lines = list(lines_given)
    updates = [None if line.updates is None else line.models * line.updates for line in lines]
    seconds = [line.seconds for line in lines]
    return Training(
        "all",
        "",
        sum(line.models for line in lines),
        None if None in updates else sum(n for n in updates if n is not None),
        None if None in seconds else sum(s for s in seconds if s is not None),
    )


__all__ = ["Training", "total_of", "training"]
