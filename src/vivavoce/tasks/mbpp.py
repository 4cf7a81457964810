"""Basic Python programs from a sentence and its tests (MBPP; Austin et al. 2021, arXiv:2108.07732; CC BY 4.0), and the
same with many more tests (MBPP+; Liu et al. 2023, arXiv:2305.01210; Apache-2.0).

Official files: JSON lines with ``text`` (or ``prompt``), ``code`` and ``test_list``, asserts that are shown and must
hold. Of MBPP+ the file whose name ends in OriginFmt, whose ``test`` holds inputs and results; of its asserts one is
shown.
"""

from __future__ import annotations

import re

from vivavoce.errors import DataError
from vivavoce.tasks import Task
from vivavoce.tasks.benchmark import Official
from vivavoce.tasks.numpy_stand_in import without_numpy
from vivavoce.tasks.program_text import definitions
from vivavoce.tasks.programs import ProgramCase, programs
from vivavoce.tasks.rows import Row

PROMPTS = "code"
"""The prompt set in which its questions are asked, if a recipe names no other."""
OFFICIAL = [
    {"train_path": "mbpp/train.jsonl*", "test_path": "mbpp/test*.jsonl*"},
    {"train_path": "mbpp/validation.jsonl*", "test_path": "mbpp/prompt.jsonl*"},
    {"test_path": "mbpp_plus/MbppPlus-OriginFmt*.jsonl*"},
]
_CALLED = re.compile(r"[A-Za-z_]\w*(?=\s*\()")


class Options(Official):
    """The source of the tasks, and how many of them."""

    hub_id: str = "google-research-datasets/mbpp"


def task(options: Options) -> Task:
    """Open MBPP or MBPP+, whichever the file is."""
    return programs("mbpp", options, _read)


def _read(row: Row) -> ProgramCase:
    if "plus_input" in row.value:
        raise DataError("inputs without their results", row.where, "use the file whose name ends in OriginFmt")
    asserts, code = [str(line) for line in row.value.get("test_list") or ()], row.text("code").replace("\r\n", "\n")
    name = _tested_function(asserts, code)
    if name is None:
        raise DataError("test_list calls no function that code defines", row.where, "use the official files")
    setup = [str(row.value.get("test_setup_code") or ""), *map(str, row.value.get("test_imports") or ())]
    plus = row.value.get("test")
    tests = "\n".join([*setup, without_numpy(str(plus)) if plus else "\n".join(asserts)])
    text = row.text("prompt" if "prompt" in row.value else "text").strip()
    shown = "\n".join(asserts[:1] if plus else asserts)
    question = f"{text}\n\nYour program must pass {'this test' if plus else 'these tests'}:\n```python\n{shown}\n```"
    return ProgramCase(question, name, code, tests)


def _tested_function(asserts: list[str], code: str) -> str | None:
    """The function that the first assert calls, among those that the code defines."""
    defined = definitions(code)
    return next((name for line in asserts for name in _CALLED.findall(line) if name in defined), None)
