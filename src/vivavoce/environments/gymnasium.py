"""A Gymnasium environment (Towers et al. 2024, arXiv:2407.17032) in which an agent acts by words.

::

    world = gymnasium.make("FrozenLake-v1", is_slippery=False)
    Gymnasium("lake", world, prompt="Reach the goal …", actions=("left", "down", "right", "up"))

Actions of a ``Discrete`` space are an argument of the tool ``act``; of a ``Text`` space, the agent's words are one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vivavoce.agents.replies import spoken
from vivavoce.environments.environment import Action, Limits, Observation, Tool
from vivavoce.errors import MissingDependency, RecipeError
from vivavoce.records import Message, seed_of

if TYPE_CHECKING:
    from gymnasium import Env


class StepResult(NamedTuple):
    """The result of the last step."""

    reward: float
    total: float
    """The sum of the rewards of all steps."""
    terminated: bool
    truncated: bool
    info: dict[str, Any]


def ended_well(outcome: StepResult) -> bool:
    """The usual goal of a puzzle: it has ended, and the last step was rewarded."""
    return outcome.terminated and outcome.reward > 0


class Gymnasium:
    """An :class:`~vivavoce.environments.environment.Environment` around an ``Env``, which it does not close.

    Args:
        name: Name of the environment.
        env: Reset with a seed drawn from task and seed, so that every id is an episode of its own.
        prompt: The text that the agent reads before the first observation.
        actions: Names of the actions of a ``Discrete`` space, in order; empty: their numbers.
        describe: An observation as text.
        reached: Whether an outcome is a success.
        state: Everything that decides what happens next, as JSON, if the env can tell; None: the actions so far.
        limits: Limits of an episode.

    Raises MissingDependency without gymnasium, RecipeError if the actions are neither discrete nor text, or the names
    do not fit them.
    """

    tells_tools = False

    def __init__(
        self,
        name: str,
        env: Env[Any, Any],
        prompt: str,
        *,
        actions: Sequence[str] = (),
        describe: Callable[[Any], str] = str,
        reached: Callable[[StepResult], bool] = ended_well,
        state: Callable[[Any], Any] | None = None,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
    ) -> None:
        self.name, self.limits = name, limits
        self._env, self._prompt, self._describe, self._reached, self._state = env, prompt, describe, reached, state
        self._actions = _number_actions(env, actions, name)
        self.tools = (_act(list(self._actions)),) if self._actions else ()

    async def reset(self, task: str, seed: int) -> Observation:
        """Begin."""
        self._done: list[Any] = [task, seed]
        seen, info = self._env.reset(seed=seed_of(task, seed))
        self._outcome = StepResult(0.0, 0.0, False, False, info)
        return Observation(({"role": "user", "content": f"{self._prompt}\n\n{self._describe(seen)}"},))

    async def step(self, action: Action) -> Observation:
        """Act, once for each call, until it is over."""
        if not self._actions:
            text = spoken(action.text)
            if not self._env.action_space.contains(text):
                return _observation("user", f"Error: that is no action; what can be said is {self._env.action_space}")
            return _observation("user", self._step_with(text), self._over)
        if action.malformed or not action.calls:
            return _observation("tool" if action.malformed else "user", f"Error: {action.malformed or 'call act'}")
        seen = list[Message]()
        for call in action.calls:
            if self._over:
                text = "Error: it is over"
            elif (named := call.arguments.get("action")) in self._actions:
                text = self._step_with(self._actions[named])
            else:
                text = f"Error: there is no action {named!r}; there are {', '.join(self._actions)}"
            seen.append({"role": "tool", "content": text})
        return Observation(tuple(seen), self._over)

    def state(self) -> Any:
        """The state that the env tells, or all actions so far."""
        return self._state(self._env) if self._state else list(self._done)

    def succeeded(self) -> bool | None:
        """Whether the outcome of the last step is a success."""
        return self._reached(self._outcome)

    @property
    def _over(self) -> bool:
        return self._outcome.terminated or self._outcome.truncated

    def _step_with(self, action: Any) -> str:
        seen, reward, terminated, truncated, info = self._env.step(action)
        total = self._outcome.total + float(reward)
        self._outcome = StepResult(float(reward), total, terminated, truncated, info)
        self._done.append(action)
        return self._describe(seen)


def _number_actions(env: Env[Any, Any], names: Sequence[str], where: str) -> dict[str, int]:
    """Name to action of a discrete space; empty if actions are text."""
    try:
        from gymnasium.spaces import Discrete, Text
    except ImportError as error:
        raise MissingDependency("this needs gymnasium", where, 'pip install "vivavoce[gymnasium]"') from error
    space = env.action_space
    if isinstance(space, Text) and not names:
        return {}
    if not isinstance(space, Discrete):
        raise RecipeError(f"actions are of {space}", where, "wrap the env, so that they are discrete or text")
    numbers = range(int(space.start), int(space.start + space.n))
    if names and len(set(names)) != len(numbers):
        raise RecipeError(f"{len(set(names))} names for {len(numbers)} actions", where, "name each of them")
    return dict(zip(names or map(str, numbers), numbers, strict=True))


def _act(names: list[str]) -> Tool:
    action = {"type": "string", "enum": names}
    return Tool("act", "Do it.", {"type": "object", "properties": {"action": action}, "required": ["action"]})


def _observation(role: str, text: str, done: bool = False) -> Observation:
    return Observation(({"role": role, "content": text},), done)


__all__ = ["Gymnasium", "StepResult", "ended_well"]
