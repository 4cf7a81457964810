"""Statistics of a stage's debates, counted graph by graph, and the debates that tell most."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from vivavoce.graph import Graph
from vivavoce.report.transcript import Change, minds, turns
from vivavoce.stats import auroc
from vivavoce.tasks import Task
from vivavoce.tasks.agreement import classes

BINS = 5
_WAYS = ("WW", "WR", "RW", "RR")


class Transitions(NamedTuple):
    """Counts of agents that went from wrong or right to wrong or right, into one round."""

    agent: str
    round: int
    counts: dict[str, int]

    @property
    def net(self) -> int:
        return self.counts["WR"] - self.counts["RW"]


class ConfidenceBins(NamedTuple):
    """The calibration of stated confidence: ``(n, right)`` by bin."""

    agent: str
    bins: list[tuple[int, int]]
    said_auroc: float | None
    probability_auroc: float | None


class Debated:
    """The debates of one stage, read once: counts, and which of them tell most."""

    def __init__(self, graphs: Iterable[Graph], task: Task | None = None) -> None:
        self.graphs = self.nodes = self.saw_gold = self.oracle = 0
        self.stopped: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        """Replies that their token limit cut before their answer or their end, by agent."""
        self.kinds: Counter[str] = Counter()
        self._agents: dict[str, None] = {}
        self._moves: defaultdict[tuple[int, str], Counter[str]] = defaultdict(Counter)
        self._ratings: defaultdict[str, list[tuple[float, bool]]] = defaultdict(list)
        self._read: defaultdict[str, list[tuple[float, bool]]] = defaultdict(list)
        self._stories: list[tuple[int, tuple[int, ...]]] = []
        self._task = task
        for graph in graphs:
            self._count(graph)

    def _count(self, graph: Graph) -> None:
        moves = turns(graph)
        self._stories.append(_story(graph, minds(moves), self._task))
        self.graphs += 1
        self.nodes += len(graph.nodes)
        self.oracle += graph.oracle_roles
        self.stopped[graph.stopped] += 1
        for turn in moves:
            self._moves[turn.round, turn.agent][turn.kind] += 1
        for n in graph.nodes:
            self._agents.setdefault(n.agent)
            self.saw_gold += n.saw_gold
            self.kinds[n.kind] += 1
            self.cut[n.agent] += n.status == "truncated"
            if n.absent:
                self.failures[n.agent] += n.status == "error"
            elif n.kind == "answer" and n.correct is not None:
                if n.confidence is not None:
                    self._ratings[n.agent].append((n.confidence, n.correct))
                if n.probability is not None:
                    self._read[n.agent].append((n.probability, n.correct))

    @cached_property
    def transitions(self) -> list[Transitions]:
        """Transitions by round, then by agent in order of first word."""
        order = list(self._agents)
        return [
            Transitions(agent, r, {way: self._moves[r, agent][way] for way in _WAYS})
            for r, agent in sorted(self._moves, key=lambda key: (key[0], order.index(key[1])))
        ]

    @cached_property
    def calibration(self) -> list[ConfidenceBins]:
        """Every gradable answer of all rounds with a stated confidence; empty if there is none."""
        return [
            ConfidenceBins(agent, _bins(ratings), _auroc(ratings), _auroc(self._read[agent]))
            for agent in self._agents
            if (ratings := self._ratings[agent])
        ]

    @property
    def kinds_of_stories(self) -> dict[int, int]:
        """The kind of every debate by its place, those that tell most of their kind first. 0: an agent came from
        wrong to right; 1: from right to wrong; 2: all agreed on a mistake; 3: no agent crossed between right and
        wrong.
        """
        order = sorted(range(len(self._stories)), key=lambda at: self._stories[at][1], reverse=True)
        return {at: self._stories[at][0] for at in order}


def _bins(ratings: list[tuple[float, bool]]) -> list[tuple[int, int]]:
    bins = [(0, 0)] * BINS
    for confidence, correct in ratings:
        i = min(BINS - 1, int(confidence * BINS))
        bins[i] = (bins[i][0] + 1, bins[i][1] + correct)
    return bins


def _auroc(ratings: list[tuple[float, bool]]) -> float | None:
    return auroc([s for s, _ in ratings], [right for _, right in ratings]) if ratings else None


def _story(graph: Graph, changed: list[Change], task: Task | None) -> tuple[int, tuple[int, ...]]:
    """The kind of a debate, and its rank in it: by agents that changed their answer, and critiques of those."""
    better, worse = ({t.agent for t in changed if t.kind == kind} for kind in ("WR", "RW"))
    moved = {t.before.id for t in changed}
    persuasive = sum(n.target in moved for n in graph.nodes)
    if better:
        return 0, (len(better) - len(worse), persuasive)
    if worse:
        return 1, (len(worse), persuasive)
    last = graph.stated(graph.rounds - 1)
    wrong = len(last) > 1 and all(n.correct is False for n in last)
    if wrong and len(set(classes(task, graph.problem, [n.answer for n in last]))) == 1:
        return 2, (len(last), graph.rounds)
    return 3, (len(changed), graph.rounds)


__all__ = ["BINS", "ConfidenceBins", "Debated", "Transitions"]
