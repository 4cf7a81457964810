"""Mistakes in a recipe: in words, with the line of the key, and all of them in one error."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from vivavoce import plugins
from vivavoce.errors import RecipeError


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

    def __call__(self, loc: tuple[str | int, ...]) -> str:
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


def mistakes_in(error: ValidationError, model: type[BaseModel]) -> list[tuple[str, tuple[str | int, ...]]]:
    """Each mistake in words, and the place of its key."""
    mistakes: list[tuple[str, tuple[str | int, ...]]] = []
    for problem in error.errors(include_url=False):
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, WithinPart):
            mistakes += cause.mistakes
            continue
        if problem["type"] == "default_factory_not_called":  # for another mistake, which is told
            continue
        loc = (*problem["loc"], *getattr(cause, "loc", ()))
        mistakes.append((plugins.mistake(problem, _known_keys(model, loc[:-1]), loc), loc))
    return mistakes


def all_in_one(mistakes: Sequence[tuple[str, tuple[str | int, ...]]], where: Lines) -> RecipeError:
    """One error that lists all mistakes, each in words with the place of its key."""
    lines = [(what, where(loc)) for what, loc in mistakes]
    if len(lines) == 1:
        return RecipeError(*lines[0], "correct the recipe, or the --set that put it there")
    return RecipeError(
        "\n".join(f"{what}\n    at {at}" for what, at in lines), str(where.path), f"correct these {len(lines)} places"
    )


def _known_keys(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """Keys that the model at ``loc`` has."""
    at: Any = model
    for key in loc:
        if isinstance(key, str) and isinstance(at, type) and issubclass(at, BaseModel) and key in at.model_fields:
            at = at.model_fields[key].annotation
        at = next(models_in(at), at)
    return list(at.model_fields) if isinstance(at, type) and issubclass(at, BaseModel) else []


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


__all__ = ["Lines", "Misplaced", "WithinPart", "all_in_one", "mistakes_in", "models_in", "need_each_key_once"]
