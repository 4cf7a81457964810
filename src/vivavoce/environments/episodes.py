"""An agent acts in an environment until the end or a limit; its calls of tools are read from its words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from vivavoce.agents import Agent
from vivavoce.agents.call_text import read_calls
from vivavoce.agents.journal import Journal
from vivavoce.agents.replies import without_marks
from vivavoce.environments.environment import (
    Action,
    Demonstrator,
    Ended,
    Environment,
    Episode,
    Guide,
    Leavable,
    Observation,
    Step,
    Tool,
)
from vivavoce.environments.words import offering
from vivavoce.records import Message, Reply, Sampling, Status, ToolCall, all_storable, digest, seed_of


async def play(
    environment: Environment, agent: Agent, task: str, seed: int, sampling: Sampling, journal: Journal
) -> Episode:
    """Play one episode. Begun again after a crash it asks only what the journal lacks.

    Tools are offered in the backend's own form if it has one, unless the environment tells them in words. A call that
    fails for good ends the episode (``no_action``); the steps before it are kept.
    """
    begun = time.monotonic()

    async def act(messages: Sequence[Message], step: int) -> Action | Ended:
        time_left_s = environment.limits.time_s - (time.monotonic() - begun)
        drawn = offering(sampling, environment, agent)
        call = journal.call(agent, list(messages), drawn, seed_of(seed, task, "step", step), stage="act", problem=task)
        try:
            answered = await asyncio.wait_for(call, time_left_s)
        except TimeoutError:
            return "time"
        if answered.reply is None:
            return "no_action"
        return replace(read(answered.reply, environment.tools), call=answered.key, usage=answered.reply.usage)

    return await _play_out(environment, task, seed, agent.name, act)


async def reference(environment: Environment, task: str, seed: int) -> Episode:
    """The episode that the environment itself shows: no agent is asked.

    Raises TypeError if it shows none (:func:`shows`).
    """
    if (shown := _demonstration(environment)) is None:
        raise TypeError(f"{environment.name} shows no way")

    async def act(messages: Sequence[Message], step: int) -> Action | Ended:
        return read(Reply(shown()), environment.tools)

    return await _play_out(environment, task, seed, "reference", act)


def shows(environment: Environment) -> bool:
    """Whether there are reference episodes of an environment."""
    return _demonstration(environment) is not None


def _demonstration(environment: Environment) -> Callable[[], str] | None:
    if isinstance(environment, Guide):
        return lambda: environment.best()[0]
    return environment.demonstrate if isinstance(environment, Demonstrator) else None


async def _play_out(
    environment: Environment,
    task: str,
    seed: int,
    agent: str,
    act: Callable[[Sequence[Message], int], Awaitable[Action | Ended]],
) -> Episode:
    """Play one episode with a function that gives the next action, or the reason for none, from the messages so far
    and the step.
    """
    first = _storable(await environment.reset(task, seed))
    messages, steps = list(first.messages), list[Step]()
    ended: Ended = "done" if first.done else "turns"
    for index in range(0 if first.done else environment.limits.turns):
        state, best = digest(environment.state()), environment.best() if isinstance(environment, Guide) else ()
        action = await act(messages, index)
        if isinstance(action, str):
            ended = action
            break
        seen = _storable(await environment.step(action))
        steps.append(Step(action, seen, state, best))
        messages += [{"role": "assistant", "content": action.text}, *seen.messages]
        if seen.done:
            ended = "done"
            break
    if isinstance(environment, Leavable):
        await environment.leave()
    return Episode(environment.name, task, seed, agent, first.messages, tuple(steps), ended, environment.succeeded())


def _storable(seen: Observation) -> Observation:
    """The observation as text that can be stored: a tool may return half a surrogate pair."""
    return replace(seen, messages=tuple(all_storable([dict(message) for message in seen.messages])))


def read(reply: Reply, tools: Sequence[Tool]) -> Action:
    """The action that a reply is: its calls as :mod:`vivavoce.agents.call_text` reads them, and its words.

    What the agent only thought is no part of the action. If one of the calls cannot be read or made, none is, and
    ``malformed`` says why.
    """
    reply = without_marks(reply)
    status: Status = "truncated" if reply.cut else "ok"
    known = {tool.name: tool for tool in tools}
    try:
        calls = read_calls(reply.text)
        for call in calls:
            _check(call, known)
    except ValueError as error:
        return Action(reply.text, malformed=str(error), status=status, ids=reply.ids)
    return Action(reply.text, tuple(calls), status=status, ids=reply.ids)


def _check(call: ToolCall, known: dict[str, Tool]) -> None:
    """Raise ValueError if there is no such tool, or the arguments are not those that it has."""
    if call.name not in known:
        raise ValueError(f"there is no tool {call.name!r}; there are {', '.join(sorted(known))}")
    parameters = known[call.name].parameters
    if lacking := [p for p in parameters.get("required", ()) if p not in call.arguments]:
        raise ValueError(f"{call.name} lacks {', '.join(lacking)}")
    if unknown := [a for a in call.arguments if a not in parameters.get("properties", {})]:
        raise ValueError(f"{call.name} has no argument {', '.join(unknown)}")


__all__ = ["play", "read", "reference", "shows"]
