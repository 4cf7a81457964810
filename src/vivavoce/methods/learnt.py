"""The outcome of a method: its students, a description of each arm, and the arms that are compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vivavoce.exams.arms import Arm, Pair


@dataclass(frozen=True)
class Trained:
    """A model for each training seed: its folder and the fingerprint of everything that it came from."""

    models: Mapping[int, tuple[Path, str]]

    def of(self, seed: int) -> tuple[Path, str]:
        """The model of a seed. An untrained model is the same for every seed."""
        return self.models.get(seed) or next(iter(self.models.values()))

    def result(self, seed: int) -> dict[str, Any]:
        """The results of its training with a seed: updates, seconds, losses."""
        return json.loads((self.of(seed)[0] / "train_result.json").read_text("utf-8"))

    @classmethod
    def merge(cls, parts: Iterable[Mapping[str, Trained]]) -> dict[str, Trained]:
        """Arms whose seeds were trained apart, put together; in the order in which they come first."""
        models: dict[str, dict[int, tuple[Path, str]]] = {}
        for arms in parts:
            for arm, trained in arms.items():
                models.setdefault(arm, {}).update(trained.models)
        return {arm: cls(seeds) for arm, seeds in models.items()}


def folders(students: Mapping[str, Trained], run: Path) -> dict[str, dict[str, str]]:
    """The folders of a run's students, for ``results.json``: by arm and training seed, as paths within the run."""
    by_arm = {
        arm: {
            str(seed): folder.relative_to(run).as_posix()
            for seed, (folder, _) in one.models.items()
            if run in folder.parents
        }
        for arm, one in students.items()
    }
    return {arm: seeds for arm, seeds in by_arm.items() if seeds}


def _no_facts() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Learnt:
    """The students of a method, trained and not yet compared."""

    students: Mapping[str, Trained]
    """The students that sit the tests, by the name of their arm, in order."""
    arms: Mapping[str, Arm]
    """A description of each arm, also of those that were to be trained and had nothing to learn from."""
    pairs: Callable[[str | None], Sequence[Pair]]
    """The arms that the method tests against each other, given the name of the best of ``singles``."""
    singles: Sequence[str] = ()
    """The plain students of one teacher."""
    main: str | None = None
    """The arm that the method is about."""
    facts: Callable[[], Mapping[str, Any]] = field(default=_no_facts)
    """Further content of ``results.json``, asked for when all have been tested."""


__all__ = ["Learnt", "Trained", "folders"]
