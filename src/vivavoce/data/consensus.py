"""Preference pairs by what a committee agrees on, without a look at the right answer.

``majority`` (MACA, arXiv:2509.15172): a student's own answers that agree with the committee's majority over those that
do not. ``consensus``: the answer that wins the debate's vote over the student's own that disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from vivavoce.committee.votes import vote
from vivavoce.committee.wording import Wording
from vivavoce.data.states import winner
from vivavoce.graph import Graph
from vivavoce.records import Completion, Node, Tree, digest
from vivavoce.tasks.agreement import classes


def consensus_trees(
    graphs: Iterable[Graph],
    prefer: Literal["majority", "consensus"],
    committee: Sequence[str],
    student: str,
    wording: Wording,
    seed: int,
) -> Iterator[Tree]:
    """A tree for every question on which the student gave answers for both sides.

    ``student`` is the name under which its answers stand in round 0. What was cut off or cannot be read as an answer is
    on no side.
    """
    for g in graphs:
        task, last = wording.task, g.stated(g.rounds - 1, committee)
        won = vote(task, g.problem, last, "majority", seed) if prefer == "majority" else None
        if prefer == "consensus":
            won = next(iter(winner(g, task, seed, committee)), None)
        own = [n for n in g.answers(0, [student]) if n.answer is not None and n.status not in ("truncated", "empty")]
        if won is None or not own:
            continue
        agreed, *labels = classes(task, g.problem, [won.answer, *(n.answer for n in own)])
        same = [n for n, key in zip(own, labels, strict=True) if key == agreed]
        other = [n for n, key in zip(own, labels, strict=True) if key != agreed]
        chosen = _completions(same if prefer == "majority" else [won], wording)
        rejected = _completions(other, wording)
        if chosen and rejected:
            id = digest([g.problem.id, *(c.text for c in chosen), "", *(c.text for c in rejected)])[:16]
            yield Tree(id, g.problem.id, tuple(wording.plain(g.problem)), chosen, rejected)


def _completions(nodes: Sequence[Node], wording: Wording) -> tuple[Completion, ...]:
    """The nodes' texts as completions, each text once."""
    first: dict[str, str] = {}
    for n in nodes:
        if text := wording.lesson_of(n.text):
            first.setdefault(text, n.id)
    return tuple(Completion(text, source) for text, source in first.items())


__all__ = ["consensus_trees"]
