"""An environment behind an OpenEnv server, in which an agent acts by words.

::

    task: {name: openenv, url: "http://127.0.0.1:8000", action_field: message, train: 200, test: 50}

The server is started by its user, as its documentation says; its code does not run here. A problem is a seed of the
server's reset. The client, which is the package openenv, runs in a process of its own, under another Python if
``python`` names one.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.environments.bridged import Bridge
from vivavoce.environments.environment import Limits
from vivavoce.tasks import Task
from vivavoce.tasks.bridged import BridgedTask

NEEDS = "a server of OpenEnv, and a Python that has openenv"


class Options(BaseModel):
    """The server, the form of an action for it, and the number of episodes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^(https?|wss?)://", description="address of the server")
    label: str = Field(default="openenv", min_length=1, description="what results call this environment")
    action_field: str = Field(description="field of the server's action that takes what the agent says")
    action: dict[str, Any] = Field(default={}, description="the other fields of an action, the same each time")
    observation_field: str = Field(
        default="", description="field of the observation that the agent is shown; empty: all of it as JSON"
    )
    score: Literal["total", "sum", "last"] = Field(
        default="total",
        description="total: the sum of all rewards, once the server says that it is done; sum: the same at any time; "
        "last: the last reward",
    )
    right_from: float = Field(default=1.0, description="score from which an episode counts as a success")
    train: int = Field(default=100, ge=0, description="episodes to train on")
    test: int = Field(default=50, ge=0, description="episodes to test on")
    seed: int = Field(default=0, ge=0, description="first seed; those of train and test follow")
    turns: int = Field(default=30, ge=1, description="actions of an episode at most")
    python: str = Field(default="", description="Python of the environment that has openenv; empty: this one")


class OpenEnv(BridgedTask):
    """The episodes as a :class:`~vivavoce.tasks.Task`."""

    answer_format = "Say your action as the environment asks for it."

    def __init__(self, options: Options) -> None:
        self.options, self.name = options, options.label
        kept = options.model_dump(include={"url", "action_field", "action", "observation_field", "score"})
        bridge = Bridge("openenv_bridge", kept, options.python, "pip install openenv")
        super().__init__(bridge, Limits(turns=options.turns), options.right_from)

    def ids(self, split: str) -> list[tuple[str, str]]:
        o = self.options
        first, count = (o.seed, o.test) if split == "test" else (o.seed + o.test, o.train)
        return [(f"{o.label}#{first + i}", "") for i in range(count)]


def task(options: Options) -> Task:
    """Open the environment; the server is not asked before the task is asked for problems."""
    return OpenEnv(options)


__all__ = ["OpenEnv", "Options", "task"]
