"""Scripts for agents that debate small sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vivavoce.errors import AgentError
from vivavoce.records import Message, Problem, Sampling

SUM = Problem("sum", "What is 2 + 2?", "4")
Script = Callable[[Sequence[Message], Sampling, int], str]


def always(answer: object) -> Script:
    """An agent that gives one answer in every round, and says something in every note."""

    def script(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        asked = " ".join(messages[-1]["content"].split())
        return "Mind the carry." if "do not write a new answer" in asked else f"I add.\nFinal answer: {answer}"

    return script


def broken(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    raise AgentError("server", "down for good")
