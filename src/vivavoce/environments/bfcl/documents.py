"""The official documents of functions, as tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vivavoce.errors import DataError
from vivavoce.files import opened
from vivavoce.records import Tool

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}


def read_documents(folder: Path, name: str) -> dict[str, Tool]:
    """The functions of one file of ``multi_turn_func_doc/`` by name. Raises DataError where it cannot be read."""
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
    """The objects of a file of JSON lines. Raises DataError where it cannot be read, or a line is no object."""
    with opened(path) as file:
        for n, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"not a line of JSON: {error}", f"{path}, row {n}", "give the official file") from error
            if not isinstance(row, dict):
                raise DataError("no object", f"{path}, row {n}", "give the official file")
            yield row


def _without_none(parameters: dict[str, Any]) -> dict[str, Any]:
    """Without the defaults that are the text 'None', which an agent would otherwise give for a file's name."""
    properties = {
        name: {key: value for key, value in one.items() if (key, value) != ("default", "None")}
        for name, one in parameters["properties"].items()
    }
    return {**parameters, "properties": properties}


__all__ = ["json_schema", "read_documents", "read_lines"]
