"""Many problems at once: the graph of each, kept in a file as it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from vivavoce.graph import Graph, Stored
from vivavoce.graph.stored import gathering
from vivavoce.records import Problem


async def gathered(
    problems: Sequence[Problem],
    make: Callable[[Problem], Awaitable[Graph]],
    in_flight: int,
    done: Callable[[Graph], None],
    folder: Path,
) -> Stored:
    """``make`` the graph of each problem, at most ``in_flight`` at once, begun in their order; graphs in that order.

    ``done`` is called with each as it is made. Only those in flight are in memory; the others lie in a temporary file
    of ``folder``.
    """
    kept, todo = gathering(len(problems), folder), iter(enumerate(problems))

    async def work() -> None:
        for at, problem in todo:
            graph = await make(problem)
            kept.put(at, graph)
            done(graph)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(in_flight, len(problems))):
            group.create_task(work())
    return kept
