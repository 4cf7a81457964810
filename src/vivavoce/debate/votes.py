"""Who wins: votes over the answers of a round. Views of the graph; no vote calls a model or looks at gold."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from vivavoce.records import Node, seed_of

VoteBy = Literal["majority", "confidence", "probability", "most_confident"]


def vote(answers: Sequence[Node], by: VoteBy, seed: int = 0) -> Node | None:
    """The winning answer: its group (equal parsed answers) has the largest weight, and it weighs most in its group.

    ``majority`` counts heads; ``confidence`` sums what the agents said and ``probability`` what their own
    log-probabilities give (both as in ReConcile's weighted vote, arXiv:2309.13007, without its recalibration table);
    ``most_confident`` takes the single largest said confidence. A missing weight counts as one half. Ties fall to a
    draw seeded by the problem, never to the order of the agents. None where nobody gave a parseable answer.
    """
    cast = [n for n in answers if n.answer is not None]
    if not cast:
        return None
    random.Random(seed_of(seed, cast[0].problem, by)).shuffle(cast)

    def weight(n: Node) -> float:
        said = n.probability if by == "probability" else n.confidence
        return 0.5 if said is None else said

    total: defaultdict[str, float] = defaultdict(float)
    for n in cast:
        key = str(n.answer)
        if by == "most_confident":
            total[key] = max(total[key], weight(n))
        else:
            total[key] += 1.0 if by == "majority" else weight(n)
    winner = max(total, key=lambda k: total[k])
    return max((n for n in cast if n.answer == winner), key=weight)
