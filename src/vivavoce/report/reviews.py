"""Rationales and reviews of a peer review: statistics of reviewers, the worth of a mean score, and examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from vivavoce.data.acceptance import AcceptRules, Decision, decide, rationales, scores
from vivavoce.data.bounds import right
from vivavoce.graph import Graph, graph_file, stored_graphs
from vivavoce.records import Node
from vivavoce.report.sources import Sources

_EACH = 2
"""Examples of each kind."""
_LONG = 1200
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class Chain:
    """One rationale, its reviews, their mean, and the decision."""

    question: str
    author: str
    text: str
    is_right: bool | None
    reviews: list[tuple[str, float | None, str]]
    """Reviewer, score, and what it wrote last."""
    decision: Decision


@dataclass(frozen=True)
class Reviewed:
    """A peer review of the run: its figures as ``results.json`` holds them, and examples."""

    title: str
    figures: Mapping[str, Any]
    feedback: Mapping[str, Mapping[str, int]]
    exams: Mapping[str, list[Mapping[str, int]]]
    chains: list[Chain]


def reviews_of(sources: Sources) -> list[Reviewed]:
    """Every peer review of a run; of a chain, that of each stage."""
    results = sources.results or {}
    facts = {"": results} if "review" in results else results.get("stages", {})
    parts = sources.parts or {"": sources}
    return [
        Reviewed(
            f"Stage {name}" if name else "",
            of["review"],
            of.get("feedback", {}),
            of.get("exams", {}),
            _chains(parts[name]) if name in parts else [],
        )
        for name, of in facts.items()
        if "review" in of
    ]


def _chains(part: Sources) -> list[Chain]:
    """Examples of each kind: right and wrong texts, accepted and not; those first on which the rule erred."""
    file = graph_file(part.path, "train")
    if not file.is_file():
        return []
    rules, seed = AcceptRules.model_validate(part.recipe.get("accept") or {}), int(part.recipe.get("seed", 0))
    graphs = list(islice(stored_graphs(file), 2000))
    of = {d.rationale: d for d in decide(graphs, rules, seed)}
    wanted = [(False, "accepted"), (True, "rejected"), (True, "accepted"), (False, "rejected")]
    chains: dict[tuple[bool | None, str], list[Chain]] = {key: [] for key in wanted}
    for graph, n in _texts(graphs):
        key = right(n, graph.problem), of[n.id].verdict
        if key in chains and len(chains[key]) < _EACH and of[n.id].valid:
            reviews = [(one.reviewer, one.score, one.reviews[-1].text[:_LONG]) for one in scores(graph, n)]
            chains[key].append(
                Chain(graph.problem.question[:_LONG], n.agent, n.text[:_LONG], key[0], reviews, of[n.id])
            )
    return [chain for key in wanted for chain in chains[key]]


def _texts(graphs: list[Graph]) -> Iterator[tuple[Graph, Node]]:
    return ((g, n) for g in graphs for n in rationales(g) if not n.absent)


__all__ = ["Chain", "Reviewed", "reviews_of"]
