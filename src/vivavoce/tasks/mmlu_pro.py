"""Questions of many subjects with up to ten options (MMLU-Pro; Wang et al. 2024, arXiv:2406.01574; Apache-2.0).

There is no training split: the test split (``path``, or the hub's) is cut by ``train_share`` and ``seed``. Debate &
Reflect trains on 1/2 of computer science, 3/4 of physics and 2/3 of biology: one recipe a subject, with that share.
"""

from __future__ import annotations

from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Benchmark, RowQuestion, SplitPlace, Subjects, multiple_choice
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.rows import Row

OFFICIAL = [{"path": "mmlu_pro"}]


class Options(Subjects):
    """The subjects, the source of the questions, and how many of them."""

    hub_id: str = "TIGER-Lab/MMLU-Pro"


def task(options: Options) -> Task:
    """Open MMLU-Pro."""
    return Benchmark("mmlu_pro", options, _ask, GRADERS["choice"], train=SplitPlace("test"))


def _ask(row: Row) -> RowQuestion:
    options = row.value.get("options") or ()
    return multiple_choice(row, row.text("question"), options, row.text("answer"), row.text("category"))
