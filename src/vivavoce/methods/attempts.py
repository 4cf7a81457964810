"""Answers of a trained student to the training questions, added to the graphs of the debates on them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from vivavoce.exams.examine import examine
from vivavoce.graph import Graph
from vivavoce.methods.learnt import Trained
from vivavoce.methods.session import Session
from vivavoce.records import node, seed_of


def later_name(student: str) -> str:
    """The agent's name in graphs for answers that a student gave after SFT."""
    return f"{student} after SFT"


async def attempt(
    s: Session[Any], graphs: Sequence[Graph], students: Trained, seed: int, samples: int, temperature: float
) -> Sequence[Graph]:
    """The graphs, with ``samples`` more answers to every question, of the student of a training seed.

    These answers are in round 0 under a name of their own; their author has read no other text.
    """
    if not samples:
        return graphs
    model, _ = students.of(seed)
    sampling = s.recipe.student.sampling(temperature=temperature, logprobs=False)
    async with s.answering(model) as student:
        with s.run.counting(f"attempts of seed {seed}", len(graphs) * samples) as advance:
            sat = await asyncio.gather(
                *(
                    examine(
                        student,
                        [g.problem for g in graphs],
                        s.wording,
                        s.run.journal,
                        sampling,
                        stage="attempts",
                        seed=seed_of(s.recipe.seed, seed, i),
                        in_flight=s.recipe.in_flight,
                        done=lambda _: advance(),
                    )
                    for i in range(samples)
                )
            )
    return [
        g.with_nodes(
            node(
                "answer",
                g.problem.id,
                later_name(s.student),
                0,
                j.text,
                sample=i,
                answer=j.answer,
                correct=j.correct,
                status=j.status,
                usage=j.usage,
            )
            for i, j in enumerate(by_sample)
            if j.status != "error"
        )
        for g, by_sample in zip(graphs, zip(*sat, strict=True), strict=True)
    ]


__all__ = ["attempt", "later_name"]
