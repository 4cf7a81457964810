"""Checks of agents and task that a session makes when it opens, and the doctor makes too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vivavoce.agents.chat_template import ChatTemplate
from vivavoce.agents.weights import GIVE_TEMPLATE
from vivavoce.agents.whole import need_known_kind, need_whole_tensors
from vivavoce.config import AgentSpec, Recipe
from vivavoce.errors import DataError, RecipeError
from vivavoce.methods.token_count import is_given, local_folder, model_folders, tokenizer_in
from vivavoce.tasks import Task
from vivavoce.tasks.acting import Acting, Peopled

SCORING = ("hf_local", "vllm")
"""Backends that give distributions over a student's tokens."""


def need_student(recipe: Recipe) -> None:
    """Raise RecipeError if the student has a teacher's name, or is no model that can be trained here."""
    student = recipe.student
    if student.name in [teacher.name for teacher in recipe.teachers]:
        what = f"student and a teacher are both called `{student.name}`"
        raise RecipeError(what, "student.name", "give each agent a name of its own")
    if student.backend != "hf_local":
        raise RecipeError(
            "the student is trained here, so it must be a local model",
            "student.backend",
            "use backend: hf_local with model: a folder or a Hub id",
        )


def need_draws(recipe: Recipe) -> None:
    """Raise RecipeError if the best of several answers is to be chosen and there are no several."""
    if recipe.test.best_by and recipe.test.draws < 2:
        what = f"the best of {recipe.test.draws} answers is to be chosen by {', '.join(recipe.test.best_by)}"
        raise RecipeError(what, "test.best_by", "set test.draws to 2 or more, or leave best_by out")


def need_sure(task: Task) -> None:
    """Raise DataError for an oddity of the data that cannot be meant, such as options that no model is shown."""
    for doubt, do, sure in getattr(task, "doubts", ()):
        if sure:
            raise DataError(doubt, f"task {task.name}", do)


def need_whole(specs: Iterable[AgentSpec]) -> None:
    """Raise RecipeError if a local model's folder lacks a part, has no chat template, or is of a kind that cannot be
    loaded, DataError if one of its files is broken. A model that is not on this machine yet passes.
    """
    for spec in specs:
        if (folder := local_folder(spec)) is None:
            continue
        if is_given(spec):
            if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
                raise RecipeError(
                    f"{folder} holds no weights", f"agent `{spec.name}`", "give the folder of a whole model"
                )
            if missing := _missing(spec):
                do = "copy it there from the model's download"
                raise RecipeError(f"{folder} holds no {missing}", f"agent `{spec.name}`", do)
            for one in model_folders(spec):
                need_whole_tensors(one)
                if (one / "config.json").is_file() and not spec.options.get("serve"):  # an engine knows its own kinds
                    need_known_kind(one)
        tokens = tokenizer_in(folder)
        if tokens is not None and ChatTemplate.within(tokens) is None:
            raise RecipeError(f"{folder} holds no chat template", f"agent `{spec.name}`", GIVE_TEMPLATE)


def _missing(spec: AgentSpec) -> str:
    """The part beside weights that a model's folder, with that of an adapter's base, lacks; empty if it is whole."""
    folders = model_folders(spec)
    tokenizers = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json", "spiece.model")
    if not any((one / name).is_file() for one in folders for name in tokenizers):
        return "tokenizer"
    return "" if any((one / "config.json").is_file() for one in folders) else "config.json"


def acting(task: Task) -> Acting:
    """The task, if an agent can act in it. Raises RecipeError if none can."""
    if not isinstance(task, Acting):
        raise RecipeError(
            f"no agent can act in `{task.name}`: it has questions and no environment",
            "task.name",
            "use a task of episodes, such as schoolhouse_halls; or method: debate_opd for questions",
        )
    return task


def need_person(user: AgentSpec, *tasks: Task) -> None:
    """Raise RecipeError if no task has a person that ``user`` could play."""
    if not any(isinstance(task, Peopled) for task in tasks):
        what = f"`{user.name}` has no part to play: there is no person in `{tasks[0].name}`"
        raise RecipeError(what, "user", "leave `user` out, or use a task with a person in it, such as tau2")


def need_scorers(scorers: Sequence[AgentSpec]) -> None:
    """Raise RecipeError if one of the scorers gives no distributions."""
    for spec in scorers:
        if spec.backend not in SCORING:
            raise RecipeError(
                f"`{spec.name}` cannot score the student's tokens: {spec.backend} gives no distributions",
                "scorers",
                "name local models (backend: hf_local) or served ones (backend: vllm); all teachers may debate",
            )


__all__ = ["SCORING", "acting", "need_draws", "need_person", "need_scorers", "need_student", "need_sure", "need_whole"]
