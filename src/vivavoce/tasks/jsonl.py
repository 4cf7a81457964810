"""Your own questions, from JSON lines.

::

    {"question": "How many legs have two spiders?", "answer": 16}
    {"question": "Which is a prime?", "answer": "C", "choices": ["4", "6", "7", "9"]}

Everything that could spoil a score is refused when the task is opened, with file and row: a missing field, an empty
or unreadable gold answer, an id or a question that stands there twice, a question in both splits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
    id_field: str | None = None
    """Without it an id is made from the question."""
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


@dataclass(slots=True)
class Questions(Graded):
    """A checked set of questions as a :class:`~vivavoce.tasks.Task`."""

    name: str
    answer_format: str
    grader: Grader
    train: tuple[Problem, ...]
    test: tuple[Problem, ...]

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
        every = _problems(read_rows(o.path), o, grader, {})
        chosen, _ = split([problem.id for problem in every], o.train_share, o.seed)
        train, test = [p for p in every if p.id in chosen], [p for p in every if p.id not in chosen]
        where = str(o.path)
    else:
        assert o.train_path is not None, o
        assert o.test_path is not None, o
        places = dict[str, str]()  # ids are unique over both files; a question in both has its own error, below
        train = _problems(read_rows(o.train_path), o, grader, places)
        test = _problems(read_rows(o.test_path), o, grader, places if o.id_field else {})
        where = f"{o.train_path} and {o.test_path}"
    refuse_overlap(train, test, where)
    return Questions(o.name, o.answer_format or grader.answer_format, grader, tuple(train), tuple(test))


def _problems(rows: Iterable[Row], o: Options, grader: Grader, places: dict[str, str]) -> list[Problem]:
    """Read the rows; ``places`` remembers where each id stood and is added to."""
    found = list[Problem]()
    for row in rows:
        problem = _problem(row, o, grader)
        if problem.id in places:
            twice = f"the question stands there twice: {problem.question[:80]!r}"
            what = f"duplicate id {problem.id!r}" if o.id_field else twice
            raise DataError(what, f"{row.where}, and before it {places[problem.id]}", "take one of the two out")
        places[problem.id] = row.where
        found.append(problem)
    return found


def _problem(row: Row, o: Options, grader: Grader) -> Problem:
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
    id_ = row.text(o.id_field) if o.id_field else question_id(o.name, question)
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
