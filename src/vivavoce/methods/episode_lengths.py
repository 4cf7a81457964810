"""Lengths of episodes, from those that an environment shows itself: no agent is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from vivavoce.environments.environment import Episode
from vivavoce.environments.episodes import reference, shows
from vivavoce.environments.words import InWords
from vivavoce.records import Message, Problem
from vivavoce.tasks.acting import Acting


class EpisodeLengths(NamedTuple):
    """Lengths of reference episodes."""

    turns: float
    """Actions, on average."""
    spoken: float
    """Actions without a call, on average: a person in the environment answers them."""
    seen: float
    """Tokens of the environment's answer to one action, on average."""
    seen_most: int
    """The same in the episode that sees most, on average of its turns."""
    longest: tuple[Message, ...]
    """The longest last state."""
    last_turn: int
    """Actions before it."""


def episode_lengths(
    task: Acting, problems: Sequence[Problem], count: Callable[[Sequence[Message]], int]
) -> EpisodeLengths | None:
    """Play the reference episodes of ``problems``, told in words, and count their tokens; None if there are none."""
    if not problems or not shows(task.environment()):
        return None

    async def played() -> list[Episode]:
        worlds = [task.environment() for _ in problems]
        tellers = [world if world.tells_tools else InWords(world) for world in worlds]
        return [await reference(world, p.id, 0) for world, p in zip(tellers, problems, strict=True)]

    episodes = [e for e in asyncio.run(played()) if e.steps]
    answered = [[count(s.observation.messages) if s.observation.messages else 0 for s in e.steps] for e in episodes]
    longest = max(episodes, key=lambda e: sum(len(m["content"]) for m in e.before(len(e.steps) - 1)))
    return EpisodeLengths(
        fmean(len(e.steps) for e in episodes),
        fmean(sum(not s.action.calls for s in e.steps) for e in episodes),
        fmean(n for ns in answered for n in ns),
        round(max(fmean(ns) for ns in answered)),
        longest.before(len(longest.steps) - 1),
        len(longest.steps) - 1,
    )


__all__ = ["EpisodeLengths", "episode_lengths"]
