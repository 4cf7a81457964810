"""The rules for the end of a debate: agreement among the speakers, by the task's own equality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from vivavoce.graph.graph import stated
from vivavoce.records import Node, Problem
from vivavoce.tasks import Task
from vivavoce.tasks.agreement import classes, majority

StopRule = Literal["consensus", "all_correct", "majority_stable", "cap_only"]


def quorum(answers: Sequence[Node], speakers: int) -> bool:
    """Whether enough of the ``speakers`` answered for their agreement to mean something: more than half of them.

    A single answer of three speakers is no agreement.
    """
    return 2 * len(stated(answers)) > speakers


def all_agree(task: Task, problem: Problem, answers: Sequence[Node], speakers: int) -> bool:
    """Whether all agents that answered gave the same answer, which could be read, and they are a quorum."""
    usable = stated(answers)
    different = set(classes(task, problem, [n.answer for n in usable]))
    return quorum(usable, speakers) and len(different) == 1 and None not in different


def majority_of(task: Task, problem: Problem, answers: Sequence[Node], speakers: int) -> str | None:
    """The answer of more than half of the agents that answered, if they are a quorum."""
    usable = stated(answers)
    return majority(task, problem, [n.answer for n in usable]) if quorum(usable, speakers) else None


def same(task: Task, problem: Problem, a: str | None, b: str | None) -> bool:
    """Whether two answers are the same answer. None equals no answer, not even None."""
    labels = classes(task, problem, [a, b])
    return a is not None and labels[0] == labels[1]


def why_stop(
    rule: StopRule, task: Task, problem: Problem, answers: Sequence[Node], before: Sequence[Node], speakers: int
) -> str | None:
    """The reason why a debate ends after ``answers``, the answers of a round, or None if it goes on.

    Args:
        rule: ``consensus``: all agree; ``all_correct``: all are right (this looks at gold); ``majority_stable``: all
            agree, or more than half give the answer that more than half gave the round before; ``cap_only``: it goes on
            as long as any agent answers.
        before: The answers of the round before; none in round 0.
        speakers: The number of agents that were asked. Those that answered must be a quorum of them.
    """
    usable = stated(answers)
    if not usable:
        return "no_answers"
    if rule == "all_correct" and quorum(usable, speakers) and all(n.correct for n in usable):
        return "all_correct"
    if rule in ("consensus", "majority_stable") and all_agree(task, problem, usable, speakers):
        return "consensus"
    if rule == "majority_stable" and before:
        now, then = (majority_of(task, problem, ns, speakers) for ns in (usable, before))
        if same(task, problem, now, then):
            return "majority_stable"
    return None


__all__ = ["StopRule", "all_agree", "majority_of", "quorum", "same", "why_stop"]
