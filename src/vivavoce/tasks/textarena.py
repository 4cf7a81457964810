"""Games of textarena (arXiv:2504.11442) for one player, in which an agent acts by words.

::

    task: {name: textarena, games: [FrozenLake-v0, TowerOfHanoi-v0], train: 200, test: 50}

A problem is a game as it is dealt; its number decides that. The package runs in a process of its own, under another
Python if ``python`` names one.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.environments.bridged import Bridge
from vivavoce.environments.environment import Limits
from vivavoce.tasks import Task
from vivavoce.tasks.bridged import BridgedTask


class Options(BaseModel):
    """The games, their number, and the end of an episode."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    games: list[str] = Field(min_length=1, description="ids of textarena's games for one player, as FrozenLake-v0")
    train: int = Field(default=100, ge=0, description="games to train on, of all kinds together")
    test: int = Field(default=50, ge=0, description="games to test on, of all kinds together")
    seed: int = Field(default=0, ge=0, description="decides how games are dealt; train and test share none")
    turns: int = Field(default=30, ge=1, description="moves of a game at most")
    right_from: float = Field(default=1.0, description="reward from which a game counts as won")
    python: str = Field(default="", description="Python of the environment that has textarena; empty: this one")


class TextArena(BridgedTask):
    """The games as a :class:`~vivavoce.tasks.Task`. A problem's group is the game."""

    name = "textarena"
    answer_format = "Say your move as the game asks for it."

    def __init__(self, options: Options) -> None:
        self.options = options
        bridge = Bridge("textarena_bridge", {}, options.python, "pip install textarena")
        super().__init__(bridge, Limits(turns=options.turns), options.right_from)

    def ids(self, split: str) -> list[tuple[str, str]]:
        o = self.options
        count = o.train if split == "train" else o.test
        named = [(o.games[i % len(o.games)], i // len(o.games)) for i in range(count)]
        return [(f"{game}#{o.seed}-{split}-{number}", game) for game, number in named]


def task(options: Options) -> Task:
    """Open the games; nothing is started before the task is asked for problems."""
    return TextArena(options)


__all__ = ["Options", "TextArena", "task"]
