"""Opening what the user points at."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from vivavoce.errors import DataError


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a plain or gzipped file. Raises DataError where they cannot be read, now or while they are."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(IO[bytes], file)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read the file: {reason}", str(path), "check the path in the options") from error


__all__ = ["opened"]
