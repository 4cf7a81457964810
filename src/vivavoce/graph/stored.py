"""Graphs in a file that are read when they are needed: a hundred thousand debates do not fit into memory.

A run keeps those of a stage in ``graphs/STAGE.jsonl.gz`` (:mod:`vivavoce.graph.packed`). Earlier versions wrote
``graphs/STAGE.jsonl``, which is read and kept up as well.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, overload

from vivavoce.files import file_name
from vivavoce.graph.graph import Graph, graph_of
from vivavoce.graph.packed import is_packed, line_places, pack, unpack


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
        line = pack((graph.to_json() + "\n").encode())
        os.pwrite(self._file, line, self._end)
        self._places[at], self._lengths[at] = self._end, len(line)
        self._end += len(line)

    def write(self, path: Path) -> None:
        """Write the graphs in their order, packed if the name of the file ends in ``.gz``."""
        lines = map(self._line, range(len(self)))
        with path.open("wb") as out:
            out.writelines(lines if is_packed(path) else (unpack(line, str(path)) for line in lines))

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
        where = f"graph {at + 1}"
        return graph_of(unpack(self._line(at), where), where)

    def _line(self, at: int) -> bytes:
        assert self._places[at] >= 0, f"graph {at} was never put here"
        return os.pread(self._file, self._lengths[at], self._places[at])


def gathering(count: int, folder: Path) -> Stored:
    """Room for ``count`` graphs in a temporary file of ``folder``, which is deleted with the last reference to it."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return Stored(file, count)  # type: ignore[arg-type]


def stored_graphs(path: Path) -> Stored:
    """The graphs of a file of a run, or of one that :func:`write_graphs` wrote. Raises DataError if another program
    has packed it."""
    with path.open("rb") as file:
        places = list(line_places(file, str(path)))
        kept = Stored(file, len(places))
        for at, place in enumerate(places):
            kept._places[at], kept._lengths[at] = place
        return kept


def graph_files(run: Path) -> dict[str, Path]:
    """The files of graphs of a run, by the file names of their stages."""
    by_stage = dict[str, Path]()
    for file in sorted((run / "graphs").glob("*.jsonl*")):
        stage, _, ending = file.name.rpartition(".jsonl")
        if ending in ("", ".gz"):
            by_stage[stage] = file
    return by_stage


def graph_file(run: Path, stage: str) -> Path:
    """The file of the graphs of a stage: the one that is there, else the one that is to be written."""
    name = file_name(stage)
    return graph_files(run).get(name, run / "graphs" / f"{name}.jsonl.gz")
