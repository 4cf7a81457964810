"""An OpenEnv server of a hidden number, by the package's own server: ``python openenv_server.py PORT``."""

import random
import sys
from typing import Any

import uvicorn
from openenv.core.env_server.http_server import create_app  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.interfaces import Environment  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.types import (  # pyright: ignore[reportMissingImports]
    Action,
    Observation,
    State,
)


class Guess(Action):
    guess: str


class Hint(Observation):
    hint: str


class Numbers(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self.number, self._state = 0, State(step_count=0)

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Hint:
        self.number, self._state = random.Random(seed).randint(1, 9), State(step_count=0)
        return Hint(hint=f"Seed {seed}. Guess a number from 1 to 9.", done=False, reward=0.0)

    def step(self, action: Guess, **_: Any) -> Hint:
        self._state.step_count += 1
        digits = "".join(c for c in action.guess if c.isdigit())[:3]
        if digits and int(digits) == self.number:
            return Hint(hint="Right.", done=True, reward=1.0)
        return Hint(hint="higher" if not digits or int(digits) < self.number else "lower", done=False, reward=0.0)

    @property
    def state(self) -> State:
        return self._state


app = create_app(Numbers, Guess, Hint, env_name="numbers", max_concurrent_envs=64)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
