"""The judges of a recipe, and checks that they can judge its tasks."""

from __future__ import annotations

from typing import cast

from vivavoce.agents.journal import Journal
from vivavoce.committee.judges import JudgedTask, Judging, Jury, need_references, open_prompts
from vivavoce.config import Recipe
from vivavoce.errors import RecipeError
from vivavoce.methods.opening import Agents
from vivavoce.tasks import Task
from vivavoce.tasks.acting import Acting


def jury_of(recipe: Recipe, agents: Agents, journal: Journal) -> Jury | None:
    """The jury of a recipe that names judges, which are among ``agents``."""
    if recipe.judge is None:
        return None
    judges = [(agents[spec.name], spec.sampling()) for spec in recipe.judge.agents]
    return Jury(judges, recipe.judge.rules, journal, recipe.seed)


def with_jury(task: Task, jury: Jury) -> Task:
    """The task with a jury that grades. Raises RecipeError as :func:`need_judgeable` does."""
    need_judgeable(task, jury.rules)
    return cast(Task, JudgedTask(task, jury))


def need_judgeable(task: Task, rules: Judging) -> None:
    """Raise RecipeError if answers to the task cannot be judged by these rules."""
    open_prompts(rules)
    if isinstance(task, Acting):
        what = f"{task.name} is a task of episodes, which the environment judges by the state that they leave"
        raise RecipeError(what, "judge", "remove `judge`")
    for split in ("train", "test"):
        need_references(task.problems(split), rules)


__all__ = ["jury_of", "need_judgeable", "with_jury"]
