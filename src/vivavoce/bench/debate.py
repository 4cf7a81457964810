"""The debate engine's own time: scripted agents answer at once, so what is left is ours.

Counted in: prompts, hashing, journal writes, grading, nodes, graphs. The engine aims at less than 2 ms a call.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.table import Member, Setting, hold_all
from vivavoce.graph import Graph
from vivavoce.progress import bar
from vivavoce.protocols import debate_reflect
from vivavoce.records import Message, Problem, Sampling, seed_of
from vivavoce.tasks import open_task

_REASONING = "First we look at what is given. " * 30


def _answer(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    """Right in about half of the calls, so that reflections and critiques are asked for too."""
    return f"{_REASONING}\nFinal answer: {4 if seed_of(seed) % 2 else 5}"


@dataclass(frozen=True)
class EngineCosts:
    """The engine's own costs."""

    questions: int
    in_flight: int
    calls: int
    nodes: int
    seconds: float
    ms_per_call: float
    processor_ms_per_call: float
    """Without the time in which other processes had the processor, or the disk was waited for."""
    first_tenth_ms: float
    """Milliseconds for each question of the first tenth; the engine should not slow down with what is done."""
    last_tenth_ms: float
    peak_mib: float
    """Resident memory of this process at its highest."""
    journal_mib: float

    def __str__(self) -> str:
        """For people."""
        return (
            f"{self.calls:,} calls of {self.questions:,} questions, {self.ms_per_call:.3f} ms of our own each "
            f"({self.processor_ms_per_call:.3f} ms of the processor; {self.in_flight:,} debates in flight); a question "
            f"took {self.first_tenth_ms:.2f} ms in the first tenth, {self.last_tenth_ms:.2f} ms in the last; "
            f"{self.peak_mib:,.0f} MiB of memory at most, journal {self.journal_mib:,.0f} MiB"
        )


def measure(questions: int = 500, in_flight: int = 500, rounds: int = 3, teachers: int = 4) -> EngineCosts:
    """Debate ``questions`` questions, so many at once, each to its last round."""
    options = debate_reflect.Options(max_rounds=rounds, stop="cap_only")
    members = tuple(Member(Scripted(f"t{i}", _answer), "teacher", Sampling()) for i in range(teachers))
    problems = [Problem(f"q{i}", f"What is 2 + 2, in world {i}?", "4") for i in range(questions)]
    with (
        bar("debates", questions) as advance,
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "journal.sqlite") as journal,
    ):
        task = open_task("gsm8k", {})
        setting = Setting(debate_reflect.run, members, options, prompt_set("general"), task, journal)
        ended = array("d")

        def one_done(_: Graph) -> None:
            ended.append(time.perf_counter() - begun)
            advance()

        begun, busy = time.perf_counter(), time.process_time()
        graphs = asyncio.run(hold_all(problems, setting, in_flight, one_done))
        seconds, busy = time.perf_counter() - begun, time.process_time() - busy
        calls, tenth = len(journal), max(1, questions // 10)
        return EngineCosts(
            questions,
            in_flight,
            calls,
            sum(len(g.nodes) for g in graphs),
            round(seconds, 3),
            1000 * seconds / calls,
            1000 * busy / calls,
            1000 * ended[tenth - 1] / tenth,
            1000 * (ended[-1] - ended[-tenth - 1]) / tenth if questions > 1 else 1000 * seconds,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            journal.path.stat().st_size / 2**20,
        )


if __name__ == "__main__":
    print(json.dumps(asdict(measure(int(sys.argv[1])))))  # noqa: T201
