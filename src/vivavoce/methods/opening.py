"""The agents of a run: opened once by their specifications, unloaded when memory is wanted, closed together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from vivavoce.agents import Agent, engines, open_agent
from vivavoce.agents.engines import Serve
from vivavoce.agents.journal import Journal
from vivavoce.agents.reaching import reach
from vivavoce.agents.served import Served
from vivavoce.config import AgentSpec, Recipe
from vivavoce.train.settings import TrainSettings

S = TypeVar("S", bound=TrainSettings)


@dataclass(frozen=True)
class Serving:
    """The log folder of a run's engines, and the abilities that the student's engine needs."""

    logs: Path
    student: str
    rank: int | None
    """Largest rank of the adapters that the recipe trains; None if it trains none."""

    @classmethod
    def of(cls, recipe: Recipe, path: Path) -> Serving:
        """The settings for a run of ``recipe`` in the folder ``path``."""
        return cls(path / "engines", recipe.student.name, trained_rank(recipe))

    def options_for(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """The options of an agent, with the engine's log folder and the largest rank of its adapters."""
        serve = options.get("serve")
        if not isinstance(serve, dict) or serve.get("url") is not None:
            return options
        known = {"logs": str(self.logs)} | ({"lora_rank": self.rank} if name == self.student and self.rank else {})
        return {**options, "serve": {**known, **{k: v for k, v in serve.items() if v is not None}}}

    def serve(self, spec: AgentSpec) -> Serve | None:
        """The agent's engine settings, if it is served."""
        serve = self.options_for(spec.name, spec.options).get("serve")
        return None if serve is None else Serve.model_validate(serve)


def trained_rank(recipe: Recipe) -> int | None:
    """The largest rank of an adapter that the recipe's student may have in the end; None if all weights are trained.

    Adapters that are trained one after the other add up to one whose rank is the sum.
    """
    parts = list(recipe.parts.values()) or [recipe]
    ranks = [[s.lora.r for _, s in trained_how(part) if s.lora is not None] for part in parts]
    return sum(sum(stage) for stage in ranks) or None


def trained_how(recipe: Recipe) -> list[tuple[str, TrainSettings]]:
    """The sections of a recipe, or of its parts, that say how a student is trained, by their keys."""
    if recipe.parts:
        return [
            (f"{name}: {key}", settings) for name, part in recipe.parts.items() for key, settings in trained_how(part)
        ]
    sections = [(name, getattr(recipe, name)) for name in type(recipe).model_fields]
    inner = [
        (f"{key}.{name}", getattr(one, name))
        for key, one in sections
        if isinstance(one, BaseModel)
        for name in type(one).model_fields
    ]
    sections_of_training = [(key, one) for key, one in (*sections, *inner) if isinstance(one, TrainSettings)]
    return [(key, as_trained(one, recipe.student)) for key, one in sections_of_training]


def as_trained(how: S, student: AgentSpec) -> S:
    """Settings of a training with what they take over from the student: its template's arguments, so that rows are what
    is served, and how its weights are quantised.
    """
    template = dict(student.options.get("chat_template_kwargs") or {})
    return how.model_copy(update={"template": template, "quantise": how.quantise or student.options.get("quantise")})


class Agents:
    """Agents by name. Close them with :meth:`aclose`. ``serving`` gives the log folder of a run's engines.

    Opening checks options and keys, and loads no weights: a local model is loaded for its first reply. Raises
    RecipeError, MissingKey or MissingDependency.
    """

    def __init__(
        self,
        specs: Iterable[AgentSpec],
        changes: Mapping[str, Mapping[str, Any]] = {},
        serving: Serving | None = None,
    ) -> None:
        self._open, self._serving = AsyncExitStack(), serving
        self._specs = {spec.name: spec for spec in specs}
        if serving is not None:
            for spec in self._specs.values():
                serve = serving.serve(spec) if spec.backend == "hf_local" else None
                if serve is not None:
                    engines.check(spec.name, serve)
        self._agents = {name: self.another(spec, **changes.get(name, {})) for name, spec in self._specs.items()}

    def __getitem__(self, name: str) -> Agent:
        return self._agents[name]

    def another(self, spec: AgentSpec, **changes: Any) -> Agent:
        """One more agent as ``spec`` says, with other options, such as a ``model`` of its own."""
        options = {**spec.options, **changes}
        if self._serving is not None:
            options = self._serving.options_for(spec.name, options)
        agent = open_agent(spec.name, spec.backend, options)
        self._open.push_async_callback(agent.aclose)
        return agent

    async def reach(self, journal: Journal, without: str | None = None) -> None:
        """Raise AgentUnusable if one of them cannot be asked, ``without`` left out: before anything is loaded, see
        :func:`reaching.reach`.
        """
        wanted = [(self._agents[name], spec.sampling()) for name, spec in self._specs.items() if name != without]
        await reach(wanted, journal)

    async def leave_memory(self) -> None:
        """Unload local models, and end engines that are to rest, because training needs their memory; the next reply
        loads or starts them again."""
        for name, spec in self._specs.items():
            if spec.backend == "hf_local":
                agent = self._agents[name]
                await agent.aclose()
                if isinstance(agent, Served) and not agent.serve.while_training:
                    await agent.rest()

    async def aclose(self) -> None:
        """Close all that were opened, and end the engines that were started for them."""
        await self._open.aclose()
        if self._serving is not None:
            await asyncio.to_thread(engines.close_all, self._serving.logs)


__all__ = ["Agents", "Serving", "as_trained", "trained_how", "trained_rank"]
