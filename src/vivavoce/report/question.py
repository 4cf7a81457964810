"""One question as plain values for a page: what was said, the exact prompts, who changed their mind, and the votes.

A text that stands in several prompts is given once: a part of a prompt is the index of a text, the id of a node that
it quotes in full, or ``[id, text]`` if a context budget left less of it.
"""

from __future__ import annotations

from typing import Any

from vivavoce.exams.examine import Judged
from vivavoce.graph import Graph
from vivavoce.records import Node, Prompt, Quote
from vivavoce.report.transcript import STOPPED, mark, turns, votes
from vivavoce.tasks import Task


def question_facts(graph: Graph, task: Task | None = None) -> dict[str, Any]:
    """The data of a debate's page. ``task`` says which answers are the same, for the votes."""
    p, texts = graph.problem, dict[str, int]()
    changed = {t.after.id: t for t in turns(graph) if t.changed}
    prompts = {id: _prompt(prompt, graph, texts) for id, prompt in graph.prompts.items()}
    nodes = [_node(n) for n in graph.nodes]
    for n in nodes:
        if turn := changed.get(n["id"]):
            n["turn"] = {"kind": turn.kind, "before": turn.before.answer, "words": turn.words}
    rounds = sorted({0, graph.rounds - 1}) if graph.rounds else []
    ballots = [
        {"round": r, "votes": [[rule, n.answer, mark(n)] for rule, n in winners]}
        for r in rounds
        if (winners := votes(graph, r, task))
    ]
    return {
        "problem": {"id": p.id, "question": p.question, "gold": p.gold, "group": p.group, "history": list(p.history)},
        "ended": STOPPED.get(graph.stopped),
        "stopped": graph.stopped,
        "oracle": graph.oracle_roles,
        "nodes": nodes,
        "prompts": prompts,
        "texts": list(texts),
        "votes": ballots,
    }


def _node(n: Node) -> dict[str, Any]:
    """A node without the fields that it has no value for."""
    usual: dict[str, Any] = {
        "sample": n.sample or None,
        "target": n.target,
        "parents": list(n.parents) or None,
        "answer": n.answer,
        "confidence": n.confidence,
        "probability": n.probability,
        "score": n.score,
        "gold": n.saw_gold or None,
        "error": n.error,
        "prompt": n.prompt,
    }
    judged = n.kind == "answer" or n.answer is not None or n.correct is not None or n.absent
    return {
        "id": n.id,
        "kind": n.kind,
        "agent": n.agent,
        "round": n.round,
        "text": n.text,
        "status": n.status,
        "mark": mark(n) if judged else None,
        "tokens": [n.usage.prompt, n.usage.completion],
        **{key: value for key, value in usual.items() if value is not None},
    }


def _prompt(prompt: Prompt, graph: Graph, texts: dict[str, int]) -> dict[str, Any]:
    def part(one: str | Quote) -> Any:
        if isinstance(one, str):
            return texts.setdefault(one, len(texts))
        quoted = graph.by_id.get(one.node)
        return one.node if quoted is not None and quoted.text == one.text else [one.node, one.text]

    return {
        "template": prompt.template,
        "messages": [[role, [part(p) for p in parts]] for role, parts in prompt.messages],
    }


def answer_facts(row: Judged) -> dict[str, Any]:
    """An answer to a test question."""
    return {
        "text": row.text,
        "answer": row.answer,
        "mark": mark(row),
        "status": row.status,
        "tokens": [row.usage.prompt, row.usage.completion],
    }


__all__ = ["answer_facts", "question_facts"]
