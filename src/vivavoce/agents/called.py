"""Calls of tools in the form of the OpenAI chat protocol, and as text: the form that all other code here has.

::

    assistant: "<tool_call>{…}</tool_call>"  ⇄  assistant: tool_calls: [{id, function: {name, arguments}}]
    tool: "42"                               ⇄  tool: "42", tool_call_id
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vivavoce.agents.call_text import CLOSE, OPEN, in_json, read_calls, response, without_calls, write_json
from vivavoce.records import Message, ToolCall


def with_calls(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages with the calls in the protocol's form, each with an id by which its answer refers to it.

    Calls that cannot be read, or do not have one answer each, stay as text, and their answers are a user's.
    """
    return list(_convert(messages))


def call_as_text(call: Mapping[str, Any]) -> str:
    """One of an answer's ``tool_calls`` as text. Arguments that are no JSON are kept, so that the reader of the call
    can complain.
    """
    name, arguments = call["function"]["name"], call["function"].get("arguments") or "{}"
    value = in_json(arguments) if isinstance(arguments, str) else arguments
    if isinstance(value, str):
        return f'{OPEN}\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}\n{CLOSE}'
    return write_json({"name": name, "arguments": value})


def _convert(messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    at, named = 0, 0
    while at < len(messages):
        message, after = messages[at], messages[at + 1 :]
        calls = _calls(message["content"]) if message["role"] == "assistant" else []
        answers = [m for m in after[: len(calls)] if m["role"] == "tool"]
        at += 1
        if calls and len(answers) == len(calls) and (len(after) == len(calls) or after[len(calls)]["role"] != "tool"):
            # nine letters and digits, as Mistral wants them
            ids = [f"call{named + n:05}" for n in range(len(calls))]
            named, at = named + len(calls), at + len(calls)
            tool_calls = [_tool_call(id, call) for id, call in zip(ids, calls, strict=True)]
            yield {"role": "assistant", "content": without_calls(message["content"]) or None, "tool_calls": tool_calls}
            for id, answer in zip(ids, answers, strict=True):
                yield {"role": "tool", "tool_call_id": id, "content": answer["content"]}
        elif message["role"] == "tool":
            yield {"role": "user", "content": response(message["content"])}
        else:
            yield dict(message)


def _calls(text: str) -> list[ToolCall]:
    try:
        return read_calls(text)
    except (ValueError, RecursionError):
        return []


def _tool_call(id: str, call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


__all__ = ["call_as_text", "with_calls"]
