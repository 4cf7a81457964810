"""The folder that keeps the library's work, and the event loop on which it runs."""

from __future__ import annotations

import asyncio
import atexit
import functools
import tempfile
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from vivavoce.agents.journal import Journal

P = ParamSpec("P")
T = TypeVar("T")


class Run:
    """A folder that keeps every call and every model, so that nothing in it is paid for or trained again.

    Without a path it is a temporary folder, which is deleted when the program ends. Use it from one program at a time.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory() if path is None else None
        self.path = Path(self._temporary.name if self._temporary else path or "")
        self._journal: Journal | None = None
        atexit.register(self.close)

    @property
    def journal(self) -> Journal:
        """The journal with every call of this folder. It is used on the library's own loop alone."""
        if self._journal is None:
            self.path.mkdir(parents=True, exist_ok=True)
            self._journal = Journal(self.path / "journal.sqlite")
        return self._journal

    def costs(self) -> list[dict[str, Any]]:
        """The calls of this folder, by agent and stage: how many were made, were free, or failed, and their tokens."""

        async def read() -> list[dict[str, Any]]:
            return [
                {
                    "agent": c.agent,
                    "stage": c.stage,
                    "calls": c.calls,
                    "free": c.hits,
                    "failures": c.failures,
                    "prompt_tokens": c.usage.prompt,
                    "completion_tokens": c.usage.completion,
                }
                for c in self.journal.costs()
            ]

        return finish(read())

    def close(self) -> None:
        """Write what is pending and close the journal. The next use opens it again."""
        journal, self._journal = self._journal, None
        if journal is not None:

            async def close() -> None:
                journal.close()

            finish(close())

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


@functools.cache
def here() -> Run:
    """The run that is used if none is named: a temporary folder of this program."""
    return Run()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """The loop of the library, in a thread of its own, because a notebook's own loop is busy with the notebook."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="vivavoce", daemon=True).start()
    return loop


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine on the library's loop and return its result. An interrupt cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class Both(Protocol[P, T]):
    """A function that waits for its result. Its ``aio`` is a coroutine function with the same result."""

    aio: Callable[P, Coroutine[Any, Any, T]]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T: ...


def plain(function: Callable[P, Coroutine[Any, Any, T]]) -> Both[P, T]:
    """Turn a coroutine function into an ordinary one. ``.aio`` is the coroutine function, for any loop."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return finish(function(*args, **kwargs))

    async def aio(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(function(*args, **kwargs), _loop()))

    both = cast("Both[P, T]", call)
    both.aio = functools.wraps(function)(aio)
    return both


__all__ = ["Both", "Run", "finish", "here", "plain"]
