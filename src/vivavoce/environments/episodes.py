"""An agent acts in an environment until the end or a limit; its calls of tools are read from its words."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vivavoce.agents import Agent
from vivavoce.agents.journal import Journal
from vivavoce.environments.environment import Action, Ended, Environment, Episode, Step, Tool
from vivavoce.records import Reply, Sampling, Status, ToolCall, digest, seed_of

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


async def play(
    environment: Environment, agent: Agent, task: str, seed: int, sampling: Sampling, journal: Journal
) -> Episode:
    """One episode. Begun again after a crash it asks only what the journal lacks.

    An agent's call that fails for good ends the episode (``no_action``); the steps before it are kept.
    """
    begun = time.monotonic()
    first = await environment.reset(task, seed)
    episode = Episode(environment.name, task, seed, agent.name, first.messages)
    steps: list[Step] = []
    said = list(first.messages)
    ended: Ended = "turns"
    for index in range(environment.limits.turns):
        left = environment.limits.time_s - (time.monotonic() - begun)
        state = digest(environment.state())
        call = journal.call(agent, said, sampling, seed_of(seed, task, "step", index), stage="act", problem=task)
        try:
            answered = await asyncio.wait_for(call, left)
        except TimeoutError:
            ended = "time"
            break
        if answered.reply is None:
            ended = "no_action"
            break
        action = replace(read(answered.reply, environment.tools), call=answered.key)
        seen = await environment.step(action)
        steps.append(Step(action, seen, state))
        said += [{"role": "assistant", "content": action.text}, *seen.messages]
        if seen.done:
            ended = "done"
            break
    return replace(episode, steps=tuple(steps), ended=ended, success=environment.succeeded())


def read(reply: Reply, tools: Sequence[Tool]) -> Action:
    """The action that a reply is: JSON objects of ``name`` and ``arguments`` between ``<tool_call>`` tags.

    Where one of the calls cannot be read, none is made, and ``malformed`` says why.
    """
    status: Status = "truncated" if reply.finish == "length" else "ok"
    calls: list[ToolCall] = []
    known = {tool.name: tool for tool in tools}
    for content in _CALL.findall(reply.text):
        call = _call(content, known)
        if isinstance(call, str):
            return Action(reply.text, malformed=call, status=status)
        calls.append(call)
    if reply.text.count("<tool_call>") > len(calls):
        return Action(reply.text, malformed="a <tool_call> is not closed", status=status)
    return Action(reply.text, tuple(calls), status=status)


def _call(content: str, known: dict[str, Tool]) -> ToolCall | str:
    try:
        said: Any = json.loads(content)
    except ValueError as e:
        return f"a call is no JSON: {e}"
    if not isinstance(said, dict) or not isinstance(arguments := said.get("arguments"), dict):
        return "a call is an object with a name and an object of arguments"
    name = said.get("name")
    if not isinstance(name, str) or name not in known:
        return f"there is no tool {name!r}; there are {', '.join(sorted(known))}"
    parameters = known[name].parameters
    if lacking := [p for p in parameters.get("required", ()) if p not in arguments]:
        return f"{name} lacks {', '.join(lacking)}"
    if unknown := [a for a in arguments if a not in parameters.get("properties", {})]:
        return f"{name} has no argument {', '.join(unknown)}"
    return ToolCall(name, arguments)


__all__ = ["play", "read"]
