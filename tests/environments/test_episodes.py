from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from vivavoce.agents.journal import Journal
from vivavoce.environments.environment import Action, Episode, Limits, Observation, Tool
from vivavoce.environments.episodes import play, read
from vivavoce.errors import AgentError
from vivavoce.records import Message, Reply, Sampling

ADD = Tool("add", "Add to the sum.", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


class Sum:
    """Reach 5 by adding."""

    name, tools, tells_tools, limits = "sum", (ADD,), False, Limits(turns=3)

    async def reset(self, task: str, seed: int) -> Observation:
        self.sum = 0
        return Observation(({"role": "user", "content": "Reach 5."},))

    async def step(self, action: Action) -> Observation:
        self.sum += sum(call.arguments["n"] for call in action.calls)
        return Observation(({"role": "tool", "content": action.malformed or str(self.sum)},), self.sum >= 5)

    def state(self) -> Any:
        return self.sum

    def succeeded(self) -> bool | None:
        return self.sum == 5


class Speaker:
    """Says these, one after another, then fails for good; or takes its time."""

    name = identity = "speaker"

    def __init__(self, *texts: str, wait_s: float = 0.0) -> None:
        self.texts, self.wait_s = texts, wait_s

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        await asyncio.sleep(self.wait_s)
        turn = sum(m["role"] == "assistant" for m in messages)
        if turn == len(self.texts):
            raise AgentError("refused")
        return Reply(self.texts[turn])

    async def aclose(self) -> None: ...


def add(n: int) -> str:
    return f'<tool_call>{{"name": "add", "arguments": {{"n": {n}}}}}</tool_call>'


def acted(world: Sum, agent: Speaker, folder: Path) -> Episode:
    async def inside() -> Episode:
        with Journal(folder / "journal.sqlite") as journal:
            return await play(world, agent, "t", 1, Sampling(), journal)

    return asyncio.run(inside())


@pytest.fixture
def played(tmp_path: Path) -> Callable[..., Episode]:
    return lambda *texts: acted(Sum(), Speaker(*texts), tmp_path)


def test_an_episode_played_again_asks_nobody(tmp_path: Path) -> None:
    first = acted(Sum(), Speaker(add(2), add(3)), tmp_path)
    assert acted(Sum(), Speaker(), tmp_path) == first


def test_an_episode_ends_when_the_environment_says_so(played: Callable[..., Episode]) -> None:
    e = played(add(2), add(3), add(9))
    assert (e.ended, e.success, len(e.steps)) == ("done", True, 2)
    assert e.before(1)[-1] == {"role": "tool", "content": "2"}


def test_turns_are_limited(played: Callable[..., Episode]) -> None:
    e = played(*[add(1)] * 5)
    assert (e.ended, e.success, len(e.steps)) == ("turns", False, 3)


def test_a_call_that_fails_for_good_keeps_the_steps_before_it(played: Callable[..., Episode]) -> None:
    e = played(add(1))
    assert (e.ended, len(e.steps)) == ("no_action", 1)


def test_time_is_limited(tmp_path: Path) -> None:
    world = Sum()
    world.limits = Limits(time_s=0.05)
    assert acted(world, Speaker(add(1), wait_s=5), tmp_path).ended == "time"


def test_a_malformed_call_becomes_an_observation_that_says_what_is_wrong(played: Callable[..., Episode]) -> None:
    e = played("<tool_call>{</tool_call>", add(5))
    assert "no JSON" in e.steps[0].observation.messages[0]["content"]
    assert e.success


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("<tool_call>[]</tool_call>", "an object"),
        ('<tool_call>{"name": "sub", "arguments": {}}</tool_call>', "no tool 'sub'; there are add"),
        ('<tool_call>{"name": ["add"], "arguments": {}}</tool_call>', "is a text, not ['add']"),
        ('<tool_call>{"name": "add", "arguments": {}}</tool_call>', "lacks n"),
        ('<tool_call>{"name": "add", "arguments": {"n": 1, "m": 2}}</tool_call>', "no argument m"),
        (add(1) + "<tool_call>", "not closed"),
    ],
)
def test_what_is_wrong_with_a_call_is_said_and_none_is_made(text: str, wrong: str) -> None:
    action = read(Reply(text), [ADD])
    assert wrong in action.malformed
    assert not action.calls
