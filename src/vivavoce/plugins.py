"""A choice is a file: tasks, backends and methods are modules found by name in their room, or by a path.

No registry and no decorator: ``tasks/foo.py`` is the task ``foo``, and ``"exam/mine.py"`` works the same. Each module
brings ``Options``, a pydantic model of the keys that it takes, so that plugins are checked like what is built in.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vivavoce.errors import RecipeError
from vivavoce.records import digest

M = TypeVar("M", bound=BaseModel)
_MAKER = {"agents": "agent", "tasks": "task", "methods": "distill"}
"""Room to the function that its modules define."""


def names(room: str) -> list[str]:
    """What comes with vivavoce in ``agents``, ``tasks`` or ``methods``: files that define the room's function."""
    define = re.compile(rf"^(async )?def {_MAKER[room]}\(", re.MULTILINE)
    files = (Path(__file__).parent / room).glob("*.py")
    return sorted(f.stem for f in files if define.search(f.read_text("utf-8")))


def load(room: str, name: str, where: str) -> ModuleType:
    """The module ``name`` of a room: a known name, or a path to a Python file (relative to the working directory).

    A Python file is executed: open only what you trust. Raises RecipeError, naming ``where`` it was asked for, where
    there is no such module or file, or the file lacks what the room needs.
    """
    kind = _MAKER[room]
    if name.endswith(".py"):
        module = load_file(name, where)
        options = getattr(module, "Options", None)
        if not (isinstance(options, type) and issubclass(options, BaseModel) and callable(getattr(module, kind, None))):
            raise RecipeError(
                f"the file defines no pydantic model `Options` or no function `{kind}`",
                name,
                f"write `class Options(BaseModel)` and `def {kind}(…)`; see the modules of vivavoce",
            )
        return module
    known = names(room)
    if name not in known:
        raise RecipeError(
            f"unknown {room.removesuffix('s')} `{name}`{near(name, known)}",
            where,
            f"use one of {', '.join(known)}, or the path to a .py file",
        )
    return importlib.import_module(f"vivavoce.{room}.{name}")


def load_file(path: str | Path, where: str) -> ModuleType:
    """Import the Python file at ``path``. Raises RecipeError where there is none, or it is not Python."""
    path = Path(path)
    if not path.is_file():
        raise RecipeError(f"there is no file {path}", where, f"it is looked for in {Path.cwd()}")
    # one module for one content, so that a file that was edited is not answered from the last import
    name = f"vivavoce_file_{digest([str(path.resolve()), path.read_text('utf-8')])[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up by name
    try:
        spec.loader.exec_module(module)
    except SyntaxError as e:
        del sys.modules[name]
        raise RecipeError(f"the file is not Python: {e.msg}", f"{path}:{e.lineno}", "correct it") from e
    except BaseException:
        del sys.modules[name]  # a half-made module must not be found by the next import
        raise
    return module


def check(options: type[M], values: Mapping[str, Any], where: str) -> M:
    """``values`` as the module's options. Raises RecipeError that names every mistake."""
    try:
        return options.model_validate(dict(values))
    except ValidationError as e:
        known = list(options.model_fields)
        said = "; ".join(mistake(p, known) for p in e.errors(include_url=False))
        raise RecipeError(said, where, f"it takes {', '.join(known)}") from None


def mistake(problem: Mapping[str, Any], known: Sequence[str], loc: Sequence[str | int] | None = None) -> str:
    """One of pydantic's complaints, for people. Text that was given is left out: it may be a key pasted in error."""
    place: Sequence[str | int] = problem["loc"] if loc is None else loc
    key = ".".join(map(str, place))
    if problem["type"] == "extra_forbidden":
        return f"unknown key `{key}`{near(str(place[-1]), known)}"
    if problem["type"] == "missing":
        return f"key `{key}` is missing"
    said = problem["msg"].removeprefix("Value error, ")
    given = problem["input"]
    number = f" (got {given!r})" if isinstance(given, int | float) or problem["type"] == "literal_error" else ""
    return f"`{key}`: {said}{number}" if key else said


def near(word: str, known: Sequence[str]) -> str:
    """``, did you mean `x`?`` where something known is close, else what is known."""
    close = difflib.get_close_matches(word, known, 1, 0.5)
    return f", did you mean `{close[0]}`?" if close else (f"; known: {', '.join(known)}" if known else "")
