"""Complaints of pydantic and PyYAML in words for users of recipes: what is wrong with a value, or with YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

_WANTED = {
    "list": "must be a list",
    "tuple": "must be a list",
    "set": "must be a list",
    "frozen_set": "must be a list",
    "dict": "must be keys and values",
    "mapping": "must be keys and values",
    "model": "must be keys and values",
    "model_attributes": "must be keys and values",
    "dataclass": "must be keys and values",
    "string": "must be text",
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "path": "must be a path",
}
"""What pydantic's ``…_type`` and ``…_parsing`` errors ask for."""
_PATTERNS = {
    r"^[\w.-]*[\w-][\w.-]*$": "must be a name for a folder: letters, digits, `.`, `_` and `-`",
    r"^(\w[\w-]*)?$": "must be letters, digits, `_` and `-`, a `-` not first",
    r"^(https?|wss?)://": "must begin with http://, https://, ws:// or wss://",
}
_BOUNDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda c: f"must be greater than {_figure(c['gt'])}",
    "greater_than_equal": lambda c: f"must be {_figure(c['ge'])} or more",
    "less_than": lambda c: f"must be less than {_figure(c['lt'])}",
    "less_than_equal": lambda c: f"must be {_figure(c['le'])} or less",
    "finite_number": lambda _: "must be a finite number",
    "int_from_float": lambda _: "must be a whole number",
    "literal_error": lambda c: f"must be {c['expected']}",
    "string_pattern_mismatch": lambda c: _PATTERNS.get(c["pattern"], f"must match {c['pattern']}"),
    "too_short": lambda c: _at_least(c["min_length"]),
    "too_long": lambda c: f"at most {c['max_length']} entries are allowed",
    "string_too_short": lambda c: _at_least(c["min_length"], "characters"),
    "string_too_long": lambda c: f"at most {c['max_length']} characters are allowed",
}
_KINDS = ((str, "this is text"), (int | float, "this is a number"), (Mapping, "these are keys and values"))


def in_words(problem: Mapping[str, Any], keys: Sequence[str] = ()) -> str:
    """One of pydantic's errors, in words.

    ``keys`` are those that keys and values must have, if such are wanted. Text that was given is left out, because it
    may be an API key pasted in error.
    """
    kind, value = problem["type"], problem["input"]
    shown = f" (got {value!r})" if isinstance(value, int | float) or kind == "literal_error" else ""
    if bound := _BOUNDS.get(kind):
        return bound(problem.get("ctx", {})) + shown
    wanted = _WANTED.get(kind.removesuffix("_type").removesuffix("_parsing"))
    if wanted is None:
        return problem["msg"].removeprefix("Value error, ") + shown
    if keys and wanted == _WANTED["dict"]:
        wanted += f", such as {{{', '.join(f'{key}: …' for key in keys)}}}"
    return f"{wanted}, but {_given(value)}{shown}{_remedy(wanted, value)}"


def _at_least(count: int, of: str = "entries") -> str:
    return "must not be empty" if count == 1 else f"must have at least {count} {of}"


def _figure(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def _given(value: Any) -> str:
    if value is None:
        return "it is empty"
    if isinstance(value, bool):
        return "this is true or false"
    for kinds, name in _KINDS:
        if isinstance(value, kinds):
            return name
    return "this is a list" if isinstance(value, Sequence) else "this is something else"


def _remedy(wanted: str, value: Any) -> str:
    """How the value that was given becomes what is wanted, if a sign is all that lacks."""
    plain = isinstance(value, str | int | float)
    if wanted.startswith("must be a list") and plain:
        return ": put it in [ ]"
    return ": put it in quotes" if wanted.startswith(("must be text", "must be a path")) and plain else ""


_YAML = (
    ("'\\t' that cannot start", "there is a tab: indent with spaces"),
    ("while scanning a quoted scalar", "a quotation mark is opened and never closed"),
    ("while scanning a simple key", "`: `, a colon and a space, is missing after a key"),
    (
        "mapping values are not allowed",
        "indent the key like its neighbours, or quote the text, if it has `: ` in it",
    ),
    ("while parsing a flow mapping", "a { is opened and not closed, or a comma is missing"),
    ("while parsing a flow sequence", "a [ is opened and not closed, or a comma is missing"),
    ("that cannot start any token", "quote the text, because of the sign that it begins with"),
    ("undefined alias", "quote the text, because of the sign that it begins with"),
    ("expected '<document start>'", "there are several values, but a recipe is one mapping of keys to values"),
    ("expected <block end>", "it is not indented like its neighbours"),
)
"""Parts of PyYAML's messages, and what they mean."""


def yaml_in_words(error: yaml.MarkedYAMLError) -> tuple[str, int]:
    """The mistake in a text that is not YAML, in words, and its line."""
    message = f"{error.context} {error.problem}"
    for part, meaning in _YAML:
        if part in message:
            begun = error.context_mark if part.startswith("while") else None
            return meaning, _line(begun or error.problem_mark)
    return f"{error.problem}: check indentation and quotes", _line(error.problem_mark)


def _line(mark: yaml.Mark | None) -> int:
    return mark.line + 1 if mark else 1
