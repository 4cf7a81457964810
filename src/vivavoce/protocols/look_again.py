"""A second look: the student answers, reflects on its answer, reads its teachers' critiques, and answers again.

Paper: arXiv:2506.03541, the study of self-reflection and teacher feedback at inference. No agent is told the right
answer, that the student's answer is wrong, or that it is right.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from vivavoce.committee.table import Table
from vivavoce.committee.wording import Discussion
from vivavoce.records import Problem


class Options(Discussion):
    """Settings of the second look: which texts the student reads before it answers again."""

    templates: ClassVar[tuple[str, ...]] = ("answer", "debate", "reflection", "critique")
    protocol: str = "look_again"
    reflect: bool = Field(default=True, description="its own reflection on its answer")
    feedback: bool = Field(default=True, description="a critique of its answer by each teacher")


async def run(question: Problem, table: Table) -> str:
    o, student = table.options, table.student
    if student is None:
        return "no_student"
    draft = await table.ask(student, "answer")
    if draft.absent:
        return "no_answers"
    authors = [(student, "reflection")] if o.reflect else []
    authors += [(teacher, "critique") for teacher in table.teachers if o.feedback]
    notes = await table.gather(*(table.ask(reviewer, template, about=draft) for reviewer, template in authors))
    await table.ask(student, "debate", reads=[draft, *notes])
    return "cap"
