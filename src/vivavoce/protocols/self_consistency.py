"""No debate: one agent answers several times, and the vote decides. The control at equal tokens.

Paper: arXiv:2203.11171. Give it as many samples as a debate makes calls, and compare the votes.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vivavoce.committee.table import Table
from vivavoce.committee.wording import Talk
from vivavoce.records import Problem


class Options(Talk):
    """Settings: the agent that answers, and how often."""

    templates: ClassVar[tuple[str, ...]] = ("answer",)
    protocol: str = "self_consistency"
    agent: str | None = Field(default=None, description="name of the agent that answers; None: the first teacher")
    samples: int = Field(default=5, ge=1, description="answers to each question")
    temperature: float = Field(
        default=0.7, ge=0, description="sampling temperature of these answers (paper: 0.5 to 0.7)"
    )


async def run(question: Problem, table: Table) -> str:
    o = table.options
    speaker = table.member(o.agent) if o.agent else table.teachers[0]
    asks = (table.ask(speaker, "answer", sample=i, temperature=o.temperature) for i in range(o.samples))
    answers = await table.gather(*asks)
    return "no_answers" if all(n.absent for n in answers) else "cap"
