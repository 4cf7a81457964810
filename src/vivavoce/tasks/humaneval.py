"""Functions to complete from their head and docstring (HumanEval; Chen et al. 2021, arXiv:2107.03374; MIT), and the same
with many more tests (HumanEval+; Liu et al. 2023, arXiv:2305.01210; Apache-2.0).

Official files: JSON lines with ``prompt``, ``canonical_solution``, ``entry_point`` and ``test``, a program that defines
``check(candidate)``. Of HumanEval+ the file whose name ends in OriginFmt, whose ``test`` holds inputs and results.
"""

from __future__ import annotations

from vivavoce.errors import DataError
from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Official, Part
from vivavoce.tasks.numpy_stand_in import without_numpy
from vivavoce.tasks.programs import Case, programs
from vivavoce.tasks.rows import Row

OFFICIAL = [
    {"test_path": "humaneval/HumanEval*.jsonl*"},
    {"test_path": "humaneval_plus/HumanEvalPlus-OriginFmt*.jsonl*"},
]


class Options(Official):
    """Where the functions come from, and how many of them. It is one set, of 164: ``path`` cuts it in two."""

    hub_id: str = "openai/openai_humaneval"


def task(options: Options) -> Task:
    """Open HumanEval or HumanEval+, whichever the file is."""
    return programs("humaneval", options, _read, Part("test"), Part("test"))


def _read(row: Row) -> Case:
    if "plus_input" in row.value:
        raise DataError("inputs without their results", row.where, "use the file whose name ends in OriginFmt")
    head, name, solution = row.text("prompt"), row.text("entry_point"), row.text("canonical_solution")
    question = f"Complete this function.\n\n```python\n{head.strip()}\n```"
    tests = f"{without_numpy(row.text('test'))}\ncheck({name})"
    return Case(question, name, head + solution, tests, head, solution.lstrip("\n"))
