"""The outcome of every answer to a question, in one letter each, for tables of questions and their filters.

::

    R right   W wrong   U no answer found   M empty   N cannot be graded   E the call failed   B not asked: cap reached
    r right, and w wrong, though the reply was cut off   T cut off before an answer   - nothing there
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from vivavoce.graph import Graph
from vivavoce.graph.graph import stated
from vivavoce.records import Node
from vivavoce.report.transcript import mark

NOTHING = "-"
_LETTERS = {
    "right": "R",
    "wrong": "W",
    "unparsed": "U",
    "empty": "M",
    "ungradable": "N",
    "failed": "E",
    "not asked": "B",
    "cut off": "T",
}


class Seat(NamedTuple):
    """A column of the table: an agent's text in a round that can be right or wrong."""

    kind: str
    agent: str
    round: int


def letter(node: Any) -> str:
    """The letter of an answer: a node, or the judged answer to a test question."""
    sign = _LETTERS[mark(node)]
    return sign.lower() if node.status == "truncated" and sign in "RW" else sign


def seats(graph: Graph) -> dict[Seat, str]:
    """The letter of each answer of a graph: of several samples, of the one that counts."""
    by_kind: dict[str, list[Node]] = {}
    for n in graph.nodes:
        if n.kind == "answer" or n.answer is not None or n.correct is not None:
            by_kind.setdefault(n.kind, []).append(n)
    letters: dict[Seat, str] = {}
    for kind, nodes in by_kind.items():
        for n in stated(nodes):
            letters[Seat(kind, n.agent, n.round)] = letter(n)
        for n in nodes:  # a seat at which no call gave a text
            letters.setdefault(Seat(kind, n.agent, n.round), letter(n))
    return letters


def in_order(cells: Iterable[Seat]) -> list[Seat]:
    """Seats as a table shows them: by kind as it was first met, then round by round."""
    several = list(cells)
    kinds, agents = (list(dict.fromkeys(getattr(s, key) for s in several)) for key in ("kind", "agent"))
    return sorted(several, key=lambda s: (kinds.index(s.kind), s.round, agents.index(s.agent)))


__all__ = ["NOTHING", "Seat", "in_order", "letter", "seats"]
