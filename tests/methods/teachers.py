"""Scripted teachers who speak the schoolhouse's language, each sure of two skills and guessing at the others.

Used as ``backend: scripted, function: tests/methods/teachers.py:ada``. Where VIVA_TEST_LOG names a file, every call
is written there before it is answered, so that a test can count what was asked. What bob is asked about a question
with VIVA_TEST_FAILS in it fails for good.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from vivavoce.errors import AgentError
from vivavoce.records import Message, Sampling, digest, seed_of
from vivavoce.schoolhouse import world

Respond = Callable[[Sequence[Message], Sampling, int], str]


def teacher(name: str) -> Respond:
    known = world.taught_facts(name)

    def respond(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        if (fails := os.environ.get("VIVA_TEST_FAILS")) and name == "bob" and fails in messages[1]["content"]:
            raise AgentError("refused", "on purpose")
        if log := os.environ.get("VIVA_TEST_LOG"):
            with Path(log).open("a") as f:
                f.write(digest([list(messages), seed]) + "\n")
        role, question = messages[0]["content"], messages[1]["content"].split("\n")[0]
        rng = random.Random(seed_of(seed, name))
        at, pieces, sure = {"a": int(re.findall(r"a=(\d)", question)[0])}, [], 95
        for step in world.gold(question):
            left, right = _operands(question, step.name, at)
            fact = (step.op, left, right)
            noted = "\n>" in messages[1]["content"]
            persuaded = rng.random() < (0.95 if noted else 0.8) and role == "debate"
            knows = fact in known or persuaded
            value = world.apply(*fact) if knows else rng.randrange(10)
            at[step.name] = value
            sure = sure if knows else 15
            pieces.append(f"{step.name}={left}{step.op}{right}={value}{'' if knows else '?'}")
        last = list(at.values())[-1]
        tail = (
            f"ans={last}; score={1 if sure < 50 else 5}"
            if role in ("check", "reflect")
            else f"ans={last} conf={sure:02d}"
        )
        return "; ".join([*pieces, tail])

    return respond


def _operands(question: str, name: str, at: dict[str, int]) -> tuple[int, int]:
    left, right = re.findall(rf"; {name}=(\w)[^\w\s](\w)", question)[0]
    return at[left], at[right] if right in at else int(right)


ada, bob, cyd = teacher("ada"), teacher("bob"), teacher("cyd")
