"""One model on the test questions of a recipe, without a run around it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from vivavoce.agents import open_agent
from vivavoce.agents.journal import Journal
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Wording
from vivavoce.config import Recipe
from vivavoce.errors import RecipeError
from vivavoce.exams.examine import examine
from vivavoce.exams.judging import judging
from vivavoce.exams.pass_at_k import pass_at_k_figures
from vivavoce.exams.table import results
from vivavoce.methods.budgets import require_room
from vivavoce.methods.juries import jury_of, with_jury
from vivavoce.methods.opening import Agents
from vivavoce.progress import bar
from vivavoce.records import digest, seed_of
from vivavoce.tasks import open_task


async def evaluate_model(recipe: Recipe, model: str, out: Path, samples: int = 1) -> dict[str, Any]:
    """Test ``model`` (a folder, a Hub id or ``schoolhouse:NAME``) as the recipe's students are tested.

    Calls are kept in ``out/journal.sqlite``, so that nothing is generated twice. Returns the shape of ``results.json``
    with one arm, named after the model; its figures are of the first answer to each question. With ``samples`` answers
    to each, the arm also has ``pass_at_k``, and the best of them by ``test.best_by``. ``wall_s`` is the time of all
    sessions that were asked for the same. Raises RecipeError if all samples would be the same, or if the model's
    context has no room for questions and answers.
    """
    task, test = open_task(recipe.task.name, recipe.task.options), recipe.test
    wording = Wording(recipe.rules, prompt_set(recipe.rules.prompts), task)
    if samples > 1 and not test.temperature:
        raise RecipeError(
            f"{samples} answers drawn at temperature 0 are all the same", "test.temperature", "set it, say to 0.8"
        )
    spec = recipe.student.model_copy(update={"name": model, "model": model})
    require_room(spec, {"the test": task.problems("test")}, wording.plain, "test.max_new_tokens", test.max_new_tokens)
    problems, begun = task.problems("test"), time.monotonic()
    sampling = test.sampling(recipe.student.stop)
    if samples > 1 and "probability" in test.best_by:
        sampling = replace(sampling, logprobs=True)
    agent = open_agent(model, recipe.student.backend, {**recipe.student.options, "model": model})
    judges = Agents(recipe.judge.agents if recipe.judge else ())
    with Journal(out / "journal.sqlite") as journal, bar(f"test {model}", len(problems) * samples) as advance:
        if (jury := jury_of(recipe, judges, journal)) is not None:
            wording = replace(wording, task=with_jury(task, jury))
        try:
            drawn = await asyncio.gather(
                *(
                    examine(
                        agent,
                        problems,
                        wording,
                        journal,
                        sampling,
                        stage="test",
                        seed=seed_of(recipe.seed, i) if i else recipe.seed,
                        in_flight=recipe.in_flight,
                        done=lambda _: advance(),
                    )
                    for i in range(samples)
                )
            )
        finally:
            await agent.aclose()
            await judges.aclose()
        found_by = None if jury is None else judging(journal, jury.rules)
    seconds = _took(out, digest([model, recipe.model_dump(mode="json"), samples])[:16], time.monotonic() - begun)
    outcome = results(task.name, {model: {recipe.seed: drawn[0]}}, [], seconds)
    if found_by is not None:
        outcome["judging"] = found_by
    if samples > 1:
        outcome["arms"][0]["pass_at_k"] = pass_at_k_figures(drawn, task, problems)
    return outcome


def _took(out: Path, test: str, seconds: float) -> float:
    """Seconds that a test has taken so far, over all sessions; noted in ``out``."""
    file = out / "seconds.json"
    noted: dict[str, float] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    noted[test] = round(noted.get(test, 0.0) + seconds, 1)
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(noted, indent=1) + "\n", "utf-8")
    part.replace(file)
    return noted[test]
