"""Programs that run beside this process and answer lines of JSON, one to each: for packages that must not run in it.

A reader of hostile text may need limits of its own, and an environment another Python. What such a program does is in
the module that starts it; here is how it is started, asked, kept for the next question and ended.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LD_LIBRARY_PATH", "HOME", "TMPDIR")
"""The environment variables that a program gets; API keys stay here."""


class LineProcess:
    """One such program.

    Args:
        command: Program and arguments.
        kept: Names of the environment that it is given.
        more: Further values of its environment.
    """

    def __init__(self, command: Sequence[str], kept: Iterable[str] = KEPT, **more: str) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={key: os.environ[key] for key in kept if key in os.environ} | more,
            encoding="utf-8",
        )
        self._ended = False

    def ask(self, request: Any) -> Any:
        """The answer to a request. Raises EOFError if the program has ended."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self._ended = True
            raise EOFError from None
        return self.read()

    def read(self) -> Any:
        """The program's next answer. Raises EOFError if it has ended."""
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            self._ended = True
            raise EOFError
        return json.loads(line)

    def says_ready(self) -> bool:
        """Whether the program begins with the word that says it can be asked."""
        try:
            return self.read() == "ready"
        except EOFError:
            return False

    @property
    def good(self) -> bool:
        """Whether it can be asked again."""
        return not self._ended and self.process.poll() is None

    def close(self) -> int:
        """End the program; its exit code."""
        self.process.kill()
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return code


P = TypeVar("P", bound=LineProcess)


class Pool(Generic[P]):
    """A pool of at most so many processes; each is used by one thread at a time and kept for the next."""

    def __init__(self, most: int, start: Callable[[], P]) -> None:
        self._most, self._start = most, start
        self._begin()
        atexit.register(self.close)

    def _begin(self) -> None:
        self._slots, self._lock = threading.BoundedSemaphore(self._most), threading.Lock()
        self.idle, self._owner = list[P](), os.getpid()

    @contextmanager
    def take(self) -> Iterator[P]:
        """A process, for as long as the block runs; it is waited for if all are in use."""
        if self._owner != os.getpid():  # a fork does not share its parent's pipes
            self._begin()
        with self._slots:
            process = self._next()
            try:
                yield process
            finally:
                if process.good:
                    with self._lock:
                        self.idle.append(process)
                else:
                    process.close()

    def _next(self) -> P:
        with self._lock:
            while self.idle:
                if (process := self.idle.pop()).good:
                    return process
                process.close()  # it was ended from outside while it waited
        return self._start()

    def close(self) -> None:
        """End the processes that wait; those of a parent are its own."""
        while self._owner == os.getpid() and self.idle:
            self.idle.pop().close()


__all__ = ["KEPT", "LineProcess", "Pool"]
