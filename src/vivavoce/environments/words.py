"""Tools described in the prompt, for agents whose backend has no form of its own for them.

Everything that the agent reads is then in the messages, so that training shows the same. The form is that of the Hermes
and Qwen models, whose chat templates write nearly the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vivavoce.agents import Agent, takes_tools
from vivavoce.agents.call_text import response
from vivavoce.environments.environment import (
    Action,
    Demonstrator,
    Environment,
    Guide,
    Leavable,
    Observation,
    Tool,
)
from vivavoce.records import Message, Sampling


class InWords:
    """An environment whose system message tells its tools, and whose tools answer in a user's messages."""

    tells_tools = True

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.name, self.tools, self.limits = environment.name, environment.tools, environment.limits
        if isinstance(environment, Guide):
            self.best = environment.best
        if isinstance(environment, Demonstrator):
            self.demonstrate = environment.demonstrate
        if isinstance(environment, Leavable):
            self.leave = environment.leave

    async def reset(self, task: str, seed: int) -> Observation:
        """Begin, with the tools at the end of the system message."""
        first = await self.environment.reset(task, seed)
        self.tools = self.environment.tools
        return Observation(told_in_words(first.messages, self.tools), first.done)

    async def step(self, action: Action) -> Observation:
        """Do the action. Tools that are on offer only now are told at the end of the answer."""
        seen = await self.environment.step(action)
        added = [tool for tool in self.environment.tools if tool not in self.tools]
        self.tools = self.environment.tools
        messages = _merge_answers(seen.messages)
        if added and messages:
            last: Message = {"role": "user", "content": f"{messages[-1]['content']}\n\n{told_of(added)}"}
            messages = (*messages[:-1], last)
        return Observation(messages, seen.done)

    def state(self) -> Any:
        """The environment's."""
        return self.environment.state()

    def succeeded(self) -> bool | None:
        """The environment's."""
        return self.environment.succeeded()


def for_agent(environment: Environment, agent: Agent) -> Environment:
    """The environment as this agent can act in it: in words, unless its backend takes tools or they are told anyway."""
    return environment if takes_tools(agent) or environment.tells_tools else InWords(environment)


def told_in_words(messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[Message, ...]:
    """The first messages of an episode with its tools, if there are any, at the end of the system message."""
    if not tools:
        return _merge_answers(messages)
    description = told_of(tools)
    if messages and messages[0]["role"] == "system":
        description, messages = f"{messages[0]['content']}\n\n{description}", messages[1:]
    return {"role": "system", "content": description}, *_merge_answers(messages)


def offering(sampling: Sampling, environment: Environment, agent: Agent) -> Sampling:
    """The sampling that offers the environment's tools as they are now, if they are not told in words."""
    if environment.tells_tools or not takes_tools(agent):
        return sampling
    return replace(sampling, tools=environment.tools)


def told_of(tools: Sequence[Tool]) -> str:
    """The tools for a system message, and how to call them."""
    schemas = "\n".join(json.dumps(tool.schema(), ensure_ascii=False) for tool in tools)
    return (
        f"# Tools\n\nYou can call these functions, one JSON schema a line:\n<tools>\n{schemas}\n</tools>\n\n"
        'To call one, write {"name": …, "arguments": {…}} as JSON between <tool_call> and </tool_call>. '
        "What it returns comes next, between <tool_response> and </tool_response>."
    )


def _merge_answers(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages, tools' answers in a row as one of a user."""
    messages_answered = list[Message]()
    joins = False
    for message in messages:
        if message["role"] != "tool":
            messages_answered.append(message)
        elif joins:
            messages_answered[-1] = {
                "role": "user",
                "content": f"{messages_answered[-1]['content']}\n{response(message['content'])}",
            }
        else:
            messages_answered.append({"role": "user", "content": response(message["content"])})
        joins = message["role"] == "tool"
    return tuple(messages_answered)


__all__ = ["InWords", "for_agent", "offering", "told_in_words", "told_of"]
