"""Functions to complete from their head and docstring (HumanEval; Chen et al. 2021, arXiv:2107.03374; MIT), and the
same with many more tests (HumanEval+; Liu et al. 2023, arXiv:2305.01210; Apache-2.0).

Official files: JSON lines with ``prompt``, ``canonical_solution``, ``entry_point`` and ``test``, a program that defines
``check(candidate)``. Of HumanEval+ the file whose name ends in OriginFmt, whose ``test`` holds inputs and results.
"""

from __future__ import annotations

from vivavoce.errors import DataError
from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Official, SplitPlace
from vivavoce.tasks.numpy_stand_in import without_numpy
from vivavoce.tasks.programs import ProgramCase, programs
from vivavoce.tasks.rows import Row

PROMPTS = "code"
"""The prompt set in which its questions are asked, if a recipe names no other."""
OFFICIAL = [
    {"test_path": "humaneval/HumanEval*.jsonl*"},
    {"test_path": "humaneval_plus/HumanEvalPlus-OriginFmt*.jsonl*"},
]

# HumanEval+'s test of HumanEval/32, which asks for a root of a polynomial: no answer could pass it as it stands.
_BROKEN, _MENDED = "_poly(*candidate(*inp), inp)", "abs(_poly(*inp, candidate(*inp)))"


class Options(Official):
    """The source of the functions, and how many of them. It is one set, of 164: ``path`` cuts it in two."""

    hub_id: str = "openai/openai_humaneval"


def task(options: Options) -> Task:
    """Open HumanEval or HumanEval+, whichever the file is."""
    return programs("humaneval", options, _read, SplitPlace("test"), SplitPlace("test"))


def _read(row: Row) -> ProgramCase:
    if "plus_input" in row.value:
        raise DataError("inputs without their results", row.where, "use the file whose name ends in OriginFmt")
    head, name, solution = row.text("prompt"), row.text("entry_point"), row.text("canonical_solution")
    test, odd = row.text("test"), ""
    if _BROKEN in test:
        test, odd = test.replace(_BROKEN, _MENDED), "its test spreads the result as if it were a list: mended"
    question = f"Complete this function.\n\n```python\n{head.strip()}\n```"
    tests = f"{without_numpy(test)}\ncheck({name})"
    return ProgramCase(question, name, head + solution, tests, head, solution.lstrip("\n"), odd)
