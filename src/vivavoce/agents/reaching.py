"""Whether agents can be asked at all, found out before anything is paid, loaded or trained.

The list of models of an endpoint is free. It tells a wrong key, an address without a server or one that lacks a part,
and whether the model is known there. Most lists are not the whole truth (aliases, variants, servers that take any
name): an agent whose model is not listed is asked one tiny question, which stands in the journal as any other call
does, in stage ``reach``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from vivavoce.agents import Agent
from vivavoce.agents.journal import Journal, unusable
from vivavoce.errors import AgentError, UserError
from vivavoce.records import Message, Sampling

_ASKED: list[Message] = [{"role": "user", "content": "Say yes."}]


@runtime_checkable
class Reachable(Protocol):
    """An agent that can tell for nothing whether it can be asked."""

    async def lists_model(self) -> bool | None:
        """Whether its model is one of those that its endpoint lists; None if the endpoint does not tell.

        Raises AgentError if no call of the agent can be answered; it says what to ``do``.
        """
        ...


async def reach(agents: Iterable[tuple[Agent, Sampling]], journal: Journal) -> None:
    """Raise AgentUnusable for the first agent that cannot be asked. An agent whose earlier answer is in
    the journal, or in an earlier run that lends its replies, is not asked again."""
    if journal.read_only:
        return
    answered, store = journal.answering(), journal.store
    unknown = [
        (agent, sampling)
        for agent, sampling in agents
        if isinstance(agent, Reachable) and agent.identity not in answered
    ]
    if store is not None:
        unknown = [(agent, sampling) for agent, sampling in unknown if not store.has_answered(agent.identity)]
    try:
        async with asyncio.TaskGroup() as group:
            for agent, sampling in unknown:
                group.create_task(_check_reachable(agent, sampling, journal))
    except* UserError as several:  # one is told; the others are found when it is mended
        raise several.exceptions[0] from None


async def _check_reachable(agent: Agent, sampling: Sampling, journal: Journal) -> None:
    assert isinstance(agent, Reachable), agent
    try:
        known = await agent.lists_model()
    except AgentError as failure:
        raise unusable(agent, failure) from None
    if known is False and getattr(agent, "batch", None) is None:
        await journal.call(agent, _ASKED, sampling, 0, stage="reach")


__all__ = ["Reachable", "reach"]
