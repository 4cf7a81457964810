"""Agents: anything that answers messages. Each backend is a file. Every call goes through
:mod:`vivavoce.agents.journal`.

A backend module defines ``Options`` (a pydantic model of the keys that a recipe may give it) and ``agent(name, options)
-> Agent``. The file name is the backend's name; a path to a Python file works too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from vivavoce import plugins
from vivavoce.records import Message, Reply, Sampling


@runtime_checkable
class Agent(Protocol):
    """An agent: anything that answers messages."""

    name: str
    """Its name in the recipe."""

    identity: str
    """Everything that determines its replies: model, revision or weight hash, endpoint. Part of every journal key."""

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """Answer the messages. Equal arguments should give equal replies as far as the model allows.

        Raises :class:`vivavoce.errors.AgentError` if the call failed for good, after the backend's own retries.
        """
        ...

    async def aclose(self) -> None:
        """Free connections, threads and memory."""
        ...


def takes_tools(agent: Agent) -> bool:
    """Whether the agent takes ``Sampling.tools``. If not, the prompt has to describe them.

    Whatever form its backend has for calls, its replies have them as :mod:`vivavoce.agents.call_text` writes them.
    """
    return getattr(agent, "takes_tools", False)


def open_agent(name: str, backend: str, options: Mapping[str, Any]) -> Agent:
    """Make the agent ``name``. Nothing heavy is loaded and nothing is sent before its first reply.

    Args:
        name: Its name in the recipe.
        backend: A file of this folder without ``.py`` (``hf_local``), or a path to a Python file (``mine/foo.py``).
        options: The recipe's keys for the backend, checked by its ``Options``.

    Raises RecipeError if the backend is unknown or the options do not fit it, MissingKey if an API key is not set,
    MissingDependency if a package is not installed.
    """
    where = f"agent {name!r}"
    module = plugins.load("agents", backend, where)
    made = module.agent(name, plugins.check(module.Options, options, f"{where}, backend {backend}"))
    if plugins.is_own(module.__name__):
        from vivavoce.agents.own import check_own

        check_own(made, module, backend)
    return made


__all__ = ["Agent", "open_agent", "takes_tools"]
