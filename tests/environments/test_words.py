from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.agents.faulty import FaultyServer, completion

from vivavoce.agents import Agent, open_agent
from vivavoce.agents.call_text import write_call
from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.environments.environment import Environment, Episode
from vivavoce.environments.episodes import play
from vivavoce.environments.functions import Functions
from vivavoce.environments.words import InWords, for_agent
from vivavoce.records import Message, Sampling, ToolCall


@dataclass
class Till:
    sum: int = 0


def add(till: Till, n: int) -> int:
    """Add to the sum."""
    till.sum += n
    return till.sum


def opened() -> Environment:
    return Functions("till", lambda task, seed: (Till(), "Reach 5."), [add], lambda till: till.sum == 5)


def acted(world: Environment, agent: Agent, folder: Path) -> Episode:
    async def run() -> Episode:
        with Journal(folder / "journal.sqlite") as journal:
            try:
                return await play(world, agent, "t", 1, Sampling(), journal)
            finally:
                await agent.aclose()

    return asyncio.run(run())


def two_calls(*numbers: int) -> str:
    return "".join(write_call(ToolCall("add", {"n": n})) for n in numbers)


def speaker(messages: Sequence[Message], *_: object) -> str:
    return two_calls(2, 1) if len(messages) == 2 else two_calls(2)


def test_an_agent_without_tools_of_its_own_is_told_of_them_and_answered_in_words(tmp_path: Path) -> None:
    agent = Scripted("ada", speaker)
    world = for_agent(opened(), agent)
    assert isinstance(world, InWords)
    assert isinstance(world, Environment)
    episode = acted(world, agent, tmp_path)
    assert (episode.ended, episode.success) == ("done", True)
    system, question = episode.prompt
    assert (system["role"], question) == ("system", {"role": "user", "content": "Reach 5."})
    schema = json.loads(system["content"].split("<tools>\n")[1].split("\n</tools>")[0])
    assert schema == world.tools[0].schema()
    answers = "<tool_response>\n2\n</tool_response>\n<tool_response>\n3\n</tool_response>"
    assert episode.before(1)[-1] == {"role": "user", "content": answers}
    assert {message["role"] for message, _ in episode.masked()} == {"system", "user", "assistant"}


def test_an_endpoint_acts_by_its_own_calls(faulty: FaultyServer, tmp_path: Path) -> None:
    def called(n: int) -> dict[str, object]:
        call = {"id": "x", "type": "function", "function": {"name": "add", "arguments": json.dumps({"n": n})}}
        return completion(None, "tool_calls", tool_calls=[call])

    faulty.script = [called(2), called(3)]
    options = {"model": "m", "base_url": faulty.base_url, "api_key_env": None}
    agent = open_agent("ada", "openai_chat", options)
    world = for_agent(opened(), agent)
    assert not isinstance(world, InWords)
    episode = acted(world, agent, tmp_path)
    assert (episode.ended, episode.success, len(episode.steps)) == ("done", True, 2)
    assert [m["role"] for m in faulty.requests[1]["messages"]] == ["user", "assistant", "tool"]
    assert all(body["tools"] for body in faulty.requests)


def test_an_endpoint_that_reads_no_calls_is_told_in_words(faulty: FaultyServer, tmp_path: Path) -> None:
    faulty.script = [completion(two_calls(5))]
    options = {"model": "m", "base_url": faulty.base_url, "api_key_env": None, "native_tools": False}
    agent = open_agent("ada", "openai_chat", options)
    assert acted(for_agent(opened(), agent), agent, tmp_path).success
    assert "tools" not in faulty.requests[0]
    assert "<tools>" in faulty.requests[0]["messages"][0]["content"]


@pytest.fixture
def faulty() -> object:
    with FaultyServer() as server:
        yield server
