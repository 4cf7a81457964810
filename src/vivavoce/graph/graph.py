"""The interaction graph of one problem: content-addressed nodes in the order in which the protocol asked for them.

A graph is never changed: :meth:`Graph.with_nodes` gives a new one that holds more. Edges *are* ``Node.parents`` (the
nodes whose text the prompt prints) and ``Node.target`` (what a critique is about); everything else here is a reading.
The graph also holds every prompt, so that what an agent read is looked up and never guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from vivavoce.errors import DataError
from vivavoce.files import json_lines
from vivavoce.graph.packed import is_packed, pack
from vivavoce.records import Message, Node, Problem, Prompt, Quote, to_json

Transition = Literal["WW", "WR", "RW", "RR"]
FORMAT = 2
"""The version of a line of graphs: 2 since prompts are stored."""


@dataclass(frozen=True)
class Graph:
    """All nodes of ``problem``.

    ``oracle_roles`` records that correctness, known from gold, decided which agent criticised which, or when to stop.
    Texts that never saw gold were then still steered by it. ``stopped`` says why the debate ended: a word of the
    protocol, ``budget`` if the question reached its cap, or ``recorded`` for imported debates.
    """

    problem: Problem
    nodes: tuple[Node, ...]
    stopped: str = "cap"
    oracle_roles: bool = False
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    """Every prompt that a node names, by its id."""

    @cached_property
    def by_id(self) -> dict[str, Node]:
        return {n.id: n for n in self.nodes}

    @cached_property
    def _about(self) -> dict[str, list[Node]]:
        """Critiques, reflections and reviews of each answer, by its id. Calls that gave no text are left out."""
        by_target = defaultdict[str, list[Node]](list)
        for n in self.nodes:
            if n.target is not None and not n.absent:
                by_target[n.target].append(n)
        return dict(by_target)

    @property
    def rounds(self) -> int:
        """Number of answer rounds, round 0 included."""
        return 1 + max((n.round for n in self.nodes if n.kind == "answer"), default=-1)

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of all agents that wrote a text, in the order of their first."""
        return tuple(dict.fromkeys(n.agent for n in self.nodes))

    def answers(self, round: int | None = None, agents: Iterable[str] | None = None) -> list[Node]:
        """Answers that arrived (failed calls left out), every sample, of one round or of all."""
        wanted = None if agents is None else set(agents)
        return [
            n
            for n in self.nodes
            if n.kind == "answer"
            and not n.absent
            and (round is None or n.round == round)
            and (wanted is None or n.agent in wanted)
        ]

    def stated(self, round: int, agents: Iterable[str] | None = None) -> list[Node]:
        """One answer for each agent of the round: its first sample that could be parsed, else its first."""
        return stated(self.answers(round, agents))

    def notes(self, about: Node) -> tuple[Node | None, list[Node]]:
        """The reflection on an answer, if any, and the critiques of it, in order; failed ones are left out."""
        notes = self._about.get(about.id, [])
        reflection = next((n for n in notes if n.kind == "reflection"), None)
        return reflection, [n for n in notes if n.kind == "critique"]

    def messages_of(self, n: Node) -> list[Message]:
        """The messages that a node was asked with. Raises DataError if the graph does not hold them."""
        return self.prompt_of(n).chat

    def prompt_of(self, n: Node) -> Prompt:
        """The prompt of a node. Raises DataError if the graph does not hold it."""
        if n.prompt is None or n.prompt not in self.prompts:
            raise DataError(
                f"the graph does not hold the prompt of {n.kind} {n.id}",
                f"problem {self.problem.id}",
                "earlier versions and imports do not write prompts; run the recipe again in the same "
                "folder, which pays for no call twice",
            )
        return self.prompts[n.prompt]

    def failures(self) -> list[Node]:
        """Calls that failed for good."""
        return [n for n in self.nodes if n.status == "error"]

    def unjudged_answers(self) -> list[Node]:
        """Answers of which no judge gave a verdict that can be read."""
        return [n for n in self.nodes if n.status == "unjudged"]

    @property
    def cut_short(self) -> bool:
        """Whether a call was not made because the question had reached its cap."""
        return self.stopped == "budget" or any(n.status == "over_budget" for n in self.nodes)

    def transitions(self) -> list[tuple[str, int, Transition]]:
        """``(agent, round, from-to)`` for each agent that answered in two rounds running and was gradable in both."""
        changes = []
        for r in range(1, self.rounds):
            before = {n.agent: n for n in self.stated(r - 1)}
            for after in self.stated(r):
                b = before.get(after.agent)
                if b is not None and b.correct is not None and after.correct is not None:
                    changes.append((after.agent, r, ("R" if b.correct else "W") + ("R" if after.correct else "W")))
        return changes

    def with_nodes(self, nodes: Iterable[Node]) -> Graph:
        """The graph with more nodes; those that it already holds are not doubled."""
        new = {n.id: n for n in nodes if n.id not in self.by_id}
        return Graph(self.problem, (*self.nodes, *new.values()), self.stopped, self.oracle_roles, self.prompts)

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken: unique ids, parents that exist, parents as printed."""
        assert len(self.by_id) == len(self.nodes), f"{self.problem.id}: doubled node ids"
        seen: set[str] = set()
        for n in self.nodes:
            assert set(n.parents) <= seen, f"{n.id} of {self.problem.id} comes before one of its parents"
            assert n.target is None or n.target in seen, f"{n.id} of {self.problem.id} is about an unknown node"
            if n.prompt is not None:
                assert n.parents == self.prompt_of(n).quotes, f"{n.id} of {self.problem.id}: parents are not printed"
            seen.add(n.id)

    def to_json(self) -> str:
        """One line of JSON; equal graphs give equal bytes.

        Texts of templates and questions are stored once, in ``texts``. A prompt refers to them by their index, and to
        the text of a node by -1 minus the index of the node. A node leaves out fields at their defaults, the problem,
        and parents that its prompt tells.
        """
        texts: dict[str, int] = {}
        at = {n.id: -1 - i for i, n in enumerate(self.nodes)}

        def stored(part: str | Quote) -> Any:
            if isinstance(part, str):
                return texts.setdefault(part, len(texts))
            place = at.get(part.node, part.node)
            return place if isinstance(place, int) and part.text == self.nodes[-1 - place].text else [place, part.text]

        prompts = [
            [
                p.id,
                p.template,
                [at[i] for i in p.reads],
                [[role, list(map(stored, parts))] for role, parts in p.messages],
            ]
            for p in self.prompts.values()
        ]
        nodes = [_short(n, self.problem.id) for n in self.nodes]
        facts = {"stopped": self.stopped, "oracle_roles": self.oracle_roles, "nodes": nodes}
        return to_json({"problem": self.problem, **facts, "texts": list(texts), "prompts": prompts})


def stated(answers: Iterable[Node]) -> list[Node]:
    """One answer for each agent and round: its first sample that could be parsed, else its first. A call that gave no
    text gives none. In order of first word.
    """
    first: dict[tuple[int, str], Node] = {}
    for n in answers:
        if n.absent:
            continue
        key = n.round, n.agent
        if key not in first or (first[key].status != "ok" and n.status == "ok"):
            first[key] = n
    return list(first.values())


_USUAL = {"sample": 0, "parents": ()} | {f.name: f.default for f in fields(Node) if f.default is not MISSING}


def _short(n: Node, problem: str) -> dict[str, Any]:
    """A node without the fields that are at their defaults."""
    fields = {}
    for name in _NAMES:
        value = getattr(n, name)
        if name in _USUAL and value == _USUAL[name]:
            continue
        if (name == "problem" and value == problem) or (name == "parents" and n.prompt is not None):
            continue
        fields[name] = value
    return fields


_NAMES = [f.name for f in fields(Node)]
_NODES: TypeAdapter[tuple[Node, ...]] = TypeAdapter(tuple[Node, ...])


@dataclass(frozen=True)
class _Line:
    """A graph in the form of a file's line."""

    problem: Problem
    nodes: tuple[dict[str, Any], ...]
    stopped: str = "cap"
    oracle_roles: bool = False
    texts: tuple[str, ...] = ()
    prompts: tuple[tuple[str, str, tuple[int, ...], tuple[tuple[str, tuple[Any, ...]], ...]], ...] | None = None

    def graph(self) -> Graph:
        rows: list[dict[str, Any]] = [{"problem": self.problem.id, **_USUAL, **row} for row in self.nodes]
        if self.prompts is None:  # of an earlier version, which told a call that was not made by its error alone
            rows = [{**r, "status": "over_budget"} if str(r["error"]).startswith("budget") else r for r in rows]

        def part(stored: Any) -> str | Quote:
            if isinstance(stored, int):
                return (
                    self.texts[stored]
                    if stored >= 0
                    else Quote(rows[-1 - stored].get("id", ""), rows[-1 - stored].get("text", ""))
                )
            place, text = stored
            return Quote(rows[-1 - place].get("id", "") if isinstance(place, int) else place, text)

        prompts = {
            id: Prompt(
                id,
                template,
                tuple(rows[-1 - i].get("id", "") for i in reads),
                tuple((role, tuple(map(part, parts))) for role, parts in messages),
            )
            for id, template, reads, messages in self.prompts or ()
        }
        # Parents are set before the nodes are made: copies of nodes took longer than all the rest.
        with_parents = [{**r, "parents": prompts[r["prompt"]].quotes} if r["prompt"] in prompts else r for r in rows]
        nodes = _NODES.validate_python(with_parents)
        return Graph(self.problem, nodes, self.stopped, self.oracle_roles, prompts)


_LINE: TypeAdapter[_Line] = TypeAdapter(_Line)


def write_graphs(path: Path, graphs: Iterable[Graph]) -> None:
    """Write one graph a line, packed if the name of the file ends in ``.gz`` (:mod:`vivavoce.graph.packed`)."""
    lines = ((g.to_json() + "\n").encode() for g in graphs)
    with path.open("wb") as f:
        f.writelines(map(pack, lines) if is_packed(path) else lines)


def read_graphs(path: Path) -> Iterator[Graph]:
    """Read what :func:`write_graphs` wrote. Raises DataError with the line if a graph is malformed."""
    for i, line in json_lines(path):
        yield graph_of(line, f"{path}:{i}")


def graph_of(line: str | bytes, where: str) -> Graph:
    """The graph that a line holds. Raises DataError, which names ``where`` the line is."""
    try:
        return _LINE.validate_json(line).graph()
    except ValidationError as e:
        raise DataError(
            f"not a graph: {e.errors()[0]['msg']}", where, "check whether the file was cut or edited"
        ) from e
    except (IndexError, TypeError, ValueError) as e:
        raise DataError(
            "not a graph: a prompt names a text that the file does not hold", where, "check whether the file was edited"
        ) from e
