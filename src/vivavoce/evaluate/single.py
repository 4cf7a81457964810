"""One model on the test questions of a recipe, without a run around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vivavoce.agents import open_agent
from vivavoce.agents.journal import Journal
from vivavoce.config import Recipe
from vivavoce.debate.prompting import prompt_set
from vivavoce.evaluate.examine import examine
from vivavoce.evaluate.table import results
from vivavoce.progress import bar
from vivavoce.records import Sampling
from vivavoce.tasks import open_task


async def evaluate_model(recipe: Recipe, model: str, out: Path) -> dict[str, Any]:
    """Test ``model`` (a folder, a Hub id or ``schoolhouse:NAME``) as the recipe's students are tested.

    Calls are kept in ``out/journal.sqlite``: asked again, nothing is generated twice. Returns the shape of
    ``results.json`` with one arm, named after the model.
    """
    rules = recipe.rules
    task, prompts, test = open_task(recipe.task.name, recipe.task.options), prompt_set(rules.prompts), recipe.test
    problems = task.problems("test")
    sampling = Sampling(test.temperature, test.top_p, test.max_new_tokens, tuple(recipe.student.stop))
    agent = open_agent(model, recipe.student.backend, {**recipe.student.options, "model": model})
    with Journal(out / "journal.sqlite") as journal, bar(f"test {model}", len(problems)) as advance:
        try:
            rows = await examine(
                agent,
                problems,
                task,
                prompts,
                rules,
                journal,
                sampling,
                stage="test",
                seed=recipe.seed,
                in_flight=recipe.in_flight,
                done=lambda _: advance(),
            )
        finally:
            await agent.aclose()
        seconds = sum(c.seconds for c in journal.costs())
    return results(task.name, {model: {recipe.seed: rows}}, [], seconds)
