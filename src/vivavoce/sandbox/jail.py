"""The process that programs run in, one after the other: each a fork of it, filtered, limited, and killed at its end.

Started by :class:`vivavoce.sandbox.Sandbox` with nothing of the caller's environment. A JSON line with a program comes
in, a JSON line with its outcome goes out; when the caller is gone, so is everything here. Where namespaces are allowed
the process is number 1 of a process space of its own, so that its end is the end of all that was ever started in it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import linecache
import os
import resource
import select
import signal
import sys
import time
import types
from pathlib import Path
from typing import Any

from vivavoce.sandbox import kernel

BOX = "/box"
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"}
"""The whole environment of a program."""
_MODULES = (
    "abc array ast base64 binascii bisect calendar cmath collections collections.abc contextlib copy csv "
    "dataclasses datetime decimal difflib enum fractions functools hashlib heapq html inspect io "
    "itertools json keyword locale math numbers operator os pprint queue random re secrets statistics "
    "string struct sys textwrap threading time timeit traceback types typing unicodedata uuid zlib"
)
"""Loaded before the first program, because without a root of their own programs cannot open the files of others."""
_REPORT_MOST = 65_536
_CPU_SLACK = 1
"""Seconds between the signal of the limit on CPU time and the kill: RLIMIT_CPU counts in whole seconds."""


def main() -> None:
    """Shut in what ``sys.argv`` asks for (``namespaces`` or ``filter``), say so in a line, then run programs."""
    level = sys.argv[1]
    kernel.hide_memory()
    linecache.getlines = lambda *_args, **_kwargs: []  # a traceback looks for no files
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for name in _MODULES.split():
        importlib.import_module(name)
    try:
        if level == "namespaces":
            _in_namespaces()
    except OSError as error:
        _say(answers, {"refused": str(error)})
        return
    with os.fdopen(os.dup(requests), "r", encoding="utf-8") as lines:
        gc.freeze()
        _say(answers, {"ready": level})
        for line in lines:
            _say(answers, _run(json.loads(line), requests, level))


def _in_namespaces() -> None:
    """Go on as process 1 of a new space; the process that was started waits for it and ends with it."""
    kernel.enter_namespaces()
    if child := os.fork():
        os.waitpid(child, 0)
        os._exit(0)
    kernel.die_with_parent()
    library = Path(os.__file__).parent
    folders = [library, *(Path(p) for p in ("/lib", "/lib64", "/usr/lib", "/usr/lib64"))]
    kernel.new_root([f for f in folders if f.is_dir()], BOX)


def _run(request: dict[str, Any], requests: int, level: str) -> dict[str, Any]:
    """Fork, wait for the end or a limit, kill, and return the outcome."""
    if level == "namespaces":
        kernel.fresh_box(BOX, request["files_mb"])
    token = os.urandom(16).hex()
    reports, report = os.pipe()
    outputs, output = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(request, token, report, output, level)
    os.close(report)
    os.close(output)
    watch = _Watch(child, request, reports, outputs, requests)
    ended = watch.until_the_end(began + request["wall_s"])
    os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    if level == "namespaces":
        _kill_the_rest()
    watch.drain()
    os.close(reports)
    os.close(outputs)
    outcome = watch.report(token)
    if ended is None:
        ended, detail = outcome or _by_status(status, request, used)
    else:
        detail = ""
    return {
        "ended": ended,
        "detail": detail,
        "output": watch.output.decode("utf-8", "replace"),
        "wall_s": time.monotonic() - began,
        "cpu_s": used.ru_utime + used.ru_stime,
        "memory_mb": used.ru_maxrss / 1024,
    }


def _kill_the_rest() -> None:
    """Kill and reap every other process of this space: all that process 1 can signal is in it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


class _Watch:
    """Collects what a running program writes and reports, up to its limits."""

    def __init__(self, child: int, request: dict[str, Any], reports: int, outputs: int, requests: int) -> None:
        self.process = os.pidfd_open(child)
        self.reports, self.outputs, self.requests = reports, outputs, requests
        self.most = request["output_bytes"]
        self.output, self.reported = b"", b""
        for pipe in (reports, outputs):
            os.set_blocking(pipe, False)

    def until_the_end(self, deadline: float) -> str | None:
        """Wait; return None if the program ended by itself, else the limit that it met."""
        poll = select.poll()
        for file in (self.process, self.reports, self.outputs):
            poll.register(file, select.POLLIN)
        poll.register(self.requests, 0)  # hung up: the caller is gone
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return "time"
            for file, _ in poll.poll(left_s * 1000):
                if file == self.requests:
                    os._exit(1)
                if file == self.process:
                    return None
                if not self._read(file):
                    poll.unregister(file)
            if len(self.output) >= self.most:
                return "output"

    def drain(self) -> None:
        """Take what is still in the pipes."""
        os.close(self.process)
        while self._read(self.outputs) and len(self.output) < self.most:
            pass
        while self._read(self.reports) and len(self.reported) < _REPORT_MOST:
            pass
        self.output = self.output[: self.most]

    def _read(self, file: int) -> bool:
        try:
            chunk = os.read(file, 65_536)
        except BlockingIOError:
            return False
        if file == self.outputs:
            self.output += chunk
        else:
            self.reported = (self.reported + chunk)[:_REPORT_MOST]
        return bool(chunk)

    def report(self, token: str) -> tuple[str, str] | None:
        """The program's own report of its end; None if it did not get so far."""
        try:
            report = json.loads(self.reported)
            return (report["ended"], str(report["detail"])) if report["token"] == token else None
        except (ValueError, KeyError, TypeError):
            return None


def _by_status(status: int, request: dict[str, Any], used: resource.struct_rusage) -> tuple[str, str]:
    """The end of a process that reported none."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU or (number == signal.SIGKILL and used.ru_utime + used.ru_stime >= request["cpu_s"]):
            return "cpu", ""
        return "killed", signal.Signals(number).name
    return "exited", f"code {os.waitstatus_to_exitcode(status)} before the end of the tests"


def _child(request: dict[str, Any], token: str, report: int, output: int, level: str) -> None:
    """Shut this process in and run the program; never returns."""
    try:
        os.setsid()
        kernel.die_with_parent()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(report, 3)
        os.closerange(4, 1 << 16)
        cpu, memory, files = request["cpu_s"], request["memory_mb"] << 20, level == "namespaces"
        for limit, soft, hard in (
            (resource.RLIMIT_CPU, cpu, cpu + _CPU_SLACK),
            (resource.RLIMIT_AS, memory, memory),
            (resource.RLIMIT_FSIZE, (request["files_mb"] << 20) if files else 0, None),
            (resource.RLIMIT_NOFILE, 64, 64),
            (resource.RLIMIT_NPROC, 0, 0),
            (resource.RLIMIT_CORE, 0, 0),
        ):
            resource.setrlimit(limit, (soft, soft if hard is None else hard))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file too large is an OSError that the program sees
        sys.stdin = io.TextIOWrapper(io.FileIO(0), "utf-8")
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), "utf-8", "replace", line_buffering=True)  # type: ignore[arg-type]
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), "utf-8", "replace", line_buffering=True)  # type: ignore[arg-type]
        sys.argv = ["program"]
        os.environ.clear()  # what was imported here may have set something
        os.environ.update(ENVIRONMENT)
        kernel.drop_capabilities()
        kernel.filter_calls(files)
    except BaseException as error:  # noqa: BLE001  whatever it is, no program may run outside
        _report(token, "sandbox", f"{type(error).__name__}: {error}")
        os._exit(70)
    try:
        _report(token, *_execute(request["source"], request["tests"]))
        sys.stdout.flush()
    finally:  # whatever the program did to this process, it does not go on with the jail's work
        os._exit(0)


def _execute(source: str, tests: str) -> tuple[str, str]:
    """Run the program, then the tests in its namespace."""
    module = types.ModuleType("program")  # not __main__: what stands below that guard is not asked for
    sys.modules["program"] = module
    for text, name, failing in ((source, "<program>", "error"), (tests, "<tests>", "failed")):
        try:
            exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)
        except MemoryError:
            return "memory", "MemoryError"
        except (KeyboardInterrupt, SystemExit) as error:
            return "exited", f"{type(error).__name__} in {name}"
        except PermissionError as error:
            return "forbidden", _error_text(error)
        except AssertionError as error:
            return failing, _error_text(error)
        except BaseException as error:  # noqa: BLE001  what a program raises is its outcome
            return "error", f"{_error_text(error)} in {name}"
    return "passed", ""


def _error_text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500].rstrip(": ")
    except BaseException:  # noqa: BLE001  its own __str__ may fail
        return type(error).__name__[:100]


def _report(token: str, ended: str, detail: str) -> None:
    os.write(3, json.dumps({"token": token, "ended": ended, "detail": detail}).encode())


def _say(answers: int, what: dict[str, Any]) -> None:
    data = (json.dumps(what) + "\n").encode()
    while data:
        data = data[os.write(answers, data) :]


__all__ = ["main"]
