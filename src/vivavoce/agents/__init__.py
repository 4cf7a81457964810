"""Who answers. One backend a file; :mod:`vivavoce.agents.journal` is the one choke point before them.

A backend module defines ``Options`` (a pydantic model of the keys that a recipe may give it) and
``agent(name, options) -> Agent``. The file name is the backend's name; a path to a Python file works too.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from pydantic import ValidationError

from vivavoce.errors import RecipeError
from vivavoce.records import Message, Reply, Sampling, digest


@runtime_checkable
class Agent(Protocol):
    """Someone who answers messages."""

    name: str
    """As the recipe calls it."""

    identity: str
    """What determines its replies: model, revision or weight hash, endpoint. Part of every journal key."""

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """Answer. Equal arguments should give equal replies as far as the model allows.

        Raises :class:`vivavoce.errors.AgentError` when the call failed for good, after the backend's own retries.
        """
        ...

    async def aclose(self) -> None:
        """Free connections, threads and memory."""
        ...


def backends() -> list[str]:
    """Names of the backends in this folder: the files that define ``agent``. Imports none of them."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(f.stem for f in files if f.stem != "__init__" and "\ndef agent(" in f.read_text(encoding="utf-8"))


def open_agent(name: str, backend: str, options: Mapping[str, Any]) -> Agent:
    """Make the agent ``name``. Nothing heavy is loaded and nothing is sent before its first reply.

    Args:
        name: As the recipe calls it.
        backend: A file of this folder without ``.py`` (``hf_local``), or a path to a Python file (``mine/foo.py``).
        options: What the recipe gives to the backend, checked by its ``Options``.

    Raises RecipeError where the backend is unknown or the options do not fit it, MissingKey where an API key is not
    set, MissingDependency where a package is not installed.
    """
    where = f"agent {name!r}"
    module = backend_module(backend, where)
    try:
        checked = module.Options.model_validate(dict(options))
    except ValidationError as error:
        fields = list(module.Options.model_fields)
        what = "; ".join(_say(problem, fields) for problem in error.errors(include_url=False, include_context=False))
        raise RecipeError(what, f"{where}, backend {backend}", f"it takes {', '.join(fields)}") from None
    return module.agent(name, checked)


def backend_module(backend: str, where: str = "backend") -> ModuleType:
    """The module of a backend: a name of :func:`backends`, or a path to a Python file. Raises RecipeError."""
    if backend.endswith(".py"):
        module = load_file(backend, where)
        missing = [attribute for attribute in ("Options", "agent") if not hasattr(module, attribute)]
        if missing:
            raise RecipeError(f"{backend} defines no {' and no '.join(missing)}", where, "see vivavoce/agents")
    else:
        known = backends()
        if backend not in known:
            near = difflib.get_close_matches(backend, known, 1, 0.5)
            hint = f", did you mean {near[0]!r}?" if near else ""
            do = f"use one of {', '.join(known)}, or the path to a .py file"
            raise RecipeError(f"unknown backend {backend!r}{hint}", where, do)
        module = importlib.import_module(f"{__name__}.{backend}")
    return module


def load_file(path: str | Path, where: str) -> ModuleType:
    """Import the Python file at ``path``. Raises RecipeError, naming ``where`` it was asked for, if there is none."""
    file = Path(path).resolve()
    spec = importlib.util.spec_from_file_location(f"vivavoce_file_{digest(str(file))[:12]}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise RecipeError(f"there is no Python file {path}", where, "correct the path; it is relative to where you are")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # pydantic looks up the annotations of a class in its module
    spec.loader.exec_module(module)
    return module


def _say(problem: Mapping[str, Any], fields: Sequence[str]) -> str:
    """One validation error for people. The value is left out: somebody may have pasted a key into the recipe."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, fields, 1, 0.5)
        return f"unknown key `{key}`" + (f", did you mean `{near[0]}`?" if near else "")
    return f"`{key}`: {problem['msg']}" if key else str(problem["msg"])
