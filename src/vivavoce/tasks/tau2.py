"""τ²-bench as a task of episodes: an agent serves customers of a shop or an airline by tools, under a policy.

The official data is read from a folder (:mod:`vivavoce.environments.tau2.desk` tells what success is). The splits are
the official ones. The customer has a few fixed sentences, or is a model: ``user:`` of an agent's recipe.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from vivavoce.agents import Agent
from vivavoce.agents.journal import Journal
from vivavoce.environments.environment import Environment, Limits
from vivavoce.environments.tau2.airline import AIRLINE
from vivavoce.environments.tau2.desk import Tau2
from vivavoce.environments.tau2.retail import RETAIL
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

    path: Path = Field(description="folder of the official data, which holds retail/ and airline/")
    domain: Literal["airline", "retail"] = Field(default="retail", description="which company is served")

    @field_validator("domain", mode="before")
    @classmethod
    def _telecom_is_not_played(cls, domain: Any) -> Any:
        if domain == "telecom":
            raise ValueError(
                "telecom is not played here: its customers act too, with the tools of a phone, which are code of "
                "tau2-bench that its data does not hold; take airline or retail"
            )
        return domain

    turns: int = Field(default=30, ge=1, description="of the agent in an episode, calls and words alike")
    time_s: float = Field(
        default=7200, gt=0, description="of an episode; long, as local models answer many of them at once"
    )


class Tau2Task(ActingTask):
    """A company of τ²-bench as a :class:`~vivavoce.tasks.Task`."""

    answer_format = "Either call tools, or say something to the customer, as the policy demands."

    def __init__(self, options: Options) -> None:
        self.options = options
        self.name = {"airline": AIRLINE, "retail": RETAIL}[options.domain].name

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
        return self._desk.beside(PlayedUser(user, journal, sampling))

    @cached_property
    def _desk(self) -> Tau2:
        limits = Limits(self.options.turns, self.options.time_s)
        return Tau2({"airline": AIRLINE, "retail": RETAIL}[self.options.domain], self.options.path, limits=limits)

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
