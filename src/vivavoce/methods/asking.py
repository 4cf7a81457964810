"""The calls of a stage, kept: they are read back if nothing that they depend on has changed, otherwise made once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from vivavoce.graph import Graph, Stored, graph_file, stored_graphs
from vivavoce.progress import say
from vivavoce.records import Problem
from vivavoce.run import Run

T = TypeVar("T")
Asking = Callable[[Callable[[Graph], None]], Awaitable[Stored]]
"""A function that makes a stage's calls and reports each graph when it is done."""


def whole(run: Run, kept: Iterable[T], failed: Callable[[T], object]) -> bool:
    """Whether a stage's file can be read back: unless failed calls are to be tried again, and it holds one."""
    return not (run.journal.retry_failed and any(map(failed, kept)))


async def kept_graphs(run: Run, stage: str, depends: Sequence[Any], problems: Sequence[Problem], ask: Asking) -> Stored:
    """The graphs of ``problems`` in a stage, in ``graphs/STAGE.jsonl.gz``."""
    # What ended early at the cap of a question is asked again if that cap was changed; all else is kept.
    capped = [*depends, run.recipe.budget.question.model_dump(mode="json")]
    path = graph_file(run.path, stage)
    if run.cached(path, depends) or run.cached(path, capped):
        graphs = stored_graphs(path)
        if whole(run, graphs, lambda g: g.failures() or g.unjudged_answers()):
            return graphs
    with run.counting(f"{stage} questions", len(problems)) as advance:
        made = await ask(lambda graph: advance(cost=run.cost(graph)))
    short = failed = unjudged = 0
    for g in made:
        short, failed, unjudged = short + g.cut_short, failed + len(g.failures()), unjudged + len(g.unjudged_answers())
    if short:
        say(f"{short} of {len(made)} questions ended early at the cap of a question (budget.question)")
    if failed:
        say(f"{failed} calls failed for good; their agents are missing there (viva run --retry-failed asks again)")
    if unjudged:
        say(f"{unjudged} answers have no readable verdict and are not learnt from (viva judges RUN shows more)")
    run.track(f"debate/{stage}", {"questions": len(made), "failed_calls": failed, "unjudged": unjudged}, 0)
    for n, figures in enumerate(by_round(made)):
        run.track(f"debate/{stage}", figures, n)
    run.keep(path, capped if short else depends, made.write)
    return stored_graphs(path)


def by_round(graphs: Iterable[Graph]) -> list[dict[str, float]]:
    """Figures of every round of debates, for trackers: ``right``, the share of right answers among those that can be
    graded; ``agree``, the share of debates in which all agents that gave an answer gave the same one.
    """
    right, agree = dict[int, list[bool]](), dict[int, list[bool]]()
    for g in graphs:
        for n in range(g.rounds):
            answers = g.stated(n)
            right.setdefault(n, []).extend(a.correct for a in answers if a.correct is not None)
            if len(answers) > 1:
                agree.setdefault(n, []).append(len({a.answer for a in answers}) == 1)
    shares = {"right": right, "agree": agree}
    last = max((*right, *agree), default=-1)
    return [{k: fmean(of[n]) for k, of in shares.items() if of.get(n)} for n in range(last + 1)]


async def kept_rows(
    run: Run,
    path: Path,
    depends: Sequence[Any],
    kind: type[T],
    failed: Callable[[T], object],
    ask: Callable[[], Awaitable[Sequence[T]]],
) -> Sequence[T]:
    """The records that a stage asked for, in ``path``, one a line."""
    if (rows := run.kept_rows(path, depends, kind)) is not None and whole(run, rows, failed):
        return rows
    made = await ask()
    run.keep_rows(path, depends, made)
    return made


__all__ = ["Asking", "kept_graphs", "kept_rows", "whole"]
