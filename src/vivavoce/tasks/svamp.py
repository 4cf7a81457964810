"""Short word problems that differ in what is asked of the same story (SVAMP; Patel et al. 2021, arXiv:2103.07191; MIT).

The official file (``SVAMP.json``, an array of 1,000) is a challenge set without a training split: give it as ``path``,
and it is cut by ``train_share`` and ``seed``. The hub's copy has a split of 700 and 300 that is not the authors', but
the one that papers train on.
"""

from __future__ import annotations

from pydantic import Field

from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Benchmark, Official, RowQuestion
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.rows import Row

OFFICIAL = [{"path": "svamp/SVAMP*.json*"}]


class Options(Official):
    """The source of the questions, and how many of them."""

    hub_id: str = "ChilleD/SVAMP"
    train_share: float = Field(default=0.7, ge=0, le=1)


def task(options: Options) -> Task:
    """Open SVAMP."""
    return Benchmark("svamp", options, _ask, GRADERS["number"])


def _ask(row: Row) -> RowQuestion:
    story = row.text("Body").strip()
    gap = " " if story.endswith((".", "?", "!", ",")) else ". "  # some stories break off before the question
    return RowQuestion(story + gap + row.text("Question").strip(), row.text("Answer"), row.text("Type"))
