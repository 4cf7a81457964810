"""Rows to train on, read from a file: in the form in which a run keeps them, or in the forms that TRL reads.

A row of TRL is read for what it says. A plain text for a prompt is one message of the user; of ``messages`` the last
one is learnt, and the others are its prompt; a pair of preferences is a tree of one right and one wrong answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from vivavoce.complaints import in_words
from vivavoce.errors import DataError
from vivavoce.files import json_lines, json_object
from vivavoce.records import Completion, Example, Interaction, Message, State, Tree, digest, from_json
from vivavoce.tasks.characters import blank

R = TypeVar("R", Example, Tree, State, Interaction)
_Values = Mapping[str, Any]

_FORMS: dict[type, str] = {
    Example: '{"prompt": …, "completion": …} or {"messages": […]} as for SFTTrainer of TRL, or rows of data/ in a run',
    Tree: '{"prompt": …, "chosen": …, "rejected": …} as for DPOTrainer of TRL, or trees of data/ in a run',
    State: '{"problem", "prompt", "views": [{"messages", "weight"}, …]}, as debate_opd and opad keep them in data/',
    Interaction: '{"problem", "prompt", "stands", "edges"}, as debate_reflect keeps them in data/ for arm magdi',
}
_COMMANDS: list[tuple[set[str], type, str]] = [
    ({"views"}, State, "viva train on-policy"),
    ({"stands"}, Interaction, "viva train magdi"),
    ({"chosen", "rejected"}, Tree, "viva train tree-dpo"),
    ({"completion"}, Example, "viva train sft"),
    ({"messages"}, Example, "viva train sft"),
]
"""The fields by which rows are known, and who learns from them."""


def training_rows(path: Path, kind: type[R]) -> list[R]:
    """The rows of a file as records of ``kind``.

    Raises DataError, with file and row and what is expected, for a row that is none, a weight that is no number from 0
    up, and a file in which nothing has any weight.
    """
    rows = list[R]()
    for number, line in json_lines(path):
        where = f"{path}, row {number}"
        try:
            row = from_json(kind, line)
        except ValidationError as error:
            row = _read(kind, json_object(line, where), where, error)
        check_weights(row, where)
        _check_roles(row.prompt, where)
        rows.append(row)
    if not rows:
        raise DataError("the file holds no rows", str(path), f"write one row a line: {_FORMS[kind]}")
    if not any(row.weight for row in rows):
        raise DataError("every row has weight 0: nothing would be learnt", str(path), "leave `weight` out, for 1")
    return rows


def several_answers(rows: Sequence[Example | Tree | State | Interaction]) -> int:
    """The number of rows that have answers of the assistant in their prompt too, which are read and not learned."""
    return sum(any(m["role"] == "assistant" for m in row.prompt) for row in rows)


def _read(kind: type[R], values: _Values, where: str, error: ValidationError) -> R:
    """A row in another form than ours; ``error`` is why it is not in ours."""
    ours = isinstance(values.get("completion"), str) and "problem" in values and "source" in values
    if kind is Example and not ours and ("messages" in values or values.keys() >= {"prompt", "completion"}):
        return _example(values, where)  # type: ignore[return-value]
    if kind is Tree and values.keys() >= {"chosen", "rejected"} and not _is_ours(values["chosen"]):
        return _tree(values, where)  # type: ignore[return-value]
    named = next(((of, command) for fields, of, command in _COMMANDS if fields <= values.keys()), None)
    if named is None or named[0] is not kind:
        has = ", ".join(map(repr, values)) or "nothing"
        other = f"; `{named[1]}` learns from such rows" if named else ""
        raise DataError(f"the row has {has}{other}", where, f"write {_FORMS[kind]}")
    first = error.errors(include_url=False)[0]
    raise DataError(f"`{'.'.join(map(str, first['loc']))}`: {in_words(first)}", where, f"write {_FORMS[kind]}")


def _is_ours(side: Any) -> bool:
    return isinstance(side, list) and any(isinstance(one, dict) and "text" in one for one in side)


# --- what TRL reads


def _example(values: _Values, where: str) -> Example:
    if "messages" in values:
        *before, last = _messages(values["messages"], where, "messages")
        if last["role"] != "assistant":
            raise DataError(
                f"`messages` ends with a message of {last['role']!r}", where, "let it end with the assistant's"
            )
        prompt, completion = tuple(before), last["content"]
    else:
        prompt, completion = _prompt(values["prompt"], where), _answer(values["completion"], where, "completion")
    _need(prompt, completion, where)
    stream = values.get("stream", "answer")
    if not isinstance(stream, str):
        raise DataError(f"`stream` is {stream!r}", where, "write answer or feedback, or leave it out")
    return Example(_problem(values, prompt), prompt, completion, _source(values), stream, _weight(values, where))


def _tree(values: _Values, where: str) -> Tree:
    sides: list[Any] = [values["chosen"], values["rejected"]]
    if "prompt" in values:
        prompt = _prompt(values["prompt"], where)
        sides = [_behind(prompt, side) for side in sides]
        chosen, rejected = (_answer(side, where, name) for side, name in zip(sides, _SIDES, strict=True))
    elif all(isinstance(side, list) for side in sides):  # both hold the whole conversation
        talks = [_messages(side, where, name) for side, name in zip(sides, _SIDES, strict=True)]
        prompt, chosen, rejected = _split_start(talks[0], talks[1], where)
    else:
        raise DataError("there is no `prompt`", where, "give the question in `prompt`, and the two answers alone")
    for text in (chosen, rejected):
        _need(prompt, text, where)
    if chosen == rejected:
        raise DataError("`chosen` and `rejected` are the same text", where, "remove the row")
    source, problem = (*_source(values), "", "")[:2], _problem(values, prompt)
    right, wrong = Completion(chosen, source[0]), Completion(rejected, source[1])
    name = digest([problem, [m["content"] for m in prompt], chosen, rejected])[:16]
    return Tree(name, problem, prompt, (right,), (wrong,), weight=_weight(values, where))


_SIDES = ("chosen", "rejected")


def _behind(prompt: Sequence[Message], side: Any) -> Any:
    """A side without the prompt, which some data sets repeat in it."""
    begins = isinstance(side, list) and len(side) == len(prompt) + 1
    return side[-1:] if begins and all(map(_says, side[:-1], prompt)) else side


def _says(value: Any, message: Message) -> bool:
    return isinstance(value, dict) and all(value.get(key) == message[key] for key in ("role", "content"))


def _split_start(a: list[Message], b: list[Message], where: str) -> tuple[tuple[Message, ...], str, str]:
    """The messages that two conversations begin with, and the answers in which they part."""
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return tuple(a[:same]), _answer(a[same:], where, "chosen"), _answer(b[same:], where, "rejected")


def _prompt(value: Any, where: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        return ({"role": "user", "content": value},)
    return tuple(_messages(value, where, "prompt"))


def _answer(value: Any, where: str, name: str) -> str:
    """The text that the student should write, given as a text or as a list of one message."""
    if isinstance(value, str):
        return value
    messages = _messages(value, where, name)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        roles = ", ".join(m["role"] for m in messages)
        raise DataError(f"`{name}` holds messages of {roles}", where, "one message of the assistant is learnt")
    return messages[0]["content"]


def _messages(value: Any, where: str, name: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise DataError(f"`{name}` is not a list of messages", where, 'write [{"role": "user", "content": "…"}, …]')
    return [_message(one, where, f"{name}.{i}") for i, one in enumerate(value)]


def _message(value: Any, where: str, name: str) -> Message:
    do = 'write {"role": "user", "content": "…"}, the content a text'
    if not isinstance(value, dict):
        raise DataError(f"`{name}` is a {type(value).__name__}, not a message", where, do)
    parts = value.get("content")
    if isinstance(parts, list) and parts and all(map(_is_text_part, parts)):
        value = {**value, "content": "".join(part["text"] for part in parts)}
    for key in ("role", "content"):
        if not isinstance(value.get(key), str):
            raise DataError(f"`{name}.{key}` is {value.get(key)!r}, not a text", where, do)
    if other := [
        key for key, content in value.items() if key not in ("role", "content") and content not in (None, [], "")
    ]:
        raise DataError(
            f"`{name}` has `{other[0]}`, which no trainer would learn or read", where, "write it into the content"
        )
    return {"role": value["role"], "content": value["content"]}


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


_OTHER_NAMES = {
    **dict.fromkeys(("human", "prompter", "instruction", "question"), "user"),
    **dict.fromkeys(("gpt", "bot", "ai", "chatgpt", "model", "answer"), "assistant"),
}


def _check_roles(prompt: Sequence[Message], where: str) -> None:
    """Raise DataError for a role that chat templates know by another name."""
    for message in prompt:
        role = message["role"]
        meant = _OTHER_NAMES.get(role.lower(), role.lower())
        if meant != role and meant in ("system", "user", "assistant", "tool"):
            raise DataError(f"a message has the role {role!r}", where, f"write {meant!r}, as chat templates know it")


def _need(prompt: Sequence[Message], text: str, where: str) -> None:
    if not any(m["content"].strip() for m in prompt):
        raise DataError("the prompt is empty", where, "give the question before the answer")
    if blank(text):
        raise DataError("the answer is empty", where, "remove the row, or give it a text")


def _problem(values: _Values, prompt: Sequence[Message]) -> str:
    """The row's own id of its question, or one that equal prompts share."""
    id = next((values[key] for key in ("problem", "id") if isinstance(values.get(key), str | int)), "")
    return str(id) or digest([[m["role"], m["content"]] for m in prompt])[:12]


def _source(values: _Values) -> tuple[str, ...]:
    source = values.get("source")
    return tuple(map(str, source)) if isinstance(source, list) else ()


def _weight(values: _Values, where: str) -> float:
    weight = values.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise DataError(f"`weight` is {weight!r}, not a number", where, "write a number from 0 up, or leave it out")
    return float(weight)


def check_weights(row: Example | Tree | State | Interaction, where: str) -> None:
    """Raise DataError if the weight of a row, or of one of its views, is negative, infinite or not a number."""
    weights = [("weight", row.weight)]
    if isinstance(row, State):
        weights += [(f"views.{i}.weight", view.weight) for i, view in enumerate(row.views)]
    for name, weight in weights:
        if not math.isfinite(weight) or weight < 0:
            raise DataError(f"`{name}` is {weight}", where, "write a number from 0 up, or leave it out")


__all__ = ["check_weights", "several_answers", "training_rows"]
