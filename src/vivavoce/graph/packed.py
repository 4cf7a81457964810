"""Files of packed lines: each line is a gzip member of its own, whose header tells how long the member is.

Such a file is a gzip file like any other: ``zcat``, pandas and this package's own readers take it for its text. Yet one
line is read without those before it, and the lines are found without unpacking any. Equal lines give equal bytes under
one version of zlib.

    RFC 1952: 1f 8b 08 | 04: an extra field follows | no time | 00 ff | its 8 bytes: "vl", 4, length | deflate | end
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vivavoce.errors import DataError

_HEADER = struct.Struct("<4sIHH2sHI")
"""Magic, method and flags; time; level and system; length of the extra field; its name, length and value."""
_GZIP, _MAGIC, _NAME = b"\x1f\x8b", b"\x1f\x8b\x08\x04", b"vl"
_LEVEL = 1
"""Higher levels took two to six times as long for a fifth less."""


class LinePlace(NamedTuple):
    """The place of a line in its file, in bytes."""

    start: int
    length: int


def pack(line: bytes) -> bytes:
    """The line, its line feed included, as one member."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(line) + packer.flush()
    end = struct.pack("<II", zlib.crc32(line), len(line) & 0xFFFFFFFF)
    length = _HEADER.size + len(body) + len(end)
    return _HEADER.pack(_MAGIC, 0, 0xFF00, 8, _NAME, 4, length) + body + end


def unpack(line: bytes, where: str) -> bytes:
    """The text of what stands at a line's place, packed or not. Raises DataError, naming ``where``, if it was cut."""
    if not line.startswith(_GZIP):
        return line
    try:
        return gzip.decompress(line)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"the line cannot be unpacked: {error}", where, "check whether the file was cut or edited"
        ) from error


def is_packed(path: Path) -> bool:
    """Whether a file of this name holds packed lines; ``.part`` may follow while it is made."""
    return path.name.removesuffix(".part").endswith(".gz")


def line_places(file: BinaryIO, where: str) -> Iterator[LinePlace]:
    """The places of the lines of a file, packed or not; blank lines are left out.

    Raises DataError, naming ``where``, if another program has packed the file.
    """
    start, head = 0, file.read(_HEADER.size)
    if not head.startswith(_GZIP):
        file.seek(0)
        for line in file:
            if line.strip():
                yield LinePlace(start, len(line))
            start += len(line)
        return
    while head:
        if len(head) < _HEADER.size or not head.startswith(_MAGIC) or _HEADER.unpack(head)[4] != _NAME:
            raise DataError(f"the line at byte {start} is not packed by itself", where, "unpack the file: gunzip FILE")
        length = _HEADER.unpack(head)[-1]
        yield LinePlace(start, length)
        start += length
        file.seek(start)
        head = file.read(_HEADER.size)


__all__ = ["LinePlace", "is_packed", "line_places", "pack", "unpack"]
