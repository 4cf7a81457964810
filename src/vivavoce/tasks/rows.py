"""JSON lines from files that others made, plain or gzipped, with errors that name file and row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vivavoce.errors import DataError


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
    """The rows of a ``.jsonl`` or ``.jsonl.gz`` file, blank lines left out.

    Raises DataError where the file cannot be read or a line is no JSON object.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for n, line in enumerate(lines, 1):
                if line.strip():
                    yield Row(f"{path}, row {n}", _object(line, f"{path}, row {n}"))
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read the file: {reason}", str(path), "check the path in the options") from error


def _object(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8, or nested without end
        raise DataError(f"not a line of JSON: {error}", where, "the file must hold one JSON object a line") from error
    if not isinstance(value, dict):
        raise DataError(f"a {type(value).__name__} where an object is needed", where, "write one JSON object a line")
    return value


__all__ = ["Row", "read_rows"]
