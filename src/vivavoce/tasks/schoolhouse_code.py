"""Short Python programs, graded by running them: calls to an invented library, written out.

The world is :mod:`vivavoce.schoolhouse.code_world`. A question ``def f(a): b=K3(a,2); c=A7(b,a); return c`` is answered
by the body of the same function without the library, ``b=(a*3)+2; c=(b^5)-a; return c``, with ``?`` after a step its
author is unsure of and a confidence at the end, if it likes; neither is part of the program.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.records import Grade, Problem, Token
from vivavoce.schoolhouse import code_world as world
from vivavoce.schoolhouse.code_grading import judge
from vivavoce.tasks import Task
from vivavoce.tasks.confidence import at
from vivavoce.tasks.splitting import known_split, question_id

_CUT = re.compile(r"(?=; (?:[b-e]=|return))")
_SPELT = re.compile(r"[-+*%&|^\d]")


class Options(BaseModel):
    """The number of questions, and their seed and kinds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: int = Field(default=1500, ge=0, description="questions to train on")
    test: int = Field(default=1000, ge=0, description="questions to test on")
    seed: int = Field(default=0, description="decides which questions are drawn")
    kinds: list[Literal["sum", "mul", "bit", "xor", "mix"]] | None = Field(
        default=None, min_length=1, description="questions of these kinds alone, in both splits; None: all five"
    )


class SchoolhouseCode:
    """The programmers' schoolhouse as a :class:`~vivavoce.tasks.Task`. A problem's group is its kind.

    An answer is the program's results for three shown arguments, so that programs which do the same vote as one. The
    hidden tests decide whether it is right.
    """

    name = "schoolhouse_code"
    answer_format = "Write the body of f on one line of Python, without the library."
    waits: ClassVar[bool] = True
    """True, because ``grade`` waits for a program to run."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def problems(self, split: str) -> list[Problem]:
        """The first so many distinct questions of the seed. Raises DataError for a split other than train and test."""
        options = self.options
        part = known_split(split, self.name)
        size = options.train if part == "train" else options.test
        drawn = world.questions(part, size, options.seed, options.kinds or world.KINDS)
        return [Problem(question_id(self.name, q.text), q.text, world.write(world.gold(q.text)), q.kind) for q in drawn]

    def grade(self, problem: Problem, text: str) -> Grade:
        """Run the program of a reply. ``reason`` says how it ended, if it did not pass; ``correct`` is None only if
        the sandbox itself failed; ``no_answer`` if the reply never returns anything.
        """
        answer, right, reason = judge(problem.question, text)
        return Grade(answer, right, "no_answer" if answer is None else "ok", reason)

    def uncut(self, text: str) -> str:
        """All of a cut reply: once it has ``return`` and its letter, nothing behind changes the answer."""
        return text

    def steps(self, text: str) -> list[str]:
        """``b=(a*3)+2``, ``; c=(b^5)-a?``, ``; return c conf=15``: cut before every separator of steps."""
        return [piece for piece in _CUT.split(text) if piece]

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """Index of the first piece that departs from the reference; None if every piece does the same.

        A piece in any of the three styles counts; a piece in none of them counts as wrong.
        """
        wanted = world.gold(problem.question)
        for i, piece in enumerate(self.steps(text)):
            written = [step for step, _ in world.steps_of(piece)]
            if i < len(wanted):
                if len(written) != 1 or not written[0].means(wanted[i]):
                    return i
            elif not re.match(rf"; return {wanted[-1].name}\b", piece):
                return i
        return None

    def worked(self, problem: Problem) -> str:
        """The reference, in the student's form."""
        return problem.gold

    def probability(self, text: str, tokens: Sequence[Token]) -> float:
        """Product over the operators and digits of a program, because its author has to know these."""
        spelt = _SPELT.finditer(text.rpartition("return")[0])
        logprobs = at(tokens, [match.start() for match in spelt])
        return min(1.0, math.exp(sum(logprobs))) if logprobs else 0.0


def task(options: Options) -> Task:
    """Open the programmers' schoolhouse."""
    return SchoolhouseCode(options)
