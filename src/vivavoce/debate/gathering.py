"""Many problems at once: the graph of each, kept in a file as it is made."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
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

    with _rare_collections():
        async with asyncio.TaskGroup() as group:
            for _ in range(min(in_flight, len(problems))):
                group.create_task(work())
    return kept


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Python looks for cycles whenever 700 more objects live than before. Calls in flight are many times that, and
    hardly any of their objects is in a cycle: the search took a tenth to a fifth of the engine's time."""
    before = gc.get_threshold()
    gc.set_threshold(20_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
