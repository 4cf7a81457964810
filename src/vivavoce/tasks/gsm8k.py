"""Grade-school word problems, answered by a number (GSM8K; Cobbe et al. 2021, arXiv:2110.14168; MIT).

Official files: JSON lines with ``question`` and ``answer``, a worked solution whose last line is ``#### 72``.
"""

from __future__ import annotations

from vivavoce.errors import DataError
from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Benchmark, Official, RowQuestion, SplitPlace
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.rows import Row

OFFICIAL = [{"train_path": "gsm8k/train.jsonl*", "test_path": "gsm8k/test*.jsonl*"}]
_HUB = (SplitPlace("train", ("main",)), SplitPlace("test", ("main",)))


class Options(Official):
    """The source of the questions, and how many of them."""

    hub_id: str = "openai/gsm8k"


def task(options: Options) -> Task:
    """Open GSM8K."""
    return Benchmark("gsm8k", options, _ask, GRADERS["number"], *_HUB)


def _ask(row: Row) -> RowQuestion:
    solution = row.text("answer")
    _, marked, gold = solution.rpartition("####")
    if not marked or GRADERS["number"].canonical(gold) is None:
        raise DataError("the answer does not end with '#### ' and a number", row.where, "use the official files")
    return RowQuestion(row.text("question"), gold, solution=solution)
