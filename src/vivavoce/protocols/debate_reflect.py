"""Debate & Reflect: independent answers, then rounds of reflecting, criticising, reading and answering again.

Paper: arXiv:2506.03541, sections on debate and reflection. Differs from the authors' code: any number of teachers;
nothing is paid after the last round; a failed call leaves its agent absent and recorded instead of ending the run;
an unparsed answer is kept as what it is and never becomes the word "None".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from vivavoce.committee.stopping import StopRule, all_agree, why_stop
from vivavoce.committee.table import Member, Table
from vivavoce.committee.wording import Discussion
from vivavoce.graph.graph import stated
from vivavoce.records import Node, Problem


class Options(Discussion):
    """Settings of the debate (defaults are the paper's if it states them)."""

    templates: ClassVar[tuple[str, ...]] = ("answer", "debate", "reflection", "critique")
    protocol: str = "debate_reflect"
    max_rounds: int = Field(
        default=4, ge=1, le=16, description="answer rounds, the independent round 0 included (paper: 4)"
    )
    stop: StopRule = Field(
        default="consensus",
        description="when to end before max_rounds (paper: consensus; authors' code: all_correct); more than half of "
        "the speakers must have answered",
    )
    later_rounds: Literal["always", "if_drafts_disagree", "if_student_wrong"] = Field(
        default="always",
        description="when to go past round 0: always, if drafts disagree, or if a draft of the student's is not right",
    )
    roles: Literal["oracle", "gold_free"] = Field(
        default="oracle",
        description="oracle: correctness decides who reflects and who criticises whom (for training data); "
        "gold_free: everyone reflects and criticises everyone, so that an answer leaks nothing",
    )
    reflect: bool = Field(default=True, description="wrong agents (gold_free: all) reflect on their own answer")
    feedback_from: Literal["all_right", "teachers_only", "none"] = Field(
        default="all_right", description="who criticises; under gold_free roles 'all_right' means all"
    )
    feedback_to: Literal["all_wrong", "student_only"] = Field(
        default="all_wrong", description="whose answers are criticised"
    )
    reflection_sees_gold: bool = Field(
        default=False,
        description="who reflects sees the right answer (authors' code: true; it leaks, and the nodes say so)",
    )
    last_round_reflect: bool = Field(
        default=False, description="reflect after the last round too, though nothing reads it (authors' code: true)"
    )
    reads: Literal["last_round", "all_rounds"] = Field(
        default="last_round", description="what a later answer is shown: the round before (paper), or all of them"
    )
    student: Literal["always", "first_round", "never"] = Field(
        default="always",
        description="when it answers; first_round: its drafts are criticised, and no agent reads them",
    )

    @property
    def needs_gold(self) -> bool:
        return self.roles == "oracle" or self.stop == "all_correct" or self.later_rounds == "if_student_wrong"

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
        present = [m for m in table.members if m in speakers or (o.student == "first_round" and r == 0)]
        answers = await table.all("debate" if r else "answer", present, reads=shown, round=r)
        speakers_answers = [n for n in answers if n.agent in {m.name for m in speakers}]
        why = why_stop(o.stop, table.task, question, speakers_answers, before, len(speakers))
        why = why or (None if r else _settled(table, answers, speakers_answers, len(speakers)))
        if why or (r == o.max_rounds - 1 and not o.last_round_reflect):
            return why or "cap"
        notes = [n for n in await _notes(table, stated(answers)) if n.target in {h.id for h in speakers_answers}]
        shown, before = [*(shown if o.reads == "all_rounds" else ()), *speakers_answers, *notes], speakers_answers
    return "cap"


async def _notes(table: Table, answers: Sequence[Node]) -> list[Node]:
    """Ask for reflections and critiques on the answers of one round, all at once.

    Oracle roles: an agent whose answer is wrong reflects, and each agent whose answer is right criticises each wrong
    one. With k of A right these are A-k reflections and k(A-k) critiques. An answer that is empty or cannot be graded
    has neither; an answer that could not be read counts as wrong. With gold-free roles all agents reflect and each
    criticises every other one.
    """
    o, free = table.options, table.options.roles == "gold_free"
    wrong = [n for n in answers if n.status != "empty" and (free or n.correct is False)]
    reflections = [
        table.ask(n.agent, "reflection", about=n, gold=o.reflection_sees_gold, known_wrong=not free)
        for n in wrong
        if o.reflect
    ]
    critics = [n for n in answers if _criticises(table.member(n.agent), n, o)]
    targets = [n for n in wrong if o.feedback_to == "all_wrong" or table.member(n.agent).role == "student"]
    critiques = [
        table.ask(own.agent, "critique", about=n, own=own, known_wrong=not free)
        for own in critics
        for n in targets
        if n.agent != own.agent
    ]
    return await table.gather(*reflections, *critiques)


def _criticises(member: Member, own: Node, o: Options) -> bool:
    may = o.feedback_from == "all_right" or (o.feedback_from == "teachers_only" and member.role == "teacher")
    return may and (o.roles == "gold_free" or own.correct is True)


def _settled(table: Table, drafts: Sequence[Node], answers: Sequence[Node], speakers: int) -> str | None:
    """The reason to end a debate after the drafts, by ``later_rounds``; None if it goes on."""
    o, own = table.options, [n for n in drafts if table.member(n.agent).role == "student" and not n.absent]
    if o.later_rounds == "if_drafts_disagree" and all_agree(table.task, table.question, answers, speakers):
        return "drafts_agree"
    return "student_right" if o.later_rounds == "if_student_wrong" and own and all(n.correct for n in own) else None
