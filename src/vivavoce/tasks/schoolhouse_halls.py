"""Errands through halls with invented ways: the schoolhouse's world for agents.

The walkers' own short language, an environment and two tools; :mod:`vivavoce.schoolhouse.halls_world` is the world.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.environments.environment import Action, Environment, Limits, Observation
from vivavoce.environments.functions import Toolbox
from vivavoce.errors import DataError
from vivavoce.records import Message, Problem
from vivavoce.schoolhouse import halls_world as world
from vivavoce.schoolhouse.halls_world import act, errand_text, first_words
from vivavoce.tasks import Task
from vivavoce.tasks.acting import ActingTask
from vivavoce.tasks.splitting import known_split


class Options(BaseModel):
    """The number of errands, and their seed and kinds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: int = Field(default=600, ge=0, description="errands to train on")
    test: int = Field(default=500, ge=0, description="errands to test on")
    seed: int = Field(default=0, description="decides which errands are drawn")


def look(walk: world.Walk) -> str:
    """Look at the list: which room of this hall is to be reached."""
    return walk.look()


def go(walk: world.Walk, door: int) -> str:
    """Try a door.

    Args:
        door: Its number, 1 to 9.
    """
    return walk.go(door)


def opening(errand: world.Errand) -> tuple[Message, ...]:
    """The first message to a walker."""
    return {"role": "system", "content": "act"}, {"role": "user", "content": errand_text(errand)}


class Halls:
    """The halls as an :class:`~vivavoce.environments.environment.Environment` that knows the best action."""

    name = "schoolhouse_halls"
    tells_tools = True  # the tiny walkers were born with the tools
    limits = Limits(turns=40)
    """Beyond any errand's own turns, of which there are ``SPARE_TURNS`` more than it takes at least."""

    def __init__(self) -> None:
        self._tools = Toolbox[world.Walk]([look, go])
        self.tools = self._tools.tools
        self._walk = world.Walk(world.Errand("mix", 1, ()))
        self._left = 0

    async def reset(self, task: str, seed: int) -> Observation:
        """Begin the errand. Raises DataError if ``task`` is none."""
        try:
            self._walk = world.Walk(world.errand(task))
        except ValueError as error:
            raise DataError(str(error), self.name, "take the id of a problem of the task") from None
        self._left = self._walk.fewest() + world.SPARE_TURNS
        return Observation(opening(self._walk.errand))

    async def step(self, action: Action) -> Observation:
        """Do the first call; an action without a call costs its turn, too."""
        self._left -= 1
        text = "\n".join(m["content"] for m in self._tools.answers(self._walk, action)[:1]) or "nothing"
        return Observation(({"role": "user", "content": text},), done=self._walk.done or not self._left)

    def state(self) -> Any:
        """The errand, its progress, and the turns left."""
        walk = self._walk
        return [walk.errand.id, walk.leg, walk.room, walk.told, self._left]

    def succeeded(self) -> bool:
        """Whether the last room is reached."""
        return self._walk.done

    def best(self) -> tuple[str, ...]:
        """Looking, if the room to be reached is not known yet; else the doors of a shortest way."""
        words = first_words(self._walk)
        return tuple(act(words, door) for door in self._walk.best()) or (act(words, None),)


class SchoolhouseHalls(ActingTask):
    """The walkers' schoolhouse as a :class:`~vivavoce.tasks.Task`. A problem's group is its kind."""

    name = "schoolhouse_halls"
    answer_format = "Say where you stand and which room you are to reach, then look or go through a door."

    def __init__(self, options: Options) -> None:
        self.options = options

    def problems(self, split: str) -> list[Problem]:
        """The first so many distinct errands of the seed. Raises DataError for a split other than train and test."""
        part, options = known_split(split, self.name), self.options
        drawn = world.errands(part, options.train if part == "train" else options.test, options.seed)
        return [Problem(e.id, opening(e)[1]["content"], "", e.kind, opening(e)) for e in drawn]

    def environment(self) -> Environment:
        """Fresh halls."""
        return Halls()


def task(options: Options) -> Task:
    """Open the walkers' schoolhouse."""
    return SchoolhouseHalls(options)
