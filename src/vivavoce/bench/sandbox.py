"""Hostile programs against the sandbox, and its speed on ordinary ones.

A secret file, a secret in the environment, servers on loopback and on a local socket, and a bystander process are
outside: none of them may be reached. When all programs have run and their jails are closed, the processes that stem
from a jail are counted once: none may be left. So a process that outlives its jail is found.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from vivavoce.bench.hostile import PROGRAMS, hostile
from vivavoce.progress import bar, say
from vivavoce.sandbox.running import Level, Program, ProgramLimits, Sandbox

LIMITS = ProgramLimits(wall_s=0.5, cpu_s=1, memory_mb=256, output_bytes=65_536, files_mb=8)
_SECRET = "viva-secret-that-nobody-may-read"
_LOAD_S = 1.0
"""Seconds that a busy machine may add to a program's time before the program counts as having outlived its limit."""


@dataclass
class HostileOutcome:
    """The outcome of hostile programs, and the speed of ordinary ones."""

    level: str
    at_once: int
    hostile: int = 0
    kinds: int = 0
    passed: int = 0
    """Hostile programs that were graded right."""
    escaped: list[str] = field(default_factory=list)
    """Names of what programs reached outside."""
    outlived: list[str] = field(default_factory=list)
    """Programs that ran longer than their limit, or of which a process was left."""
    ended: dict[str, int] = field(default_factory=dict)
    longest_s: float = 0.0
    hostile_s: float = 0.0
    ordinary: int = 0
    ordinary_right: int = 0
    per_second: float = 0.0
    """Ordinary programs with their tests."""

    def __str__(self) -> str:
        ends = ", ".join(f"{n:,} {end}" for end, n in sorted(self.ended.items(), key=lambda e: -e[1]))
        return (
            f"level {self.level}, {self.at_once} at once\n"
            f"{self.hostile:,} hostile programs of {self.kinds} kinds in {self.hostile_s:.0f} s: "
            f"{len(self.escaped)} escaped, {len(self.outlived)} outlived their limit, {self.passed} passed "
            f"(longest {self.longest_s:.2f} s of {LIMITS.wall_s:g})\n  {ends}\n"
            f"{self.ordinary:,} ordinary programs: {self.ordinary_right:,} graded right, {self.per_second:.0f} a second"
        )


def run(hostile_programs: int = 1000, ordinary: int = 400, level: Level | None = None) -> HostileOutcome:
    """Run hostile programs, each kind in turn, then ordinary ones, of which every second is wrong."""
    sandbox = Sandbox(level=level)
    result = HostileOutcome(sandbox.level, sandbox.at_once, hostile_programs, min(len(PROGRAMS), hostile_programs))
    try:
        _hostile(sandbox, result)
        _ordinary(sandbox, ordinary, result)
    finally:
        sandbox.close()
    return result


def _hostile(sandbox: Sandbox, result: HostileOutcome) -> None:
    names, lock = list(islice(cycle(PROGRAMS), result.hostile)), threading.Lock()
    with (
        bar("hostile programs", result.hostile) as advance,
        outside() as world,
        ThreadPoolExecutor(sandbox.at_once) as threads,
    ):

        def one(name: str) -> None:
            program = Program(hostile(name, *world.places), "assert False, 'a hostile program is never right'")
            outcome = sandbox.run(program, LIMITS)
            with lock:
                result.ended[outcome.ended] = result.ended.get(outcome.ended, 0) + 1
                result.passed += outcome.passed
                result.longest_s = max(result.longest_s, outcome.wall_s)
                if _SECRET in outcome.output or _SECRET in outcome.detail:
                    result.escaped.append(f"{name}: told a secret")
                if outcome.wall_s > LIMITS.wall_s + _LOAD_S:
                    result.outlived.append(f"{name}: {outcome.wall_s:.2f} s")
                result.escaped += [f"{name} or one beside it: {what}" for what in world.harm()]
                advance()

        began = time.monotonic()
        list(threads.map(one, names))
        result.hostile_s = time.monotonic() - began
        sandbox.close()
        time.sleep(0.1)
        result.outlived += [f"process {pid} is left" for pid in processes_left(world.began)]
        result.escaped += world.harm()


def _ordinary(sandbox: Sandbox, n: int, result: HostileOutcome) -> None:
    body = "def f(xs, n={n}):\n    out = []\n    for x in sorted(set(xs)):\n        out.append(x * n)\n    return out\n"
    programs = [
        Program(body.format(n=i), f"assert f([3, 1, 3]) == [{i}, {3 * i + i % 2}]\nassert f([]) == []")
        for i in range(n)
    ]
    with ThreadPoolExecutor(sandbox.at_once) as threads:
        say(f"{n:,} ordinary programs")
        list(threads.map(sandbox.run, programs[: 2 * sandbox.at_once]))  # the jails are started
        began = time.monotonic()
        outcomes = list(threads.map(sandbox.run, programs))
        result.per_second = n / (time.monotonic() - began)
    result.ordinary = n
    result.ordinary_right = sum(outcome.passed == (i % 2 == 0) for i, outcome in enumerate(outcomes))


@dataclass
class Outside:
    """The things that a program that got out could reach."""

    folder: Path
    port: int
    socket: str
    bystander: subprocess.Popen[bytes]
    calls: Counter[str]
    began: float

    @property
    def places(self) -> tuple[str, int, str, int]:
        return str(self.folder), self.port, self.socket, os.getpid()

    def harm(self) -> list[str]:
        """The harm that was done outside."""
        done = [f"reached the {name}" for name in self.calls]
        expected = {"secret", "socket"}
        done += [f"changed {f}" for f in expected ^ {path.name for path in self.folder.iterdir()}]
        if self.bystander.poll() is not None:
            done.append("killed a bystander")
        return done


@contextmanager
def outside() -> Iterator[Outside]:
    """A folder with a secret, servers, and a bystander, taken down again at the end."""
    with tempfile.TemporaryDirectory() as name:
        folder, calls = Path(name), Counter[str]()
        folder.chmod(0o777)
        (folder / "secret").write_text(_SECRET)
        before = os.environ.get("VIVA_SECRET")
        os.environ["VIVA_SECRET"] = _SECRET
        bystander = subprocess.Popen(["sleep", "100000"])
        local, loopback = socket.socket(socket.AF_UNIX), socket.socket()
        local.bind(str(folder / "socket"))
        loopback.bind(("127.0.0.1", 0))
        for what, server in (("local socket", local), ("loopback server", loopback)):
            server.listen()
            threading.Thread(target=_count, args=(server, what, calls), daemon=True).start()
        port = loopback.getsockname()[1]
        try:
            yield Outside(folder, port, str(folder / "socket"), bystander, calls, time.time())
        finally:
            bystander.kill()
            bystander.wait()
            for server in (local, loopback):
                server.shutdown(socket.SHUT_RDWR)
                server.close()
            if before is None:
                del os.environ["VIVA_SECRET"]
            else:
                os.environ["VIVA_SECRET"] = before


def _count(server: socket.socket, what: str, calls: Counter[str]) -> None:
    while True:
        try:
            server.accept()[0].close()
        except OSError:  # closed at the end
            return
        calls[what] += 1


def processes_left(since: float) -> list[int]:
    """Processes that began after ``since`` (of the clock of day) and stem from a jail: they carry its command line."""
    ticks, booted = os.sysconf("SC_CLK_TCK"), time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    alive = list[int]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line, stat = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except OSError:  # it ended meanwhile
            continue
        began = booted + int(stat.rpartition(")")[2].split()[19]) / ticks
        if b"vivavoce.sandbox.jail" in line and began > since:
            alive.append(int(folder.name))
    return alive


__all__ = ["LIMITS", "HostileOutcome", "Outside", "outside", "processes_left", "run"]
