"""A conversation of BFCL: the user's messages turn by turn, and the calls that are expected of the agent."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from vivavoce.environments.bfcl.documents import read_documents, read_lines
from vivavoce.environments.bfcl.padding import pad_config, padding_of
from vivavoce.environments.bfcl.service import Service
from vivavoce.environments.bfcl.services import SERVICES
from vivavoce.errors import DataError
from vivavoce.records import Tool, ToolCall

CATEGORIES = ("base", "miss_func", "miss_param", "long_context")


@dataclass(frozen=True, slots=True)
class UserTurn:
    """One message of the user's, and the calls by which it is judged."""

    text: str
    """Empty if there is nothing but new functions."""
    expected: tuple[ToolCall, ...]
    """The expected calls; None if the agent lacks a function or something that only the user knows, and should say
    so.
    """
    given: tuple[str, ...]
    """Functions that can be called from this turn on."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row."""

    id: str
    turns: tuple[UserTurn, ...]
    services: tuple[type[Service], ...]
    config: Mapping[str, Any]
    """The starting state of each service, by the service's name."""
    tools: Mapping[str, Tool]
    """Every tool that is on offer in some turn."""
    beyond: tuple[str, ...] = ()
    """Functions that the official calls name although they are not on offer; those calls are not expected."""

    def fresh_services(self) -> list[Service]:
        """The services as they are at first."""
        return [service(deepcopy(self.config.get(service.NAME) or {})) for service in self.services]

    def functions_in(self, turn: int) -> tuple[Tool, ...]:
        """The functions that can be called in a turn."""
        later = {name for one in self.turns[turn + 1 :] for name in one.given}
        return tuple(tool for name, tool in self.tools.items() if name not in later)


def read_conversations(folder: Path, category: str) -> dict[str, Conversation]:
    """The rows of a category by id: its file, the one of the same name in ``possible_answer/``, and the documents.

    Raises DataError if one of them cannot be read.
    """
    path = folder / f"BFCL_v4_multi_turn_{category}.json"
    answers = folder / "possible_answer" / path.name
    try:
        rows = _ROWS.validate_python(list(read_lines(path)))
        calls = {row.id: row.ground_truth for row in _ANSWERS.validate_python(list(read_lines(answers)))}
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{place}: {first['msg']}", str(path), "give the official files") from None
    involved = {name for row in rows for name in row.involved_classes} & SERVICES.keys()
    documents = {name: read_documents(folder, SERVICES[name].DOCUMENT) for name in involved}
    conversations = {row.id: row.conversation(path, calls.get(row.id), documents) for row in rows}
    return _with_padding(conversations) if category == "long_context" else conversations


def _with_padding(rows: dict[str, Conversation]) -> dict[str, Conversation]:
    expected = {id: [call for turn in row.turns for call in turn.expected] for id, row in rows.items()}
    padding = padding_of({id: row.config for id, row in rows.items()}, expected)
    return {id: replace(row, config=pad_config(row.config, padding[id])) for id, row in rows.items()}


class _Message(BaseModel):
    content: str


class _Row(BaseModel):
    id: str
    question: list[list[_Message]]
    initial_config: dict[str, Any]
    involved_classes: list[str]
    excluded_function: list[str] = []
    missed_function: dict[int, list[str]] = {}

    def conversation(
        self, path: Path, calls: list[list[str]] | None, documents: Mapping[str, Mapping[str, Tool]]
    ) -> Conversation:
        where = f"{path}, {self.id}"
        if calls is None or len(calls) != len(self.question):
            raise DataError("possible_answer/ has no answer to each of its turns", where, "give both official files")
        if unknown := [name for name in self.involved_classes if name not in SERVICES]:
            raise DataError(f"there is no class {unknown[0]!r}", where, f"there are {', '.join(SERVICES)}")
        tools = {name: tool for of in self.involved_classes for name, tool in documents[of].items()}
        offered = {name: tool for name, tool in tools.items() if name not in self.excluded_function}
        turns, beyond = list[UserTurn](), list[str]()
        for n, (messages, official) in enumerate(zip(self.question, calls, strict=True)):
            later = {name for turn, functions in self.missed_function.items() if turn > n for name in functions}
            expected = [_read_call(call, tools, where) for call in official]
            away = [call for call in expected if call.name in later or call.name not in offered]
            turns.append(
                UserTurn(
                    "\n\n".join(message.content for message in messages),
                    tuple(call for call in expected if call not in away),
                    tuple(self.missed_function.get(n, ())),
                )
            )
            beyond += [f"{call.name} in turn {n + 1}" for call in away]
        services = tuple(SERVICES[name] for name in self.involved_classes)
        return Conversation(self.id, tuple(turns), services, self.initial_config, offered, tuple(beyond))


class _Answer(BaseModel):
    id: str
    ground_truth: list[list[str]]


_ROWS, _ANSWERS = TypeAdapter(list[_Row]), TypeAdapter(list[_Answer])


def _read_call(text: str, tools: Mapping[str, Tool], where: str) -> ToolCall:
    """A call as Python writes it. Arguments without a name are the document's, in its order."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError(text)
        tool = tools.get(call.func.id)
        names = list(tool.parameters["properties"]) if tool else ()
        arguments = {name: ast.literal_eval(value) for name, value in zip(names, call.args, strict=False)}
        arguments |= {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg is not None}
    except (SyntaxError, ValueError):
        raise DataError(f"no call of a function: {text[:80]}", where, "give the official files") from None
    return ToolCall(call.func.id, arguments)


__all__ = ["CATEGORIES", "Conversation", "UserTurn", "read_conversations"]
