"""Environments of the package verifiers, in which an agent acts by words and tools.

::

    task: {name: verifiers, environment: wordle, train: 200, test: 50, python: venv/bin/python}

The environment is installed beside the package: a module with ``load_environment`` (verifiers up to 0.3), or a taskset
(from 0.4 on). The package runs the episodes, in a process of its own and under another Python if ``python`` names one;
its model is the agent.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.environments.bridged import Bridge, BridgedWithTools
from vivavoce.environments.environment import Limits
from vivavoce.errors import DataError
from vivavoce.tasks import Task
from vivavoce.tasks.bridged import BridgedTask

NEEDS = "a Python that has verifiers and the environment"


class Options(BaseModel):
    """The environment, its settings, and the number of episodes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: str = Field(min_length=1, description="name of the environment, as verifiers knows it")
    args: dict[str, Any] = Field(
        default={},
        description="arguments of load_environment; of a taskset the configuration of its environment, as "
        "{taskset: {difficulty: hard}}",
    )
    train: int = Field(default=100, ge=0, description="episodes to train on at most")
    test: int = Field(
        default=50,
        ge=0,
        description="episodes to test on at most: of the environment's own test rows, else its first ones",
    )
    turns: int = Field(default=30, ge=1, description="actions of an episode at most")
    time_s: float = Field(default=600.0, gt=0, description="how long the environment may take to answer")
    right_from: float = Field(default=1.0, description="reward from which an episode counts as a success")
    python: str = Field(default="", description="Python of the environment that has verifiers; empty: this one")


class Verifiers(BridgedTask):
    """The episodes as a :class:`~vivavoce.tasks.Task`."""

    answer_format = "Say or do what the environment asks for."
    episodes = BridgedWithTools

    def __init__(self, options: Options) -> None:
        self.options, self.name = options, options.environment
        settings = options.model_dump(include={"environment", "args", "train", "test", "turns", "time_s"})
        bridge = Bridge("verifiers_bridge", settings, options.python, "pip install verifiers")
        super().__init__(bridge, Limits(turns=options.turns), options.right_from)

    def ids(self, split: str) -> list[tuple[str, str]]:
        o = self.options
        count = self.bridge.ask("count", {"train": o.train, "test": o.test})[split]
        if not count and (o.test if split == "test" else o.train):
            do = "ask for fewer of the other part, or set this one to 0"
            raise DataError(f"{o.environment} has no task left for {split}", f"task.{split}", do)
        return [(f"{o.environment}#{split}-{i}", "") for i in range(count)]


def task(options: Options) -> Task:
    """Open the environment; nothing is started before the task is asked for problems."""
    return Verifiers(options)


__all__ = ["Options", "Verifiers", "task"]
