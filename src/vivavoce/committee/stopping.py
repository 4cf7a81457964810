"""The end of a debate: the keys that set it, and agreement among the speakers, by the task's own equality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from vivavoce.committee.table import Table
from vivavoce.committee.wording import Discussion
from vivavoce.graph.graph import stated
from vivavoce.records import Node
from vivavoce.tasks.agreement import classes, majority

StopRule = Literal["consensus", "all_correct", "majority_stable", "cap_only"]


class Ending(Discussion):
    """The number of rounds, and what ends a debate before the last one (arXiv:2506.03541)."""

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

    @property
    def needs_gold(self) -> bool:
        return self.stop == "all_correct" or self.later_rounds == "if_student_wrong"


def quorum(answers: Sequence[Node]) -> bool:
    """Whether enough agents answered for their agreement to mean something: more than half of those that were asked.

    A single answer of three speakers is no agreement.
    """
    return 2 * len(stated(answers)) > len({n.agent for n in answers})


def all_agree(table: Table, answers: Sequence[Node]) -> bool:
    """Whether all agents that answered gave the same answer, which could be read, and they are a quorum.

    ``answers`` are the nodes of one round, as :meth:`Table.all` returns them: absent agents are among them, and count
    as asked.
    """
    different = set(classes(table.task, table.question, [n.answer for n in stated(answers)]))
    return quorum(answers) and len(different) == 1 and None not in different


def why_stop(table: Table, answers: Sequence[Node], before: Sequence[Node], drafts: Sequence[Node] = ()) -> str | None:
    """The reason why a debate ends after a round, by the keys of :class:`Ending`; None if it goes on.

    ``stop: consensus``: all speakers agree; ``all_correct``: all are right; ``majority_stable``: all agree, or more
    than half give the answer that more than half gave the round before; ``cap_only``: it goes on as long as any agent
    answers.

    Args:
        table: The table, whose options are an :class:`Ending`.
        answers: The speakers' nodes of the round, those of absent agents among them.
        before: The same of the round before; none in round 0.
        drafts: In round 0 the nodes of all who answered, a student that no agent reads among them; none later.
    """
    rules, usable = table.options, stated(answers)
    if not usable:
        return "no_answers"
    if rules.stop == "all_correct" and quorum(answers) and all(n.correct for n in usable):
        return "all_correct"
    if rules.stop in ("consensus", "majority_stable") and all_agree(table, answers):
        return "consensus"
    if rules.stop == "majority_stable" and before and _same(table, _majority(table, answers), _majority(table, before)):
        return "majority_stable"
    if rules.later_rounds == "if_drafts_disagree" and drafts and all_agree(table, answers):
        return "drafts_agree"
    own = [n for n in drafts if table.member(n.agent).role == "student" and not n.absent]
    if rules.later_rounds == "if_student_wrong" and own and all(n.correct for n in own):
        return "student_right"
    return None


def _majority(table: Table, answers: Sequence[Node]) -> str | None:
    """The answer of more than half of the agents that answered, if they are a quorum."""
    given = [n.answer for n in stated(answers)]
    return majority(table.task, table.question, given) if quorum(answers) else None


def _same(table: Table, a: str | None, b: str | None) -> bool:
    """Whether two answers are the same answer. None equals no answer, not even None."""
    labels = classes(table.task, table.question, [a, b])
    return a is not None and labels[0] == labels[1]


__all__ = ["Ending", "StopRule", "all_agree", "quorum", "why_stop"]
