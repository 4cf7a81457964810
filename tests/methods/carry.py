"""One run of a recipe's method, with what was paid for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from vivavoce import plugins
from vivavoce.config import check_recipe
from vivavoce.run import open_run


def carry_out(values: dict[str, Any], where: Path, **how: Any) -> tuple[dict[str, Any], int]:
    """Results of the run, and how many calls were paid for."""
    recipe = check_recipe(values, Path("test.yaml"))
    method = plugins.load("methods", recipe.method, "method")
    paid: list[str] = []
    with open_run(where, recipe, **how) as run:
        run.journal.on_call = lambda agent, cached, usage: paid.append(agent) if not cached else None
        return asyncio.run(method.distill(recipe, run)), len(paid)
