"""All answers to the test questions of a run, one row each, with everything that a table needs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

from vivavoce.exams.examine import Judged
from vivavoce.files import read_records
from vivavoce.records import Problem
from vivavoce.report.sources import Sources

_FIRST = ("test", "arm", "seed", "problem", "group", "question", "gold", "answer", "correct", "status", "text")


def answers(path: Path) -> Iterator[dict[str, Any]]:
    """One row for each answer in ``evaluations/``, of a chain those of its stages too.

    ``test`` is ``test``, or the name of a further test (``also_test``, or ``draws``). Arms are called as results call
    them. Raises DataError if the folder is no run, or a file of it was cut.
    """
    whole = Sources(path)
    yield from _of(whole, "")
    for i, (name, part) in enumerate(whole.parts.items()):
        for row in _of(part, f"{name}."):
            if not i or row["arm"] != "student":  # the student that a later stage begins with was tested before
                yield row


def _of(sources: Sources, stage: str) -> Iterator[dict[str, Any]]:
    for file in sorted((sources.path / "evaluations").rglob("*.jsonl")):
        also = file.parent.name if file.parent.name != "evaluations" else "test"
        rows = list(read_records(file, Judged))
        old = any(not row.question for row in rows)
        known = sources.problems("test" if also in ("test", "draws") else f"test {also}") if old else {}
        for row in rows:
            yield _row(row, also, stage, file, known)


def _row(row: Judged, test: str, stage: str, file: Path, known: Mapping[str, Problem]) -> dict[str, Any]:
    fields = asdict(row)
    usage = fields.pop("usage")
    if not row.arm:  # of an earlier version: the file's name tells
        fields["arm"], _, seed = file.stem.rpartition("-")
        fields["seed"] = int(seed) if seed.isdigit() else 0
        if row.problem in known:
            fields |= {"question": known[row.problem].question, "gold": known[row.problem].gold}
    if fields["arm"] != "student":
        fields["arm"] = stage + fields["arm"]
    fields |= {"test": test, "prompt": [dict(m) for m in row.prompt]}
    fields |= {"prompt_tokens": usage["prompt"], "completion_tokens": usage["completion"]}
    return {**{key: fields.pop(key) for key in _FIRST}, **fields}


def as_csv(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The rows as CSV with a header; a prompt is one cell of JSON."""
    buffer = StringIO()
    table = csv.writer(buffer)
    for i, row in enumerate(rows):
        if not i:
            table.writerow(row)
        table.writerow(json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v for v in row.values())
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


__all__ = ["answers", "as_csv"]
