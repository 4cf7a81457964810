"""Calls of tools as text: one JSON object of ``name`` and ``arguments`` between ``<tool_call>`` tags, as the models of
Hermes and Qwen write them. It is the form in which calls are said, stored and trained, whatever an endpoint makes of
it on the way.
"""

from __future__ import annotations

import json
import re
from typing import Any

from vivavoce.records import ToolCall

FORMAT = (
    'Write each call as {"name": …, "arguments": {…}}, JSON between <tool_call> and </tool_call>. '
    "Where no function fits, call none and say why."
)
OPEN, CLOSE = "<tool_call>", "</tool_call>"
_CALL = re.compile(rf"{OPEN}(.*?){CLOSE}", re.DOTALL)
_THOUGHT = "</think>"


def write_call(call: ToolCall) -> str:
    """The call as text."""
    said = json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
    return f"{OPEN}\n{said}\n{CLOSE}"


def read_calls(text: str) -> list[ToolCall]:
    """The calls in a text, in order; what was only thought of (before ``</think>``) is none.

    Raises ValueError that says what is wrong where one of them cannot be read.
    """
    said = text.rpartition(_THOUGHT)[2]
    calls = [_read(content) for content in _CALL.findall(said)]
    if said.count(OPEN) > len(calls):
        raise ValueError("a <tool_call> is not closed")
    return calls


def call_spans(text: str) -> list[tuple[int, int]]:
    """Where the calls stand in a text, tags included: first character, and the one after the last."""
    return [match.span() for match in _CALL.finditer(text, text.rfind(_THOUGHT) + 1)]


def without_calls(text: str) -> str:
    """The words around the calls."""
    return _CALL.sub("", text).strip()


def response(text: str) -> str:
    """What a tool answered, for who reads it from a user."""
    return f"<tool_response>\n{text}\n</tool_response>"


def _read(content: str) -> ToolCall:
    try:
        said: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a call is no JSON: {error}") from None
    if not isinstance(said, dict) or not isinstance(arguments := said.get("arguments"), dict):
        raise ValueError("a call is an object with a name and an object of arguments")
    if not isinstance(name := said.get("name"), str):
        raise ValueError(f"the name of a call is a text, not {name!r}")
    return ToolCall(name, arguments)


__all__ = ["CLOSE", "FORMAT", "OPEN", "read_calls", "response", "without_calls", "write_call"]
