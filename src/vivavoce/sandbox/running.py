"""Hands programs to jails, as many at once as there are cores, and brings back what came of each."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from vivavoce.errors import MissingDependency
from vivavoce.sandbox.jail import ENVIRONMENT

_log = logging.getLogger(__name__)
Level = Literal["namespaces", "filter"]
Ended = Literal[
    "passed", "failed", "error", "time", "cpu", "memory", "output", "forbidden", "exited", "killed", "sandbox"
]
GRACE_S = 2.0
"""Seconds beyond a program's wall time after which a jail that has not answered is killed, with all in it."""
_RENEWED_AFTER = 2000
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from vivavoce.sandbox.jail import main; main()"


@dataclass(frozen=True, slots=True)
class ProgramLimits:
    """Limits of one program. Times in seconds."""

    wall_s: float = 5.0
    cpu_s: int = 4
    memory_mb: int = 512
    output_bytes: int = 65_536
    files_mb: int = 16
    """Size of all files together, in the folder that it starts in."""


@dataclass(frozen=True, slots=True)
class Program:
    """Python source, and tests that run in its namespace afterwards and raise if it is wrong."""

    source: str
    tests: str = ""


@dataclass(frozen=True, slots=True)
class ProgramOutcome:
    """The outcome of a program.

    ``ended`` is ``passed``; ``failed`` (a test); ``error`` (an exception, a syntax error); or the limit that it met
    (``time``, ``cpu``, ``memory``, ``output``). It is ``forbidden`` if the program ended on a refusal, and ``exited``
    or ``killed`` if it ended before its tests were through. ``sandbox`` says that the jail itself failed, and nothing
    about the program.
    """

    ended: Ended
    detail: str
    output: str
    wall_s: float
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    """The most that it held at once."""

    @property
    def passed(self) -> bool:
        return self.ended == "passed"

    @property
    def reason(self) -> str:
        """The reason why it did not pass, for people."""
        return f"{self.ended}: {self.detail}" if self.detail else self.ended


class Sandbox:
    """Jails that are kept for the next program. Any thread may run programs; each jail serves one at a time."""

    def __init__(self, at_once: int | None = None, level: Level | None = None) -> None:
        """Open a sandbox for ``at_once`` programs, by default one a core. Raises MissingDependency if the machine
        can confine none.
        """
        self.level: Level = level or machine_level()
        self.at_once = at_once or len(os.sched_getaffinity(0))
        self._slots = threading.BoundedSemaphore(self.at_once)
        self._idle = list[_Jail]()
        self._owner = os.getpid()

    def run(self, program: Program, limits: ProgramLimits = ProgramLimits()) -> ProgramOutcome:
        """Run one program, once one of the slots is free. Never raises on any program."""
        if self._owner != os.getpid():  # a fork does not share its parent's pipes
            self.__init__(self.at_once, self.level)
        with self._slots:
            jail = self._next()
            try:
                return jail.run(program, limits)
            finally:
                if jail.good:
                    self._idle.append(jail)
                else:
                    jail.close()

    def close(self) -> None:
        """End the jails that wait."""
        while self._owner == os.getpid() and self._idle:
            self._idle.pop().close()

    def _next(self) -> _Jail:
        while self._idle:
            if (jail := self._idle.pop()).good:
                return jail
            jail.close()  # it was ended from outside while it waited
        return _Jail(self.level)


@cache
def machine_level() -> Level:
    """The best level that this machine allows, tried once.

    Raises MissingDependency if it allows none: no program is run without one.
    """
    reasons = list[str]()
    levels: tuple[Level, ...] = ("namespaces", "filter")
    for level in levels:
        try:
            jail = _Jail(level)
            ended = jail.run(Program("x = 1", "assert x == 1"), ProgramLimits())
            jail.close()
        except OSError as error:
            reasons.append(f"{level}: {error}")
            continue
        if ended.passed:
            return level
        reasons.append(f"{level}: {ended.reason}")
    raise MissingDependency(
        f"this machine cannot isolate a program ({'; '.join(reasons)})",
        "the sandbox, which code is graded in",
        "use Linux on x86_64 or aarch64, with seccomp allowed (in a container: its default profile does)",
    )


@cache
def shared_sandbox() -> Sandbox:
    """The sandbox that this process's tasks grade by; it is said once which level the machine allows."""
    sandbox = Sandbox()
    if sandbox.level == "filter":
        _log.warning("programs run under a filter of system calls alone: this machine allows no namespaces")
    else:
        _log.info("programs run in namespaces of their own, under a filter of system calls")
    atexit.register(sandbox.close)
    return sandbox


class _Jail:
    """One process of :mod:`vivavoce.sandbox.jail`. Raises OSError if it cannot be confined."""

    def __init__(self, level: Level) -> None:
        source = Path(__file__).parents[2]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", _START, str(source), level],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        self.ran, self._rest = 0, b""
        reply = self._answer(time.monotonic() + 60)
        if reply is None or "refused" in reply:
            self.close()
            raise OSError((reply or {}).get("refused", "the jail did not start"))

    def run(self, program: Program, limits: ProgramLimits) -> ProgramOutcome:
        assert self.process.stdin is not None
        self.ran += 1
        began = time.monotonic()
        try:
            self.process.stdin.write(json.dumps(asdict(program) | asdict(limits)).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it is gone: no answer comes
        reply = self._answer(began + limits.wall_s + GRACE_S)
        if reply is None:
            self.process.kill()
            return ProgramOutcome("sandbox", "the jail gave no answer and was killed", "", time.monotonic() - began)
        return ProgramOutcome(**reply)

    def _answer(self, deadline: float) -> dict[str, Any] | None:
        """The next line; None if none comes in time."""
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 1 << 20) if ready else b""
            if not chunk:
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    @property
    def good(self) -> bool:
        return self.process.poll() is None and self.ran < _RENEWED_AFTER

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


__all__ = ["Ended", "Level", "Program", "ProgramLimits", "ProgramOutcome", "Sandbox", "machine_level", "shared_sandbox"]
