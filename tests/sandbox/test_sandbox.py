from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vivavoce.bench import sandbox as bench
from vivavoce.bench.hostile import PROGRAMS, hostile
from vivavoce.errors import MissingDependency
from vivavoce.sandbox.running import Level, Program, ProgramLimits, ProgramOutcome, Sandbox, machine_level

QUICK = ProgramLimits(wall_s=1.0, cpu_s=1)


def _levels() -> list[Level]:
    try:
        best = machine_level()
    except MissingDependency:
        return []
    return ["namespaces", "filter"] if best == "namespaces" else ["filter"]


LEVELS = _levels()
pytestmark = pytest.mark.skipif(not LEVELS, reason="this machine cannot isolate a program")


@pytest.fixture(params=LEVELS)
def sandbox(request: pytest.FixtureRequest):
    made = Sandbox(8, request.param)
    yield made
    made.close()


def run(sandbox: Sandbox, source: str, tests: str = "", limits: ProgramLimits = QUICK) -> ProgramOutcome:
    return sandbox.run(Program(source, tests), limits)


def test_no_hostile_program_passes_escapes_or_outlives_its_limit(sandbox: Sandbox) -> None:
    with bench.outside() as world, ThreadPoolExecutor(8) as threads:
        programs = [Program(hostile(name, *world.places), "assert False, 'never right'") for name in PROGRAMS]
        outcomes = list(threads.map(lambda p: sandbox.run(p, bench.LIMITS), programs))
        harm = world.harm()
        sandbox.close()
        time.sleep(0.1)
        assert bench.processes_left(world.began) == []
    given_facts = dict(zip(PROGRAMS, outcomes, strict=True))
    assert harm == []
    assert {
        name for name, outcome in given_facts.items() if outcome.ended in ("passed", "sandbox") or not outcome.reason
    } == set()
    assert {name: o.wall_s for name, o in given_facts.items() if o.wall_s > bench.LIMITS.wall_s + 2} == {}
    assert not any("viva-secret" in outcome.output + outcome.detail for outcome in outcomes)
    assert sum(outcome.ended == "time" for outcome in outcomes) >= 5


def test_the_harm_that_is_looked_for_is_found_where_it_is_done() -> None:
    import socket

    with bench.outside() as world:
        assert world.harm() == []
        (world.folder / "written").touch()
        with socket.create_connection(("127.0.0.1", world.port)):
            time.sleep(0.05)
        world.bystander.kill()
        world.bystander.wait()
        left = subprocess.Popen([sys.executable, "-c", "'vivavoce.sandbox.jail'; input()"], stdin=subprocess.PIPE)
        try:
            assert world.harm() == ["reached the loopback server", "changed written", "killed a bystander"]
            assert bench.processes_left(world.began - 1) == [left.pid]
        finally:
            left.communicate()


def test_a_program_passes_only_where_its_tests_are_through(sandbox: Sandbox) -> None:
    assert run(sandbox, "def f(x): return x + 1", "assert f(1) == 2").passed
    assert run(sandbox, "def f(x): return x", "assert f(1) == 2, 'no'").reason == "failed: AssertionError: no"
    assert run(sandbox, "raise ValueError('v')").reason == "error: ValueError: v in <program>"
    assert run(sandbox, "def f(: pass").ended == "error"
    assert run(sandbox, "import os; os._exit(0)", "assert False").ended == "exited"
    assert run(sandbox, "import os; os.close(3)", "assert True").ended == "exited"


@pytest.mark.parametrize(
    ("source", "ended"),
    [
        ("import time; time.sleep(60)", "time"),
        ("x = [0] * 10**9", "memory"),
        ("while True: print('x' * 100)", "output"),
        ("import os; os.fork()", "forbidden"),
        ("import os; os.kill(os.getppid(), 9)", "forbidden"),
        ("import os; os.abort()", "killed"),
        ("exit = 1; raise SystemExit", "exited"),
        ("def f(): return f()\nf()", "error"),
    ],
)
def test_each_end_has_its_reason(sandbox: Sandbox, source: str, ended: str) -> None:
    assert run(sandbox, source).ended == ended


def test_cpu_time_is_limited_apart_from_wall_time(sandbox: Sandbox) -> None:
    assert run(sandbox, "while True: pass", limits=ProgramLimits(wall_s=30, cpu_s=1)).ended == "cpu"


def test_memory_is_what_the_limit_says(sandbox: Sandbox) -> None:
    assert run(sandbox, "x = bytearray(200 << 20)", limits=ProgramLimits(memory_mb=256)).passed
    assert run(sandbox, "x = bytearray(300 << 20)", limits=ProgramLimits(memory_mb=256)).ended == "memory"


def test_programs_leave_nothing_to_the_next(sandbox: Sandbox) -> None:
    one = Sandbox(1, sandbox.level)
    try:
        run(one, "import math, sys; math.pi = 3; sys.modules['random'] = None; len = None")
        if one.level == "namespaces":
            assert run(one, "open('kept', 'w').write('x')").passed
        assert run(one, "import math, os, random", "assert math.pi > 3.1 and len('a') == 1").passed
        if one.level == "namespaces":
            assert run(one, "import os", "assert os.listdir('.') == []").passed
    finally:
        one.close()


def test_the_environment_is_scrubbed(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    fresh = Sandbox(1, sandbox.level)
    outcome = run(fresh, "import os; print(sorted(os.environ))")
    fresh.close()
    assert outcome.output.strip() == "['LANG', 'PYTHONHASHSEED']"


@pytest.mark.skipif("namespaces" not in LEVELS, reason="needs namespaces")
def test_a_root_of_its_own_holds_the_library_and_an_empty_folder_and_nothing_can_be_written_elsewhere() -> None:
    sandbox = Sandbox(1, "namespaces")
    source = (
        "import os\nprint(os.path.exists('/etc'), os.path.exists('/proc/self'), os.path.exists('/dev/null'))\n"
        "import email.message\nopen('own', 'w').write('x'); print(open('/box/own').read())\n"
        "wrote = []\nfor folder, _, _ in os.walk('/'):\n"
        "    try: open(folder + '/x', 'w').close(); wrote.append(folder)\n    except OSError: pass\nprint(wrote)"
    )
    outcome = run(sandbox, source, limits=ProgramLimits(wall_s=20, cpu_s=10))
    sandbox.close()
    assert outcome.output.splitlines() == ["False False False", "x", "['/box']"], outcome.reason


def test_a_caller_of_the_sandbox_still_finds_the_source_of_its_own_modules() -> None:
    # The jail puts linecache out of action for its programs. `datasets` reads its own source when it is imported.
    code = "import inspect; from vivavoce.sandbox import running; inspect.getsource(running)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_dead_jail_is_replaced(sandbox: Sandbox) -> None:
    one = Sandbox(1, sandbox.level)
    assert run(one, "").passed
    one._idle[0].process.kill()  # pyright: ignore[reportPrivateUsage]
    one._idle[0].process.wait()  # pyright: ignore[reportPrivateUsage]
    assert run(one, "x = 1", "assert x").passed
    one.close()


def test_nothing_is_left_where_the_caller_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys; from vivavoce.sandbox.running import *\n"
        "s = Sandbox(1); s.run(Program('')); print('on', flush=True)\n"
        "s.run(Program('import time; time.sleep(300)'), Limits(wall_s=300))"
    )
    began = time.time()
    caller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    assert caller.stdout.readline() == "on\n"
    deadline = time.monotonic() + 10
    while not (started := bench.processes_left(began)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert started
    os.kill(caller.pid, signal.SIGKILL)
    caller.communicate()
    while bench.processes_left(began) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert bench.processes_left(began) == []


def test_where_no_level_holds_no_program_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from vivavoce.sandbox import running

    def none(self: object, level: Level) -> None:
        raise OSError(f"no {level}")

    monkeypatch.setattr(running._Jail, "__init__", none)  # pyright: ignore[reportPrivateUsage]
    running.machine_level.cache_clear()
    try:
        with pytest.raises(MissingDependency, match=r"no namespaces.*no filter"):
            Sandbox(1)
    finally:
        running.machine_level.cache_clear()


@pytest.mark.parametrize("level", LEVELS)
def test_which_level_holds_is_said_once(
    level: Level, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from vivavoce.sandbox import running

    monkeypatch.setattr(running, "machine_level", lambda: level)
    running.shared_sandbox.cache_clear()
    try:
        with caplog.at_level("INFO"):
            assert running.shared_sandbox() is running.shared_sandbox()
    finally:
        running.shared_sandbox().close()
        running.shared_sandbox.cache_clear()
    assert len(caplog.records) == 1
    assert ("allows no namespaces" in caplog.text) == (level == "filter")
