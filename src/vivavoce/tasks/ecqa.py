"""Commonsense questions with five options and explanations (ECQA; Aggarwal et al. 2021, ACL 2021.acl-long.238).

The annotations are under CDLA-Sharing-1.0; the questions are CommonsenseQA's (Talmor et al. 2019), whose licence its
copies state differently. Official files: the CSV that the authors' script makes (``q_text``, ``q_op1`` to ``q_op5``,
``q_ans`` as text), or CommonsenseQA's JSON lines, for a split without its explanations. A few questions of train are
asked in the test too; they are left out of train.
"""

from __future__ import annotations

from typing import Literal

from vivavoce.errors import DataError
from vivavoce.tasks import Task
from vivavoce.tasks.arc_challenge import stem_and_choices
from vivavoce.tasks.benchmark import Benchmark, Official, RowQuestion, multiple_choice
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.rows import Row

OFFICIAL = [
    {"train_path": "ecqa/*train*", "test_path": "ecqa/*test*"},
    {"train_path": "ecqa/*val*", "test_path": "ecqa/*test*"},
]


class Options(Official):
    """The source of the questions, and how many of them."""

    hub_id: str = "yangdong/ecqa"
    overlap: Literal["refuse", "leave_out"] = "leave_out"


def task(options: Options) -> Task:
    """Open ECQA."""
    return Benchmark("ecqa", options, _ask, GRADERS["choice"])


def _ask(row: Row) -> RowQuestion:
    if "q_text" not in row.value:
        return stem_and_choices(row)
    options = [row.text(f"q_op{i}").strip() for i in range(1, 6)]
    if (gold := row.text("q_ans").strip()) not in options:
        raise DataError(f"the answer {gold!r} is none of the options {options}", row.where)
    return multiple_choice(row, row.text("q_text"), options, options.index(gold))
