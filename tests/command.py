"""``viva`` as a user calls it, in a process of its own that has its imports already.

A process of Python needs five seconds for torch and transformers, and the tests call ``viva`` some eighty times. So one
process per test worker imports them once, and forks for each call. What a command imports, and when, is therefore not
tested through this; tests/test_architecture.py asks fresh processes.
"""

from __future__ import annotations

import atexit
import json
import os
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


def viva(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None, input: str = ""
) -> subprocess.CompletedProcess[str]:
    """What the command printed to each stream, and its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        streams[0].write_text(input)
        call = {
            "arguments": [str(a) for a in arguments],
            "cwd": str(cwd or ROOT),
            "env": dict(os.environ if env is None else env),
            "streams": [str(path) for path in streams],
        }
        server = _server()
        server.stdin.write(json.dumps(call) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the process that runs the commands has died"
        return subprocess.CompletedProcess(
            ["viva", *call["arguments"]], int(answer), *(path.read_text() for path in streams[1:])
        )


@cache
def _server() -> Any:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.command"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.kill)
    return server


def _serve() -> None:
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch  # noqa: F401
    from transformers import Qwen3ForCausalLM  # noqa: F401

    import vivavoce.cli
    import vivavoce.train.on_policy  # noqa: F401

    assert threading.active_count() == 1, "a process with threads cannot be forked safely"
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run(**json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _run(arguments: list[str], cwd: str, env: dict[str, str], streams: list[str]) -> None:
    """Run one command in this process, a fork, and end it as Python ends."""
    from vivavoce.cli import main

    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    sys.stdin = os.fdopen(0, closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[0] = cwd
    sys.modules["__main__"] = ModuleType("__main__")  # which Typer takes a name from, and what is spawned imports
    sys.argv = ["viva", *arguments]
    code: Any = 0
    try:
        main()
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


if __name__ == "__main__":
    _serve()
