"""Whether a tiny programmer's answer is right: its program is run in the sandbox, with hidden tests behind it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

from vivavoce.sandbox.running import Program, ProgramLimits, shared_sandbox
from vivavoce.schoolhouse import code_world as world

LIMITS = ProgramLimits(wall_s=5, cpu_s=2, memory_mb=256, output_bytes=4096)


class AnswerOutcome(NamedTuple):
    """The outcome of an answer.

    `answer` is the program's results for the shown arguments, so that programs which do the same count as one however
    they are written; the program itself if it ends before; None if it returns nothing. `right` is None only if the
    sandbox failed.
    """

    answer: str | None
    right: bool | None
    reason: str = ""


class _NotRun(Exception):
    pass


def judge(question: str, text: str) -> AnswerOutcome:
    """Run the program of a reply; the same program for the same question only once in a process."""
    program = world.program(text)
    if program is None:
        return AnswerOutcome(None, False, "it returns nothing")
    try:
        return _run(question, program)
    except _NotRun as failed:
        return AnswerOutcome(program, None, str(failed))


@lru_cache(maxsize=100_000)
def _run(question: str, program: str) -> AnswerOutcome:
    outcome = shared_sandbox().run(Program(program, world.tests(question)), LIMITS)
    if outcome.ended == "sandbox":
        raise _NotRun(outcome.reason)
    answer_line = outcome.output.partition("\n")[0].strip() or program
    return AnswerOutcome(answer_line, outcome.passed, "" if outcome.passed else outcome.reason)


def judge_all(questions: Sequence[str], texts: Sequence[str]) -> list[AnswerOutcome]:
    """Many at once, as many at a time as the sandbox serves."""
    with ThreadPoolExecutor(shared_sandbox().at_once) as threads:
        return list(threads.map(judge, questions, texts))
