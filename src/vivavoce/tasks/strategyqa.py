"""Questions whose steps are left unsaid, answered by yes or no (StrategyQA; Geva et al. 2021, arXiv:2101.02235; MIT).

The official test set has no public labels. Papers test on a part of the labelled questions: the ``dev.json`` that
comes beside ``train.json`` (arrays of 2,061 and 229), or the hub's split of 1,603 and 687; say which when you compare.
"""

from __future__ import annotations

from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Benchmark, Official, RowQuestion
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.rows import Row

OFFICIAL = [{"train_path": "strategyqa/train.json*", "test_path": "strategyqa/dev*.json*"}]


class Options(Official):
    """The source of the questions, and how many of them."""

    hub_id: str = "ChilleD/StrategyQA"


def task(options: Options) -> Task:
    """Open StrategyQA."""
    return Benchmark("strategyqa", options, _ask, GRADERS["yes_no"])


def _ask(row: Row) -> RowQuestion:
    return RowQuestion(row.text("question"), row.text("answer"))
