"""Contest problems answered by an expression (MATH; Hendrycks et al. 2021, arXiv:2103.03874; MIT) and MATH-500.

The licence is the data set's; the problems come from contests whose owners have disputed their redistribution. Official
files: JSON with ``problem``, ``solution`` (the answer in its last ``\\boxed``), ``level`` and ``type``, one a problem
in a folder or as lines; MATH-500 has ``answer`` and ``subject`` too. MATH-500 is part of MATH's test: the two share
``train``. Answers are compared by math-verify in a process of their own (``pip install 'vivavoce[math]'``).
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from vivavoce.errors import DataError
from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Benchmark, RowQuestion, SplitPlace, Subjects
from vivavoce.tasks.grading import GRADERS, boxes
from vivavoce.tasks.mathematics import need_math_verify
from vivavoce.tasks.rows import Row

OFFICIAL = [
    {"train_path": "math/train*", "test_path": "math/test*"},
    {"test": "math500", "test_path": "math/math500*"},
]
_SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip


class Options(Subjects):
    """The test and subjects, the source of the problems, and how many of them."""

    test: Literal["math", "math500"] = Field(
        default="math", description="the test questions: all 5,000 of MATH, or the 500 of MATH-500"
    )
    hub_id: str = "EleutherAI/hendrycks_math"


def task(options: Options) -> Task:
    """Open MATH, with its own test or with MATH-500."""
    need_math_verify()
    test = (
        SplitPlace("test", hub_id="HuggingFaceH4/MATH-500")
        if options.test == "math500"
        else SplitPlace("test", _SUBJECTS)
    )
    return Benchmark("math", options, _ask, GRADERS["math"], SplitPlace("train", _SUBJECTS), test)


def _ask(row: Row) -> RowQuestion:
    problem, solution = row.text("problem"), row.text("solution")
    subject, boxed = row.text("subject" if "subject" in row.value else "type"), boxes(solution)
    if not boxed:
        raise DataError("the solution has no \\boxed answer", row.where, "use the official files")
    if not boxed[-1]:
        return RowQuestion(problem, "", subject, odd="the box of its solution is empty")
    gold, odd = row.text("answer") if "answer" in row.value else boxed[-1], ""
    if len({"".join(one.split()) for one in boxed}) > 1:
        odd = "its solution boxes several: the last counts"
    answer = GRADERS["math"].answer(solution)
    if answer is None:
        solution, odd = "", "something beside the box of its solution changes what is boxed: the box counts"
    elif "".join(answer.split()) != "".join(boxed[-1].split()) and "answer" not in row.value and ", " in answer:
        if re.search(r"\bor\b", solution[: solution.rfind("\\boxed")][-60:]):
            solution = ""  # either is right
        else:
            gold, odd = answer, "its solution boxes several: all that it lists count"
    return RowQuestion(problem, gold, subject, solution, odd=odd)
