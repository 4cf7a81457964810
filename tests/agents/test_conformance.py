"""What every backend owes, checked on each: usage, stop reason, failures that are records, hits that are free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vivavoce.agents import Agent, open_agent
from vivavoce.agents.journal import Answered, Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.errors import AgentError
from vivavoce.records import Message, Sampling

ASK: list[Message] = [{"role": "system", "content": "solve"}, {"role": "user", "content": "a=4; b=a+3; b?"}]
GREEDY = Sampling(0.0, 1.0, 12)


@dataclass
class Bench:
    """An agent under test, how often it worked, and a way to make it fail for good."""

    agent: Agent
    worked: Callable[[], int]
    failing: Agent
    hard: list[Message]
    reason: str
    scores: bool = False
    """Gives log-probabilities."""


def scripted() -> Bench:
    agent = Scripted("ada", lambda messages, sampling, seed: f"{messages[-1]['content']} so it is 7 of course")

    def refuse(*_: Any) -> str:
        raise AgentError("timeout", "scripted")

    return Bench(agent, lambda: agent.calls, Scripted("ada", refuse), ASK, "timeout")


def hf_local(model: Path) -> Bench:
    agent: Any = open_agent("ada", "hf_local", {"model": str(model), "device": "cpu", "threads": 1})
    return Bench(agent, lambda: agent.batches, agent, [{"role": "user", "content": "7" * 300}], "overlong", True)


def openai_chat(address: str, model: Path, scores: bool = False) -> Bench:
    options = {"model": str(model), "base_url": address, "api_key_env": None, "max_concurrency": 4, "timeout_s": 60}
    agent: Any = open_agent("ada", "openai_chat", options)
    failing = open_agent("ada", "openai_chat", {**options, "timeout_s": 0.001, "max_retries": 1, "backoff_s": 0.01})
    return Bench(agent, lambda: agent.attempts, failing, ASK, "timeout", scores)


def anthropic_messages(address: str) -> Bench:
    """llama.cpp's server speaks the Messages API too."""
    options = {"model": "tiny", "base_url": address.removesuffix("/v1"), "api_key_env": None, "timeout_s": 60}
    sampled: dict[str, Any] = {**options, "takes": ["temperature"]}
    agent: Any = open_agent("ada", "anthropic_messages", sampled)
    impatient = {**sampled, "timeout_s": 0.001, "max_retries": 1, "backoff_s": 0.01}
    return Bench(agent, lambda: agent.attempts, open_agent("ada", "anthropic_messages", impatient), ASK, "timeout")


@pytest.fixture(params=["scripted", "hf_local", "transformers serve", "llama.cpp", "llama.cpp as anthropic"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "scripted":
        return scripted()
    model = request.getfixturevalue("tiny_model")
    if request.param == "hf_local":
        return hf_local(model)
    if request.param == "llama.cpp as anthropic":
        return anthropic_messages(request.getfixturevalue("llama_cpp"))
    if request.param == "llama.cpp":
        return openai_chat(request.getfixturevalue("llama_cpp"), model, scores=True)
    return openai_chat(request.getfixturevalue("served_model"), model)


def run(bench: Bench, *calls: tuple[Agent, list[Message], Sampling, int], journal: Path) -> list[Answered]:
    """The calls one after the other through a journal."""

    async def go() -> list[Answered]:
        with Journal(journal) as opened:
            try:
                return [await opened.call(*call, stage="test") for call in calls]
            finally:
                await bench.agent.aclose()
                await bench.failing.aclose()

    return asyncio.run(go())


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_it_is_an_agent_that_closes_twice(bench: Bench) -> None:
    assert isinstance(bench.agent, Agent)
    assert bench.agent.name == "ada"
    assert bench.agent.identity

    async def close() -> None:
        await bench.agent.aclose()
        await bench.agent.aclose()

    asyncio.run(close())


def test_usage_is_counted_and_the_text_is_there(bench: Bench, journal: Path) -> None:
    [answered] = run(bench, (bench.agent, ASK, GREEDY, 1), journal=journal)
    assert answered.error is None
    assert answered.reply is not None
    assert answered.reply.text
    assert answered.reply.model
    assert answered.reply.usage.prompt > 0
    assert 0 < answered.reply.usage.completion <= 12
    assert answered.reply.latency_s > 0
    with Journal(journal, read_only=True) as opened:
        [cost] = opened.costs()
        assert cost.usage == answered.reply.usage


def test_equal_arguments_give_equal_greedy_replies(bench: Bench, tmp_path: Path) -> None:
    texts = set[str]()
    for name in ("one", "two"):
        [answered] = run(bench, (bench.agent, ASK, GREEDY, 1), journal=tmp_path / name)
        assert answered.reply is not None
        texts.add(answered.reply.text)
    assert len(texts) == 1


def test_a_bound_that_cuts_is_the_stop_reason(bench: Bench, journal: Path) -> None:
    [answered] = run(bench, (bench.agent, ASK, Sampling(0.0, 1.0, 2), 1), journal=journal)
    assert answered.reply is not None
    assert answered.reply.finish == "length"
    assert answered.reply.usage.completion == 2


def test_log_probabilities_spell_the_text_where_there_are_any(bench: Bench, journal: Path) -> None:
    [answered] = run(bench, (bench.agent, ASK, Sampling(0.0, 1.0, 12, logprobs=True), 1), journal=journal)
    assert answered.reply is not None
    if answered.reply.tokens is not None:
        assert "".join(token.text for token in answered.reply.tokens) == answered.reply.text
        assert all(token.logprob <= 0 for token in answered.reply.tokens)
    assert (answered.reply.tokens is not None) == bench.scores


def test_a_failure_for_good_is_a_record_with_its_reason(bench: Bench, journal: Path) -> None:
    call = (bench.failing, bench.hard, GREEDY, 1)
    first, second = run(bench, call, call, journal=journal)
    assert first.error is not None
    assert second.error is not None
    assert first.error.reason == second.error.reason == bench.reason
    assert (first.cached, second.cached) == (False, True)


def test_a_hit_is_free(bench: Bench, journal: Path) -> None:
    call = (bench.agent, ASK, GREEDY, 1)
    [paid] = run(bench, call, journal=journal)
    before = bench.worked()
    [free] = run(bench, call, journal=journal)
    assert bench.worked() == before
    assert (free.reply, free.cached) == (paid.reply, True)
