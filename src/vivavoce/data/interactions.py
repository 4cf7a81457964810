"""Discussions as graphs to learn from (MAGDi, arXiv:2402.01620): a stand for each agent and round, edges between them.

Every stand of a round reads all of the round before, so that three agents in four rounds have the paper's 27 edges.
Reflections and critiques are left out: the paper has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from vivavoce.committee.wording import Wording
from vivavoce.graph import Graph
from vivavoce.records import Interaction, Stand


def interactions(graphs: Iterable[Graph], agents: Sequence[str], wording: Wording) -> Iterator[Interaction]:
    """The graphs of the discussions of ``agents`` in which some agent was right, or wrong: others teach nothing."""
    for graph in graphs:
        stands, rounds = list[Stand](), list[list[int]]()
        for r in range(graph.rounds):
            there = {n.agent: n for n in graph.stated(r, agents)}
            rounds.append(list(range(len(stands), len(stands) + len(agents))))
            for agent in agents:
                n = there.get(agent)
                if n is None or n.answer is None or n.correct is None or n.status == "truncated":
                    stands.append(Stand("", "missing", n.id if n else ""))
                else:
                    stands.append(Stand(wording.lesson_of(n.text), "right" if n.correct else "wrong", n.id))
        if all(s.label == "missing" for s in stands):
            continue
        edges = [(a, b) for before, after in pairwise(rounds) for a in before for b in after]
        yield Interaction(graph.problem.id, tuple(wording.plain(graph.problem)), tuple(stands), tuple(edges))


__all__ = ["interactions"]
