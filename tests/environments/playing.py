"""Episodes that tests play by hand."""

from __future__ import annotations

import asyncio

from vivavoce.environments.environment import Action, Environment, Observation


def observations(world: Environment, task: str, *actions: Action, seed: int = 0) -> list[Observation]:
    """All that is seen: at the beginning of the task, and after each action."""

    async def inside() -> list[Observation]:
        return [await world.reset(task, seed), *[await world.step(action) for action in actions]]

    return asyncio.run(inside())
