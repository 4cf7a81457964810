"""One agent says one thing: a call through the journal that becomes a node, whatever comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from vivavoce.agents import Agent
from vivavoce.agents.journal import Journal
from vivavoce.debate.prompting import Ask, PromptSet
from vivavoce.debate.scores import ScoreForm
from vivavoce.graph import Graph
from vivavoce.records import Message, Node, NodeKind, Problem, Sampling, node, seed_of
from vivavoce.tasks import Task, grade_of


class Rules(Protocol):
    """What the rules of every method say about how agents are asked."""

    asks: ClassVar[tuple[Ask, ...]]

    @property
    def prompts(self) -> str: ...

    @property
    def word_limit(self) -> int: ...

    @property
    def ask_confidence(self) -> bool: ...

    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


class Table(Protocol):
    """Where agents sit together: with which prompts, judged by which task, written to which journal."""

    @property
    def prompts(self) -> PromptSet: ...

    @property
    def task(self) -> Task: ...

    @property
    def journal(self) -> Journal: ...

    @property
    def seed(self) -> int: ...

    @property
    def stage(self) -> str: ...

    @property
    def score_form(self) -> ScoreForm: ...


@dataclass(frozen=True)
class Member:
    """One who sits on the committee, and how its replies are drawn. ``samples`` answers are drawn in round 0."""

    agent: Agent
    role: Literal["teacher", "student"]
    sampling: Sampling
    samples: int = 1

    @property
    def name(self) -> str:
        return self.agent.name


def asked(problem: Problem, rules: Rules, task: Task) -> dict[str, object]:
    """The values that every prompt template may use."""
    return {
        "question": problem.question,
        "answer_format": task.answer_format,
        "word_limit": rules.word_limit,
        "ask_confidence": rules.ask_confidence,
    }


async def say(
    graph: Graph,
    kind: NodeKind,
    round: int,
    member: Member,
    messages: list[Message],
    table: Table,
    *,
    parents: tuple[str, ...],
    saw_gold: bool,
    sample: int = 0,
    target: Node | None = None,
) -> Node:
    """One call through the journal, as a node; a call that failed, or that was not affordable, has ``status`` error."""
    problem, about = graph.problem, target.agent if target else ""
    seed = seed_of(table.seed, problem.id, member.name, kind, about, round, sample)
    answered = await table.journal.call(
        member.agent, messages, member.sampling, seed, stage=table.stage, question=problem.id, kind=kind
    )
    identity: dict[str, Any] = {
        "sample": sample,
        "parents": parents,
        "target": target.id if target else None,
        "call": None if answered.refused else answered.key,
    }
    reply = answered.reply
    if reply is None:
        return node(
            kind,
            problem.id,
            member.name,
            round,
            "",
            status="error",
            saw_gold=saw_gold,
            error=str(answered.error),
            **identity,
        )
    rest: dict[str, Any] = {"status": "ok" if reply.text.strip() else "empty"}
    if kind in ("answer", "rationale"):
        grade = await grade_of(table.task, problem, reply.text, cut=reply.finish == "length")
        rest = {
            "answer": grade.answer,
            "correct": grade.correct,
            "status": grade.status,
            "confidence": table.prompts.confidence(reply.text),
            "probability": rounded(table.task.probability(reply.text, reply.tokens)) if reply.tokens else None,
        }
    elif kind == "review":
        read = table.prompts.review_score(reply.text, table.score_form)
        rest = {"score": read.value, "status": read.status if reply.text.strip() else "empty"}
    else:
        rest["score"] = table.prompts.score(reply.text)
    return node(
        kind, problem.id, member.name, round, reply.text, usage=reply.usage, saw_gold=saw_gold, **identity, **rest
    )


def rounded(probability: float) -> float:
    """Four decimals: enough for a vote, and stable against the last bits of a sum that depend on the batch."""
    return round(probability, 4)
