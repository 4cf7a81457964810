"""Files that the user points at and files that a run wrote: how they are opened, decoded and cut into rows.

A line of JSON ends at a line feed and nowhere else. Texts may hold U+2028, U+2029 or U+0085 as they are, at which
``str.splitlines`` would cut a row in two.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import hashlib
import itertools
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from vivavoce.complaints import in_words
from vivavoce.errors import DataError
from vivavoce.records import from_json

T = TypeVar("T")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""Half of a surrogate pair, or one of two halves that belong together."""
_SAVE = "save it as UTF-8"
_GZIP = b"\x1f\x8b"
_PACKED = {
    b"PK\x03\x04": "a ZIP archive or a table of Excel",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
    b"BZh": "packed by bzip2",
    b"\xfd7zX": "packed by xz",
    b"PAR1": "Parquet",
}
_NAMES = {"int": "number", "float": "number", "str": "text", "bool": "true or false", "NoneType": "null"}
"""JSON's names for Python's types."""
_UNSAFE = re.compile(r"[^a-z0-9_=@+-]")
_PLAIN = re.compile(r"[a-z0-9_][a-z0-9_.=@+-]{0,99}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
"""File names that Windows takes for a device, with any ending."""


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a plain or gzipped file, whatever its name says.

    Raises DataError if they cannot be read, now or while they are read, and for other forms of packed files.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
        for mark, form in _PACKED.items():
            if head.startswith(mark):
                raise DataError(f"the file is {form}, and not text", str(path), "unpack it, or save it as text")
        with gzip.open(path, "rb") if head.startswith(_GZIP) else path.open("rb") as file:
            yield cast(IO[bytes], file)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        do = _like(path) if isinstance(error, FileNotFoundError) else "check the path in the options"
        raise DataError(f"cannot read the file: {reason}", str(path), do) from error


def _like(path: Path) -> str:
    """What to do about a path at which nothing is: the file beside it of a similar name, or where it was looked for."""
    beside = list[str]()
    with suppress(OSError):
        beside = [one.name for one in itertools.islice(path.parent.iterdir(), 1000)]
    close = difflib.get_close_matches(path.name, beside, 1, 0.7)
    there = "" if path.is_absolute() else f"; it is looked for in {Path.cwd()}"
    return f"did you mean {path.with_name(close[0])}?" if close else f"check the path in the options{there}"


def text_of(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 if it begins with a byte order mark, which is left out. Lines end in a
    line feed, whatever ended them in the file.

    Raises DataError, with the line, if it is in neither.
    """
    with open_bytes(path) as file:
        data = file.read()
    return decode(data, str(path)).replace("\r\n", "\n").replace("\r", "\n")


def decode(data: bytes, where: str) -> str:
    """The text of bytes as :func:`text_of` reads them. Raises DataError with ``where`` they stand, and the line."""
    wide = data.startswith(_UTF16)
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        if wide:
            raise DataError(f"not UTF-16, though it begins so: {error.reason}", where, _SAVE) from error
        line = data.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8: byte 0x{data[error.start]:02x} is not a character there"
        raise DataError(what, f"{where}:{line}", f"{_SAVE}; an editor may call what it has now Latin-1") from error


def json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a plain or gzipped file of JSON lines, and their numbers from 1. Blank lines are left out.

    Raises DataError if the file cannot be read.
    """
    with open_bytes(path) as file:
        start = cast(Any, file).peek(2)[:2]
        # UTF-16 holds the byte of a line feed inside other characters, so it is decoded before it is cut.
        lines: Iterable[bytes] = _utf16(file.read(), path) if start in _UTF16 else file
        for number, line in enumerate(lines, 1):
            if text := line.removeprefix(codecs.BOM_UTF8).strip():
                yield number, text


def _utf16(data: bytes, path: Path) -> list[bytes]:
    return decode(data, str(path)).encode("utf-8", "surrogatepass").split(b"\n")


def lines_in(data: str | bytes) -> list[str]:
    """The lines of JSON lines that are at hand already, such as a provider's answer. Blank lines are left out."""
    text = data if isinstance(data, str) else data.decode("utf-8-sig")
    return [line for line in text.split("\n") if line.strip()]


def json_object(line: bytes, where: str) -> dict[str, Any]:
    """The object that a line of JSON holds.

    Raises DataError, naming ``where`` it stands, for anything else: no JSON, no UTF-8, no object, or half a surrogate
    pair, which is no character and can be written to no file.
    """
    try:
        value = json.loads(decode(line, where))
    except (ValueError, RecursionError) as error:  # DataError is a ValueError too
        if isinstance(error, DataError):
            raise DataError(error.what, where, error.do) from error
        cut = isinstance(error, json.JSONDecodeError) and (
            error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
        )
        what = "the line is incomplete: check whether the file was cut" if cut else f"not a line of JSON: {error}"
        do = "the file must hold one JSON object a line"
        if b"\0" in line[:200]:
            what, do = "not UTF-8: it looks like UTF-16 or UTF-32 without a byte order mark", _SAVE
        raise DataError(what, where, do) from error
    if not isinstance(value, dict):
        raise DataError(f"{kind_of(value)} is not an object", where, "write one JSON object a line")
    if _SURROGATE.search(line):
        need_text(value, where)
    return value


def object_in(path: Path, do: str) -> dict[str, Any]:
    """The object that a whole file of JSON holds, such as a config. Raises DataError, with what to ``do``, if it is
    none."""
    try:
        value = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:  # DataError is a ValueError too
        where, what = f"{path}", f"the file is not JSON: {error}"
        if isinstance(error, DataError):
            where, what = error.where, error.what
        elif isinstance(error, json.JSONDecodeError):
            where, what = f"{path}:{error.lineno}", f"the file is not JSON: {error.msg}"
        raise DataError(what, where, do) from error
    if not isinstance(value, dict):
        raise DataError(f"the file holds {kind_of(value)}, not an object", str(path), do)
    return value


def kind_of(value: Any) -> str:
    """The kind of a value of JSON, for errors: ``a list``, ``a number``, ``null``."""
    name = _NAMES.get(type(value).__name__, type(value).__name__)
    return name if name in ("null", "true or false") else f"a {name}"


def need_text(value: Any, where: str) -> None:
    """Raise DataError if ``value`` holds half a surrogate pair anywhere."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        what = f"half a surrogate pair, {half}: it is not a character, and no file can hold it"
        raise DataError(what, where, "put the whole character there, or remove the row") from error


def read_records(path: Path, kind: type[T]) -> Iterator[T]:
    """The records of a file that a run wrote, one a line. Raises DataError, with the line, if one is not whole."""
    from pydantic import ValidationError  # here, so that opening a file needs no pydantic

    for number, line in json_lines(path):
        try:
            yield from_json(kind, line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            what = f"not a valid {kind.__name__}: " + (f"`{key}`: " if key else "") + in_words(first)
            raise DataError(what, f"{path}, row {number}", "check whether the file was cut or edited") from error


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a plain or gzipped CSV file and their numbers from 1, the header among them; blank lines left out.

    Fields may be of any length. They end at commas, unless the first line has none but semicolons or tabs. Raises
    DataError if the file cannot be read.
    """
    with open_bytes(path) as file:
        text = decode(file.read(), str(path))
    csv.field_size_limit(sys.maxsize)  # one limit for the whole process; its default refuses a long document
    number = 0
    try:
        for row in csv.reader(_csv_lines(text), strict=True, delimiter=_delimiter(text)):
            number += 1
            if row:
                yield number, row
    except csv.Error as error:
        do = 'write a quotation mark inside a quoted field twice ("")'
        raise DataError(f"not CSV: {error}", f"{path}, row {number + 1}", do) from error


def _delimiter(text: str) -> str:
    """The character that ends a field: tables of Excel have semicolons if a comma is a decimal point."""
    head = text.lstrip().partition("\n")[0]
    return "," if "," in head else next((mark for mark in ";\t" if mark in head), ",")


def _csv_lines(text: str) -> Iterator[str]:
    """Lines with their ends: CSV keeps the breaks inside quoted fields."""
    return (match.group() for match in re.finditer(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text))


def file_name(name: str) -> str:
    """The name of a file or folder for something that has ``name``: an arm, a stage, an agent.

    Different names get different file names, on file systems too that do not tell capitals from small letters. Linux,
    macOS, Windows and scp take every one of them. Plain names stay as they are, with ``+`` for a colon; all others are
    made plain, cut short, and end in a hash: ``single:ada`` is ``single+ada``, and ``q/8B`` is ``q-8b~`` and a hash.
    """
    plain = name.replace(":", "+")
    if "+" not in name and _PLAIN.fullmatch(plain) and plain[-1] != "." and not _RESERVED.fullmatch(plain):
        return plain
    slug = _UNSAFE.sub("-", plain.lower())[:60].strip("+-")
    return f"{slug or 'name'}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


__all__ = [
    "csv_rows",
    "decode",
    "file_name",
    "json_lines",
    "json_object",
    "kind_of",
    "lines_in",
    "need_text",
    "object_in",
    "open_bytes",
    "read_records",
    "text_of",
]
