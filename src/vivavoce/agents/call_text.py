"""Calls of tools as text: one JSON object of ``name`` and ``arguments`` between ``<tool_call>`` tags, in the form of
the Hermes and Qwen models. Calls are written, stored and trained in this form, whatever form an endpoint uses on the
way.

An argument may hold any text, also tags of calls and marks of thoughts. In calls that are written here their first
character is escaped, as JSON allows, so that no template and no other reader takes them for marks. In calls that models
wrote, a call ends at the end of its JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from vivavoce.agents.replies import CALL, DECODER, LITERALS, json_end, split_thought
from vivavoce.records import ToolCall, all_storable

FORMAT = (
    'Write each call as {"name": …, "arguments": {…}}, JSON between <tool_call> and </tool_call>. '
    "Where no function fits, call none and say why."
)
OPEN, CLOSE = CALL, "</tool_call>"
_CLOSED = re.compile(rf"\s*{CLOSE}")
_MARKS = re.compile("|".join(map(re.escape, (*LITERALS, OPEN, CLOSE, "<tool_response>", "</tool_response>", "<|"))))


class _Written(NamedTuple):
    """One call in a text, tags included."""

    start: int
    end: int
    content: str


def write_call(call: ToolCall) -> str:
    """The call as text."""
    return write_json({"name": call.name, "arguments": call.arguments})


def write_json(call: Any) -> str:
    """The content of a call, as JSON between the tags. Half a surrogate pair in it is replaced, because it is no
    character.
    """
    call = json.dumps(all_storable(call), ensure_ascii=False)
    return f"{OPEN}\n{_MARKS.sub(_escape, call)}\n{CLOSE}"


def read_calls(text: str) -> list[ToolCall]:
    """The calls in a reply, in order, without those in its thought.

    Raises ValueError that says what is wrong if one of them cannot be read.
    """
    return [_read(call) for call in _calls(text)]


def call_spans(text: str) -> list[tuple[int, int]]:
    """The spans of the calls in a reply, tags included: first character, and the one after the last.

    A call that is not closed is left out.
    """
    return [(call.start, call.end) for call in _calls(text) if call.end > 0]


def without_calls(text: str) -> str:
    """The words of a reply, without its calls and its thought."""
    pieces = list[str]()
    for start, end in split_thought(text).spans:
        for call in _within(text, start, end):
            if call.end > 0:
                pieces.append(text[start : call.start])
                start = call.end
        pieces.append(text[start:end])
    return "".join(pieces).strip()


def response(text: str) -> str:
    """A tool's answer, for a reader that gets it as a user's message."""
    return f"<tool_response>\n{text}\n</tool_response>"


def _escape(mark: re.Match[str]) -> str:
    return f"\\u{ord(mark[0][0]):04x}{mark[0][1:]}"


def _calls(text: str) -> Iterator[_Written]:
    """The texts between the tags of a reply."""
    for start, end in split_thought(text).spans:
        yield from _within(text, start, end)


def _within(text: str, at: int, end: int) -> Iterator[_Written]:
    """The calls of a piece of the text. One that is not closed ends at -1."""
    while (start := text.find(OPEN, at, end)) >= 0:
        begin = start + len(OPEN)
        stop = json_end(text, begin)
        closed = _CLOSED.match(text, stop, end) if stop else None
        if closed is None:  # no JSON, or more than that: up to the next tag, for the reader to complain of
            closing = text.find(CLOSE, begin, end)
            if closing < 0:
                yield _Written(start, -1, text[begin:end])
                return
            stop, at = closing, closing + len(CLOSE)
        else:
            at = closed.end()
        yield _Written(start, at, text[begin:stop])


def _read(call: _Written) -> ToolCall:
    if call.end < 0:
        raise ValueError("a <tool_call> is not closed")
    try:
        content: Any = DECODER.decode(call.content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a call is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError("a call is an object with a name and an object of arguments")
    arguments = content.get("arguments", content.get("parameters"))  # as Llama calls them
    if arguments is None and content.keys() <= {"name", "arguments"}:
        arguments = {}
    if isinstance(arguments, str):  # JSON in JSON, as some models and servers write it
        arguments = in_json(arguments)
    if not isinstance(arguments, dict):
        raise ValueError("a call is an object with a name and an object of arguments")
    if not isinstance(name := content.get("name"), str):
        raise ValueError(f"the name of a call is a text, not {name!r}")
    content = all_storable({"name": name, "arguments": arguments})
    return ToolCall(content["name"], content["arguments"])


def in_json(text: str) -> Any:
    """The value that a text holds as JSON, also as JSON in a text in JSON; the text itself if it holds none."""
    value: Any = text
    for _ in range(2):
        try:
            value = DECODER.decode(value or "{}") if isinstance(value, str) else value
        except (ValueError, RecursionError):
            break
    return value


__all__ = [
    "CLOSE",
    "FORMAT",
    "OPEN",
    "call_spans",
    "in_json",
    "read_calls",
    "response",
    "without_calls",
    "write_call",
    "write_json",
]
