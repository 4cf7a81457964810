"""Questions by columns: the fields of a row for question, gold answer, choices, id and group, and the grader.

It is shared by tasks that read rows of any form: a user's own files (:mod:`vivavoce.tasks.jsonl`) and data sets of the
Hub (:mod:`vivavoce.tasks.hub`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.errors import DataError
from vivavoce.tasks.answers import LETTERS
from vivavoce.tasks.benchmark import with_letters
from vivavoce.tasks.grading import GRADERS, Grader, GraderName
from vivavoce.tasks.mathematics import need_math_verify
from vivavoce.tasks.rows import Row, missing


class Columns(BaseModel):
    """The columns of a row, and the comparison of answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question_field: str = Field(
        default="question", description="field of the question; `a.b` is field b of the object in field a"
    )
    answer_field: str = Field(default="answer", description="field of the gold answer")
    group_field: str | None = Field(default=None, description="field of the subject or kind, for tables by group")
    choices_field: str | None = Field(
        default=None,
        description="field of a list of options, written under the question as `A. …`; for the grader `choice`",
    )
    answer_is: Literal["letter", "index", "text"] = Field(
        default="letter",
        description="how the gold answer names its choice: by letter, by its index counted from 0, or by its text",
    )
    grader: GraderName = Field(
        description="how answers are compared with the gold answer; judge: by the models that the recipe names under "
        "`judge`, and the gold answer may be missing"
    )
    answer_format: str = Field(
        default="",
        description="one sentence for prompts; empty asks for a last line `Final answer: …`, which the grader reads",
    )

    @model_validator(mode="after")
    def _choices_have_letters(self) -> Columns:
        if self.choices_field is not None and self.grader != "choice":
            raise ValueError("choices_field needs grader: choice")
        if self.answer_is != "letter" and self.choices_field is None:
            raise ValueError("answer_is needs choices_field")
        return self


class Read(NamedTuple):
    """The question of a row."""

    question: str
    gold: str
    """The gold answer in the grader's canonical form."""
    group: str
    others: tuple[str, ...] = ()
    """The other letters on offer."""


def grader_of(columns: Columns) -> Grader:
    """The grader. Raises MissingDependency if it needs a package that is not installed."""
    if columns.grader == "math":
        need_math_verify()
    return GRADERS[columns.grader]


def read(row: Row, columns: Columns) -> Read:
    """The question of a row, by its columns. Raises DataError, naming row and field, if it cannot be read.

    A gold answer is readable if its grader accepts it and rejects another one beside it.
    """
    o, grader = columns, GRADERS[columns.grader]
    question, group = row.text(o.question_field), row.text(o.group_field) if o.group_field else ""
    if grader.name == "judge":
        has_answer = o.answer_field in row.value or "answer_field" in o.model_fields_set
        return Read(question, row.text(o.answer_field).strip() if has_answer else "", group)
    raw = row.text(o.answer_field)
    others: tuple[str, ...] = ()
    if o.choices_field is not None:
        choices = _choices(row, o.choices_field)
        raw = _letter(row, o, raw, choices)
        others = tuple(letter for letter in LETTERS[: len(choices)] if letter != raw)
        question = with_letters(question, choices)
    gold = grader.read_gold(raw)
    if gold is None or not _tells_apart(grader, gold):
        raise DataError(
            f"the grader {grader.name!r} cannot read the gold answer {raw[:80]!r}",
            f"{row.where}, field {o.answer_field!r}",
            "correct the row, or choose another grader",
        )
    return Read(question, gold, group, others)


@lru_cache(1 << 12)  # many questions of a large file have one answer
def _tells_apart(grader: Grader, gold: str) -> bool:
    """Whether a reply with the gold answer is graded right and one beside it wrong."""
    right = grader.grade(gold, grader.written(gold)).correct
    wrong = grader.grade(gold, grader.written(grader.perturb(gold))).correct
    return right is True and wrong is False


def _choices(row: Row, field: str) -> list[str]:
    value = row.get(field)
    if not isinstance(value, list) or not 2 <= len(value) <= len(LETTERS):
        do = "write it as a list of texts, or remove the row"
        raise DataError(f"no list of 2 to {len(LETTERS)} choices in field {field!r}", row.where, do)
    choices = ["" if missing(choice) else str(choice).strip() for choice in value]
    if "" in choices or len(set(choices)) < len(choices):
        do = "correct the row, or remove it"
        raise DataError(f"a choice is empty or appears twice: {choices}", row.where, do)
    return choices


def _letter(row: Row, o: Columns, raw: str, choices: list[str]) -> str:
    """The letter of the gold choice, by the one reading that matches the options; never guessed from the value."""
    letters = LETTERS[: len(choices)]
    if o.answer_is == "index":
        letter = letters[int(raw)] if raw.strip().isdecimal() and int(raw) < len(letters) else None
    elif o.answer_is == "text":
        letter = letters[choices.index(raw.strip())] if raw.strip() in choices else None
    else:
        letter = GRADERS["choice"].read_gold(raw)
        letter = letter if letter is not None and letter in letters else None
    if letter is None:
        raise DataError(
            f"the gold answer {raw[:80]!r} is not the {o.answer_is} of one of {len(choices)} choices",
            f"{row.where}, field {o.answer_field!r}",
            "correct the row, or set answer_is to letter, index (from 0) or text",
        )
    return letter


LETTERED = re.compile(r"(?:^|[\s(\[])([A-J])\s?[.):\]]")
"""An option's letter in a question."""

__all__ = ["LETTERED", "Columns", "Read", "grader_of", "read"]
