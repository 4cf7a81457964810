"""Who answers. One backend a file; :mod:`vivavoce.agents.journal` is the one choke point before them.

A backend module defines ``Options`` (a pydantic model of the keys that a recipe may give it) and
``agent(name, options) -> Agent``. The file name is the backend's name; a path to a Python file works too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from vivavoce.records import Message, Reply, Sampling


@runtime_checkable
class Agent(Protocol):
    """Someone who answers messages."""

    name: str
    """As the recipe calls it."""

    identity: str
    """What determines its replies: model, revision or weight hash, endpoint. Part of every journal key."""

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """Answer. Equal arguments should give equal replies as far as the model allows.

        Raises :class:`vivavoce.errors.AgentError` when the call failed for good, after the backend's own retries.
        """
        ...

    async def aclose(self) -> None:
        """Free connections, threads and memory."""
        ...
