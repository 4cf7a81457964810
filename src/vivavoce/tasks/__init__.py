"""What is asked and how it is graded. One benchmark a file: ``tasks/foo.py`` defines ``Options`` (a pydantic model
of the keys that a recipe may give it) and ``task(options) -> Task``. The file name is the task's name; a path to a
Python file works too, so adding a benchmark edits nothing here.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from vivavoce.errors import RecipeError
from vivavoce.records import Grade, Problem, Token, digest


class Task(Protocol):
    """A source of problems and the judge of answers to them."""

    name: str
    answer_format: str
    """One sentence for prompts: how the final answer must be written."""

    def problems(self, split: str) -> list[Problem]:
        """The problems of ``train`` or ``test``, ids unique over both, in a fixed order."""
        ...

    def grade(self, problem: Problem, text: str) -> Grade:
        """Judge a whole reply. Never raises on any text."""
        ...

    def steps(self, text: str) -> list[str]:
        """Cut an answer into steps that, joined, are the text again."""
        ...

    def first_wrong_step(self, problem: Problem, text: str) -> int | None:
        """Index of the first wrong step, where the task can check steps; None where all are right.

        Raises NotImplementedError where the task cannot check steps.
        """
        ...

    def probability(self, text: str, tokens: Sequence[Token]) -> float:
        """How likely the author thinks its own answer, 0 to 1, from the log-probabilities of its tokens."""
        ...


def known_tasks() -> list[str]:
    """Names of the tasks that come with vivavoce: the files beside this one that define ``task``."""
    here = Path(__file__).parent
    return sorted(f.stem for f in here.glob("*.py") if re.search(r"^def task\(", f.read_text("utf-8"), re.MULTILINE))


def open_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task called ``name`` (``gsm8k``, or a path to a Python file such as ``exam/mine.py``), with its options.

    Nothing is read or downloaded before the task is asked for problems, but a task may check at once what it can.
    A relative path is taken from the working directory. A Python file is executed: open only what you trust.

    Raises:
        RecipeError: no such task or file, a file without ``Options`` and ``task``, or an option it does not have.
        DataError: the task read its input here already and found it wrong.
    """
    module = _module(name)
    try:
        checked = module.Options.model_validate(dict(options))
    except ValidationError as error:
        raise RecipeError(*_explain(error, module.Options, name)) from error
    return module.task(checked)


def _module(name: str) -> ModuleType:
    if name.endswith(".py"):
        return _from_file(Path(name))
    known = known_tasks()
    if name in known:
        return importlib.import_module(f"{__name__}.{name}")
    near = get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    known_ones = f"{guess}Known: {', '.join(known)}, or a path to a .py file"
    raise RecipeError(f"unknown task {name!r}", "task.name", known_ones)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise RecipeError(f"no task file {path}", "task.name", f"it is looked for in {Path.cwd()}")
    # Registered under a name of its own, because dataclasses and pydantic look their module up by name.
    name = f"vivavoce_task_{digest(str(path.resolve()))[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        del sys.modules[name]
        raise RecipeError(f"the task file is not Python: {error.msg}", f"{path}:{error.lineno}") from error
    except BaseException:
        del sys.modules[name]  # a half-made module must not be found by the next import
        raise
    options = getattr(module, "Options", None)
    if not (isinstance(options, type) and issubclass(options, BaseModel) and callable(getattr(module, "task", None))):
        raise RecipeError(
            "the task file defines no pydantic model `Options` or no function `task`",
            str(path),
            "write `class Options(BaseModel)` and `def task(options: Options) -> Task`",
        )
    return module


def _explain(error: ValidationError, options: type[BaseModel], name: str) -> tuple[str, str, str]:
    """What, where and what to do, from the first of pydantic's complaints and the names of all wrong keys."""
    details = error.errors(include_url=False)
    first = details[0]
    keys = sorted({str(part) for d in details for part in d["loc"][:1]})
    where = ", ".join(f"task.options.{key}" for key in keys) or "task.options"
    if first["type"] != "extra_forbidden":
        return f"task {name!r}: {first['msg'].removeprefix('Value error, ')}", where, ""
    near = get_close_matches(str(first["loc"][0]), options.model_fields, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    has = f"{guess}It has: {', '.join(options.model_fields)}"
    return f"task {name!r} has no option {first['loc'][0]!r}", where, has


__all__ = ["Task", "known_tasks", "open_task"]
