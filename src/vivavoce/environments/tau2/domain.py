"""A domain of τ²-bench: tables, tools and a policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivavoce.environments.tau2.records import Tables
from vivavoce.errors import DataError
from vivavoce.files import open_bytes


@dataclass(frozen=True)
class Domain:
    """One company."""

    name: str
    folder: str
    """The folder of its files, below that of the data."""
    tables: Callable[[Path], Tables]
    functions: tuple[Callable[..., Any], ...]
    """Its tools; the first argument is the :class:`~vivavoce.environments.tau2.records.Records`."""


def read_json(folder: Path, name: str) -> Any:
    """The JSON of a file, plain or as ``.gz``. Raises DataError if there is none, or it is no JSON."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), folder / name)
    try:
        with open_bytes(path) as file:
            return json.load(file)
    except ValueError as error:
        raise DataError(f"no JSON: {error}", str(path), "give the official file") from error


__all__ = ["Domain", "read_json"]
