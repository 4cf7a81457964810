"""Tests of students, and comparisons between them, from Python."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vivavoce.agents import open_agent
from vivavoce.config import AgentSpec
from vivavoce.exams.examine import Judged, examine
from vivavoce.exams.table import compare_arms
from vivavoce.library.running import Run, here, plain
from vivavoce.library.tables import Records
from vivavoce.library.talking import Speaker, plain_wording
from vivavoce.library.teaching import Student
from vivavoce.methods.budgets import require_room
from vivavoce.progress import bar
from vivavoce.records import Problem, Sampling
from vivavoce.stats import wilson
from vivavoce.tasks import Task


class Evaluation(Records[Judged]):
    """The answers of one model to test questions."""

    def __init__(self, rows: Sequence[Judged], problems: Sequence[Problem], task: str) -> None:
        super().__init__(rows)
        self.problems, self.task = list(problems), task

    @property
    def right(self) -> int:
        """The number of right answers."""
        return sum(bool(j.correct) for j in self)

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.right / len(self)

    def records(self) -> Iterable[dict[str, Any]]:
        """One row for each question: the question, its gold answer, and the model's answer."""
        for p, j in zip(self.problems, self, strict=True):
            yield {**asdict(j), "question": p.question, "gold": p.gold}

    def __repr__(self) -> str:
        low, high = wilson(self.right, len(self))
        return f"{self.right:,} of {len(self):,} right ({self.accuracy:.1%}, 95 % interval {low:.1%} to {high:.1%})"


class Comparison(Records[dict[str, Any]]):
    """Several models on the same questions: one row for each, and paired tests between them."""

    def __init__(self, results: dict[str, Any]) -> None:
        super().__init__(results["arms"])
        self.results: dict[str, Any] = results
        """The form of ``results.json``: ``arms``, and ``paired`` with McNemar's exact test."""

    def records(self) -> Iterable[dict[str, Any]]:
        """Name, right answers, accuracy and its interval."""
        for arm in self:
            low, high = arm["wilson95"]
            kept = {k: arm[k] for k in ("name", "right", "n", "accuracy")}
            yield {**kept, "low": low, "high": high, "unparsed": arm["unparsed"]}

    def __repr__(self) -> str:
        rows = [f"{r['name']:<20} {r['right']:>6,} of {r['n']:,}  {r['accuracy']:6.1%}" for r in self.records()]
        rows += [f"{p['a']} -> {p['b']}: gain {p['gain']:+.1%}, p {p['p']:.3g}" for p in self.results["paired"]]
        return "\n".join(rows)


@plain
async def evaluate(
    model: str | Path | Student | Speaker,
    task: Task,
    *,
    limit: int | None = None,
    split: str = "test",
    prompts: str | None = None,
    word_limit: int = 500,
    temperature: float = 0.0,
    max_new_tokens: int = 700,
    run: Run | None = None,
    seed: int = 0,
    in_flight: int = 512,
    **options: Any,
) -> Evaluation:
    """Test a model, or an agent, on the questions of a task; each is asked once, plainly.

    ``limit`` takes the first questions, None all. ``options`` are those of the local backend (``dtype="float32"``).
    ``prompts`` is the task's own set if there is one. Raises RecipeError if a local model's context has no room for
    questions and answers of ``max_new_tokens``.
    """
    run, problems = run or here(), task.problems(split)[:limit]
    wording = plain_wording(task, prompts, word_limit)
    backend, backend_options = (
        (model.backend, model.options) if isinstance(model, Speaker) else ("hf_local", {**options, "model": str(model)})
    )
    spec = AgentSpec.model_validate(
        {"name": str(backend_options.get("model", "model")), "backend": backend, **backend_options}
    )
    require_room(spec, {split: problems}, wording.plain, "max_new_tokens", max_new_tokens)
    if isinstance(model, Speaker):
        tested, owned = model.agent, False
    else:
        tested, owned = open_agent(Path(str(model)).name or "model", backend, backend_options), True
    sampling = Sampling(temperature, 1.0, max_new_tokens)
    try:
        with bar(f"test {tested.name}", len(problems)) as advance:
            rows = await examine(
                tested,
                problems,
                wording,
                run.journal,
                sampling,
                stage="test",
                seed=seed,
                in_flight=in_flight,
                done=lambda _: advance(),
            )
    finally:
        if owned:
            await asyncio.shield(tested.aclose())
    return Evaluation(rows, problems, task.name)


def compare(evaluations: Mapping[str, Evaluation], pairs: Sequence[tuple[str, str]] | None = None) -> Comparison:
    """Compare evaluations on the same questions, by name.

    ``pairs`` are the names that are tested against each other; None tests the first against each other one.
    """
    names = list(evaluations)
    tests = [(names[0], name) for name in names[1:]] if pairs is None else list(pairs)
    tested = {name: {0: list(rows)} for name, rows in evaluations.items()}
    first = next(iter(evaluations.values()))
    return Comparison(compare_arms(first.task, tested, tests))


__all__ = ["Comparison", "Evaluation", "compare", "evaluate"]
