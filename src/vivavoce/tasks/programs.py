"""The common parts of tasks of code: the tests of a program, and a grade by running both in the sandbox.

A benchmark's file gives the question of a row (:class:`ProgramCase`). The program of a reply
(:mod:`vivavoce.tasks.program_text`) is run here with the row's tests behind it, and the grade says why it did not pass.
No text of a model is parsed or run in this process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from vivavoce.errors import DataError
from vivavoce.records import Grade, Problem
from vivavoce.sandbox.running import Program, ProgramLimits, ProgramOutcome, shared_sandbox
from vivavoce.tasks.benchmark import Benchmark, Official, RowQuestion, SplitPlace
from vivavoce.tasks.grading import Grader
from vivavoce.tasks.mutation import mutants
from vivavoce.tasks.program_text import program_in
from vivavoce.tasks.rows import Row
from vivavoce.tasks.samples import Sample

FORMAT = "Write the whole program in one ```python block, with the imports that it needs."
LIMITS = ProgramLimits(wall_s=60, cpu_s=20, memory_mb=4096)
"""Limits of an answer with all its tests. Nearly all official solutions take milliseconds, but one of HumanEval+
takes several seconds of CPU time, and one of MBPP+ 2.2 GB.
"""
_MUTANTS, _SHORT = 8, ProgramLimits(wall_s=10, cpu_s=2, memory_mb=4096)
"""The number of mutants that are tried until one fails: a change may well leave a program right, or make it loop."""

_TRAIN, _TEST = SplitPlace("train"), SplitPlace("test")


class ProgramCase(NamedTuple):
    """The question of a row of code."""

    question: str
    name: str
    """The name of the function that is called."""
    reference: str
    """A whole program that passes."""
    tests: str
    prefix: str = ""
    """The text that a reply may continue instead of writing it again: the function's head."""
    completion: str = ""
    """The official solution as such a reply."""
    odd: str = ""


def in_fence(program: str) -> str:
    """A program in the form that the tasks ask for."""
    return f"```python\n{program.rstrip()}\n```"


_AS_IT_STANDS = Grader("exact", "a program", lambda program: program, re.compile(r"(?!)"))
"""Stands for the reader of gold programs in :class:`Benchmark`; answers are run instead of compared."""


@dataclass
class Programs(Benchmark):
    """A benchmark whose answers are run. Every program runs in the sandbox, the reference ones too."""

    waits: ClassVar[bool] = True
    """True, because ``grade`` waits for a program to run."""

    def __post_init__(self) -> None:
        self.answer_format = FORMAT

    def grade(self, problem: Problem, text: str) -> Grade:
        """Whether the program passes its tests. ``reason`` says how it ended, if it did not pass.

        ``correct`` is None only if the sandbox itself failed.
        """
        case: ProgramCase = self.case(problem)
        program = program_in(text, case.name, case.prefix)
        if program is None:
            return Grade(None, False, "no_answer", f"no program that defines {case.name}")
        return of_run(program, run(program, case))

    def steps(self, text: str) -> list[str]:
        """Lines."""
        return text.splitlines(keepends=True)

    def samples(self, split: str) -> Iterator[Sample]:
        """The reference, the same as a completion, and a mutant of it that its tests find out."""
        for entry in self.entries(split):
            case: ProgramCase = self.case(entry.problem)
            right = [in_fence(case.reference), *([case.completion] if case.completion else [])]
            yield Sample(entry.problem, tuple(right), (in_fence(_wrong(case)),), entry.where, entry.asked.odd)


def programs(
    name: str,
    options: Official,
    read: Callable[[Row], ProgramCase],
    train: SplitPlace = _TRAIN,
    test: SplitPlace = _TEST,
) -> Programs:
    """A benchmark of programs, with the cases that ``read`` finds in a row."""
    cases = dict[str, ProgramCase]()

    def ask(row: Row) -> RowQuestion:
        case = read(row)
        if (before := cases.setdefault(case.question, case)) != case:
            raise DataError(f"the question of {before.name} appears twice with other tests", row.where)
        return RowQuestion(case.question, case.reference, odd=case.odd)

    return Programs(name, options, ask, _AS_IT_STANDS, train, test, cases=cases)


def run(program: str, case: ProgramCase) -> ProgramOutcome:
    """The program with the case's tests."""
    return shared_sandbox().run(Program(program, case.tests), LIMITS)


def of_run(program: str, outcome: ProgramOutcome) -> Grade:
    """The grade of a program that was run with its tests."""
    passed = None if outcome.ended == "sandbox" else outcome.passed
    return Grade(program, passed, "ok", "" if outcome.passed else outcome.reason)


def _wrong(case: ProgramCase) -> str:
    """The first mutant that a test finds out within seconds; if none is, the last one, for the check to show."""
    tried = ""
    for tried in mutants(case.reference, case.name, _MUTANTS):
        if shared_sandbox().run(Program(tried, case.tests), _SHORT).ended in ("failed", "error"):
            break
    return tried


__all__ = ["FORMAT", "LIMITS", "ProgramCase", "Programs", "in_fence", "of_run", "program_in", "programs", "run"]
