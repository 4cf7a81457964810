"""A model takes a test: every question once, graded, with its tokens; and the same record for a committee's votes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vivavoce.agents import Agent
from vivavoce.agents.journal import Journal
from vivavoce.committee.wording import Wording
from vivavoce.graph import Graph
from vivavoce.records import Message, Node, Problem, Sampling, Status, Usage, seed_of
from vivavoce.tasks import grade_of


@dataclass(frozen=True, slots=True)
class Judged:
    """The answer to one test question: its author, its text, its grade, and the tokens that it cost.

    A row says all that a table needs, so that none has to be joined to another file.
    """

    problem: str
    group: str
    text: str
    answer: str | None
    correct: bool | None
    status: Status
    usage: Usage
    question: str = ""
    gold: str = ""
    """The right answer."""
    arm: str = ""
    """The name of the arm that answered; empty outside of a run."""
    seed: int = 0
    """The training seed of who answered."""
    prompt: tuple[Message, ...] = ()
    """The messages that were answered; of a committee's vote, those that the winner answered."""
    probability: float | None = None
    """The probability of the answer by the student's own log-probabilities, if they were asked for."""
    score: float | None = None
    """The mean of what judges gave the answer, if judges were asked."""


def of_arm(rows: Sequence[Judged], arm: str, seed: int, problems: Sequence[Problem] = ()) -> list[Judged]:
    """The rows with the name of their arm; rows of an earlier version, which have none, with their ``problems``."""
    by_id = {p.id: p for p in problems}
    own_rows = [row if row.arm else replace(row, arm=arm, seed=seed) for row in rows]
    return [
        row
        if row.question or row.problem not in by_id
        else replace(row, question=by_id[row.problem].question, gold=by_id[row.problem].gold)
        for row in own_rows
    ]


async def examine(
    agent: Agent,
    problems: Sequence[Problem],
    wording: Wording,
    journal: Journal,
    sampling: Sampling,
    *,
    stage: str,
    seed: int = 0,
    in_flight: int = 512,
    done: Callable[[Judged], None] = lambda _: None,
) -> list[Judged]:
    """Ask every problem once, plainly, as the training rows asked; nothing of the committee is in the prompt.

    A failed call counts as unanswered, status ``error``, never as a skipped question.
    """
    gate = asyncio.Semaphore(in_flight)

    async def one(problem: Problem) -> Judged:
        messages = wording.plain(problem)
        async with gate:
            answered = await journal.call(
                agent,
                messages,
                sampling,
                seed_of(seed, problem.id, "test"),
                stage=stage,
                problem=problem.id,
                kind="test",
            )
        reply = answered.reply
        if reply is None:
            judged = Judged(
                problem.id, problem.group, "", None, False, "error", Usage(), **_question_facts(problem, messages)
            )
        else:
            grade = await grade_of(wording.task, problem, reply.text, reply.cut, stage)
            judged = Judged(
                problem.id,
                problem.group,
                reply.text,
                grade.answer,
                grade.correct,
                grade.status,
                reply.usage,
                **_question_facts(problem, messages),
                probability=wording.task.probability(reply.text, reply.tokens) if reply.tokens else None,
                score=grade.score,
            )
        done(judged)
        return judged

    return list(await asyncio.gather(*map(one, problems)))


def _question_facts(problem: Problem, messages: Sequence[Message]) -> dict[str, Any]:
    return {"question": problem.question, "gold": problem.gold, "prompt": tuple(messages)}


def committee_answers(
    graphs: Iterable[Graph], winner: Callable[[Graph], Node | None], spent: Callable[[Graph], Iterable[Node]]
) -> list[Judged]:
    """A committee's answers: ``winner`` names the answer, ``spent`` the nodes that it cost to get there."""
    rows = []
    for g in graphs:
        nodes, p = list(spent(g)), g.problem
        n, usage = winner(g), sum((n.usage for n in nodes), Usage())
        failed = bool(nodes) and all(n.status == "error" for n in nodes)  # every call failed: that is no wrong answer
        rows.append(
            Judged(
                p.id,
                p.group,
                n.text,
                n.answer,
                n.correct,
                n.status,
                usage,
                **_question_facts(p, g.messages_of(n) if n.prompt in g.prompts else ()),
            )
            if n
            else Judged(
                p.id, p.group, "", None, False, "error" if failed else "no_answer", usage, **_question_facts(p, ())
            )
        )
    return rows
