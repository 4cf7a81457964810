"""Trees of a run that is over, grown again by the run's own rules, or by others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vivavoce.agents.weights import token_counter
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Wording
from vivavoce.config import Recipe, checked_overrides
from vivavoce.data.rules import TreeRules
from vivavoce.data.trees import Grower
from vivavoce.errors import DataError
from vivavoce.methods.debating import grower
from vivavoce.tasks import Task, open_task


def run_grower(recipe: Recipe, run: Path, task: Task | None, prompts: str, student: str, set_: list[str]) -> Grower:
    """A grower with the rules of the run in ``run``, changed by the arguments: a task, prompts, the student's name, and
    keys of `trees:`.

    Raises DataError if the run's method grows no trees from a debate.
    """
    debate, rules = recipe.rules, getattr(recipe, "trees", None)
    if not isinstance(rules, TreeRules):
        what = f"a run of {recipe.method} grows no trees"
        raise DataError(what, str(run), "give a run of debate_reflect, or a file of its graphs with --task")
    if prompts:
        debate = debate.model_copy(update={"prompts": prompts})
    opened_task = task or open_task(recipe.task.name, recipe.task.options)

    wording = Wording(debate, prompt_set(debate.prompts), opened_task, token_counter(recipe.student.options["model"]))
    tree_grower = grower(recipe, checked_overrides(TreeRules, set_, rules), wording)
    return replace(tree_grower, student=student, own=(student,)) if student else tree_grower


__all__ = ["run_grower"]
