"""Debates and reviews by teachers who cost something, behind an endpoint on loopback; and what a plan said of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.methods.word_server import Teacher, WordServer, write_problems

from vivavoce import plugins
from vivavoce.committee.rehearsal import Planned
from vivavoce.config import check_recipe
from vivavoce.errors import BudgetReached
from vivavoce.methods.debating import DebateSession
from vivavoce.methods.measured import Measured
from vivavoce.methods.missing import missing
from vivavoce.methods.reviewing import ReviewSession
from vivavoce.report.costs import facts
from vivavoce.run import Run, open_run

PRICE = {"prompt": 2.0, "cached": 0.5, "completion": 10.0}
TEACHERS = {"ada": Teacher(0.8, 60), "bob": Teacher(0.6, 40), "cyd": Teacher(0.5, 90)}


def served(name: str, teacher: Teacher, server: WordServer, **changes: Any) -> dict[str, Any]:
    """An agent of a recipe, of whom the recipe knows what it is like."""
    reached = {"backend": "openai_chat", "base_url": server.base_url, "api_key_env": None, "backoff_s": 0.01}
    known = {"price": PRICE, "expected_right": teacher.right, "expected_tokens": teacher.words + 5}
    return {"name": name, "model": name, **reached, **known, **changes}


def priced(recipe: dict[str, Any], server: WordServer, folder: Path, train: int = 60, test: int = 20) -> dict[str, Any]:
    """The tests' recipe with teachers behind an endpoint, with prices; the local student is only tested."""
    return {
        **recipe,
        "seeds": [0],
        "task": write_problems(folder, train, test),
        "teachers": [served(name, teacher, server) for name, teacher in TEACHERS.items()],
        "student": {**recipe["student"], "max_new_tokens": 8, "samples": 1, "expected_right": 0.0},
        "debate": {"max_rounds": 3, "stop": "consensus", "student": "never"},
        "attempts": {"samples": 0},
        "test": {"max_new_tokens": 8},
    }


def planned(values: dict[str, Any], measured: Measured | None = None) -> list[Planned]:
    recipe = check_recipe(values, Path("t"))
    return plugins.load("methods", recipe.method, "t").plan(recipe, measured)


def talks(values: dict[str, Any], where: Path, **how: Any) -> dict[str, Any]:
    """Hold the debates of a run, or exam and reviews, and no more; what the ledger then says.

    Raises BudgetReached; what is missing then stands in the manifest.
    """
    recipe = check_recipe(values, Path("t"))

    async def hold(run: Run) -> None:
        if recipe.method == "peer_review":
            async with ReviewSession(recipe, run, recipe.rules) as s:  # type: ignore[arg-type]
                await s.review(s.task.problems("train"))
            return
        async with DebateSession(recipe, run, recipe.rules) as s:  # type: ignore[arg-type]
            await s.debate(s.task.problems("train"))
            await s.debate_test(s.task.problems("test"))

    with open_run(where, recipe, **how) as run:
        try:
            asyncio.run(hold(run))
        except BudgetReached:
            run.note(stopped=missing(run, plugins.load("methods", recipe.method, "t").plan))
            raise
        run.note(stopped=None)
        return facts(run.journal.costs(), recipe.model_dump(mode="json"))


def against(plan: list[Planned], results: dict[str, Any], room: str = "debate:") -> dict[str, float]:
    """Expected less happened, as a share of what happened, for the talks of the committee."""
    expected = [p for p in plan if p.stage.startswith(room)]
    happened = [line for line in results["lines"] if line["stage"].startswith(room)]
    kinds = ("calls", "prompt_tokens", "completion_tokens", "money")
    return {k: sum(getattr(p, k).expected for p in expected) / sum(x[k] for x in happened) - 1 for k in kinds}
