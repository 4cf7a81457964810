"""Graphs in a file that are read when they are needed: a hundred thousand debates do not fit into memory."""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, overload

from vivavoce.graph.graph import Graph, graph_of


class Stored(Sequence[Graph]):
    """Graphs of a file, one a line. Each reading gives new objects, equal to those of the last.

    Made by :func:`gathering`, which fills it graph by graph in any order, or by :func:`stored_graphs` of a whole file.
    Safe for readers in several threads.
    """

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file = os.dup(file.fileno())
        self._end = 0
        self._places, self._lengths = array("q", [-1]) * count, array("q", [0]) * count
        weakref.finalize(self, os.close, self._file)

    def put(self, at: int, graph: Graph) -> None:
        """Keep ``graph`` as the one at ``at``."""
        line = (graph.to_json() + "\n").encode()
        os.pwrite(self._file, line, self._end)
        self._note_place(at, len(line))

    def write(self, path: Path) -> None:
        """Write the graphs in their order, as :func:`write_graphs` does."""
        with path.open("wb") as out:
            out.writelines(map(self._line, range(len(self))))

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Graph: ...
    @overload
    def __getitem__(self, at: slice) -> list[Graph]: ...
    def __getitem__(self, at: int | slice) -> Graph | list[Graph]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        return graph_of(self._line(at), f"graph {at + 1}")

    def _line(self, at: int) -> bytes:
        assert self._places[at] >= 0, f"graph {at} was never put here"
        return os.pread(self._file, self._lengths[at], self._places[at])

    def _note_place(self, at: int, length: int) -> None:
        self._places[at], self._lengths[at] = self._end, length
        self._end += length


def gathering(count: int, folder: Path) -> Stored:
    """Room for ``count`` graphs in a temporary file of ``folder``, which is deleted with the last reference to it."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return Stored(file, count)  # type: ignore[arg-type]


def stored_graphs(path: Path) -> Stored:
    """The graphs of a file that :func:`write_graphs` wrote."""
    with path.open("rb") as file:
        lengths = [len(line) for line in file]
        kept = Stored(file, len(lengths))
        for at, length in enumerate(lengths):
            kept._note_place(at, length)
        return kept
