"""A conversation with a student. Its prompts are those of its run's tests, unless the user wants others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vivavoce.agents import open_agent
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Wording
from vivavoce.config import Recipe, load_recipe
from vivavoce.errors import DataError, UserError
from vivavoce.methods.day import on_day
from vivavoce.records import Message, Problem, Reply, Sampling, seed_of
from vivavoce.report.headline import headline
from vivavoce.report.sources import Sources
from vivavoce.tasks import open_task


class Chat:
    """A student to talk with. Its memory is the talk so far, until :meth:`restart`.

    Args:
        model: A folder of a model, a run (its own student answers), a Hub id or ``schoolhouse:NAME``.
        system: A system text in place of the run's; with it, questions are put as they are typed.
        plain: Put questions as they are typed, although the run has words of its own.
        changes: Changed fields of :class:`~vivavoce.records.Sampling`.

    Raises UserError if there is no such model.
    """

    def __init__(self, model: str, *, system: str | None = None, plain: bool = False, **changes: Any) -> None:
        folder, run = _student_of(Path(model))
        self.model = str(folder or model)
        recipe = _recipe(run)
        self._wording = _wording(recipe) if recipe is not None and system is None and not plain else None
        self.history: list[Message] = []
        self._system: list[Message] = [{"role": "system", "content": system}] if system else []
        options, sampling = {}, Sampling(temperature=0.0, max_new_tokens=512)
        if recipe is not None:
            options = {k: v for k, v in recipe.student.options.items() if k != "model"}
            test = recipe.test
            sampling = test.sampling(recipe.student.stop)
        self._sampling = replace(sampling, **{k: v for k, v in changes.items() if v is not None})
        self._agent = open_agent("student", "hf_local", {**options, "model": self.model})
        self._turn = 0

    @property
    def as_asked(self) -> bool:
        """Whether questions are put in the words of a run."""
        return self._wording is not None

    def restart(self) -> None:
        """Forget the talk so far."""
        self.history = []

    async def ask(self, text: str) -> Reply:
        """The student's reply, which stays in its memory with the question.

        Raises AgentError ``overlong`` if the talk no longer fits its context; RecipeError if it cannot be loaded.
        """
        messages_now = self._messages_of(text)
        messages = [*self._system, *self.history, *messages_now] if self.history else [*self._system, *messages_now]
        self._turn += 1
        reply = await self._agent.reply(messages, self._sampling, seed_of(0, "chat", self._turn))
        self.history = [*self.history, *messages_now, {"role": "assistant", "content": reply.text}]
        return reply

    def _messages_of(self, text: str) -> list[Message]:
        if self._wording is None:
            return [{"role": "user", "content": text}]
        messages = self._wording.plain(Problem("chat", text, ""))
        return [m for m in messages if m["role"] != "system"] if self.history else list(messages)

    async def aclose(self) -> None:
        """Unload the model."""
        await self._agent.aclose()


def _student_of(path: Path) -> tuple[Path | None, Path | None]:
    """The folder of a student and the run, or stage of one, that made it; None for each that is not known."""
    if not path.is_dir():
        if path.suffix or len(path.parts) > 2 or path.is_absolute():
            raise DataError("there is no such folder", str(path), "name the folder of a model, or of a run")
        return None, None
    if (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
        run = path.resolve().parent.parent
        return path, run if (run / "recipe.yaml").is_file() else None
    if (path / "recipe.yaml").is_file():
        student = headline(Sources(path)).student
        if student is None:
            raise DataError("this run has no student yet", str(path), "let it finish; or name a folder in checkpoints/")
        return student, student.parent.parent
    raise DataError(
        "no model is in this folder", str(path), "name a folder in checkpoints/ of a run, or the run itself"
    )


def _recipe(run: Path | None) -> Recipe | None:
    """The recipe of a run; None if it can no longer be read here, for example because a file that it names was
    moved.
    """
    if run is None:
        return None
    try:
        return on_day(load_recipe(run / "recipe.yaml"), str(Sources(run).manifest.get("started", ""))[:10])
    except UserError:
        return None


def _wording(recipe: Recipe) -> Wording | None:
    try:
        task = open_task(recipe.task.name, recipe.task.options)
        return Wording(recipe.rules, prompt_set(recipe.rules.prompts), task)
    except UserError:
        return None


__all__ = ["Chat"]
