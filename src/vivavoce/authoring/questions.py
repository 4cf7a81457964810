"""Guesses about a user's file of questions: the meaning of its columns, and the grader that fits its answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vivavoce.errors import DataError
from vivavoce.tasks import open_task
from vivavoce.tasks.rows import Row, read_rows

_LOOKED_AT = 1000
"""Rows that a guess goes by. Opening the task checks all of them."""
_QUESTION = ("question", "problem", "prompt", "query", "instruction", "input", "ask", "q", "text")
_ANSWER = ("answer", "gold", "solution", "target", "label", "correct_answer", "output", "completion", "response", "a")
_CHOICES = ("choices", "options", "alternatives", "candidates")
_GROUP = ("group", "subject", "category", "topic", "skill", "type", "level", "domain")
_NUMBER = re.compile(r"[-+]?[$€£]?\s*[-+]?\d[\d,. ]*(/\d+)?\s*%?")
_YES_NO = {"yes", "no", "true", "false"}
_LETTER = re.compile(r"\(?[A-J]\)?[.:]?")
_MATH = re.compile(r"\\[a-zA-Z]+|[\^_=]|\$[^$]+\$")


def reading(path: Path, test: Path | None = None, **columns: str) -> dict[str, Any]:
    """The options of the task `jsonl` for a file of questions: those in ``columns`` as they are, the others guessed.

    Raises DataError if a column cannot be told, or if the task itself finds the data wrong, with file and row.
    """
    rows = list(islice(read_rows(path), _LOOKED_AT))
    options: dict[str, Any] = {"path": str(path), "train_share": 0.7, "seed": 0}
    if test is not None:
        options = {"train_path": str(path), "test_path": str(test)}
    question = columns.get("question_field") or _column(rows, _QUESTION, "question", path)
    answer = columns.get("answer_field") or _column(rows, _ANSWER, "answer", path, besides=question)
    choices = columns.get("choices_field") or next((c for c in _CHOICES if _lists(rows, c)), "")
    group = columns.get("group_field") or next((g for g in _GROUP if _few(rows, g) and g not in (question, answer)), "")
    options["grader"] = columns.get("grader") or _grader(rows, question, answer, choices)
    fields = {"question_field": question, "answer_field": answer, "group_field": group, "choices_field": choices}
    if options["grader"] != "choice":
        fields["choices_field"] = ""
    usual = {"question_field": "question", "answer_field": "answer"}
    options |= {key: value for key, value in fields.items() if value and value != usual.get(key)}
    if fields["choices_field"] and (form := _answer_is(rows, answer, choices)) != "letter":
        options["answer_is"] = form
    open_task("jsonl", options).problems("train")
    return options


def _column(rows: Sequence[Row], names: Sequence[str], what: str, path: Path, besides: str = "") -> str:
    """The column that is called as ``what`` usually is."""
    there = {name.casefold(): name for name in rows[0].value if name != besides}
    if column := next((there[name] for name in names if name in there), None):
        return column
    has = ", ".join(rows[0].value)
    raise DataError(f"which column is the {what}? the rows have {has}", str(path), f"give --{what}-field NAME")


def _lists(rows: Sequence[Row], name: str) -> bool:
    return all(isinstance(row.value.get(name), list) for row in rows)


def _few(rows: Sequence[Row], name: str) -> bool:
    """Whether a column parts the rows into a few kinds."""
    values = [row.value.get(name) for row in rows]
    return all(isinstance(v, str) and v.strip() for v in values) and 1 < len(set(values)) <= max(2, len(rows) // 3)


def _grader(rows: Sequence[Row], question: str, answer: str, choices: str) -> str:
    answers = [row.text(answer).strip() for row in rows]
    if choices:
        return "choice"
    if all(_NUMBER.fullmatch(a.rpartition("####")[2].strip()) for a in answers):
        return "number"
    if all(a.casefold().rstrip(".") in _YES_NO for a in answers):
        return "yes_no"
    if all(_LETTER.fullmatch(a) for a in answers) and any("B" in row.text(question) for row in rows):
        return "choice"
    return "math" if sum(bool(_MATH.search(a)) for a in answers) > len(answers) / 2 else "text"


def _answer_is(rows: Sequence[Row], answer: str, choices: str) -> str:
    """The form in which gold answers name their choice, read off all rows."""
    answers = [(row.text(answer).strip(), [str(c).strip() for c in row.value[choices]]) for row in rows]
    if all(_LETTER.fullmatch(a) for a, _ in answers):
        return "letter"
    if all(a in options for a, options in answers):
        return "text"
    return "index" if all(a.isdecimal() and int(a) < len(options) for a, options in answers) else "letter"


__all__ = ["reading"]
