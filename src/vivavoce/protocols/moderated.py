"""A moderated debate: after each round a moderator sums it up and decides whether to go on.

As in MAD (arXiv:2305.19118), whose judge ends a debate once it sees a solution; here every agent reads the summary.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vivavoce.committee.table import Table
from vivavoce.committee.wording import Discussion
from vivavoce.records import Problem


class Options(Discussion):
    """Settings of the debate: the moderator, and the number of rounds."""

    templates: ClassVar[tuple[str, ...]] = ("answer", "summary", "debate")
    protocol: str = "moderated"
    moderator: str | None = Field(default=None, description="name of the agent that sums up; None: the first teacher")
    max_rounds: int = Field(default=3, ge=1, le=16, description="answer rounds, the independent round 0 included")


async def run(question: Problem, table: Table) -> str:
    o = table.options
    moderator = table.member(o.moderator) if o.moderator else table.teachers[0]
    answers = await table.all("answer")
    for _ in range(o.max_rounds - 1):
        if all(n.absent for n in answers):
            return "no_answers"
        summary = await table.ask(moderator, "summary", reads=answers)
        if summary.score == 1.0:
            return "moderator"
        answers = await table.all("debate", reads=[*answers, summary])
    return "cap"
