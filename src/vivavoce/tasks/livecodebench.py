"""Contest problems with hidden tests (LiveCodeBench; Jain et al. 2024, arXiv:2403.07974). The files are the user's own.

Official rows (``code_generation_lite``, a JSON-lines file for each release) have ``question_content``,
``starter_code``, ``contest_date``, ``public_test_cases``, ``private_test_cases`` and ``metadata``. Tests are of two
kinds::

    stdin        the whole program reads standard input; its output is compared word by word, numbers as numbers
    functional   a method of the starter code's class is called with one JSON value a line; its result is compared

Private tests lie there as JSON, or packed: base64 of zlib of a pickled text. Nothing but a text is unpickled. All tests
of a problem run one after the other in one sandbox; the first that fails decides. Files with statements alone, without
tests, are refused. There is no official solution, so the benchmark is for tests, not for training.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from vivavoce.agents.fences import blocks
from vivavoce.agents.replies import spoken
from vivavoce.errors import DataError
from vivavoce.records import Grade, Problem
from vivavoce.sandbox.running import Program, ProgramLimits, shared_sandbox
from vivavoce.tasks import Task
from vivavoce.tasks.graded import Prose
from vivavoce.tasks.limits import Limited
from vivavoce.tasks.program_text import program_in
from vivavoce.tasks.programs import FORMAT, of_run
from vivavoce.tasks.rows import Row, read_rows
from vivavoce.tasks.splitting import known_split

PROMPTS = "code"
"""The prompt set in which its questions are asked, if a recipe names no other."""
LIMITS = ProgramLimits(wall_s=120, cpu_s=60, memory_mb=4096)
"""Limits of a program with all its tests (ours; the official grader gives each test six seconds)."""
_IMPORTS = (
    "from string import *\nfrom re import *\nfrom collections import *\nfrom heapq import *\nfrom bisect import *\n"
    "from copy import *\nfrom math import *\nfrom random import *\nfrom itertools import *\nfrom functools import *\n"
    "from operator import *\nfrom typing import *\nimport sys, math, collections, heapq, bisect, itertools, functools\n"
)
"""What every program may use without importing it, as with the official grader."""
_STDIN = """
import contextlib, io, sys

def _same(said, wanted):
    if said == wanted:
        return True
    try:
        return float(said) == float(wanted)
    except ValueError:
        return False

for _n, (_given, _wanted) in enumerate(_TESTS, 1):
    _out, sys.stdin = io.StringIO(), io.TextIOWrapper(io.BytesIO(_given.encode()), "utf-8")
    with contextlib.redirect_stdout(_out):
        try:
            exec(compile(_SOURCE, "program.py", "exec"), {"__name__": "__main__"})
        except SystemExit as _ended:
            assert not _ended.code, f"test {_n}: it ended with exit code {_ended.code}"
    _lines = [_line.split() for _line in _out.getvalue().strip().split("\\n")]
    _expected = [_line.split() for _line in _wanted.strip().split("\\n")]
    assert len(_lines) == len(_expected) and all(
        len(_a) == len(_b) and all(map(_same, _a, _b)) for _a, _b in zip(_lines, _expected)
    ), f"test {_n}: wrong output"
"""
_FUNCTIONAL = """
import json

def _plain(value):
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value

_space = {"__name__": "program"}
exec(compile(_SOURCE, "program.py", "exec"), _space)
for _n, (_given, _wanted) in enumerate(_TESTS, 1):
    _arguments = [json.loads(_line) for _line in _given.split("\\n")]
    _owner = _space["Solution"]() if "Solution" in _space else None
    _called = getattr(_owner, _NAME) if _owner is not None else _space[_NAME]
    assert _plain(_called(*_arguments)) == json.loads(_wanted), f"test {_n}: wrong result"
"""


class Options(Limited):
    """The files, and the contests that are taken."""

    path: Path = Field(
        description="file or folder of official rows with tests: test*.jsonl of livecodebench/code_generation_lite"
    )
    since: str = Field(default="", description="first day of the contests that are taken, as 2024-08-01; empty: all")
    until: str = Field(default="", description="last day of them; empty: all")


class Tests(NamedTuple):
    """The tests of one problem."""

    name: str
    """The method that is called; empty if the whole program reads standard input."""
    cases: tuple[tuple[str, str], ...]
    """Input and wanted output of each."""


@dataclass
class LiveCodeBench(Prose):
    """The benchmark as a :class:`~vivavoce.tasks.Task`; it has test questions alone."""

    options: Options
    name: str = "livecodebench"
    answer_format: str = FORMAT
    waits: bool = True
    """True, because ``grade`` waits for a program to run."""
    _read: dict[str, tuple[Problem, Tests]] = field(default_factory=dict)

    def problems(self, split: str) -> list[Problem]:
        """The problems, in the order of their files. Raises DataError for a row that cannot be read or has no tests."""
        if known_split(split, self.name) == "train":
            return []
        kept = [problem for problem, _ in self._read_all().values()]
        if not kept:
            days = f"since {self.options.since or 'ever'} until {self.options.until or 'now'}"
            raise DataError(f"no contest problem is dated {days}", str(self.options.path), "check since and until")
        return self.options.within(kept, "test", lambda problem: problem)

    def grade(self, problem: Problem, text: str) -> Grade:
        """Whether the program passes all tests. ``reason`` says how it ended, if it did not pass.

        ``correct`` is None only if the sandbox itself failed.
        """
        tests = self._read_all()[problem.id][1]
        program = _program(text, tests.name)
        if program is None:
            return Grade(None, False, "no_answer", "no program")
        outcome = shared_sandbox().run(harness(program, tests), LIMITS)
        return of_run(program, outcome)

    def steps(self, text: str) -> list[str]:
        """Lines."""
        return text.splitlines(keepends=True)

    def _read_all(self) -> dict[str, tuple[Problem, Tests]]:
        if not self._read:
            for row in read_rows(self.options.path):
                day = str(row.value.get("contest_date") or "")[:10]
                if (not self.options.since or day >= self.options.since) and (
                    not self.options.until or day <= self.options.until
                ):
                    problem, tests = _problem(row)
                    if problem.id in self._read:
                        raise DataError(f"problem {problem.id} appears twice", row.where, "use one release")
                    self._read[problem.id] = problem, tests
        return self._read


def harness(program: str, tests: Tests) -> Program:
    """The program and its tests as one program of the sandbox: it is run, or called, once for every test."""
    given = f"_SOURCE = {_IMPORTS + program!r}\n_TESTS = {list(tests.cases)!r}\n_NAME = {tests.name!r}\n"
    return Program("", given + (_FUNCTIONAL if tests.name else _STDIN))


def _program(text: str, name: str) -> str | None:
    """The program of a reply: that which defines the method's class, or the last fenced block."""
    if name:
        return program_in(text, "Solution") or program_in(text, name)
    fenced = [block for block in blocks(spoken(text)) if block.text.strip()]
    return fenced[-1].text if fenced else None


def _problem(row: Row) -> tuple[Problem, Tests]:
    content, starter = row.text("question_content").strip(), str(row.value.get("starter_code") or "").rstrip()
    tests = _tests(row)
    how = (
        f"Complete this code:\n```python\n{starter}\n```"
        if starter
        else "Read the input from standard input and write the answer to standard output."
    )
    group = str(row.value.get("difficulty") or "")
    return Problem(f"livecodebench/{row.text('question_id')}", f"{content}\n\n{how}", "", group), tests


def _tests(row: Row) -> Tests:
    """The public and private tests of a row. Raises DataError if there are none."""
    if "public_test_cases" not in row.value and "private_test_cases" not in row.value:
        what, has = "the row has no tests, so that no answer could be graded", ", ".join(row.value)
        do = "give the files of livecodebench/code_generation_lite, whose rows have private_test_cases"
        raise DataError(f"{what} (it has: {has})", row.where, do)
    cases = [case for name in ("public_test_cases", "private_test_cases") for case in _cases(row, name)]
    if not cases:
        raise DataError("the row has no tests", row.where, "remove it")
    kinds = {str(case.get("testtype")) for case in cases}
    name = ""
    if kinds == {"functional"}:
        metadata = _json(row.value.get("metadata") or "{}", row, "metadata")
        name = str(metadata.get("func_name") or "") if isinstance(metadata, Mapping) else ""
        if not name:
            raise DataError("metadata names no func_name, which functional tests call", row.where, "use official files")
    elif kinds != {"stdin"}:
        raise DataError(f"its tests are of the kinds {', '.join(sorted(kinds))}", row.where, "use official files")
    return Tests(name, tuple((str(case["input"]), str(case["output"])) for case in cases))


def _cases(row: Row, name: str) -> list[Mapping[str, Any]]:
    value = row.value.get(name)
    if value in (None, ""):
        return []
    cases = value if isinstance(value, list) else _unpack(value, row, name)
    if not isinstance(cases, list) or not all(isinstance(c, Mapping) and {"input", "output"} <= set(c) for c in cases):
        raise DataError(f"{name} is not a list of tests with input and output", row.where, "use official files")
    return cases


def _unpack(value: Any, row: Row, name: str) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("["):
        return _json(value, row, name)
    try:
        packed = zlib.decompress(base64.b64decode(str(value), validate=True))
        return _json(_TextsAlone(io.BytesIO(packed)).load(), row, name)
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"{name} cannot be unpacked: {error}", row.where, "download the file again") from None


class _TextsAlone(pickle.Unpickler):
    """Unpickles plain values, and refuses whatever names a class or a function."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"it would load {module_name}.{global_name}")


def _json(value: Any, row: Row, name: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {error}", row.where, "download the file again") from None


def task(options: Options) -> Task:
    """Open the benchmark. Its files are read when problems are asked for."""
    return LiveCodeBench(options)


__all__ = ["LIMITS", "LiveCodeBench", "Options", "Tests", "harness", "task"]
