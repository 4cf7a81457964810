"""The engine against a server on loopback: its rate as a share of what the server allows, and its own costs.

Debates run as in a run, with the journal. The server's latency and slots are known, so the ideal is too::

    ideal seconds = calls * latency / slots

Client and server have a core each, if the machine has two. Every measurement is a process of its own, so that memory
and imports of one do not count for the next. The bare loop over the openai package is measured beside ours if that is
installed, and distilabel if the Python of an environment with it is named. Engines take turns at each kind of work, so
that a busy machine slows all of them. Of repeated measurements the median counts.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vivavoce.agents import open_agent
from vivavoce.agents.journal import Journal
from vivavoce.bench.loopback import NO_FAULTS, Faults, loopback, pin, stats
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.table import Member, Setting, hold_all
from vivavoce.progress import say
from vivavoce.protocols import debate_reflect
from vivavoce.records import Problem, Sampling
from vivavoce.tasks import open_task


@dataclass(frozen=True)
class Work:
    """The work, and the server that it is for."""

    latency_s: float
    slots: int
    questions: int
    teachers: int = 4
    rounds: int = 3
    notes: bool = True
    """Reflections and critiques between the rounds; without them, each round waits for the one before alone."""
    faults: Faults = NO_FAULTS
    in_flight: int | None = None
    """Requests that the client may have in flight; None: as many as the server has slots."""

    def ideal_s(self, calls: int) -> float:
        """Seconds that so many answers take at least."""
        pace = 60 / self.faults.per_minute if self.faults.per_minute else 0.0
        return calls * max(self.latency_s / self.slots, pace)


DEBATE = Work(0.2, 64, 232)
TWO_STEPS = Work(0.2, 64, 1000, teachers=1, rounds=2, notes=False)
NO_LATENCY = Work(0.0, 64, 232)
MANY = Work(2.0, 1000, 400)
CLEAN = Work(0.05, 64, 232)
FAULTY = {
    "clean": CLEAN,
    "fails": replace(CLEAN, faults=Faults(fails=0.1)),
    "resets": replace(CLEAN, faults=Faults(resets=0.1)),
    "refuses_2": replace(CLEAN, faults=Faults(refuses=0.02)),
    "refuses_10": replace(CLEAN, faults=Faults(refuses=0.1)),
    "slots": replace(CLEAN, faults=Faults(turns_away=True), in_flight=256),
    "per_minute": replace(CLEAN, questions=16, faults=Faults(per_minute=600)),
}
"""An endpoint of 50 ms: without faults, with those that are no fault of the load, and with two true limits."""


@dataclass(frozen=True)
class Measurement:
    """One measurement."""

    calls: int
    seconds: float
    """Seconds from the first request's arrival to the last answer, as the server saw it."""
    ideal_s: float
    retries: int
    cpu_ms: float
    """Processor time of the client for each call, in milliseconds."""
    peak_mib: float

    @property
    def ratio(self) -> float:
        """Share of the ideal rate."""
        return self.ideal_s / self.seconds

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds


WORKS = {"debate": DEBATE, "two_steps": TWO_STEPS, "no_latency": NO_LATENCY, "in_flight_1000": MANY}
_STEPS = {"debate": 1, "two_steps": 2, "no_latency": 1}  # what the peers are measured on, and calls in a row of each


def run(distilabel: Path | None = None, repeats: int = 3, questions: int = 2000) -> dict[str, Any]:
    """All measurements, about two minutes with the defaults; memory with so many questions, 0 to leave it out."""
    peers = {"openai": Path(sys.executable)} if importlib.util.find_spec("openai") else {}
    peers |= {"distilabel": distilabel} if distilabel else {}
    figures: dict[str, Any] = {"peers": {name: {} for name in peers}}
    for key, work in WORKS.items():
        ours, theirs = list[Measurement](), {name: list[Measurement]() for name in peers if key in _STEPS}
        for repeat in range(repeats):
            say(f"{WORK_TITLES[key]}: {repeat + 1} of {repeats}, vivavoce")
            ours.append(_ours(work))
            for name, measured in theirs.items():
                say(f"{WORK_TITLES[key]}: {repeat + 1} of {repeats}, {name}")
                measured.append(_peer(name, peers[name], work, ours[0].calls, _STEPS[key]))
        figures[key] = _median_of(ours)
        for name, measured in theirs.items():
            figures["peers"][name][key] = _median_of(measured)
    if questions:
        say(f"memory, {questions:,} questions")
        figures["memory"] = _client_figures([sys.executable, "-m", "vivavoce.bench.debate", str(questions)])
    return figures


def run_faulty(repeats: int = 3) -> dict[str, Any]:
    """Debates at an endpoint that turns some away, fails, or has limits; about two minutes with the defaults."""
    by_fault: dict[str, list[Measurement]] = {key: [] for key in FAULTY}
    for repeat in range(repeats):
        for key, work in FAULTY.items():
            if work.faults.per_minute is None or not repeat:  # its pace is the server's, and it takes half a minute
                say(f"{FAULT_TITLES[key]}: {repeat + 1} of {repeats if work.faults.per_minute is None else 1}")
                by_fault[key].append(_ours(work))
    return {key: _median_of(measured) for key, measured in by_fault.items()}


def faulty_rows(measured: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of the table: what the endpoint does, and the effect on the run."""
    clean = measured["clean"]["rate"]
    return [
        (
            FAULT_TITLES[key],
            f"{f['calls']:,}",
            f"{f['seconds']:.2f}",
            f"{f['rate']:,.0f}",
            f"{100 * f['rate'] / clean:.0f} %" if key != "per_minute" else "–",
            f"{100 * f['ratio']:.1f} %",
            f"{f['retries']}",
        )
        for key, f in measured.items()
    ]


WORK_TITLES = {
    "debate": "debates, 200 ms, 64 slots",
    "two_steps": "two steps, 1,000 questions",
    "no_latency": "no latency, one core",
    "in_flight_1000": "1,000 in flight, 2 s",
}
FAULT_TITLES = {
    "clean": "50 ms, 64 slots, no faults",
    "fails": "10 % end with status 500",
    "resets": "10 % of connections break",
    "refuses_2": "2 % are turned away (429, 0.5 s)",
    "refuses_10": "10 % are turned away",
    "slots": "all beyond 64 are turned away, 256 allowed",
    "per_minute": "all beyond 600 a minute are turned away",
}


def engine_rows(measured: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows for people: what was measured, whose, and the figures."""
    rows = []
    for library, figures in {"vivavoce": measured, **measured["peers"]}.items():
        for key, title in WORK_TITLES.items():
            if (f := figures.get(key)) is not None:
                share = f"{100 * f['ratio']:.1f} %" if f["ideal_s"] else "–"
                cells = (f"{f['calls']:,}", f"{f['seconds']:.2f}", share, f"{f['rate']:,.0f}", f"{f['retries']}")
                rows.append((title, library, *cells, f"{f['cpu_ms']:.2f}", f"{f['peak_mib']:.0f}"))
    return rows


def _median_of(measured: Sequence[Measurement]) -> dict[str, Any]:
    """The median measurement by time, and the time of each."""
    by_time = sorted(measured, key=lambda f: f.seconds)[(len(measured) - 1) // 2]
    return {
        **asdict(by_time),
        "ratio": by_time.ratio,
        "rate": by_time.rate,
        "all_seconds": [f.seconds for f in measured],
    }


def _cores() -> tuple[int | None, int | None]:
    """A core for the client and one for the server; None for both if there is only one."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (cores[0], cores[-1]) if len(cores) > 1 else (None, None)


def _ours(work: Work) -> Measurement:
    core, servers = _cores()
    with loopback(work.latency_s, work.slots, servers, work.faults) as address:
        settings = json.dumps({"work": asdict(work), "address": address, "core": core})
        spent = _client_figures([sys.executable, "-m", "vivavoce.bench.engine", settings])
        return _measurement_of(work, address, spent)


def _peer(name: str, python: Path, work: Work, calls: int, steps: int) -> Measurement:
    """The same number of calls by another library, with as many in flight as the server has slots."""
    core, servers = _cores()
    script = Path(__file__).with_name(f"peer_{name}.py")
    with loopback(work.latency_s, work.slots, servers) as address:
        settings = {"address": address, "calls": calls, "in_flight": work.slots, "steps": steps, "core": core}
        return _measurement_of(work, address, _client_figures([str(python), str(script), json.dumps(settings)]))


def _client_figures(command: Sequence[str]) -> dict[str, Any]:
    """The figures that a client prints about itself."""
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}  # of libraries that a peer brings
    done = subprocess.run(command, stdout=subprocess.PIPE, env=quiet, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measurement_of(work: Work, address: str, spent: dict[str, Any]) -> Measurement:
    calls, served = spent["calls"], stats(address)
    return Measurement(
        calls,
        served["span_s"],
        work.ideal_s(calls),
        served["served"] + served["refused"] + served["failed"] - calls,
        1000 * spent["cpu_s"] / calls,
        spent["peak_mib"],
    )


async def _debates(work: Work, address: str, journal: Journal) -> None:
    options = {"model": "m", "base_url": address, "api_key_env": None, "max_concurrency": work.in_flight or work.slots}
    protocol = debate_reflect.Options(
        max_rounds=work.rounds,
        stop="cap_only",
        reflect=work.notes,
        feedback_from="all_right" if work.notes else "none",
    )
    problems = [Problem(f"q{i}", f"What is 2 + 2, in world {i}?", "4") for i in range(work.questions)]
    async with AsyncExitStack() as stack:
        agents = [open_agent(f"t{i}", "openai_chat", options) for i in range(work.teachers)]
        for agent in agents:
            stack.push_async_callback(agent.aclose)
        members = tuple(Member(agent, "teacher", Sampling()) for agent in agents)
        task = open_task("gsm8k", {})
        setting = Setting(debate_reflect.run, members, protocol, prompt_set("general"), task, journal)
        await hold_all(problems, setting, in_flight=work.questions)


def _client(work: Work, address: str, core: int | None) -> dict[str, Any]:
    import aiohttp  # noqa: F401  before the clock starts

    pin(core)
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.sqlite") as journal:
        begun = time.process_time()
        asyncio.run(_debates(work, address, journal))
        cpu_s = time.process_time() - begun
        calls = sum(cost.calls - cost.failures for cost in journal.costs())
    return {"calls": calls, "cpu_s": cpu_s, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    workload = Work(**{**job["work"], "faults": Faults(**job["work"]["faults"])})
    print(json.dumps(_client(workload, job["address"], job["core"])))  # noqa: T201
