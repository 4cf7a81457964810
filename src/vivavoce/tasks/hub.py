"""Any data set of the Hugging Face Hub, or a folder that the package ``datasets`` reads, by its columns.

::

    task: {name: hub, hub_id: tau/commonsense_qa, test_split: validation, question_field: question,
           choices_field: choices.text, answer_field: answerKey, grader: choice}

What was downloaded once, and a folder with Parquet, CSV or JSON files, needs no network.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Benchmark, Official, RowQuestion, SplitPlace
from vivavoce.tasks.columns import Columns, grader_of, read
from vivavoce.tasks.rows import Row

NEEDS = "a data set of the Hub, or a folder with one"


class Options(Columns, Official):
    """The data set, its splits, and the columns of a row."""

    _from: ClassVar[str] = "give hub_id: the id of a data set on the Hub (owner/name), or a folder"

    hub_id: str = Field(default="", description="the data set: owner/name on the Hub, or a folder with its files")
    hub_config: str | None = Field(default=None, description="one of its configurations (subsets), if it has several")
    train_split: str = Field(default="train", description="its split that is trained on")
    test_split: str = Field(
        default="test", description="its split for the test; if it is train_split too, that is cut by train_share"
    )
    label: str = Field(default="", description="what results and ids call these questions; empty: hub_id")

    @model_validator(mode="after")
    def _named(self) -> Options:
        if not self.hub_id and self.path is None and (self.train_path is None or self.test_path is None):
            raise ValueError(self._from)
        return self


def task(options: Options) -> Task:
    """Open the data set; nothing is read before the task is asked for problems."""
    o, grader = options, grader_of(options)

    def ask(row: Row) -> RowQuestion:
        question = read(row, o)
        return RowQuestion(question.question, question.gold, question.group, others=question.others)

    train, test = (SplitPlace(split, (o.hub_config,)) for split in (o.train_split, o.test_split))
    made = Benchmark(o.label or o.hub_id.strip("/").rpartition("/")[2] or "hub", o, ask, grader, train, test)
    made.answer_format = o.answer_format or made.answer_format
    return made


__all__ = ["Options", "task"]
