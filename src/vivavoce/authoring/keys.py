"""The keys of recipes, read off the models that check them: name, type, limits, default and description of each.

A *section* is a place in a recipe that takes keys: the recipe itself, ``sft``, ``sft.lora``, an entry of ``teachers``,
or the options of a backend, a task or a protocol.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from vivavoce import plugins
from vivavoce.config import Recipe
from vivavoce.errors import RecipeError
from vivavoce.mistakes import models_in

Room = Literal["methods", "protocols", "agents", "tasks"]
ROOMS: tuple[Room, ...] = ("methods", "protocols", "agents", "tasks")
WORDS: dict[Room, str] = {"methods": "method", "protocols": "protocol", "agents": "backend", "tasks": "task"}
_PLAIN = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path", type(None): "null"}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section."""

    name: str
    kind: str
    """The values that it takes, in words, with their limits."""
    default: str | None
    """The default as YAML; None: the key must be given; empty: the key is a section with defaults of its own."""
    description: str
    own: bool
    """Whether the section's own model declares it, not one that it extends."""
    models: tuple[type[BaseModel], ...] = ()
    """The models of the sections below it."""


@dataclass(frozen=True, slots=True)
class Section:
    """One place of a recipe that takes keys."""

    room: Room
    of: str
    """The method, protocol, backend or task whose keys these are; empty if every recipe has the section."""
    path: str
    """The section's place below that, such as ``sft.lora``; empty for its own keys."""
    model: type[BaseModel]
    default: BaseModel | None = None
    """The instance that a recipe without the section has; None: it has none, or one with the model's own defaults."""

    @property
    def title(self) -> str:
        """The section as people call it."""
        if not self.of:
            return self.path or "every recipe"
        plural = "s" if ", " in self.of else ""
        of = f"{WORDS[self.room]}{plural} {self.of}"
        return f"{self.path} of {of}" if self.path else of


def first_line(text: str | None) -> str:
    """The first sentence or line of a docstring."""
    line = " ".join((text or "").strip().split("\n\n")[0].split())
    return re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", line).replace("``", "`")


def description(model: type[BaseModel], name: str) -> str:
    """The meaning of a key: the text of the model's ``Field(description=...)`` or of the docstring below the key, or
    that of the nearest base model.
    """
    for kind in model.__mro__:
        field = getattr(kind, "model_fields", {}).get(name)
        if field is not None and (text := field.description or _docstrings(kind).get(name)):
            return re.sub(r"\bNone\b", "null", " ".join(text.replace("``", "`").split()))  # as YAML writes it
    return ""


@cache
def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings below the keys of a class."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    except (OSError, TypeError):  # made while the program runs, so without a source
        return {}
    assert isinstance(tree, ast.ClassDef), model
    texts = {}
    for key, below in pairwise(tree.body):
        text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name) and isinstance(text, str):
            texts[key.target.id] = text
    return texts


def keys(model: type[BaseModel], default: BaseModel | None = None) -> list[Key]:
    """The keys that a model takes, in its order. ``default`` is an instance that the place has, if it is not the
    model's own."""
    keys_read, declared = [], inspect.get_annotations(model)
    for name, field in model.model_fields.items():
        below = tuple(dict.fromkeys(models_in(field.annotation)))
        value = getattr(default, name) if default is not None else _default(field)
        shown = None if value is PydanticUndefined else _yaml(value)
        own = name in declared
        keys_read.append(Key(name, _kind(field), shown, description(model, name), own, below))
    return keys_read


def below(model: type[BaseModel], default: BaseModel | None = None, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The sections below a model: dotted path, model, and the default that stands there. ``NAME`` in a path is a name
    of the user's choice, ``N`` the place in a list."""
    for name, field in model.model_fields.items():
        value = getattr(default, name) if default is not None else _default(field)
        step = {list: ".N", dict: ".NAME"}.get(_container(field.annotation), "")
        for inner in dict.fromkeys(models_in(field.annotation)):
            at = f"{path}{name}{step}"
            kept = value if type(value) is inner else None
            yield at, inner, kept
            yield from below(inner, kept, f"{at}.")


@cache
def sections() -> tuple[Section, ...]:
    """Every section there is, of all that comes with the package."""
    listed = [Section("methods", "", "", Recipe)]
    listed += [Section("methods", "", path, model, kept) for path, model, kept in below(Recipe)]
    common = set(Recipe.model_fields)
    for room in ROOMS:
        for name in plugins.names(room):
            model = plugins.load(room, name, room).Options
            listed += _sections(room, name, model, common if room == "methods" else set())
    return tuple(listed)


def _sections(room: Room, name: str, model: type[BaseModel], common: set[str]) -> Iterator[Section]:
    yield Section(room, name, "", model)
    for path, inner, kept in below(model):
        if path.partition(".")[0] not in common:
            yield Section(room, name, path, inner, kept)


def find(name: str) -> list[tuple[Section, list[Key]]]:
    """The sections, or single keys, that ``name`` stands for: a section (``sft.lora``), a method, protocol, backend or
    task, a ``.py`` file of the user's with ``Options``, or a key wherever it stands (``beta``, ``dpo.beta``).

    Raises RecipeError, with what is near, if there is none.
    """
    if name.endswith(".py"):
        module = plugins.load_file(name, "viva keys")
        options = getattr(module, "Options", None)
        if not (isinstance(options, type) and issubclass(options, BaseModel)):
            raise RecipeError("the file defines no pydantic model `Options`", name, "write `class Options(BaseModel)`")
        rooms: list[Room] = [r for r in ROOMS if hasattr(module, plugins.MAKER[r])]
        return [(s, _keys_of(s)) for s in _sections(rooms[0] if rooms else "methods", name, options, set())]
    wanted = ".".join(step for step in re.split(r"[.\[\]]+", name) if step and not step.isdecimal())
    every = sections()
    whole = [s for s in every if wanted in (s.of, _bare(s.path)) and (s.path == "" or _bare(s.path) == wanted)]
    if whole:
        return [(s, _keys_of(s)) for s in _once(whole)]
    path, _, last = wanted.rpartition(".")
    hits = []
    for s in _once([s for s in every if not path or path in (_bare(s.path), s.of)]):
        if hit := [key for key in _keys_of(s) if key.name == last]:
            hits.append((s, hit))
    if not hits:
        known = [*(_bare(s.path) or s.of for s in every), *(k.name for s in every for k in keys(s.model))]
        near = plugins.near(wanted, list(dict.fromkeys(filter(None, known))))
        hint = near if near.startswith(", did you mean") else ""
        raise RecipeError(f"no section or key is called `{name}`{hint}", "viva keys", "`viva keys` lists the sections")
    return hits


def _keys_of(section: Section) -> list[Key]:
    """The keys of a section; of a method, those that not every recipe has."""
    own_keys = keys(section.model, section.default)
    if section.room == "methods" and section.of and not section.path:
        return [key for key in own_keys if key.name not in Recipe.model_fields]
    return own_keys


def _bare(path: str) -> str:
    """A path without the places that stand for names and numbers of the user's."""
    return ".".join(step for step in path.split(".") if step not in ("N", "NAME"))


def _once(sections_read: Sequence[Section]) -> list[Section]:
    """Sections, those that look the same told as one of several methods: one model, one default, one path."""
    kept: dict[Any, list[Section]] = {}
    for s in sections_read:
        look = (s.room, s.model, s.path, s.default.model_dump_json() if s.default else "")
        kept.setdefault(look, []).append(s)
    return [replace(of[0], of=", ".join(s.of for s in of)) for of in kept.values()]


# --- values in words


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _container(annotation: Any) -> type | None:
    """The list or mapping in which a field holds its models."""
    origin = typing.get_origin(annotation)
    if origin in (list, tuple):
        return list
    if origin is dict:
        return dict
    inner = [kind for arg in typing.get_args(annotation) if (kind := _container(arg))]
    return inner[0] if inner else None


def _yaml(value: Any) -> str:
    """A default as YAML writes it on one line; empty for a section."""
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, tuple | list | dict) and not value:
        return "{}" if isinstance(value, dict) else "[]"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, float) and (value >= 1e6 or 0 < abs(value) < 1e-3):
        return f"{value:g}"
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, str):
        return value if value and value not in ("true", "false", "null") else json.dumps(value)
    return json.dumps(value, default=str)


def _kind(field: FieldInfo) -> str:
    """What a field takes: ``whole number >= 1, or null``."""
    bounds = _bounds(field.metadata)
    options = list(dict.fromkeys(_words(part) for part in _parts(field.annotation)))
    null = "null" in options
    options = [o for o in options if o != "null"]
    kind = " or ".join(options) + (f" {bounds}" if bounds else "")
    return f"{kind}, or null" if null else kind


def _parts(annotation: Any) -> Sequence[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _words(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin is typing.Annotated:
        bounds = _bounds(inner[1:])
        return _words(inner[0]) + (f" {bounds}" if bounds else "")
    if origin is Literal:
        return " | ".join(_yaml(value) for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(one) for one in inner)
    if origin in (list, tuple):
        if origin is tuple and len(inner) == 2 and inner[1] is not ...:
            return f"two of {_words(inner[0])}"
        return f"list of {_words(inner[0])}"
    if origin is dict:
        return f"mapping of names to {_words(inner[1])}" if inner[1] is not Any else "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return "any value"


def _bounds(metadata: Sequence[Any]) -> str:
    """Limits of a number or a length, such as ``> 0, <= 1``."""
    limits = []
    for one in metadata:
        for kind, attribute, sign in _SIGNS:
            if isinstance(one, kind):
                limits.append(f"{sign} {getattr(one, attribute)}")
        if isinstance(one, annotated_types.MinLen) and one.min_length:
            limits.append("(not empty)")
    return ", ".join(limits)


_SIGNS = (
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Ge, "ge", ">="),
    (annotated_types.Lt, "lt", "<"),
    (annotated_types.Le, "le", "<="),
)


__all__ = ["ROOMS", "WORDS", "Key", "Section", "below", "description", "find", "first_line", "keys", "sections"]
