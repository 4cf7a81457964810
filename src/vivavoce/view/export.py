"""The pages of the viewer as files: they open from disk and from any host, with the same addresses.

A page from disk may fetch nothing, so every answer is a script that hands over one value. Questions lie in files of
about a megabyte. Words lie in files by their beginnings, so that a search reads one or two of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from vivavoce.errors import DataError
from vivavoce.progress import bar
from vivavoce.records import storable
from vivavoce.report.assets import STATIC
from vivavoce.report.report import Debates, overview
from vivavoce.report.sources import Sources
from vivavoce.view.index import Index
from vivavoce.view.page import page
from vivavoce.view.pages import HEADS, Pages, keys_of, runs_in
from vivavoce.view.place import index_file

_BYTES = 1_000_000
"""Bytes of a file of questions or words at most, unless one question is longer."""
_POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file: 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
_MARK = "viva-view.txt"
"""A file by which an earlier export is known, which a new one may replace."""


def export_runs(paths: Sequence[Path], out: Path) -> Path:
    """Write the pages of runs to ``out``, an empty folder or an earlier export; returns the page to open.

    Raises DataError if there is no run, or if ``out`` holds something else.
    """
    runs = keys_of(runs_in(paths))
    if out.is_dir() and any(out.iterdir()):
        if not (out / _MARK).is_file():
            raise DataError("the folder holds something else", str(out), "name an empty or a new folder")
        shutil.rmtree(out)
    (out / "data").mkdir(parents=True)
    (out / _MARK).write_text("Written by viva view --export, which may replace this folder.\n", "utf-8")
    shutil.copytree(STATIC, out / "static")
    (out / "static" / "files.js").write_text(_FILES, "utf-8")
    (out / "index.html").write_text(page(policy=_POLICY, first=("files.js",)), "utf-8")
    states, places = [], {}
    for i, (key, run) in enumerate(runs.items()):
        pages = Pages(key, run, Index(run, index_file(run)))
        with bar(f"reading {key}", 1) as advance:
            pages.index.refresh()
            advance()
        places[key] = f"run{i}"
        states.append({**pages.state(), "running": False})
        _export_run(pages, out, f"run{i}")
    _give(out, "runs", {"runs": states, "places": places})
    return out / "index.html"


_FILES = '"use strict";\n/* The pages read files beside them. */\nwindow.vivaFiles = true;\n'


def _export_run(pages: Pages, out: Path, folder: str) -> None:
    whole = overview(Sources(pages.run), Debates())
    _give(out, f"{folder}/overview", {"html": whole, "whole": True})
    for what in ("state", "sets", "training", "costs", "failures"):
        _give(out, f"{folder}/{what}", pages.get([what]))
    for i, (of, n) in enumerate(pages.index.sets().items()):
        place = f"{folder}/{i}"
        _give(out, f"{place}/set", pages.set(of))
        for block in range(-(-n // HEADS)):
            _give(out, f"{place}/heads-{block}", pages.get(["heads", of, str(block)]))
        with bar(f"questions of {of}", n) as advance:
            questions = (pages.question(of, at) for at in range(n))
            starts = [start for start, _ in _files(out, f"{place}/questions", questions, advance)]
        shards = []
        words = ([word, _gaps(docs)] for word, docs in pages.index.words(of))
        for k, piece in enumerate(_pieces(words)):
            _give(out, f"{place}/words-{k}", {"words": piece})
            shards.append([piece[0][0], piece[-1][0]])
        _give(out, f"{place}/places", {"starts": starts, "shards": shards})


def _files(out: Path, name: str, values: Iterable[Any], done: Any) -> Iterator[tuple[int, int]]:
    """Write values to files; tells of each file the place of its first value, and how many it has."""
    at = 0
    for k, piece in enumerate(_pieces(values)):
        _give(out, f"{name}-{k}", piece)
        done(len(piece))
        yield at, len(piece)
        at += len(piece)


def _pieces(values: Iterable[Any]) -> Iterator[list[Any]]:
    """The values in pieces of so many bytes."""
    piece, size = list[Any](), 0
    for value in values:
        length = len(json.dumps(value))
        if piece and size + length > _BYTES:
            yield piece
            piece, size = [], 0
        piece.append(value)
        size += length
    if piece:
        yield piece


def _gaps(docs: Sequence[int]) -> list[int]:
    """Growing numbers as what each is more than the one before; the first as what it is more than -1."""
    return [b - a for a, b in pairwise([-1, *docs])]


def _give(out: Path, name: str, value: Any) -> None:
    """Write a script that hands over a value. Nothing in a text can end it: JSON is JavaScript, and it stands in a file
    of its own."""
    path = out / "data" / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = storable(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    path.write_text(f"viva.files.give({json.dumps(name)},{text});\n", "utf-8")


__all__ = ["export_runs"]
