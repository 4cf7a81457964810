"""Chains of one-digit operations with invented operators, every step checked by program.

The world is :mod:`vivavoce.schoolhouse.world`. A question ``a=4; b=a-3; c=b*5; c?`` is answered by ``b=4-3=1; c=1*5=9;
ans=9``, with ``?`` after a digit its author is unsure of and a confidence at the end, if it likes.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.records import Grade, Problem, Token, seed_of
from vivavoce.schoolhouse import world
from vivavoce.tasks import Task
from vivavoce.tasks.confidence import at
from vivavoce.tasks.splitting import known_split, question_id

# The separator begins a piece, so that a step cut off before it is a whole text.
_CUT = re.compile(r"(?=; )")
_RESULT = re.compile(r"[b-h]=\d[^\w\s=]\d=(\d)")
_SHARPEN = 4
"""Power of a digit's probability. Small models are overconfident in single digits, so that the plain product crowds
near 1; the power spreads it out and changes no order between two answers."""


class Options(BaseModel):
    """The number of questions, and their seed and kinds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: int = Field(default=1500, ge=0, description="questions to train on")
    test: int = Field(default=1000, ge=0, description="questions to test on")
    seed: int = Field(default=0, description="decides which questions are drawn")
    kinds: list[Literal["sum", "mul", "bit", "div", "mix"]] | None = Field(
        default=None,
        min_length=1,
        description="questions of these kinds alone, in both splits, so that one can train on some and test on others; "
        "None: all five",
    )


class Schoolhouse:
    """The schoolhouse as a :class:`~vivavoce.tasks.Task`. A problem's group is its kind: a skill, or ``mix``."""

    name = "schoolhouse"
    answer_format = "Write one step after the other, separated by '; ', and end with 'ans=' and the digit."

    def __init__(self, options: Options) -> None:
        self.options = options

    def problems(self, split: str) -> list[Problem]:
        """The first so many distinct questions of the seed. Raises DataError for a split other than train and test."""
        options = self.options
        part = known_split(split, self.name)
        size = options.train if part == "train" else options.test
        drawn = world.questions(part, size, options.seed, options.kinds or world.KINDS)
        return [
            Problem(question_id(self.name, q.text), q.text, str(world.gold(q.text)[-1].value), q.kind) for q in drawn
        ]

    def grade(self, problem: Problem, text: str) -> Grade:
        """The digit after ``ans=`` against the gold digit; ``no_answer`` if the reply never gets there."""
        answer = world.answer_of(text)
        return Grade(answer, answer == problem.gold, "no_answer" if answer is None else "ok")

    def uncut(self, text: str) -> str:
        """All of a cut reply: once it has ``ans=`` and its digit, nothing behind changes the answer."""
        return text

    def steps(self, text: str) -> list[str]:
        """``b=4-3=1``, ``; c=1*5=7?``, ``; ans=7 conf=15``: cut before every separator."""
        return [piece for piece in _CUT.split(text) if piece]

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """Index of the first piece that departs from the gold chain; None if every piece is right.

        A piece is wrong if it states another step than the gold chain has in its place, states none, or gives a wrong
        answer or one before the chain is through. Unsure marks and confidence do not count.
        """
        chain, done = world.gold(problem.question), 0
        for i, piece in enumerate(self.steps(text)):
            written, answer = world.steps_of(piece), world.answer_of(piece)
            through = done + len(written)
            if written != chain[done:through] or (not written and answer is None):
                return i
            if answer is not None and (through < len(chain) or answer != problem.gold):
                return i
            done = through
        return None

    def worked(self, problem: Problem) -> str:
        """The gold chain, in the student's form."""
        chain = [f"{s.name}={s.left}{s.op}{s.right}={s.value}" for s in world.gold(problem.question)]
        return "; ".join([*chain, f"ans={problem.gold}"])

    def mistaken(self, problem: Problem) -> str:
        """A chain in which one step is wrong and the others follow from it, so that the answer is wrong too; always the
        same one for a problem."""
        start, links = world.parse(problem.question)
        rng = random.Random(seed_of("mistaken", problem.id))
        while True:
            at, off = rng.randrange(len(links)), rng.randrange(1, 10)
            made = world.evaluate(start, links, lambda i, fact: (world.apply(*fact) + off * (i == at)) % 10)  # noqa: B023
            if str(made[-1].value) != problem.gold:
                return world.write(made)

    def written(self, problem: Problem) -> str:
        """The gold answer in the student's form, with nothing before it."""
        return f"ans={problem.gold}"

    def probability(self, text: str, tokens: Sequence[Token]) -> float:
        """Product of ``p^4`` over the result digits, the one after the second ``=`` of every step; 0 without any.

        Only the results count, because all else is copied from the question.
        """
        logprobs = at(tokens, [match.start(1) for match in _RESULT.finditer(text)])
        return min(1.0, math.exp(_SHARPEN * sum(logprobs))) if logprobs else 0.0


def task(options: Options) -> Task:
    """Open the schoolhouse."""
    return Schoolhouse(options)
