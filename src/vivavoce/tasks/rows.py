"""Rows of files that others made, plain or gzipped, with errors that name file and row."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vivavoce.errors import DataError, MissingDependency
from vivavoce.files import csv_rows, decode, json_lines, json_object, kind_of, need_text, open_bytes
from vivavoce.tasks.characters import blank


def missing(value: Any) -> bool:
    """Whether nothing was given: null, or NaN, which pandas writes for an empty cell."""
    return value is None or value != value


class Row(NamedTuple):
    """One object of a file and its place."""

    where: str
    value: Mapping[str, Any]

    def text(self, field: str) -> str:
        """The text in ``field``; a number or boolean as JSON writes it. Raises DataError if it is missing or empty.

        ``a.b`` is field ``b`` of the object in field ``a``, unless a field has this whole name.
        """
        value = self.get(field)
        if isinstance(value, bool | int | float) and not missing(value):
            return json.dumps(value)
        if not isinstance(value, str) or blank(value):
            what = "empty" if missing(value) or isinstance(value, str) else f"{kind_of(value)}, not text"
            raise DataError(f"field {field!r} is {what}", self.where, "give it a value or remove the row")
        return value

    def get(self, field: str) -> Any:
        """The value in ``field``, or for ``a.b`` in ``b`` of the object in ``a``. Raises DataError without it."""
        if field in self.value:
            return self.value[field]
        at: Any = self.value
        for step in field.split("."):
            if not isinstance(at, Mapping) or step not in at:
                has = f"the row has: {', '.join(self.value)}; name the right one in the options"
                raise DataError(f"no field {field!r}", self.where, has)
            at = at[step]
        return at


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, told by its name: JSON lines (``.jsonl``), a JSON array, object or lines (``.json``), CSV
    with a header (``.csv``, ``.tsv``), each plain or as ``.gz``, or Parquet (``.parquet``). Of a folder, the rows of
    all such files below it, in the order of their names. An array under the name of JSON lines is read too.

    Raises DataError if a file cannot be read or holds no rows, or a row is no object.
    """
    if path.is_dir():
        files = sorted((file for file in path.rglob("*") if _kind(file) in _KINDS), key=_natural)
        if not files:
            raise DataError(f"the folder holds no file of rows ({', '.join(_KINDS)})", str(path), "check the path")
        for file in files:
            yield from read_rows(file)
    else:
        rows = {".csv": _csv, ".tsv": _csv, ".json": _json, ".parquet": _parquet}.get(_kind(path), _lines)(path)
        first = next(rows, None)
        if first is None:
            raise DataError(
                "the file holds no rows", str(path), "check the path, and whether the file was written completely"
            )
        yield first
        yield from rows


_KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def _kind(path: Path) -> str:
    return (path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix).lower()


def _natural(path: Path) -> list[str | int]:
    """A key that sorts 2.json before 10.json."""
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"([0-9]+)", str(path))]


def _lines(path: Path) -> Iterator[Row]:
    """The rows of JSON lines, or of an array in a file whose name promises JSON lines."""
    with open_bytes(path) as file:
        head = file.read(64).removeprefix(codecs.BOM_UTF8).replace(b"\0", b"")  # of UTF-16 too
        array = head.removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff").lstrip().startswith(b"[")
    if array and (rows := _array(path)) is not None:
        yield from rows
        return
    for n, line in json_lines(path):
        yield Row(f"{path}, row {n}", json_object(line, f"{path}, row {n}"))


def _json(path: Path) -> Iterator[Row]:
    yield from _array(path) or _lines(path)  # JSON lines under another name, or nothing that can be read


def _array(path: Path) -> Iterator[Row] | None:
    """The rows of a file that is one array or one object; None if it is no JSON as a whole."""
    with open_bytes(path) as file:
        data = file.read()
    try:
        return _objects(path, json.loads(decode(data, str(path))))
    except (ValueError, RecursionError):
        return None


def _objects(path: Path, value: Any) -> Iterator[Row]:
    for n, row in enumerate(value if isinstance(value, list) else [value], 1):
        where = f"{path}, row {n}"
        if not isinstance(row, dict):
            raise DataError(f"{kind_of(row)} is not an object", where, "write a list of objects")
        need_text(row, where)
        yield Row(where, row)


def _csv(path: Path) -> Iterator[Row]:
    rows = csv_rows(path)
    head = [name.strip() for name in next(rows, (0, list[str]()))[1]]
    if twice := [name for i, name in enumerate(head) if name in head[:i]]:
        raise DataError(f"two columns are called {twice[0]!r}", f"{path}, header", "rename one of them")
    for n, fields in rows:
        where = f"{path}, row {n - 1}"
        if len(fields) > len(head):
            do = "put fields that hold a comma in quotation marks"
            raise DataError(f"{len(fields)} fields, but the header names {len(head)} columns", where, do)
        yield Row(where, dict(zip(head, fields, strict=False)))


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        do = "pip install 'vivavoce[train]', which brings it, or write the rows as JSON lines"
        raise MissingDependency("Parquet files are read by pyarrow, which is not installed", str(path), do) from error
    n = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                for row in batch.to_pylist():
                    n += 1
                    yield Row(f"{path}, row {n}", row)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"cannot read it as Parquet: {error}", str(path), "check whether it was written completely"
        ) from error


__all__ = ["Row", "read_rows"]
