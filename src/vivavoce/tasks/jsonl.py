"""Your own questions, from JSON lines.

::

    {"question": "How many legs have two spiders?", "answer": 16}
    {"question": "Which is a prime?", "answer": "C", "choices": ["4", "6", "7", "9"]}

Everything that could spoil a score is refused when the task is opened, with file and row: a missing field, an empty
or unreadable gold answer, an id or a question that stands there twice, a question in both splits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.errors import DataError
from vivavoce.records import Problem
from vivavoce.tasks import Task
from vivavoce.tasks.answers import LETTERS
from vivavoce.tasks.benchmark import lettered
from vivavoce.tasks.graded import Graded
from vivavoce.tasks.grading import GRADERS, Grader, GraderName
from vivavoce.tasks.mathematics import need_math_verify
from vivavoce.tasks.rows import Row, read_rows
from vivavoce.tasks.splitting import known_split, question_id, refuse_overlap, split


class Options(BaseModel):
    """Where the questions are, how a row is read and how answers are compared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path | None = None
    """One file, cut into train and test by ``train_share`` and ``seed``. Or give ``train_path`` and ``test_path``."""
    train_path: Path | None = None
    test_path: Path | None = None
    train_share: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = None

    question_field: str = "question"
    answer_field: str = "answer"
    id_field: str | None = "id"
    """Where no row has ``id``, and if it is null, an id is made from the question."""
    group_field: str | None = None
    choices_field: str | None = None
    """A list of options, written under the question as ``A. …``, ``B. …``; for the grader ``choice``."""
    answer_is: Literal["letter", "index", "text"] = "letter"
    """How the gold answer names its choice: by letter, by its index counted from 0, or by its text."""

    grader: GraderName
    answer_format: str = ""
    """One sentence for prompts; the default asks for a last line ``Final answer: …``, which the grader reads."""
    name: str = Field(default="jsonl", min_length=1)
    """What results and ids call this set of questions."""

    @model_validator(mode="after")
    def _one_source(self) -> Options:
        both = self.train_path is not None and self.test_path is not None
        either = self.train_path is not None or self.test_path is not None
        cut = self.train_share is not None or self.seed is not None
        if self.path is None and not both:
            raise ValueError("give either path, or train_path and test_path")
        if self.path is not None and either:
            raise ValueError("path excludes train_path and test_path")
        if self.path is not None and (self.train_share is None or self.seed is None):
            raise ValueError("path needs train_share and seed, so that the split can be made again")
        if self.path is None and cut:
            raise ValueError("train_share and seed belong to path; two files are a split already")
        if self.choices_field is not None and self.grader != "choice":
            raise ValueError("choices_field needs grader: choice")
        if self.answer_is != "letter" and self.choices_field is None:
            raise ValueError("answer_is needs choices_field")
        return self


class Doubt(NamedTuple):
    """Something about the data that is no error, but looks like a mistake."""

    said: str
    do: str


@dataclass(slots=True)
class Questions(Graded):
    """A checked set of questions as a :class:`~vivavoce.tasks.Task`."""

    name: str
    answer_format: str
    grader: Grader
    train: tuple[Problem, ...]
    test: tuple[Problem, ...]
    doubts: tuple[Doubt, ...] = ()
    """What may be meant otherwise; `viva doctor` asks."""

    def problems(self, split: str) -> list[Problem]:
        """The split in file order. Raises DataError for a split other than train and test."""
        return list(self.train if known_split(split, self.name) == "train" else self.test)


def task(options: Options) -> Task:
    """Read and check the questions. Raises DataError, naming file and row, where a row or the split is wrong."""
    o, grader = options, GRADERS[options.grader]
    if o.grader == "math":
        need_math_verify()
    if o.path is not None:
        assert o.train_share is not None, o
        assert o.seed is not None, o
        every = _problems(o.path, o, grader, {})
        chosen, _ = split([problem.id for problem in every], o.train_share, o.seed)
        train, test = [p for p in every if p.id in chosen], [p for p in every if p.id not in chosen]
        where = str(o.path)
    else:
        assert o.train_path is not None, o
        assert o.test_path is not None, o
        places = dict[str, str]()  # ids are unique over both files; a question in both has its own error, below
        train = _problems(o.train_path, o, grader, places)
        test = _problems(o.test_path, o, grader, places)
        where = f"{o.train_path} and {o.test_path}"
    refuse_overlap(train, test, where)
    doubts = _unseen_choices([*train, *test], o) if o.grader == "choice" and o.choices_field is None else ()
    return Questions(o.name, o.answer_format or grader.answer_format, grader, tuple(train), tuple(test), doubts)


_LETTERED = re.compile(r"(?:^|[\s(\[])([A-J])\s?[.):\]]")


def _unseen_choices(problems: Sequence[Problem], o: Options) -> tuple[Doubt, ...]:
    """Whether there are questions with letters for answers that show no letters to choose from."""
    bare = [p for p in problems if not {"A", "B"} <= set(_LETTERED.findall(p.question))]
    if not bare:
        return ()
    fields = dict.fromkeys(
        name
        for path in (o.path, o.train_path, o.test_path)
        for row in (read_rows(path) if path else ())
        for name, value in row.value.items()
        if isinstance(value, list) and len(value) > 1 and name not in (o.question_field, o.answer_field)
    )
    some = f"{len(bare):,} of {len(problems):,} questions"
    what = f"{some} show no options to choose from, such as {bare[0].question[:60]!r}"
    if fields:
        named = " or ".join(fields)
        do = f"set task.choices_field: {named}, and answer_is if the answer is an index or a text"
        return (Doubt(f"{what}; no model is shown the field {named}", do),)
    return (Doubt(what, "write options under the question as `A. …`, or give them as a list in task.choices_field"),)


def _problems(path: Path, o: Options, grader: Grader, places: dict[str, str]) -> list[Problem]:
    """Read the rows of a file; ``places`` remembers where each of the rows' own ids stood and is added to."""
    rows = list(read_rows(path))
    named = o.id_field if "id_field" in o.model_fields_set or any("id" in row.value for row in rows) else None
    found, asked = list[Problem](), dict[str, str]()
    for row in rows:
        problem = _problem(row, o, grader, named)
        key = question_id(o.name, problem.question)
        what, before = f"the question stands there twice: {problem.question[:80]!r}", asked.setdefault(key, row.where)
        do = "take one of the two out"
        if before == row.where and named is not None:
            what, before = f"duplicate id {problem.id!r}", places.setdefault(problem.id, row.where)
            do += ", or give each an id of its own; `id_field: null` makes ids from the questions"
        if before != row.where:
            raise DataError(what, f"{row.where}, and before it {before}", do)
        found.append(problem)
    return found


def _problem(row: Row, o: Options, grader: Grader, named: str | None) -> Problem:
    """The problem of a row whose id stands in the field ``named``, None: nowhere."""
    question, raw = row.text(o.question_field), row.text(o.answer_field)
    if o.choices_field is not None:
        choices = _choices(row, o.choices_field)
        raw = _letter(row, o, raw, choices)
        question = lettered(question, choices)
    gold = grader.read_gold(raw)
    if gold is None or not _told_apart(grader, gold):
        raise DataError(
            f"the grader {grader.name!r} cannot read the gold answer {raw[:80]!r}",
            f"{row.where}, field {o.answer_field!r}",
            "correct the row, or choose another grader",
        )
    id_ = question_id(o.name, question) if named is None else row.text(named)
    return Problem(id_, question, gold, row.text(o.group_field) if o.group_field else "")


def _told_apart(grader: Grader, gold: str) -> bool:
    """Whether a reply with the gold answer is graded right and one beside it wrong."""
    right = grader.grade(gold, grader.written(gold)).correct
    wrong = grader.grade(gold, grader.written(grader.perturbed(gold))).correct
    return right is True and wrong is False


def _choices(row: Row, field: str) -> list[str]:
    value = row.value.get(field)
    if not isinstance(value, list) or not 2 <= len(value) <= len(LETTERS):
        raise DataError(f"no list of 2 to {len(LETTERS)} choices in field {field!r}", row.where)
    choices = [str(choice).strip() for choice in value]
    if "" in choices or len(set(choices)) < len(choices):
        raise DataError(f"a choice is empty or stands there twice: {choices}", row.where)
    return choices


def _letter(row: Row, o: Options, raw: str, choices: list[str]) -> str:
    """The letter of the gold choice, by the one reading that the options name; never guessed from the value."""
    letters = LETTERS[: len(choices)]
    if o.answer_is == "index":
        found = letters[int(raw)] if raw.strip().isdecimal() and int(raw) < len(letters) else None
    elif o.answer_is == "text":
        found = letters[choices.index(raw.strip())] if raw.strip() in choices else None
    else:
        found = GRADERS["choice"].read_gold(raw)
        found = found if found is not None and found in letters else None
    if found is None:
        raise DataError(
            f"the gold answer {raw[:80]!r} is no {o.answer_is} of {len(choices)} choices",
            f"{row.where}, field {o.answer_field!r}",
            "correct the row, or set answer_is to letter, index (from 0) or text",
        )
    return found
