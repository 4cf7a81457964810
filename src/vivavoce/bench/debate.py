"""The debate engine's own time: scripted agents answer at once, so what is left is ours.

Counted in: prompts, hashing, journal writes, grading, nodes, graphs. The engine aims at less than 2 ms a call.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.debate.prompting import prompt_set
from vivavoce.debate.rounds import Committee, debate_all
from vivavoce.debate.rules import DebateRules
from vivavoce.debate.speaking import Member
from vivavoce.records import Message, Problem, Sampling, seed_of
from vivavoce.tasks import open_task

_REASONING = "First we look at what is given. " * 30


def _answer(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    """Right in about half of the calls, so that reflections and critiques are asked for too."""
    return f"{_REASONING}\nFinal answer: {4 if seed_of(seed) % 2 else 5}"


def measure(questions: int = 500, rounds: int = 3, teachers: int = 3) -> dict[str, Any]:
    """Debate ``questions`` questions all at once; milliseconds of our own time for each model call."""
    rules = DebateRules(max_rounds=rounds, stop="cap_only")
    members = [Member(Scripted(f"t{i}", _answer), "teacher", Sampling()) for i in range(teachers)]
    members.append(Member(Scripted("student", _answer), "student", Sampling()))
    problems = [Problem(f"q{i}", f"What is 2 + 2, in world {i}?", "4") for i in range(questions)]
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.sqlite") as journal:
        committee = Committee(tuple(members), rules, prompt_set("general"), open_task("gsm8k", {}), journal)
        begun = time.perf_counter()
        graphs = asyncio.run(debate_all(problems, committee, in_flight=questions))
        seconds = time.perf_counter() - begun
        calls = len(journal)
    return {
        "questions": questions,
        "in_flight": questions,
        "calls": calls,
        "seconds": round(seconds, 3),
        "ms_per_call": 1000 * seconds / calls,
        "nodes": sum(len(g.nodes) for g in graphs),
    }
