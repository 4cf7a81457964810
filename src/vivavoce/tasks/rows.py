"""Rows of files that others made, plain or gzipped, with errors that name file and row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vivavoce.errors import DataError
from vivavoce.files import opened


class Row(NamedTuple):
    """One object of a file and where it stands."""

    where: str
    value: Mapping[str, Any]

    def text(self, field: str) -> str:
        """The text in ``field``; a number or boolean as JSON writes it. DataError where it is missing or empty."""
        if field not in self.value:
            has = f"the row has: {', '.join(self.value)}; name the right one in the options"
            raise DataError(f"no field {field!r}", self.where, has)
        value = self.value[field]
        if isinstance(value, bool | int | float):
            return json.dumps(value)
        if not isinstance(value, str) or not value.strip():
            what = "empty" if value in ("", None) or isinstance(value, str) else f"a {type(value).__name__}, not text"
            raise DataError(f"field {field!r} is {what}", self.where, "give it a value or take the row out")
        return value


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, told by its name: JSON lines (``.jsonl``), a JSON array, object or lines (``.json``), or CSV
    with a header (``.csv``); each plain or as ``.gz``. Of a folder, the rows of all such files below it, in the order
    of their names.

    Raises DataError where a file cannot be read or a row is no object.
    """
    if path.is_dir():
        files = sorted((file for file in path.rglob("*") if _kind(file) in _KINDS), key=_natural)
        if not files:
            raise DataError(f"the folder holds no file of rows ({', '.join(_KINDS)})", str(path), "check the path")
        for file in files:
            yield from read_rows(file)
    elif _kind(path) == ".csv":
        yield from _csv(path)
    elif _kind(path) == ".json":
        yield from _json(path)
    else:
        with opened(path) as lines:
            yield from _lines(lines, path)


_KINDS = (".jsonl", ".json", ".csv")


def _kind(path: Path) -> str:
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def _natural(path: Path) -> list[str | int]:
    """A key that sorts 2.json before 10.json."""
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"([0-9]+)", str(path))]


def _lines(lines: Iterable[bytes], path: Path) -> Iterator[Row]:
    for n, line in enumerate(lines, 1):
        if line.strip():
            yield Row(f"{path}, row {n}", _object(line, f"{path}, row {n}"))


def _json(path: Path) -> Iterator[Row]:
    with opened(path) as file:
        data = file.read()
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # JSON lines under another name, or nothing that can be read
        yield from _lines(data.splitlines(), path)
        return
    for n, row in enumerate(value if isinstance(value, list) else [value], 1):
        yield Row(f"{path}, row {n}", _checked(row, f"{path}, row {n}"))


def _csv(path: Path) -> Iterator[Row]:
    with opened(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        for n, row in enumerate(csv.DictReader(text), 1):
            yield Row(f"{path}, row {n}", row)


def _object(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8, or nested without end
        raise DataError(f"not a line of JSON: {error}", where, "the file must hold one JSON object a line") from error
    return _checked(value, where)


def _checked(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"a {type(value).__name__} where an object is needed", where, "write one JSON object a line")
    return value


__all__ = ["Row", "opened", "read_rows"]
