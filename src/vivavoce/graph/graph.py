"""The interaction graph of one problem: content-addressed nodes in the order in which they were said.

A graph is never changed: :meth:`Graph.extended` gives a new one that holds more. Edges *are* ``Node.parents`` (what
the prompt showed) and ``Node.target`` (what a critique is about); everything else here is a reading.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from vivavoce.errors import DataError
from vivavoce.files import json_lines
from vivavoce.records import Node, Problem, to_json

StopReason = Literal[
    "all_correct",
    "consensus",
    "majority_stable",
    "drafts_agree",
    "student_right",
    "cap",
    "no_answers",
    "budget",
    "recorded",
]
Transition = Literal["WW", "WR", "RW", "RR"]


@dataclass(frozen=True)
class Graph:
    """Everything that was said about ``problem``.

    ``oracle_roles`` records that correctness, known from gold, decided who criticised whom or when to stop, so that
    even texts that never saw gold were steered by it. ``stopped`` says why the debate ended.
    """

    problem: Problem
    nodes: tuple[Node, ...]
    stopped: StopReason = "cap"
    oracle_roles: bool = False

    @cached_property
    def by_id(self) -> dict[str, Node]:
        return {n.id: n for n in self.nodes}

    @cached_property
    def _about(self) -> dict[str, list[Node]]:
        """What was said about each answer, by its id; failed calls are left out."""
        said = defaultdict[str, list[Node]](list)
        for n in self.nodes:
            if n.target is not None and n.status != "error":
                said[n.target].append(n)
        return dict(said)

    @property
    def rounds(self) -> int:
        """Number of answer rounds, round 0 included."""
        return 1 + max((n.round for n in self.nodes if n.kind == "answer"), default=-1)

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of all who spoke, in order of first word."""
        return tuple(dict.fromkeys(n.agent for n in self.nodes))

    def answers(self, round: int | None = None, agents: Iterable[str] | None = None) -> list[Node]:
        """Answers that arrived (failed calls left out), every sample, of one round or of all."""
        who = None if agents is None else set(agents)
        return [
            n
            for n in self.nodes
            if n.kind == "answer"
            and n.status != "error"
            and (round is None or n.round == round)
            and (who is None or n.agent in who)
        ]

    def stated(self, round: int, agents: Iterable[str] | None = None) -> list[Node]:
        """One answer for each agent of the round: its first sample that could be parsed, else its first."""
        first: dict[str, Node] = {}
        for n in self.answers(round, agents):
            if n.agent not in first or (first[n.agent].status != "ok" and n.status == "ok"):
                first[n.agent] = n
        return list(first.values())

    def notes(self, about: Node) -> tuple[Node | None, list[Node]]:
        """The reflection on an answer, if any, and the critiques of it, in order; failed ones are left out."""
        said = self._about.get(about.id, [])
        reflection = next((n for n in said if n.kind == "reflection"), None)
        return reflection, [n for n in said if n.kind == "critique"]

    def failures(self) -> list[Node]:
        """Calls that failed for good."""
        return [n for n in self.nodes if n.status == "error" and not unaffordable(n)]

    @property
    def cut_short(self) -> bool:
        """Whether something was left unsaid because the question had reached its cap."""
        return any(map(unaffordable, self.nodes))

    def transitions(self) -> list[tuple[str, int, Transition]]:
        """``(agent, round, from-to)`` for each agent that answered in two rounds running and was gradable in both."""
        found = []
        for r in range(1, self.rounds):
            before = {n.agent: n for n in self.stated(r - 1)}
            for after in self.stated(r):
                b = before.get(after.agent)
                if b is not None and b.correct is not None and after.correct is not None:
                    found.append((after.agent, r, ("R" if b.correct else "W") + ("R" if after.correct else "W")))
        return found

    def extended(self, nodes: Iterable[Node]) -> Graph:
        """The graph with more nodes; those that it already holds are not doubled."""
        new = {n.id: n for n in nodes if n.id not in self.by_id}
        return Graph(self.problem, (*self.nodes, *new.values()), self.stopped, self.oracle_roles)

    def check(self) -> None:
        """Raise AssertionError where an invariant is broken: unique ids, parents that exist, no talk past the end."""
        assert len(self.by_id) == len(self.nodes), f"{self.problem.id}: doubled node ids"
        seen: set[str] = set()
        for n in self.nodes:
            assert set(n.parents) <= seen, f"{n.id} of {self.problem.id} comes before one of its parents"
            assert n.target is None or n.target in seen, f"{n.id} of {self.problem.id} is about an unknown node"
            acted = n.kind in ("action", "observation")  # their rounds are steps of an episode
            assert acted or n.round < max(1, self.rounds), (
                f"{n.id} of {self.problem.id} speaks after the debate stopped"
            )
            seen.add(n.id)

    def to_json(self) -> str:
        """One line of JSON; equal graphs give equal bytes."""
        said = {"stopped": self.stopped, "oracle_roles": self.oracle_roles, "nodes": self.nodes}
        return to_json({"problem": self.problem, **said})


def unaffordable(n: Node) -> bool:
    """Whether a node stands for a call that was not made, for want of money: its agent is absent there."""
    return n.status == "error" and (n.error or "").startswith("budget")


_ADAPTER: TypeAdapter[Any] = TypeAdapter(Graph)


def write_graphs(path: Path, graphs: Iterable[Graph]) -> None:
    """Write one graph a line."""
    with path.open("w", encoding="utf-8") as f:
        f.writelines(g.to_json() + "\n" for g in graphs)


def read_graphs(path: Path) -> Iterator[Graph]:
    """Read what :func:`write_graphs` wrote. Raises DataError with the line where a graph is malformed."""
    for i, line in json_lines(path):
        yield graph_of(line, f"{path}:{i}")


def graph_of(line: str | bytes, where: str) -> Graph:
    """The graph that a line holds. Raises DataError that names ``where`` it stands."""
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError as e:
        raise DataError(f"not a graph: {e.errors()[0]['msg']}", where, "was the file cut or edited?") from e
