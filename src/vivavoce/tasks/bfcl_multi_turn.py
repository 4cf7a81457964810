"""BFCL's conversations of several turns as a task of episodes: an agent does by functions what a user asks for, one
thing after the other.

The official files are read from a folder (:mod:`vivavoce.environments.bfcl.several_turns` tells what success is). They
are one set; rows of one number are the same conversation in each category, so they are cut by number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from vivavoce.environments.bfcl.conversations import Conversation, read_conversations
from vivavoce.environments.bfcl.several_turns import SeveralTurns
from vivavoce.environments.environment import Environment, Limits
from vivavoce.environments.words import told_in_words
from vivavoce.records import Message, Problem
from vivavoce.tasks import Task
from vivavoce.tasks.acting import ActingTask
from vivavoce.tasks.limits import Limited
from vivavoce.tasks.splitting import known_split, split

Category = Literal["base", "miss_func", "miss_param", "long_context"]


class Options(Limited):
    """The conversations, and how long they may become."""

    path: Path = Field(description="folder of the official files, with possible_answer/ and multi_turn_func_doc/")
    categories: list[Category] = Field(
        default=["base", "miss_func", "miss_param"], min_length=1, description="kinds of conversations"
    )
    train_share: float = Field(default=0.5, ge=0, le=1, description="share of the conversations that is trained on")
    actions: int = Field(
        default=20, ge=1, description="calls of the agent in one turn; one more ends the episode (upstream)"
    )
    turns: int = Field(default=60, ge=1, description="actions of the agent in an episode, calls and texts alike")
    time_s: float = Field(
        default=7200, gt=0, description="seconds of an episode; long, because local models answer many of them at once"
    )


class BFCLMultiTurn(ActingTask):
    """Conversations as a :class:`~vivavoce.tasks.Task`. A problem's group is its category."""

    name = SeveralTurns.name
    answer_format = "Either call functions, or say in words that you are done, or what you lack."

    def __init__(self, options: Options) -> None:
        self.options = options

    def problems(self, split: str) -> list[Problem]:
        """The conversations of a split in their official order, each in all categories before the next.

        A problem's messages are the first ones of an episode with the functions told in words. Raises DataError if a
        file cannot be read.
        """
        part, options = known_split(split, self.name), self.options
        every = [_problem(*row) for number in self._numbers[part] for row in self._by_number[number]]
        return options.within(every, part, lambda problem: problem)

    def environment(self) -> Environment:
        """Fresh services."""
        limits = Limits(self.options.turns, self.options.time_s)
        return SeveralTurns(self._talks, limits, self.options.actions)

    @cached_property
    def _by_number(self) -> Mapping[str, list[tuple[str, Conversation]]]:
        """A conversation in each category."""
        by_number = defaultdict[str, list[tuple[str, Conversation]]](list)
        for category in self.options.categories:
            for talk in read_conversations(self.options.path, category).values():
                by_number[talk.id.rpartition("_")[2]].append((category, talk))
        return by_number

    @cached_property
    def _talks(self) -> Mapping[str, Conversation]:
        return {talk.id: talk for row in self._by_number.values() for _, talk in row}

    @cached_property
    def _numbers(self) -> Mapping[str, list[str]]:
        train, _ = split(list(self._by_number), self.options.train_share, self.options.seed)
        return {
            "train": [number for number in self._by_number if number in train],
            "test": [number for number in self._by_number if number not in train],
        }


def _problem(category: str, talk: Conversation) -> Problem:
    first: Message = {"role": "user", "content": talk.turns[0].text}
    return Problem(talk.id, first["content"], "", category, told_in_words((first,), talk.functions_in(0)))


def task(options: Options) -> Task:
    """Open the conversations."""
    return BFCLMultiTurn(options)


__all__ = ["BFCLMultiTurn", "Options", "task"]
