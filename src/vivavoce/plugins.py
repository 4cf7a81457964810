"""A choice is a file: tasks, backends, protocols and methods are modules found by name in their room, or by a path.

No registry and no decorator: ``tasks/foo.py`` is the task ``foo``, and ``"exam/mine.py"`` works the same. Each module
brings ``Options``, a pydantic model of the keys that it takes, so that plugins are checked like what is built in.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vivavoce.complaints import in_words
from vivavoce.errors import RecipeError, UserError
from vivavoce.records import digest

M = TypeVar("M", bound=BaseModel)
MAKER = {"agents": "agent", "tasks": "task", "methods": "distill", "protocols": "run"}
"""Room to the function that its modules define."""
_NEEDED = {
    "agents": {"agent": "def agent(name, options)"},
    "tasks": {"task": "def task(options)"},
    "methods": {"distill": "async def distill(recipe, run)", "plan": "def plan(recipe, measured=None)"},
    "protocols": {"run": "async def run(question, table)"},
}
"""The function that a user's file has to define, by its name in each room; for further parts of a method, see its
modules.
"""
_OPTIONS = {"agents": "BaseModel", "tasks": "BaseModel", "methods": "Recipe", "protocols": "Discussion"}
_OWN = "vivavoce_file_"
"""The beginning of the names of modules that are the user's own files."""


def names(room: str) -> list[str]:
    """The names of vivavoce's own files in a room: those that define the room's function."""
    define = re.compile(rf"^(async )?def {MAKER[room]}\(", re.MULTILINE)
    files = (Path(__file__).parent / room).glob("*.py")
    return sorted(f.stem for f in files if define.search(f.read_text("utf-8")))


def load(room: str, name: str, where: str) -> ModuleType:
    """The module ``name`` of a room: a known name, or a path to a Python file (relative to the working directory).

    A Python file is executed: open only what you trust. Raises RecipeError, naming ``where`` it was asked for, if there
    is no such module or file; with the file and its line if it fails on import or lacks what the room needs.
    """
    if name.endswith(".py"):
        module = load_file(name, where)
        _check_made(room, module, name)
        return module
    known = names(room)
    if name not in known:
        hint = near(name, known).partition(";")[0]  # without the known names, which stand in `do`
        raise RecipeError(
            f"unknown {room.removesuffix('s')} `{name}`{hint}",
            where,
            f"use one of {', '.join(known)}, or the path to a .py file",
        )
    return importlib.import_module(f"vivavoce.{room}.{name}")


def _check_made(room: str, module: ModuleType, file: str) -> None:
    """Raise RecipeError if a user's file lacks what its room needs."""
    options = getattr(module, "Options", None)
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        missing = [name for name in _NEEDED[room] if not callable(getattr(module, name, None))]
        what = "the file defines no pydantic model `Options`" + "".join(f", no function `{name}`" for name in missing)
        do = f"write `class Options({_OPTIONS[room]})`, with a field for each key that it takes"
        raise RecipeError(what, file, do)
    for name, form in _NEEDED[room].items():
        need_function(module, name, form, file)


def need_function(module: ModuleType, name: str, form: str, file: str) -> None:
    """Raise RecipeError if a user's file has no function ``name`` that is called as ``form`` is written."""
    made = getattr(module, name, None)
    if not callable(made):
        what, room = f"the file defines no function `{name}`", "methods" if "recipe" in form else "tasks or agents"
        raise RecipeError(what, file, f"write `{form}`; see the modules of vivavoce in {room}")
    need_call(made, form.count(",") + 1, form, file)
    if form.startswith("async") and not inspect.iscoroutinefunction(made):
        raise RecipeError(f"`{name}` is not async", place_of(made, file), f"write `{form}`")


def need_call(made: Any, count: int, form: str, file: str) -> None:
    """Raise RecipeError if a function of a user's file does not take ``count`` arguments."""
    try:
        inspect.signature(made).bind(*range(count))
    except TypeError as e:
        what = f"`{made.__name__}` does not take what it is called with: {e}"
        raise RecipeError(what, place_of(made, file), f"write `{form}`") from e


def place_of(made: Any, file: str) -> str:
    """File and line of a function of a user's file."""
    code = getattr(inspect.unwrap(made), "__code__", None)
    return f"{file}:{code.co_firstlineno}" if code is not None else file


def need_members(made: Any, members: Sequence[str], function: Any, file: str) -> None:
    """Raise RecipeError if what ``function`` of a user's file returned lacks one of ``members``."""
    if missing := [name for name in members if not hasattr(made, name)]:
        what = f"the {type(made).__name__} that `{function.__name__}` returned has no {', '.join(missing)}"
        raise RecipeError(what, place_of(function, file), f"give it {', '.join(members)}")


def replace_methods(made: object, methods: Mapping[str, Any]) -> None:
    """Put ``methods`` before those of an object's own class, if that is a class of a user's file."""
    kind = type(made)
    if is_own(kind.__module__):
        checked = type(kind.__name__, (kind,), {"__slots__": (), "__module__": kind.__module__, **methods})
        object.__setattr__(made, "__class__", checked)  # a frozen dataclass refuses the plain form


def is_own(module: str) -> bool:
    """Whether a module of this name is a file of the user's."""
    return module.startswith(_OWN)


def load_file(path: str | Path, where: str) -> ModuleType:
    """Import the Python file at ``path``. Raises RecipeError if there is none, or it is not Python."""
    path = Path(path)
    if not path.is_file():
        raise RecipeError(f"there is no file {path}", where, f"give its path from {Path.cwd()}, or an absolute path")
    # one module for one content, so that a file that was edited is not answered from the last import
    name = f"{_OWN}{digest([str(path.resolve()), path.read_bytes().hex()])[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException as e:
        del sys.modules[name]  # a half-made module must not be found by the next import
        if isinstance(e, SystemExit):
            do = 'leave out sys.exit(), or keep it below `if __name__ == "__main__":`'
            raise RecipeError("the file ends the program when it is imported", own_line(e) or str(path), do) from e
        if isinstance(e, UserError) or not isinstance(e, Exception):
            raise
        if isinstance(e, SyntaxError):  # of the file, or of one that it imports
            at = _short_path(Path(e.filename or path))
            raise RecipeError(f"the file is not Python: {e.msg}", f"{at}:{e.lineno}", "correct it") from e
        line = own_line(e)
        raise RecipeError(f"the file cannot be imported: {_error_text(e)}", line or str(path), "correct it") from e
    return module


def own_line(error: BaseException) -> str:
    """The line of a user's file that ``error`` came out of last: ``mine.py:12, in grade``; empty if there is none."""
    at, trace = "", error.__traceback__
    while trace is not None:
        if is_own(trace.tb_frame.f_globals.get("__name__", "")):
            code = trace.tb_frame.f_code
            where = "" if code.co_name == "<module>" else f", in {code.co_name}"
            at = f"{_short_path(Path(code.co_filename))}:{trace.tb_lineno}{where}"
        trace = trace.tb_next
    return at


def _short_path(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def _error_text(error: BaseException) -> str:
    """The kind of an error and what it says."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def own_error(error: BaseException) -> RecipeError | None:
    """An error that came out of a user's own file, told like one of the recipe; None if no own file took part."""
    line = own_line(error)
    do = "correct it there; `viva --traceback …` shows how it was called"
    return RecipeError(_error_text(error), line, do) if line else None


def fingerprint(module: ModuleType) -> str:
    """A fingerprint of a module that a stage depends on: its name, and of a user's own file the content."""
    ours = module.__name__.startswith("vivavoce.")
    return module.__name__ if ours or not module.__file__ else digest(Path(module.__file__).read_text("utf-8"))


def check(options: type[M], values: Mapping[str, Any], where: str) -> M:
    """``values`` as the module's options. Raises RecipeError that names every mistake."""
    try:
        return options.model_validate(dict(values))
    except ValidationError as e:
        known = list(options.model_fields)
        problem_text = "; ".join(mistake(p, known) for p in e.errors(include_url=False))
        raise RecipeError(problem_text, where, f"it takes {', '.join(known)}") from None


def mistake(problem: Mapping[str, Any], known: Sequence[str], loc: Sequence[str | int] | None = None) -> str:
    """One of pydantic's complaints, for people; ``known`` are the keys that may stand there."""
    place: Sequence[str | int] = problem["loc"] if loc is None else loc
    key = ".".join(map(str, place))
    if problem["type"] == "extra_forbidden":
        return f"unknown key `{key}`{near(str(place[-1]), known)}"
    if problem["type"] == "missing":
        given = [k for k in problem["input"] if k not in known] if isinstance(problem["input"], Mapping) else []
        close = difflib.get_close_matches(str(place[-1]), map(str, given), 1, 0.7)
        return f"key `{key}` is missing" + "".join(f"; is it meant by `{one}`?" for one in close)
    return f"`{key}`: {in_words(problem)}" if key else in_words(problem)


def near(word: str, known: Sequence[str]) -> str:
    """The text ``, did you mean `x`?`` if a known name is close, else the known names."""
    close = difflib.get_close_matches(word, known, 1, 0.5)
    return f", did you mean `{close[0]}`?" if close else (f"; known: {', '.join(known)}" if known else "")
