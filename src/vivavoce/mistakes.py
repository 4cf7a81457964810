"""Mistakes in a recipe: in words, with the line of the key, and all of them in one error."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from vivavoce import plugins
from vivavoce.complaints import in_words
from vivavoce.errors import RecipeError

Place = tuple[str | int, ...]
"""The keys and numbers that lead to a value."""


class Misplaced(ValueError):
    """A mistake that a validator of a whole recipe found, and the key under which it stands."""

    def __init__(self, what: str, *loc: str | int) -> None:
        super().__init__(what)
        self.loc = loc


class WithinPart(ValueError):
    """Mistakes in a recipe that is part of another one, in words, each with the place of its key in the whole."""

    def __init__(self, error: ValidationError, part: type[BaseModel], *below: str | int) -> None:
        self.mistakes = [(what, (*below, *loc)) for what, loc in mistakes_in(error, part)]
        super().__init__("; ".join(what for what, _ in self.mistakes))


class Lines:
    """Finds the line of a key: ``recipe.yaml:12``."""

    def __init__(self, root: yaml.Node | None, path: Path) -> None:
        self.root, self.path = root, path

    def __call__(self, loc: Place) -> str:
        at, line = self.root, 1
        for key in loc:
            step = None
            if isinstance(at, yaml.MappingNode):
                step = next(((k, v) for k, v in at.value if k.value == key), None)
            elif isinstance(at, yaml.SequenceNode) and isinstance(key, int) and key < len(at.value):
                step = (at.value[key], at.value[key])
            if step is None:
                break
            line, at = step[0].start_mark.line + 1, step[1]
        return f"{self.path}:{line}"


def mistakes_in(
    error: ValidationError,
    model: type[BaseModel],
    places: Places | None = None,
    below: Place = (),
    beside: Iterable[str] = (),
) -> list[tuple[str, Place]]:
    """Each mistake in words, and the place of its key.

    ``places`` tells the right place of a key that is unknown at its own. The model's values stand ``below`` a place of
    the recipe, and ``beside`` keys that something else reads.
    """
    mistakes: list[tuple[str, Place]] = []
    forms: dict[Place, list[str]] = {}
    for problem, is_form in _nearest_forms(error, model):
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, WithinPart):
            mistakes += cause.mistakes
            continue
        if problem["type"] == "default_factory_not_called":  # for another mistake, which is told
            continue
        inner = (*problem["loc"], *getattr(cause, "loc", ()))
        loc, key = (*below, *inner), ".".join(map(str, (*below, *inner)))
        known = [*(beside if len(inner) == 1 else ()), *_fields(model, inner[:-1])]
        if is_form:
            forms.setdefault(loc, []).append(in_words(problem))
        elif problem["type"] == "model_type":
            needed = _needed(model, inner)
            mistakes.append((f"`{key}`: {in_words(problem, needed)}", loc))
        else:
            elsewhere = places.moved(loc, known) if places and problem["type"] == "extra_forbidden" else ""
            mistakes.append((elsewhere or plugins.mistake(problem, known, loc), loc))
    for loc, texts in forms.items():
        mistakes.append((f"`{'.'.join(map(str, loc))}`: {', or '.join(texts)}", loc))
    return mistakes


def booleans_as_numbers(made: Any, values: Any, at: Place = ()) -> Iterator[tuple[str, Place]]:
    """The places at which ``values`` have true or false for a number. In what was ``made`` of them it is 1 or 0."""
    if isinstance(values, bool) and isinstance(made, int | float) and not isinstance(made, bool):
        yield f"`{'.'.join(map(str, at))}`: must be a number, but this is true or false", at
    elif isinstance(made, BaseModel) and isinstance(values, Mapping):
        for key in values.keys() & type(made).model_fields.keys():
            yield from booleans_as_numbers(getattr(made, key), values[key], (*at, key))
    elif isinstance(made, dict) and isinstance(values, Mapping):
        for key in values.keys() & made.keys():
            yield from booleans_as_numbers(made[key], values[key], (*at, key))
    elif isinstance(made, list | tuple) and isinstance(values, list):
        for i, (one, value) in enumerate(zip(made, values, strict=False)):  # a validator may have shortened it
            yield from booleans_as_numbers(one, value, (*at, i))


def _nearest_forms(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[dict[str, Any], bool]]:
    """The errors, their places without pydantic's names of forms, and whether a form as a whole does not fit.

    If a key may have values of several forms, pydantic tells what is wrong by each. Where only parts are wrong by one
    form, the value was meant so, and what is wrong by the others is left out.
    """
    problems: list[tuple[dict[str, Any], Place | None]] = []
    for one in error.errors(include_url=False):
        cut = _choice(model, one["loc"])
        loc = one["loc"] if cut is None else (*one["loc"][:cut], *one["loc"][cut + 1 :])
        problems.append(({**one, "loc": loc}, None if cut is None else loc[:cut]))
    in_part = {choice for problem, choice in problems if choice is not None and len(problem["loc"]) > len(choice)}
    for problem, choice in problems:
        whole = problem["loc"] == choice
        if not (whole and choice in in_part):
            yield problem, whole


def _choice(model: type[BaseModel], loc: Place) -> int | None:
    """Where in ``loc`` pydantic names one of several forms that a value may have; None: nowhere."""
    at: Any = model
    for i, key in enumerate(loc):
        forms = _forms(at)
        if len(forms) > 1:
            return i
        at = forms[0] if forms else Any
        if isinstance(at, type) and issubclass(at, BaseModel):
            at = at.model_fields[str(key)].annotation if key in at.model_fields else Any
        else:
            inner = typing.get_args(at)
            at = inner[-1] if inner else Any
    return None


def _forms(annotation: Any) -> list[Any]:
    """The forms that a value may have, None left out."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _forms(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [one for one in typing.get_args(annotation) if one is not type(None)]
    return [annotation]


class Places:
    """The right places of keys that are unknown at their own: other sections, or recipes of another method."""

    def __init__(self, model: type[BaseModel], options: Mapping[str, Sequence[str]]) -> None:
        self.model, self.options = model, options

    def moved(self, loc: Place, known: Sequence[str]) -> str:
        """The mistake and the remedy in words; empty if the key is known nowhere, or nearly known where it stands."""
        key, what = str(loc[-1]), f"unknown key `{'.'.join(map(str, loc))}`"
        close = difflib.get_close_matches(key, known, 1, 0.75)
        homes = [*self._homes(self.model, key, ()), *((part,) for part, keys in self.options.items() if key in keys)]
        below = tuple(str(part) for part in loc[:-1] if isinstance(part, str))
        if below:  # rather in a section of the one in which it stands
            homes = [home for home in homes if home[: len(below)] == below] or homes
        if homes:
            first = [".".join(home) for home in dict.fromkeys(homes) if len(home) == min(map(len, homes))]
            home = f"to {_listed([f'`{one}`' for one in first], 'or')}" if first != [""] else "at the top of the recipe"
            return what + (f", did you mean `{close[0]}`?" if close else ":") + f" `{key}` belongs {home}"
        if len(loc) == 1 and not close and (methods := self._methods(key)):
            return f"{what}: it is a section of {_listed(methods, 'and')}, but this is another method"
        return ""

    def _homes(self, model: type[BaseModel], key: str, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """The sections that have a key of this name, or whose sections do."""
        if key in model.model_fields:
            yield path
        for name, field in model.model_fields.items():
            for inner in models_in(field.annotation):
                if len(path) < 2:
                    yield from self._homes(inner, key, (*path, name))

    def _methods(self, key: str) -> list[str]:
        """The methods whose recipes have a section of this name."""
        methods = ((name, plugins.load("methods", name, "").Options) for name in plugins.names("methods"))
        return [name for name, options in methods if key in options.model_fields]


def _listed(names: Sequence[str], last: str) -> str:
    """``a, b and c``"""
    return f" {last} ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def all_in_one(mistakes: Sequence[tuple[str, Place]], where: Lines) -> RecipeError:
    """One error that lists all mistakes, each in words with the place of its key."""
    lines = [(what, where(loc)) for what, loc in mistakes]
    if len(lines) == 1:
        return RecipeError(*lines[0], "correct the recipe, or the --set that put it there")
    return RecipeError(
        "\n".join(f"{what}\n    at {at}" for what, at in lines), str(where.path), f"correct these {len(lines)} places"
    )


def _fields(model: type[BaseModel], loc: Place) -> dict[str, FieldInfo]:
    """The fields of the model at ``loc``; none if no model stands there."""
    at: Any = model
    for key in loc:
        if isinstance(key, str) and isinstance(at, type) and issubclass(at, BaseModel) and key in at.model_fields:
            at = at.model_fields[key].annotation
        at = next(models_in(at), at)
    return dict(at.model_fields) if isinstance(at, type) and issubclass(at, BaseModel) else {}


def _needed(model: type[BaseModel], loc: Place) -> Sequence[str]:
    """The keys that must stand in the model at ``loc``."""
    fields = _fields(model, loc)
    required = [name for name, field in fields.items() if field.is_required()]
    return [*required, "model"] if "backend" in fields else required  # every agent's backend has a model


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation names, such as ``Arm`` in ``dict[str, Arm] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from models_in(inner)


def need_each_key_once(node: yaml.Node | None, path: Path) -> None:
    """Refuse a key that is written twice. YAML would silently let the last one win."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError("a key is a list or a mapping", f"{path}:{key.start_mark.line + 1}", "name it")
            if key.value in seen:
                raise RecipeError(
                    f"key `{key.value}` appears twice", f"{path}:{key.start_mark.line + 1}", "keep one of them"
                )
            seen.add(key.value)
            need_each_key_once(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            need_each_key_once(value, path)


__all__ = [
    "Lines",
    "Misplaced",
    "Place",
    "Places",
    "WithinPart",
    "all_in_one",
    "booleans_as_numbers",
    "mistakes_in",
    "models_in",
    "need_each_key_once",
]
