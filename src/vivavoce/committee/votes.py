"""Votes over the answers of a round. They are views of the graph; no vote calls a model or looks at gold."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from vivavoce.records import Node, Problem, seed_of
from vivavoce.tasks import Task
from vivavoce.tasks.agreement import classes

VoteBy = Literal["majority", "confidence", "probability", "most_confident"]


def has_weights(answers: Iterable[Node], by: VoteBy) -> bool:
    """Whether any answer has the weight that a vote counts by. If none has, each counts one half, as in a majority."""
    if by == "majority":
        return True
    return any((n.probability if by == "probability" else n.confidence) is not None for n in answers)


def vote(task: Task | None, problem: Problem, answers: Sequence[Node], by: VoteBy, seed: int = 0) -> Node | None:
    """The winning answer: its group (the same answer by the task's equality) has the largest weight, and it weighs most
    in its group.

    ``majority`` counts heads. ``confidence`` sums the stated confidences, ``probability`` the agents' own probabilities
    of their answers (both as in ReConcile's weighted vote, arXiv:2309.13007, without its recalibration table).
    ``most_confident`` takes the single largest stated confidence. A missing weight counts as one half. Ties are decided
    by a draw seeded by the problem, never by the order of the agents. None if no answer could be read.
    """
    cast = [n for n in answers if n.answer is not None]
    if not cast:
        return None
    random.Random(seed_of(seed, cast[0].problem, by)).shuffle(cast)

    def weight(n: Node) -> float:
        weight_given = n.probability if by == "probability" else n.confidence
        return 0.5 if weight_given is None else weight_given

    group = classes(task, problem, [n.answer for n in cast])
    total: defaultdict[int | None, float] = defaultdict(float)
    for n, key in zip(cast, group, strict=True):
        if by == "most_confident":
            total[key] = max(total[key], weight(n))
        else:
            total[key] += 1.0 if by == "majority" else weight(n)
    winner = max(total, key=lambda k: total[k])
    return max((n for n, key in zip(cast, group, strict=True) if key == winner), key=weight)
