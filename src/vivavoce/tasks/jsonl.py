"""Your own questions, from JSON lines, JSON, CSV or Parquet.

::

    {"question": "How many legs have two spiders?", "answer": 16}
    {"question": "Which is a prime?", "answer": "C", "choices": ["4", "6", "7", "9"]}

Everything that could spoil a score is refused when the task is opened, with file and row: a missing field, an empty or
unreadable gold answer, an id or a question that is there twice, a question in both splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, model_validator

from vivavoce.errors import DataError
from vivavoce.records import Problem
from vivavoce.tasks import Task
from vivavoce.tasks.columns import LETTERED, Columns, grader_of, read
from vivavoce.tasks.graded import Graded
from vivavoce.tasks.grading import Grader
from vivavoce.tasks.rows import Row, read_rows
from vivavoce.tasks.splitting import known_split, question_id, refuse_overlap, split


class Options(Columns):
    """The source of the questions, the columns of a row and the comparison of answers."""

    path: Path | None = Field(
        default=None,
        description="one file (JSON lines, JSON, CSV or Parquet) or a folder of them, cut into train and test by "
        "train_share and seed; or give train_path and test_path",
    )
    train_path: Path | None = Field(default=None, description="file of the training questions")
    test_path: Path | None = Field(default=None, description="file of the test questions")
    train_share: float | None = Field(default=None, ge=0, le=1, description="share of `path` that is trained on")
    seed: int | None = Field(default=None, description="draws which questions of `path` are trained on")
    id_field: str | None = Field(
        default="id",
        description="field of the id; if no row has `id`, and if this is null, an id is made from the question",
    )
    name: str = Field(default="jsonl", min_length=1, description="what results and ids call this set of questions")

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
        return self


class Doubt(NamedTuple):
    """An oddity of the data that is no error, but looks like a mistake."""

    message: str
    do: str
    sure: bool = False
    """Whether nothing could be learned from such data, so that `viva run` refuses them."""


@dataclass(slots=True)
class Questions(Graded):
    """A checked set of questions as a :class:`~vivavoce.tasks.Task`."""

    name: str
    answer_format: str
    grader: Grader
    train: tuple[Problem, ...]
    test: tuple[Problem, ...]
    doubts: tuple[Doubt, ...] = ()
    """Oddities that may be meant: `viva doctor` asks, and refuses those that are sure, as `viva run` does."""

    def problems(self, split: str) -> list[Problem]:
        """The split in file order. Raises DataError for a split other than train and test."""
        return list(self.train if known_split(split, self.name) == "train" else self.test)


def task(options: Options) -> Task:
    """Read and check the questions. Raises DataError, naming file and row, if a row or the split is wrong."""
    o, grader = options, grader_of(options)
    if o.path is not None:
        assert o.train_share is not None, o
        assert o.seed is not None, o
        every = _problems(o.path, o, {})
        chosen, _ = split([problem.id for problem in every], o.train_share, o.seed)
        train, test = [p for p in every if p.id in chosen], [p for p in every if p.id not in chosen]
        where = str(o.path)
    else:
        assert o.train_path is not None, o
        assert o.test_path is not None, o
        places = dict[str, str]()  # ids are unique over both files; a question in both has its own error, below
        train = _problems(o.train_path, o, places)
        test = _problems(o.test_path, o, places)
        where = f"{o.train_path} and {o.test_path}"
    refuse_overlap(train, test, where)
    doubts = _unseen_choices([*train, *test], o) if o.grader == "choice" and o.choices_field is None else ()
    return Questions(o.name, o.answer_format or grader.answer_format, grader, tuple(train), tuple(test), doubts)


def _unseen_choices(problems: Sequence[Problem], o: Options) -> tuple[Doubt, ...]:
    """Whether there are questions with letters for answers that show no letters to choose from."""
    bare = [p for p in problems if not {"A", "B"} <= set(LETTERED.findall(p.question))]
    if not bare:
        return ()
    fields = dict.fromkeys(
        name
        for path in (o.path, o.train_path, o.test_path)
        for row in (read_rows(path) if path else ())
        for name, value in row.value.items()
        if isinstance(value, list) and len(value) > 1 and name not in (o.question_field, o.answer_field)
    )
    counted = f"{len(bare):,} of {len(problems):,} questions"
    what = f"{counted} show no options to choose from, such as {bare[0].question[:60]!r}"
    if fields:
        named = " or ".join(fields)
        do = f"set task.choices_field: {named}, and answer_is if the answer is an index or a text"
        return (Doubt(f"{what}; no model is shown the field {named}", do, len(bare) == len(problems)),)
    return (Doubt(what, "write options under the question as `A. …`, or give them as a list in task.choices_field"),)


def _problems(path: Path, o: Options, places: dict[str, str]) -> list[Problem]:
    """Read the rows of a file; ``places`` remembers the place of each of the rows' own ids and is added to."""
    named = o.id_field
    if "id_field" not in o.model_fields_set and not any("id" in row.value for row in read_rows(path)):
        named = None
    problems, places_of = list[Problem](), dict[str, str]()
    for row in read_rows(path):  # read again, so that a million rows are not held beside their questions
        problem = _problem(row, o, named)
        key = question_id(o.name, problem.question)
        what, before = (
            f"the question appears twice: {problem.question[:80]!r}",
            places_of.setdefault(key, row.where),
        )
        do = "remove one of the two"
        if before == row.where and named is not None:
            what, before = f"duplicate id {problem.id!r}", places.setdefault(problem.id, row.where)
            do += ", or give each an id of its own; `id_field: null` makes ids from the questions"
        if before != row.where:
            raise DataError(what, f"{row.where}, and before it {before}", do)
        problems.append(problem)
    return problems


def _problem(row: Row, o: Options, named: str | None) -> Problem:
    """The problem of a row whose id stands in the field ``named``, None: nowhere."""
    question = read(row, o)
    id_ = question_id(o.name, question.question) if named is None else row.text(named)
    return Problem(id_, question.question, question.gold, question.group)
