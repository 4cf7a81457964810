"""Science questions of school exams that simple methods fail, three to five options (ARC-Challenge; Clark et al. 2018,
arXiv:1803.05457; CC BY-SA 4.0).

Official files: JSON lines with ``question: {stem, choices: [{label, text}]}`` and ``answerKey``; the hub's form, with
``choices`` as two lists, is read as well. Some options are labelled by digits; here they all have letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vivavoce.errors import DataError
from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Benchmark, Official, RowQuestion, SplitPlace, multiple_choice
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.rows import Row

OFFICIAL = [{"train_path": "arc_challenge/train*", "test_path": "arc_challenge/test*"}]
_HUB = (SplitPlace("train", ("ARC-Challenge",)), SplitPlace("test", ("ARC-Challenge",)))


class Options(Official):
    """The source of the questions, and how many of them."""

    hub_id: str = "allenai/ai2_arc"


def task(options: Options) -> Task:
    """Open ARC-Challenge."""
    return Benchmark("arc_challenge", options, _ask, GRADERS["choice"], *_HUB)


def _ask(row: Row) -> RowQuestion:
    question = row.value.get("question")
    return stem_and_choices(row) if isinstance(question, Mapping) else _two_lists(row, row.text("question"))


def stem_and_choices(row: Row) -> RowQuestion:
    """A question in the form that ARC and CommonsenseQA share, the right option named by ``answerKey``."""
    question: Mapping[str, Any] = row.value["question"]
    choices = question.get("choices") or ()
    labels, texts = [c.get("label") for c in choices], [c.get("text") for c in choices]
    return multiple_choice(row, str(question.get("stem", "")), texts, _index(row, labels))


def _two_lists(row: Row, question: str) -> RowQuestion:
    choices: Mapping[str, list[Any]] = row.value.get("choices") or {}
    return multiple_choice(row, question, choices.get("text", []), _index(row, choices.get("label", [])))


def _index(row: Row, labels: list[Any]) -> int:
    if (key := row.text("answerKey")) not in labels:
        raise DataError(f"answerKey {key!r} is not one of the labels {labels}", row.where)
    return labels.index(key)
