"""A gate that limits how many students are at work at once, and chooses the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from vivavoce.errors import told_once

T = TypeVar("T")


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Do ``work`` at the same time and return the results in order. If one fails, the others are stopped."""
    with told_once():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    return [task.result() for task in tasks]


class Gate:
    """Lets ``width`` through at once. The next of the waiting ones is of the kind with the fewest inside, by age.

    Models in training have processes of their own, while those that answer share this one: with one of each, more gets
    done than with two of a kind.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._inside: list[str] = []
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def enter(self, kind: str) -> AsyncIterator[None]:
        """Wait for a place, and hold it while the block runs."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((kind, turn))
        self._admit()
        try:
            await turn
            yield
        finally:
            if (kind, turn) in self._waiting:  # stopped while it waited
                self._waiting.remove((kind, turn))
            else:
                self._inside.remove(kind)
                self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._inside) < self.width:
            kind, turn = first = min(self._waiting, key=lambda waits: self._inside.count(waits[0]))
            self._waiting.remove(first)
            self._inside.append(kind)
            if not turn.done():
                turn.set_result(None)


__all__ = ["Gate", "together"]
