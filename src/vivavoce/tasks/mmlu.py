"""Questions of 57 subjects with four options (MMLU; Hendrycks et al. 2021, arXiv:2009.03300; MIT).

The training split is the authors' validation set (1,531 questions): their large auxiliary set is made of other
benchmarks, ARC among them. Official files: a folder of CSV files without a header, one a subject (``anatomy_test.csv``:
question, four options, letter), or rows with ``subject``, ``question``, ``choices``, ``answer``. Some questions of the
validation set are asked in the test too; they are left out of train.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from vivavoce.errors import DataError
from vivavoce.files import csv_rows
from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Benchmark, RowQuestion, SplitPlace, Subjects, multiple_choice
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.rows import Row, read_rows

OFFICIAL = [{"train_path": "mmlu/val*", "test_path": "mmlu/test*"}, {"test_path": "mmlu/dev*"}]
_HUB = (SplitPlace("validation", ("all",)), SplitPlace("test", ("all",)))


class Options(Subjects):
    """The subjects, the source of the questions, and how many of them."""

    hub_id: str = "cais/mmlu"
    overlap: Literal["refuse", "leave_out"] = "leave_out"


def task(options: Options) -> Task:
    """Open MMLU."""
    return Benchmark("mmlu", options, _ask, GRADERS["choice"], *_HUB, _rows)


def _ask(row: Row) -> RowQuestion:
    gold = row.value.get("answer")  # a letter in the official files, an index on the hub
    return multiple_choice(row, row.text("question"), row.value.get("choices") or (), gold, row.text("subject"))  # type: ignore[arg-type]


def _rows(path: Path) -> Iterator[Row]:
    files = sorted(path.glob("*_*.csv")) if path.is_dir() else []
    return (row for file in files for row in _subject(file)) if files else read_rows(path)


def _subject(file: Path) -> Iterator[Row]:
    subject = re.sub(r"_(?:dev|val|test)$", "", file.stem)
    for n, fields in csv_rows(file):
        if len(fields) < 4:
            what = f"{len(fields)} fields are not a question, its options and a letter"
            raise DataError(what, f"{file}, row {n}", "give the official file")
        question, *choices, answer = fields
        yield Row(f"{file}, row {n}", {"subject": subject, "question": question, "choices": choices, "answer": answer})
