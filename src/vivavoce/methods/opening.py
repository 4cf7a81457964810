"""The agents of a run: opened once by their specifications, let go of when memory is wanted, closed together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from vivavoce.agents import Agent, open_agent
from vivavoce.config import AgentSpec


class Agents:
    """Agents by name. Close them with :meth:`aclose`.

    Opening checks options and keys, and loads no weights: a local model is loaded for its first reply. Raises
    RecipeError, MissingKey or MissingDependency.
    """

    def __init__(self, specs: Iterable[AgentSpec], changes: Mapping[str, Mapping[str, Any]] = {}) -> None:
        self._open = AsyncExitStack()
        self._specs = {spec.name: spec for spec in specs}
        self._agents = {name: self.another(spec, **changes.get(name, {})) for name, spec in self._specs.items()}

    def __getitem__(self, name: str) -> Agent:
        return self._agents[name]

    def another(self, spec: AgentSpec, **changes: Any) -> Agent:
        """One more agent as ``spec`` says, with other options, such as a ``model`` of its own."""
        agent = open_agent(spec.name, spec.backend, {**spec.options, **changes})
        self._open.push_async_callback(agent.aclose)
        return agent

    async def leave_memory(self) -> None:
        """Unload local models, for training wants their memory; the next reply loads them again."""
        for name, spec in self._specs.items():
            if spec.backend == "hf_local":
                await self._agents[name].aclose()

    async def aclose(self) -> None:
        """Close all that were opened."""
        await self._open.aclose()


__all__ = ["Agents"]
