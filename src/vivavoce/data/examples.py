"""Supervised rows: right answers (or the winners of a vote), under the plain question."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from vivavoce.committee.votes import vote
from vivavoce.committee.wording import Wording
from vivavoce.data.rules import ExampleRules
from vivavoce.graph import Graph
from vivavoce.records import Example, Node
from vivavoce.tasks import Task


def examples(
    graphs: Iterable[Graph], take: ExampleRules, agents: Collection[str], wording: Wording, student: str | None = None
) -> list[Example]:
    """Rows from the answers of ``agents``, question by question, latest rounds first.

    L_SFT = -E log pi(y | I, x) with y any right answer and no shared information in the prompt (arXiv:2506.03541).
    An answer without a parseable final answer is never taken. ``student`` is who learns: its own answers count only if
    ``take.include_student`` says so.
    """
    rows = []
    agents = [a for a in agents if take.include_student or a != student]
    for graph in graphs:
        prompt = tuple(wording.plain(graph.problem))
        sources: dict[str, list[str]] = {}
        for i, n in enumerate(_answers_to_learn(graph, take, agents, wording.task)):
            text = wording.lesson_of(n.text)
            sources.setdefault(text if take.dedup else f"{i}\0{text}", []).append(n.id)
        kept = list(sources.items())[: take.max_per_question]
        rows += [Example(graph.problem.id, prompt, key.rpartition("\0")[2], tuple(ids)) for key, ids in kept]
    return rows


def _answers_to_learn(graph: Graph, take: ExampleRules, agents: Collection[str], task: Task) -> list[Node]:
    rounds = range(graph.rounds) if take.rounds is None else [r for r in take.rounds if r < graph.rounds]
    if take.take == "right":
        return [n for r in sorted(rounds, reverse=True) for n in graph.answers(r, agents) if n.correct and n.answer]
    last = max(rounds, default=None)
    winner = None if last is None else vote(task, graph.problem, graph.stated(last, agents), take.vote)
    return [winner] if winner and (take.take == "winner" or winner.correct) else []
