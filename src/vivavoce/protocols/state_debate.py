"""A debate over a student's state: the committee answers, reads all answers, and answers again, with a confidence.

No agent is told which answer is right, unless ``sees_gold`` says so. The student takes no part, unless the debate is
held on what it did. Paper: arXiv:2605.01347 (MAD-OPD).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field

from vivavoce.committee.stopping import all_agree
from vivavoce.committee.table import Table
from vivavoce.committee.wording import Discussion
from vivavoce.graph.graph import stated
from vivavoce.records import Node, Problem
from vivavoce.tasks.agreement import classes

LaterSpeakers = Literal["all", "who_disagree", "who_doubt"]


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
    later_speakers: LaterSpeakers = Field(
        default="all",
        description="teachers that are asked again in a later round: all (paper); those whose last answer is not the "
        "most frequent one, or all if no answer leads; or those that stated less confidence than `sure`, or "
        "none. The others' last answers count and cost nothing; a debate ends if there is no teacher to ask",
    )
    sure: float = Field(
        default=0.8, ge=0, le=1, description="who_doubt: confidence from which a teacher is not asked again"
    )
    student: Literal["never", "first_round"] = Field(
        default="never",
        description="first_round: the debate is held on what the student did, which every teacher reads from its first "
        "turn on and none can change; set by arms with sees_action",
    )
    sees_gold: bool = Field(
        default=False,
        description="every teacher is told the right answer with each turn, and asked to argue for it; nodes say that "
        "they saw it, and debates on test questions go without; set by arms with sees_gold",
    )
    reads: Literal["last_round", "all_rounds"] = Field(
        default="all_rounds", description="what a later turn, and a scorer, is shown (paper: all rounds)"
    )
    ask_confidence: bool = Field(default=True, description="every turn ends with a stated confidence (paper)")

    @property
    def tells(self) -> tuple[str, ...]:
        return (self.turn,) if self.sees_gold else ()

    def for_tests(self, rounds: int) -> Self:
        return self.model_copy(update={"student": "never", "sees_gold": False, "max_rounds": rounds})


async def run(question: Problem, table: Table) -> str:
    o, answers = table.options, list[Node]()
    action = await _action(table) if o.student == "first_round" else []
    shown = action
    for r in range(o.max_rounds):
        silent = _silent(table, answers) if r else {}
        speaking = [m for m in table.teachers if m.name not in silent]
        if not speaking:
            return "settled"
        answers_now = await table.all(o.turn, speaking, reads=shown, round=r, gold=o.sees_gold)
        answers = [*answers_now, *(table.stands(n, r) for n in silent.values())]
        if all(n.absent for n in answers):
            return "no_answers"
        if r == 0:
            answers = [*action, *answers]
            if o.later_rounds == "if_drafts_disagree" and all_agree(table, answers):
                return "drafts_agree"
        shown = [*shown, *answers_now] if o.reads == "all_rounds" else answers
    return "cap"


async def _action(table: Table) -> list[Node]:
    """What the student did, as an answer of the first round: recorded before the debate, or else asked for now."""
    did = await table.action()
    students = [m for m in table.members if m.role == "student"]
    return [did] if did else await table.all(table.options.turn, students, round=0)


def _silent(table: Table, answers: Sequence[Node]) -> dict[str, Node]:
    """The teachers' last answers that stand without another turn, by teacher."""
    o, teachers = table.options, {m.name for m in table.teachers}
    last = [n for n in stated(answers) if n.agent in teachers]
    if o.later_speakers == "who_doubt":
        return {n.agent: n for n in last if n.confidence is not None and n.confidence >= o.sure}
    if o.later_speakers == "all":
        return {}
    labels = classes(table.task, table.question, [n.answer for n in last])
    ranks = Counter(key for key in labels if key is not None).most_common(2)
    if not ranks or (len(ranks) > 1 and ranks[0][1] == ranks[1][1]):
        return {}
    return {n.agent: n for n, key in zip(last, labels, strict=True) if key == ranks[0][0]}
