"""One debate laid out for the page: a column for each agent, a row for each round, what was said about it beneath."""

from __future__ import annotations

from typing import NamedTuple

from vivavoce.graph import Graph
from vivavoce.records import Node
from vivavoce.report.debates import Telling
from vivavoce.report.transcript import Turn, figures, kinds_of_notes, mark, votes, why_ended
from vivavoce.tasks import Task

_LONGEST = 6000  # characters of one text on the page; a model in a loop writes far more


class Said(NamedTuple):
    """An answer: what became of it, what its author gave, whether it turned, and how further samples went."""

    mark: str
    figures: list[str]
    text: str
    turn: Turn | None
    saw_gold: bool
    samples: list[tuple[str, str]]
    """``(mark, answer)`` of each further sample."""


class Note(NamedTuple):
    """A reflection or critique: who says it, about whom, and whether the call failed."""

    kind: str
    agent: str
    about: str | None
    text: str
    score: float | None
    saw_gold: bool
    failed: bool


class Round(NamedTuple):
    """One row: a cell for each agent, None where it did not speak, and the notes on these answers."""

    number: int
    cells: list[Said | None]
    notes: list[Note]


class Shown(NamedTuple):
    """A debate, ready for the template."""

    graph: Graph
    why: str
    agents: list[str]
    rounds: list[Round]
    turns: list[Turn]
    ballots: list[tuple[str, list[tuple[str, str, str]]]]
    """Title and ``(way, answer, mark)`` of the votes before and after the debate."""
    ended: str


def show(telling: Telling, task: Task | None = None) -> Shown:
    """Lay a debate out. Agents who never answered have no column; their notes name them."""
    g = telling.graph
    agents = list(dict.fromkeys(n.agent for n in g.nodes if n.kind == "answer"))
    rounds = [Round(r, [_cell(g, r, agent, telling.turns) for agent in agents], _notes(g, r)) for r in range(g.rounds)]
    ends = [("Votes before anybody heard anybody", 0), (f"Votes after round {g.rounds - 1}", g.rounds - 1)][: g.rounds]
    ballots = [(title, [(way, n.answer or "", mark(n)) for way, n in votes(g, r, task)]) for title, r in ends]
    return Shown(g, telling.why, agents, rounds, telling.turns, ballots, why_ended(g.stopped))


def _cell(graph: Graph, round: int, agent: str, changed: list[Turn]) -> Said | None:
    mine = [n for n in graph.nodes if n.kind == "answer" and n.round == round and n.agent == agent]
    if not mine:
        return None
    n = next(iter(graph.stated(round, [agent])), mine[0])
    turn = next((t for t in changed if t.after is n), None)
    return Said(
        mark(n),
        figures(n),
        _text(n),
        turn,
        n.saw_gold,
        [(mark(other), other.answer or "none") for other in mine if other is not n],
    )


def _notes(graph: Graph, round: int) -> list[Note]:
    kinds = kinds_of_notes(graph)
    said = [n for n in graph.nodes if n.kind in kinds and n.round == round]
    return [
        Note(n.kind, n.agent, _about(graph, n), _text(n), n.score, n.saw_gold, n.absent)
        for n in sorted(said, key=lambda n: kinds.index(n.kind))
    ]


def _about(graph: Graph, n: Node) -> str | None:
    target = graph.by_id.get(n.target) if n.target else None
    return None if target is None or target.agent == n.agent else target.agent


def _text(n: Node) -> str:
    if n.absent:
        return n.error or "failed"
    text = n.text.strip()
    rest = len(text) - _LONGEST
    return text if rest <= 0 else f"{text[:_LONGEST]}… ({rest:,} characters more)"


__all__ = ["Note", "Round", "Said", "Shown", "show"]
