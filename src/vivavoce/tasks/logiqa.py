"""Reading and reasoning, four options (LogiQA; Liu et al. 2020, arXiv:2007.08124, and 2.0; Liu et al. 2023).

**Licence: CC BY-NC-SA 4.0, for non-commercial use only.** Version 1 is the official text files, eight lines a record
(empty, the letter, passage, question, four options); version 2 is JSON lines (``text``, ``question``, ``options``,
``answer`` as an index). Version 2 asks about half of version 1 again in other words, and some of its own questions
twice: train on one and test on the other only with that in mind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from vivavoce.errors import DataError
from vivavoce.files import open_bytes
from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Benchmark, Official, RowQuestion, multiple_choice
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.rows import Row, read_rows

OFFICIAL = [
    {"train_path": "logiqa/Eval.txt", "test_path": "logiqa/Test*.txt"},
    {"version": 2, "train_path": "logiqa2/dev*", "test_path": "logiqa2/test*"},
]
_HUB = {1: ("lucasmccabe/logiqa", "refs/convert/parquet"), 2: ("jeggers/logiqa2_formatted", None)}
_LABEL = re.compile(r"\s*([A-D])\s*[.,、：:]\s*")


class Options(Official):
    """The version, the source of the questions, and how many of them."""

    version: Literal[1, 2] = Field(default=1, description="LogiQA (2020) or LogiQA 2.0")
    overlap: Literal["refuse", "leave_out"] = "leave_out"


def task(options: Options) -> Task:
    """Open LogiQA, or LogiQA 2.0."""
    hub_id, revision = _HUB[options.version]
    filled = options.model_copy(
        update={"hub_id": options.hub_id or hub_id, "hub_revision": options.hub_revision or revision}
    )
    name = "logiqa" if options.version == 1 else "logiqa2"
    return Benchmark(name, filled, _ask, GRADERS["choice"], rows=_rows)


def _ask(row: Row) -> RowQuestion:
    has = row.value
    passage = row.text("context" if "context" in has else "text")
    question = row.text("query" if "query" in has else "question")
    gold = has.get("answer", has.get("correct_option"))
    shown = multiple_choice(row, f"{passage.strip()}\n{question.strip()}", has.get("options") or (), gold)
    with_source = shown._replace(belongs=" ".join(passage.split()).casefold())
    return with_source.and_odd(has["odd"]) if has.get("odd") else with_source


def _rows(path: Path) -> Iterator[Row]:
    return _records(path) if path.suffix == ".txt" and not _is_json(path) else read_rows(path)


def _is_json(path: Path) -> bool:
    """The official files of version 2 are JSON lines that are called ``.txt``."""
    with open_bytes(path) as file:
        return file.read(1) == b"{"


def _records(path: Path) -> Iterator[Row]:
    with open_bytes(path) as file:
        lines = file.read().decode("utf-8-sig").rstrip().split("\n")
    for n in range(0, len(lines), 8):
        where = f"{path}, line {n + 1}"
        if len(record := lines[n : n + 8]) < 8 or record[0].strip() or record[1].strip() not in [*"abcd"]:
            raise DataError("not a record of eight lines, the first empty, the second a to d", where)
        _, letter, context, query, *options = record
        options, odd = _unlabel(options)
        yield Row(where, {"context": context, "query": query, "options": options, "answer": letter, "odd": odd})


def _unlabel(options: list[str]) -> tuple[list[str], str]:
    """The options in the order of their letters, without them, and what is odd about them.

    The translation has moved some letters into the sentence (``Professor C.Lin``); such an option stays as it is.
    """
    labels = [match[1] if (match := _LABEL.match(option)) else "" for option in options]
    if sorted(labels) == [*"ABCD"]:
        ordered = [option for _, option in sorted(zip(labels, options, strict=True))]
        return [_LABEL.sub("", o, 1) for o in ordered], "" if labels == [*"ABCD"] else "options out of order: put back"
    kept = [_LABEL.sub("", o, 1) if label == a else o for o, label, a in zip(options, labels, "ABCD", strict=True)]
    return kept, "the letter of an option stands inside its text, or nowhere"
