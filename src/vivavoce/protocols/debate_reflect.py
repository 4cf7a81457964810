"""Debate & Reflect: independent answers, then rounds of reflecting, criticising, reading and answering again.

Paper: arXiv:2506.03541, sections on debate and reflection. Differs from the authors' code: any number of teachers;
nothing is paid after the last round; a failed call leaves its agent absent and recorded instead of ending the run;
an unparsed answer is kept as what it is and never becomes the word "None".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from vivavoce.committee.stopping import Ending, why_stop
from vivavoce.committee.table import Table
from vivavoce.graph.graph import stated
from vivavoce.records import Node, Problem


class Options(Ending):
    """Settings of the debate (defaults are the paper's if it states them)."""

    templates: ClassVar[tuple[str, ...]] = ("answer", "debate", "reflection", "critique")
    protocol: str = "debate_reflect"
    roles: Literal["oracle", "gold_free"] = Field(
        default="oracle",
        description="oracle: correctness decides which agents reflect and criticise (for training data); gold_free: "
        "every agent reflects and criticises every other, so that an answer leaks nothing",
    )
    reflect: bool = Field(default=True, description="wrong agents (gold_free: all) reflect on their own answer")
    feedback_from: Literal["all_right", "teachers_only", "none"] = Field(
        default="all_right", description="which agents criticise; under gold_free roles 'all_right' means all"
    )
    feedback_to: Literal["all_wrong", "student_only"] = Field(
        default="all_wrong", description="which answers are criticised"
    )
    reflection_sees_gold: bool = Field(
        default=False,
        description="agents that reflect see the right answer (authors' code: true; it leaks, and the nodes say so)",
    )
    last_round_reflect: bool = Field(
        default=False, description="reflect after the last round too, though nothing reads it (authors' code: true)"
    )
    reads: Literal["last_round", "all_rounds"] = Field(
        default="last_round", description="what a later answer is shown: the round before (paper), or all of them"
    )
    student: Literal["always", "first_round", "never"] = Field(
        default="always",
        description="when the student answers; first_round: its drafts are criticised, and no agent reads them",
    )

    @property
    def needs_gold(self) -> bool:
        return self.roles == "oracle"  # gold_free takes no key that looks at it

    def for_tests(self, rounds: int) -> Self:
        free = {"roles": "gold_free", "stop": "cap_only", "reflect": False, "feedback_from": "none"}
        later = "always" if self.later_rounds == "if_student_wrong" else self.later_rounds
        blind = {"reflection_sees_gold": False, "student": "never", "later_rounds": later, "max_rounds": rounds}
        return self.model_copy(update=free | blind)

    @model_validator(mode="after")
    def _gold_free_looks_at_no_gold(self) -> Self:
        free, looks = self.roles == "gold_free", "looks at gold, which roles: gold_free forbids"
        if self.later_rounds == "if_student_wrong" and self.student == "never":
            raise ValueError("later_rounds: if_student_wrong needs a student that answers; student is never")
        if free and self.later_rounds == "if_student_wrong":
            raise ValueError(f"later_rounds: if_student_wrong {looks}")
        if free and self.stop == "all_correct":
            raise ValueError(f"stop: all_correct {looks}; use consensus")
        if free and self.reflection_sees_gold:
            raise ValueError("reflection_sees_gold: true contradicts roles: gold_free")
        return self


async def run(question: Problem, table: Table) -> str:
    o, shown, before = table.options, list[Node](), list[Node]()
    speakers = [m for m in table.members if m.role == "teacher" or o.student == "always"]
    for r in range(o.max_rounds):
        asked = speakers if r or o.student == "never" else table.members
        answers = await table.all("debate" if r else "answer", asked, reads=shown, round=r)
        spoken = [n for n in answers if table.member(n.agent) in speakers]
        why = why_stop(table, spoken, before, drafts=() if r else answers)
        if why or (r == o.max_rounds - 1 and not o.last_round_reflect):
            return why or "cap"
        notes = [n for n in await _notes(table, stated(answers)) if n.target in {one.id for one in spoken}]
        shown, before = [*(shown if o.reads == "all_rounds" else ()), *spoken, *notes], spoken
    return "cap"


async def _notes(table: Table, answers: Sequence[Node]) -> list[Node]:
    """Ask for reflections and critiques on the answers of one round, all at once.

    Oracle roles: an agent whose answer is wrong reflects, and each agent whose answer is right criticises each wrong
    one. With k of A right these are A-k reflections and k(A-k) critiques. An answer that is empty or cannot be graded
    has neither; an answer that could not be read counts as wrong. With gold-free roles all agents reflect and each
    criticises every other one.
    """
    o, free = table.options, table.options.roles == "gold_free"
    role = {m.name: m.role for m in table.members}
    wrong = [n for n in answers if n.status != "empty" and (free or n.correct is False)]
    right = [n for n in answers if free or n.correct is True]
    critics = {"all_right": right, "teachers_only": [n for n in right if role[n.agent] == "teacher"], "none": []}
    targets = [n for n in wrong if o.feedback_to == "all_wrong" or role[n.agent] == "student"]
    reflections = [
        table.ask(n.agent, "reflection", about=n, gold=o.reflection_sees_gold, known_wrong=not free)
        for n in wrong
        if o.reflect
    ]
    critiques = [
        table.ask(own.agent, "critique", about=n, own=own, known_wrong=not free)
        for own in critics[o.feedback_from]
        for n in targets
        if n.agent != own.agent
    ]
    return await table.gather(*reflections, *critiques)
