"""``viva`` and other programs as a user calls them, in processes of their own that have their imports already.

A process of Python needs five seconds for torch and transformers, and the tests start some two hundred. So one process
per test worker imports them once, and forks for each program. What a program imports, and when, is therefore not tested
through this; tests/test_architecture.py asks fresh processes.

A caller connects to the process's Unix socket, sends what to run and where its streams go, and is told the exit code.
Who hangs up before has its program killed. So this file, run with that address and a program, is a stand-in for the
Python of a fresh process, which can be killed as one: :func:`interpreter`.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]


class Program:
    """A program that runs, with as much of ``subprocess.Popen`` as the tests use."""

    def __init__(self, words: list[str], cwd: Path | None, env: Mapping[str, str] | None, streams: list[int]) -> None:
        self.returncode: int | None = None
        self._connection = _asked(_server(), words, str(cwd or ROOT), dict(os.environ if env is None else env), streams)
        self.pid = int(_line(self._connection))
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        with contextlib.suppress(ValueError):  # another thread has closed the connection, and knows the code
            if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
                self.wait()
        return self.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit code, when it has ended; minus the number of a signal that killed it."""
        with self._lock:  # a server of the test may wait for it too
            if self.returncode is None:
                self._connection.settimeout(timeout_s)
                self.returncode = int(_line(self._connection))
                self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)


def python(
    *words: object, cwd: Path | None = None, env: Mapping[str, str] | None = None, output: Path | None = None
) -> Program:
    """Start what ``python WORDS`` would: ``-c PROGRAM``, ``-m MODULE`` or a file, and arguments.

    What it prints is added to the file ``output``, if there is one.
    """
    with Path(os.devnull).open("rb") as nothing, contextlib.ExitStack() as stack:
        out = stack.enter_context(output.open("ab")).fileno() if output else None
        streams = [nothing.fileno(), out or sys.__stdout__.fileno(), out or sys.__stderr__.fileno()]  # type: ignore[union-attr]
        return Program([str(word) for word in words], cwd, env, streams)


def ran(
    *words: object, cwd: Path | None = None, env: Mapping[str, str] | None = None, input: str = ""
) -> subprocess.CompletedProcess[str]:
    """What a program printed to each stream, and its exit code."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(input.encode())
        given.seek(0)
        called = [str(word) for word in words]
        code = Program(called, cwd, env, [file.fileno() for file in (given, out, err)]).wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(called, code, out.read().decode(), err.read().decode())


def viva(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None, input: str = ""
) -> subprocess.CompletedProcess[str]:
    """What the command printed to each stream, and its exit code."""
    return ran("viva", *arguments, cwd=cwd, env=env, input=input)


def interpreter() -> list[str]:
    """A command that runs a program, whose words follow, as ``python`` would."""
    return [sys.executable, "-S", __file__, _server()]


@cache
def _server() -> str:
    """Address of the process that forks. It ends with this one, and what it has forked ends with it."""
    folder = tempfile.TemporaryDirectory()
    address = str(Path(folder.name, "socket"))
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.command"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(address + "\n")
    server.stdin.flush()
    assert server.stdout.readline(), "the process that runs the commands has died"

    def end() -> None:
        server.stdin.close()  # type: ignore[union-attr]
        server.wait()
        folder.cleanup()

    atexit.register(end)
    return address


def _asked(address: str, words: list[str], cwd: str, env: dict[str, str], streams: list[int]) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    asked = json.dumps([words, cwd, env]).encode()
    connection.sendmsg([b"\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))])
    connection.sendall(asked + b"\n")
    return connection


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        more = connection.recv(1)  # and no more: another line may follow
        assert more, "the process that runs the programs has died"
        line += more
    return line


def _serve() -> None:
    """Fork for each caller, until the process that began this one has ended."""
    address = sys.stdin.readline().rstrip("\n")
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch  # noqa: F401
    from transformers import Qwen3ForCausalLM  # noqa: F401

    import vivavoce.cli
    import vivavoce.train.on_policy  # noqa: F401

    assert threading.active_count() == 1, "a process with threads cannot be forked safely"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    ended, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    running: dict[socket.socket, int] = {}
    while True:
        readable, *_ = select.select([sys.stdin, ended, listening, *running], [], [])
        if ended in readable:
            os.read(ended, 4096)
        for connection, process in list(running.items()):
            gone = sys.stdin in readable or connection in readable  # who listens says nothing more
            if gone:
                os.kill(process, signal.SIGKILL)
            # A port is free again before the next program wants it.
            done, status = os.waitpid(process, 0 if gone else os.WNOHANG)
            if done:
                del running[connection]
                with contextlib.suppress(OSError):
                    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
                connection.close()
        if sys.stdin in readable:
            return
        if listening in readable:
            connection, _ = listening.accept()
            streams = array.array("i")
            _, [(_, _, data)], *_ = connection.recvmsg(1, socket.CMSG_SPACE(3 * streams.itemsize))
            streams.frombytes(data)
            words, cwd, env = json.loads(connection.makefile("rb").readline())
            child = os.fork()
            if not child:
                for one in (listening, connection, *running):
                    one.close()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
                os.close(ended)
                os.close(tell)
                _run(words, cwd, env, list(streams))
            for stream in streams:
                os.close(stream)
            running[connection] = child
            with contextlib.suppress(OSError):
                connection.sendall(b"%d\n" % child)


def _run(words: list[str], cwd: str, env: dict[str, str], streams: list[int]) -> None:
    """Run one program in this process, a fork, and end it as Python ends."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[0] = cwd
    sys.modules["__main__"] = ModuleType("__main__")  # which Typer takes a name from, and what is spawned imports
    code: Any = 0
    try:
        _main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
    except BaseException:  # noqa: BLE001 - as Python itself ends
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _main(words: list[str]) -> None:
    how, *arguments = words
    sys.argv = words
    if how == "viva":
        from vivavoce.cli import main

        main()
    elif how == "-c":
        sys.argv = ["-c", *arguments[1:]]
        exec(compile(arguments[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
    elif how == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(how).parent)
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1:]:
        there = _asked(sys.argv[1], sys.argv[2:], str(Path.cwd()), dict(os.environ), [0, 1, 2])
        _line(there)
        sys.exit(int(_line(there)) % 256)
    _serve()
