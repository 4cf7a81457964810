"""Scripted people for open questions: two teachers who advise, a student, and judges of three tempers.

An answer that names water is good advice here, and says so with the word; judges look for it between the marks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vivavoce.errors import AgentError
from vivavoce.records import Message, Sampling, seed_of


def wise(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    return f"Give it water on day {seed % 7}, and then leave it alone."


def rash(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    return f"Paint it in colour {seed % 5}." if seed % 3 else f"Give it water, {seed % 4} cups."


def _answers(text: str) -> list[str]:
    return re.findall(r"<<<answer.*?\n(.*?)\nanswer", text, re.DOTALL)


def strict(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    """Scores water 9, and all else 2."""
    (answer,) = _answers(messages[-1]["content"])
    return f"It {'helps' if 'water' in answer else 'harms'}. [{9 if 'water' in answer else 2}]"


def kind(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    """Finds everything good."""
    return "Lovely. [10]"


def mumbling(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    """Gives a verdict that cannot be read, unless it is asked often enough."""
    return "Hm, four out of five." if seed_of(seed, "mumble") % 3 else strict(messages, sampling, seed)


def mute(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    """Never gives a verdict that can be read."""
    return "I would not say."


def gone(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    raise AgentError("refused", "on purpose")


def fair(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    """Prefers water, wherever it stands."""
    a, b = ("water" in answer for answer in _answers(messages[-1]["content"]))
    return f"One of them helps more. [{'tie' if a == b else 'A' if a else 'B'}]"


def first(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    """Prefers what stands first."""
    return "The first is better. [A]"


def short(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    return f"Final answer: {'water' if seed % 3 else 'paint'}"
