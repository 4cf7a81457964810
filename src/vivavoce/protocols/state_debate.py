"""A debate over a student's state: the committee answers, reads all answers, and answers again, with a confidence.

No agent is told which answer is right, and the student takes no part. Paper: arXiv:2605.01347 (MAD-OPD).
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field

from vivavoce.committee.stopping import agreed
from vivavoce.committee.table import Table
from vivavoce.committee.wording import Discussion
from vivavoce.records import Node, Problem


class Options(Discussion):
    """Settings of the debate (defaults are the paper's)."""

    templates: ClassVar[tuple[str, ...]] = ("answer", "discuss")
    turn: ClassVar[str] = "discuss"
    """The template of every turn, and of what a scorer reads."""
    protocol: str = "state_debate"
    max_rounds: int = Field(default=2, ge=1, le=16, description="answer rounds R (paper: 2)")
    later_rounds: Literal["always", "if_drafts_disagree"] = Field(
        default="always", description="if_drafts_disagree: no second turn if all first ones agree (ours)"
    )
    student: Literal["never", "first_round"] = Field(
        default="never",
        description="first_round: the debate is held on an answer of the student's, which all read and no agent "
        "changes; set by arms with sees_action",
    )
    reads: Literal["last_round", "all_rounds"] = Field(
        default="all_rounds", description="what a later turn, and a scorer, is shown (paper: all rounds)"
    )
    ask_confidence: bool = Field(default=True, description="every turn ends with a stated confidence (paper)")

    def for_tests(self, rounds: int) -> Self:
        return self.model_copy(update={"student": "never", "max_rounds": rounds})


async def run(question: Problem, table: Table) -> str:
    o, read = table.options, list[Node]()
    for r in range(o.max_rounds):
        present = [m for m in table.members if m.role == "teacher" or (o.student == "first_round" and r == 0)]
        answers = await table.all(o.turn, present, reads=read, round=r)
        if all(n.absent for n in answers):
            return "no_answers"
        if r == 0 and o.later_rounds == "if_drafts_disagree" and agreed(table.task, question, answers, len(present)):
            return "drafts_agree"
        read = [*read, *answers] if o.reads == "all_rounds" else answers
    return "cap"
