"""Grade-school word problems, answered by a number (GSM8K; Cobbe et al. 2021, arXiv:2110.14168; MIT).

Read from the official files (JSON lines with ``question`` and ``answer``, whose last line is ``#### 72``) where a path
is given, otherwise from the Hugging Face hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.errors import DataError, MissingDependency
from vivavoce.records import Grade, Problem, Token
from vivavoce.tasks import Task
from vivavoce.tasks.confidence import geometric_mean
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.rows import Row, read_rows
from vivavoce.tasks.splitting import lines_and_sentences, question_id, refuse_overlap


class Options(BaseModel):
    """Where the questions come from, and how many of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train_path: Path | None = None
    """``train.jsonl`` or ``train.jsonl.gz``; without it the split is downloaded."""
    test_path: Path | None = None
    hub_id: str = "openai/gsm8k"
    hub_revision: str | None = None
    """A commit of the hub's data set, for a run that must be repeatable."""
    train_limit: int | None = Field(default=None, ge=1)
    """Only the first so many rows."""
    test_limit: int | None = Field(default=None, ge=1)


class Gsm8k:
    """GSM8K as a :class:`~vivavoce.tasks.Task`."""

    name = "gsm8k"
    answer_format = "End with a line that reads 'Final answer: ' followed by the number alone, without units."

    def __init__(self, options: Options) -> None:
        self.options = options
        self._splits = dict[str, list[Problem]]()

    def problems(self, split: str) -> list[Problem]:
        """The split in its official order; an id is ``gsm8k/`` and a hash of the question.

        Raises DataError where the data cannot be read, or a question stands in both splits.
        """
        if split not in ("train", "test"):
            raise DataError(f"unknown split {split!r}", self.name, "ask for train or test")
        if split not in self._splits:
            self._splits[split] = self._read(split)
            if len(self._splits) == 2:
                refuse_overlap(self._splits["train"], self._splits["test"], self.name)
        return list(self._splits[split])

    def _read(self, split: str) -> list[Problem]:
        o = self.options
        path, limit = (o.train_path, o.train_limit) if split == "train" else (o.test_path, o.test_limit)
        found = dict[str, Problem]()
        for row in read_rows(path) if path else _hub_rows(o.hub_id, o.hub_revision, split):
            problem = _problem(row)
            if problem.id in found:
                raise DataError(f"the question stands there twice: {problem.question[:80]!r}", row.where)
            found[problem.id] = problem
            if len(found) == limit:
                break
        return list(found.values())

    def grade(self, problem: Problem, text: str) -> Grade:
        """The stated number against the gold number, exactly."""
        return GRADERS["number"].grade(problem.gold, text)

    def steps(self, text: str) -> list[str]:
        """Lines and sentences."""
        return lines_and_sentences(text)

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """Raises NotImplementedError: no program can check a step of prose."""
        raise NotImplementedError("gsm8k has no checker of steps")

    def probability(self, text: str, tokens: Sequence[Token]) -> float:
        """Geometric mean probability of a token of the reply."""
        return geometric_mean(tokens)


def _problem(row: Row) -> Problem:
    question, answer = row.text("question"), row.text("answer")
    gold = GRADERS["number"].canonical(answer.rpartition("####")[2]) if "####" in answer else None
    if gold is None:
        raise DataError("the answer does not end with '#### ' and a number", row.where, "use the official files")
    return Problem(question_id("gsm8k", question), question, gold)


def _hub_rows(hub_id: str, revision: str | None, split: str) -> Iterator[Row]:
    try:
        from datasets import load_dataset  # heavy, and needed only where no file is given
    except ImportError as error:
        raise MissingDependency(
            "GSM8K without a path is downloaded with the package datasets, which is not installed",
            "task.options",
            "pip install 'vivavoce[train]', or set train_path and test_path",
        ) from error
    try:
        rows: Any = load_dataset(hub_id, "main", split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:  # offline, unknown data set, split or revision
        raise DataError(
            f"cannot load {hub_id} from the hub: {error}", f"gsm8k, {split}", f"check the network, or set {split}_path"
        ) from error
    return (Row(f"{hub_id}, {split}, row {n}", row) for n, row in enumerate(rows, 1))


def task(options: Options) -> Task:
    """Open GSM8K."""
    return Gsm8k(options)
