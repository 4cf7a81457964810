"""Anthropic's own package against a server that speaks the Messages API: conversations, endings, faults."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.agents.faulty import FaultyServer
from tests.agents.providers import FULL, Providers, Refuse, message

from vivavoce.agents import open_agent
from vivavoce.agents.anthropic_messages import AnthropicMessages, conversation
from vivavoce.errors import AgentError, MissingDependency, MissingKey
from vivavoce.records import Message, Reply, Sampling, Usage

KEY = "sk-ant-very-secret-0123456789"
ASK: list[Message] = [{"role": "system", "content": "solve"}, {"role": "user", "content": "2 + 2?"}]
SHORT = Sampling(0.0, 1.0, 20)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    # the package reads more than the recipe says; none of it may count
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9/elsewhere")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "another")


@pytest.fixture
def server() -> Iterator[Providers]:
    with Providers() as server:
        yield server


def ask(
    address: str, messages: list[Message] = ASK, sampling: Sampling = SHORT, times: int = 1, **options: Any
) -> tuple[AnthropicMessages, list[Reply | AgentError]]:
    """The calls side by side; failures are returned."""
    options = {"backoff_s": 0.01, "max_retries": 2, "timeout_s": 20.0, "base_url": address, **options}
    agent = open_agent("ada", "anthropic_messages", {"model": "m", **options})
    assert isinstance(agent, AnthropicMessages)

    async def one() -> Reply | AgentError:
        try:
            return await agent.reply(messages, sampling, 3)
        except AgentError as error:
            return error

    async def run() -> list[Reply | AgentError]:
        try:
            return await asyncio.wait_for(asyncio.gather(*(one() for _ in range(times))), 60)
        finally:
            await agent.aclose()

    return agent, asyncio.run(run())


def test_a_reply_holds_text_without_thoughts_and_all_tokens_that_were_counted(server: Providers) -> None:
    agent, [reply] = ask(server.address)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish, reply.model) == ("Answer to 2 + 2?.", "stop", "served-name")
    assert reply.usage == Usage(prompt=30, completion=5, cached=20)
    assert reply.latency_s > 0
    assert agent.attempts == 1
    assert server.bodies == [
        {"model": "m", "max_tokens": 20, "system": "solve", "messages": [{"role": "user", "content": "2 + 2?"}]}
    ]
    assert KEY in str(server.headers[0])
    assert server.headers[0]["anthropic-version"]


def test_the_conversation_is_brought_into_the_form_of_the_api(server: Providers) -> None:
    conversation = [
        ("system", "a"),
        ("user", "b"),
        ("user", "c"),
        ("assistant", "d"),
        ("system", "e"),
        ("user", " "),
        ("user", "f"),
    ]
    _, [reply] = ask(
        server.address, [{"role": role, "content": text} for role, text in conversation], Sampling(0, 1, 9, ("x",))
    )
    assert isinstance(reply, Reply)
    assert server.bodies == [
        {
            "model": "m",
            "max_tokens": 9,
            "stop_sequences": ["x"],
            "system": "a\n\ne",
            "messages": [
                {"role": "user", "content": "b\n\nc"},
                {"role": "assistant", "content": "d"},
                {"role": "user", "content": "f"},
            ],
        }
    ]


@pytest.mark.parametrize("roles", [[], ["system"], ["assistant", "user"]])
def test_a_conversation_that_the_user_does_not_begin_is_a_failure_and_costs_nothing(
    server: Providers, roles: list[str]
) -> None:
    agent, [error] = ask(server.address, [{"role": role, "content": "x"} for role in roles])
    assert isinstance(error, AgentError)
    assert error.reason == "bad_request"
    assert agent.attempts == 0


def test_conversations_are_made_new(server: Providers) -> None:
    messages: list[Message] = [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]
    conversation(messages)
    assert messages[0]["content"] == "x"


@pytest.mark.parametrize(
    ("why", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "filter"),
    ],
)
def test_why_it_stopped_is_told(server: Providers, why: str, finish: str) -> None:
    server.reply = lambda body: message("some text", why)
    _, [reply] = ask(server.address)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish) == ("some text", finish)


@pytest.mark.parametrize(
    ("answer", "reason", "attempts"),
    [
        (message(None, "refusal", stop_details={"type": "refusal", "explanation": "not this"}), "refused", 1),
        (message(None, "max_tokens"), "empty", 1),
        (message(None), "empty", 3),
        (message("x", "pause_turn"), "server", 3),
        (message("x", None), "malformed", 3),
        (message(content=[{"type": "text"}]), "malformed", 3),
        ({}, "malformed", 3),
    ],
)
def test_what_is_no_answer_has_its_reason(server: Providers, answer: Any, reason: str, attempts: int) -> None:
    server.reply = lambda body: answer
    agent, [error] = ask(server.address)
    assert isinstance(error, AgentError)
    assert (error.reason, agent.attempts) == (reason, attempts)
    if reason in ("refused", "empty"):
        assert error.usage == Usage(30 * attempts, 5 * attempts, 20 * attempts)
    if reason == "refused":
        assert "not this" in error.detail


@pytest.mark.parametrize(
    ("status", "kind", "message", "reason", "attempts"),
    [
        (400, "invalid_request_error", FULL["message"], "overlong", 1),
        (400, "invalid_request_error", "no such field", "bad_request", 1),
        (401, "authentication_error", "invalid x-api-key", "auth", 1),
        (402, "billing_error", "pay", "account", 1),
        (400, "invalid_request_error", "Your credit balance is too low", "account", 1),
        (403, "permission_error", "no", "forbidden", 1),
        (404, "not_found_error", "model: m", "not_found", 1),
        (413, "request_too_large", "no", "overlong", 1),
        (429, "rate_limit_error", "slow down", "rate_limit", 9),
        (500, "api_error", "oops", "server", 3),
        (529, "overloaded_error", "Overloaded", "server", 9),
    ],
)
def test_each_error_of_the_api_has_its_reason_and_is_retried_by_our_bounds(
    server: Providers, status: int, kind: str, message: str, reason: str, attempts: int
) -> None:
    def refuse(_: str) -> None:
        raise Refuse(status, message, kind)

    server.before = refuse
    agent, [error] = ask(server.address)
    assert isinstance(error, AgentError)
    assert error.reason == reason
    assert message in error.detail
    assert agent.attempts == attempts, "the package's own retries are off"


@pytest.mark.parametrize(
    "fault", ["busy=", "busy=0.05", "status=500", "status=529", "reset", "truncated", "body={oops"]
)
def test_a_passing_fault_is_retried_into_a_reply(faulty: FaultyServer, fault: str) -> None:
    faulty.script = [fault, message("right")]
    agent, [reply] = ask(faulty.base_url.removesuffix("/v1"))
    assert isinstance(reply, Reply)
    assert reply.text == "right"
    assert agent.attempts == len(faulty.requests) == 2


@pytest.mark.parametrize("fault", ["stall", "trickle"])
def test_an_answer_that_does_not_end_times_out(faulty: FaultyServer, fault: str) -> None:
    faulty.script = [fault] * 2
    _, [error] = ask(faulty.base_url.removesuffix("/v1"), timeout_s=0.4, max_retries=1)
    assert isinstance(error, AgentError)
    assert (error.reason, len(faulty.requests)) == ("timeout", 2)


def test_no_more_are_in_flight_than_the_recipe_says(server: Providers) -> None:
    flying, most = threading.Semaphore(2), list[bool]()

    def enter(_: str) -> None:
        most.append(flying.acquire(blocking=False))
        time.sleep(0.02)

    server.before, server.after = enter, lambda _: flying.release()
    _, replies = ask(server.address, times=12, max_concurrency=2)
    assert all(isinstance(reply, Reply) for reply in replies)
    assert most == [True] * 12


def test_sampling_fields_are_sent_to_models_that_take_them(faulty: FaultyServer) -> None:
    faulty.script = [message()]
    agent, _ = ask(faulty.base_url.removesuffix("/v1"), takes=["temperature"], extra_body={"thinking": {"type": "x"}})
    [body] = faulty.requests
    assert (body["temperature"], body["thinking"]) == (0.0, {"type": "x"})
    assert "top_p" not in body
    assert agent.identity != open_agent("ada", "anthropic_messages", {"model": "m"}).identity


def test_top_k_is_sent_if_there_is_one(faulty: FaultyServer) -> None:
    agent = open_agent("ada", "anthropic_messages", {"model": "m", "takes": ["top_k"], "api_key_env": None})
    assert isinstance(agent, AnthropicMessages)
    assert agent.body(ASK, Sampling(top_k=20), 0)["top_k"] == 20
    assert "top_k" not in agent.body(ASK, Sampling(), 0)


def test_the_variables_of_the_package_change_nothing(server: Providers) -> None:
    _, [reply] = ask(server.address)
    assert isinstance(reply, Reply)
    assert "another" not in str(server.headers)


def test_the_key_is_in_no_error_and_no_log(faulty: FaultyServer, caplog: pytest.LogCaptureFixture) -> None:
    faulty.script = ["status=401"]
    with caplog.at_level(logging.DEBUG):
        agent, [error] = ask(faulty.base_url.removesuffix("/v1"))
    assert isinstance(error, AgentError)
    assert "***" in error.detail, "the server quoted it"
    for text in (str(error), repr(error), repr(agent), caplog.text, *map(str, caplog.records)):
        assert KEY not in text


def test_a_missing_key_or_package_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(MissingKey, match="ANTHROPIC_API_KEY"):
        open_agent("ada", "anthropic_messages", {"model": "m"})
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "anthropic" else find_spec(name))
    with pytest.raises(MissingDependency) as caught:
        open_agent("ada", "anthropic_messages", {"model": "m"})
    assert "vivavoce[anthropic]" in caught.value.do
