"""The official documents of functions, as tools."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vivavoce.files import json_lines, json_object
from vivavoce.records import Tool

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}


def read_documents(folder: Path, name: str) -> dict[str, Tool]:
    """The functions of one file of ``multi_turn_func_doc/`` by name. Raises DataError if it cannot be read."""
    return {
        row["name"]: Tool(row["name"], row["description"], _without_none(json_schema(row["parameters"])))
        for row in read_lines(folder / "multi_turn_func_doc" / name)
    }


def json_schema(schema: Any) -> Any:
    """A schema of BFCL in JSON Schema's own types: ``object`` for ``dict``, ``number`` for ``float``."""
    if isinstance(schema, list):
        return [json_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: json_schema(value) for key, value in schema.items()}
    if isinstance(kind := plain.get("type"), str) and kind in _TYPES:
        plain |= {"type": _TYPES[kind]}
    return {key: value for key, value in plain.items() if not (key == "type" and value is None)}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines. Raises DataError if it cannot be read, or a line is no object."""
    for n, line in json_lines(path):
        yield json_object(line, f"{path}, row {n}")


def _without_none(parameters: dict[str, Any]) -> dict[str, Any]:
    """Without the defaults that are the text 'None', which an agent would otherwise give for a file's name."""
    properties = {
        name: {key: value for key, value in one.items() if (key, value) != ("default", "None")}
        for name, one in parameters["properties"].items()
    }
    return {**parameters, "properties": properties}


__all__ = ["json_schema", "read_documents", "read_lines"]
