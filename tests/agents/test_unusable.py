"""An agent none of whose calls can be answered ends the run at once, with a reason; mended, the run just goes on."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from tests.agents.faulty import FaultyServer, completion
from tests.agents.providers import Providers, Refuse

from vivavoce.agents import Agent, open_agent
from vivavoce.agents.budget import Caps, Ledger
from vivavoce.agents.journal import Answered, Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.errors import AgentUnusable
from vivavoce.records import Message, Sampling, Usage

KEY = "sk-very-secret-0123456789"
SAMPLING = Sampling(max_new_tokens=20)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


def at(address: str, **options: Any) -> Agent:
    settings = {"backoff_s": 0.01, "max_retries": 2, "timeout_s": 5.0, "api_key_env": "TEST_KEY", **options}
    return open_agent("bob", "openai_chat", {"model": "m", "base_url": address, **settings})


def ask(i: int) -> list[Message]:
    return [{"role": "user", "content": f"question {i}"}]


async def asked(journal: Journal, agent: Agent, calls: range) -> list[Answered | BaseException]:
    try:
        made = (journal.call(agent, ask(i), SAMPLING, i) for i in calls)
        return await asyncio.wait_for(asyncio.gather(*made, return_exceptions=True), 60)
    finally:
        await agent.aclose()


def unusable(results: list[Answered | BaseException]) -> AgentUnusable:
    """What every call was told."""
    assert {type(result) for result in results} == {AgentUnusable}
    error = results[0]
    assert isinstance(error, AgentUnusable)
    assert KEY not in str(error)
    assert "bob" in error.where
    assert "goes on from here" in error.do
    return error


@pytest.mark.parametrize(
    ("fault", "message", "do"),
    [
        ("status=401", "HTTP 401", "the key in $TEST_KEY"),
        ("status=403", "HTTP 403", "may use this model"),
        ("status=404", "HTTP 404", "`model` is known there"),
        ("error=400,,no model of this name", "no model of this name", "check `model`"),
        ("error=402,,Insufficient credits", "Insufficient credits", "add credit"),
        ("error=429,insufficient_quota,pay", "pay", "add credit"),
        ("redirect=308,https://elsewhere.invalid/v1", "it points to https://elsewhere.invalid/v1", "`base_url`"),
        ("body=<html>Hello</html>", "a web page", "`base_url`"),
        ("body=nothing of the kind", "3 attempts", "find out what"),
        ("status=500", "(3 attempts)", "find out what"),
        ("busy=86400", "asked to wait 86400 s", "ask the provider for a higher limit"),
    ],
)
def test_what_no_call_survives_stops_all_and_mended_they_go_on(
    faulty: FaultyServer, tmp_path: Path, fault: str, message: str, do: str
) -> None:
    faulty.script = [fault] * 10_000
    with Journal(tmp_path / "journal.sqlite") as journal:
        error = unusable(asyncio.run(asked(journal, at(faulty.base_url), range(200))))
        assert message in error.what
        assert do in error.do
        if "attempts" not in message:
            assert len(faulty.requests) <= 200, "nothing is asked twice"
        assert len(journal) == 0
    faulty.script = []
    with Journal(tmp_path / "journal.sqlite") as journal:
        results = asyncio.run(asked(journal, at(faulty.base_url), range(200)))
        assert all(isinstance(r, Answered) and r.reply for r in results), "no flag was needed"


def test_a_reply_that_is_always_empty_says_what_to_raise(faulty: FaultyServer, tmp_path: Path) -> None:
    faulty.script = [completion("", "length")] * 10_000
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert "raise `max_new_tokens`" in unusable(asyncio.run(asked(journal, at(faulty.base_url), range(10)))).do


def test_nobody_at_an_address_and_a_host_that_is_not_there_are_told(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"http://127.0.0.1:{port}/v1", "http://no-such-host.invalid/v1"):
        with Journal(tmp_path / "journal.sqlite") as journal:
            error = unusable(asyncio.run(asked(journal, at(address), range(20))))
            assert "unreachable" in error.what
            assert address in error.do
            assert len(journal) == 0


@pytest.mark.parametrize("fault", ["status=400", "status=403", "status=500", "body=odd"])
def test_the_failure_of_one_call_among_others_that_are_answered_is_that_calls_alone(
    faulty: FaultyServer, tmp_path: Path, fault: str
) -> None:
    faulty.step = lambda body: fault if "question 0" in str(body) else completion()  # type: ignore[method-assign]
    with Journal(tmp_path / "journal.sqlite") as journal:
        results = asyncio.run(asked(journal, at(faulty.base_url), range(20)))
        failed = [r for r in results if isinstance(r, Answered) and r.error]
        assert len(failed) == 1
        assert len(journal) == 20, "a failure is a record like any other"


def test_a_key_that_is_withdrawn_in_the_middle_stops_the_run_and_what_was_answered_is_kept(
    faulty: FaultyServer, tmp_path: Path
) -> None:
    faulty.script = [completion()] * 30 + ["status=401"] * 10_000
    with Journal(tmp_path / "journal.sqlite") as journal:
        results = asyncio.run(asked(journal, at(faulty.base_url, max_concurrency=4), range(100)))
        assert sum(isinstance(r, Answered) for r in results) == len(journal) == 30
        assert sum(isinstance(r, AgentUnusable) for r in results) == 70
    with Journal(tmp_path / "journal.sqlite") as journal:
        faulty.script = []
        results = asyncio.run(asked(journal, at(faulty.base_url), range(100)))
        assert sum(isinstance(r, Answered) and r.cached for r in results) == 30
        assert len(journal) == 100


def test_what_others_are_working_on_is_waited_for_and_written_down(faulty: FaultyServer, tmp_path: Path) -> None:
    faulty.script = ["status=401"] * 100

    async def answer(*_: Any) -> str:
        await asyncio.sleep(0.5)
        return "after a while"

    async def run(journal: Journal) -> list[Answered | BaseException]:
        good = asked(journal, Scripted("ada", answer), range(5))
        bad = asked(journal, at(faulty.base_url), range(5))
        return [one for both in await asyncio.gather(good, bad) for one in both]

    with Journal(tmp_path / "journal.sqlite") as journal:
        results = asyncio.run(run(journal))
        assert [type(r) for r in results] == [Answered] * 5 + [AgentUnusable] * 5
        assert len(journal) == 5


def test_calls_that_were_not_answered_count_as_nothing_spent(faulty: FaultyServer, tmp_path: Path) -> None:
    faulty.script = ["status=401"] * 100
    with Journal(tmp_path / "journal.sqlite", ledger=Ledger(run=Caps(tokens=10_000))) as journal:
        unusable(asyncio.run(asked(journal, at(faulty.base_url), range(5))))
        assert journal.under_way() == []
        assert journal.ledger.run.tokens == 0


def test_anthropics_errors_stop_a_run_too(tmp_path: Path) -> None:
    with Providers() as server:

        def refuse(_: str) -> None:
            raise Refuse(401, f"invalid x-api-key {KEY}", "authentication_error")

        server.before = refuse
        options = {"model": "m", "api_key_env": "TEST_KEY", "base_url": server.address}
        with Journal(tmp_path / "journal.sqlite") as journal:
            error = unusable(asyncio.run(asked(journal, open_agent("bob", "anthropic_messages", options), range(20))))
            assert "invalid x-api-key ***" in error.what
        server.before = lambda _: None
        with Journal(tmp_path / "journal.sqlite") as journal:
            results = asyncio.run(asked(journal, open_agent("bob", "anthropic_messages", options), range(20)))
            assert all(isinstance(r, Answered) and r.reply for r in results)


@pytest.mark.parametrize("backend", ["openai_chat", "anthropic_messages"])
def test_a_batch_that_is_not_taken_for_want_of_a_key_stops_a_run_and_is_sent_when_there_is_one(
    tmp_path: Path, backend: str
) -> None:
    with Providers() as server:
        base_url = server.address + ("/v1" if backend == "openai_chat" else "")
        batch = {"gather_s": 0.05, "poll_s": 0.05}
        options = {"model": "m", "api_key_env": "TEST_KEY", "base_url": base_url, "batch": batch}

        def refuse(_: str) -> None:
            raise Refuse(401, "no such key", "authentication_error")

        server.before = refuse
        with Journal(tmp_path / "journal.sqlite") as journal:
            unusable(asyncio.run(asked(journal, open_agent("bob", backend, options), range(5))))
        server.before = lambda _: None
        with Journal(tmp_path / "journal.sqlite") as journal:
            results = asyncio.run(asked(journal, open_agent("bob", backend, options), range(5)))
            assert all(isinstance(r, Answered) and r.reply for r in results)
            assert len(server.created) == 1


def test_a_cap_holds_though_no_usage_is_told(faulty: FaultyServer, tmp_path: Path) -> None:
    bare = completion()
    del bare["usage"]
    faulty.script = [bare] * 1000
    with Journal(tmp_path / "journal.sqlite", ledger=Ledger(run=Caps(tokens=1000))) as journal:
        asyncio.run(asked(journal, at(faulty.base_url), range(60)))
        assert 3 < len(journal) < 15
        (cost,) = journal.costs()
        assert 700 < cost.usage.prompt + cost.usage.completion <= 1000
    with Journal(tmp_path / "journal.sqlite", ledger=Ledger(run=Caps(tokens=1000))) as journal:
        before = len(faulty.requests)
        asyncio.run(asked(journal, at(faulty.base_url), range(60)))
        assert len(faulty.requests) == before, "it holds over the sessions of a run"


def test_of_half_a_usage_the_missing_half_is_charged_as_reserved() -> None:
    async def run() -> None:
        ledger = Ledger(run=Caps(tokens=1000))
        ticket = await ledger.admit("ada", "s", None, "x" * 100, 20)
        assert ticket is not None
        assert ledger.charge_for(ticket, Usage(7, 5, 3)) == Usage(7, 5, 3)
        assert ledger.charge_for(ticket, Usage(7, 0, 3)) == Usage(7, 20, 3)
        assert ledger.charge_for(ticket, Usage()) == Usage(100, 20)
        free = await Ledger().admit("ada", "s", None, "x" * 100, 20)
        assert free is not None
        assert Ledger().charge_for(free, Usage()) == Usage()

    asyncio.run(run())


def test_an_endpoint_that_has_never_answered_is_given_up_before_every_call_was_tried_to_the_end(tmp_path: Path) -> None:
    class Down(FaultyServer):
        def step(self, body: dict[str, Any]) -> str | dict[str, Any]:
            return "status=500"

    with Down() as server, Journal(tmp_path / "journal.sqlite") as journal:
        error = unusable(asyncio.run(asked(journal, at(server.base_url, max_retries=9), range(12))))
        assert len(server.requests) <= 12 * 4, "not ten of each"
    assert "HTTP 500" in error.what


def test_a_call_that_fails_at_first_contact_is_tried_to_the_end_once_others_are_answered(tmp_path: Path) -> None:
    class Odd(FaultyServer):
        """Fails with one question eight times, and takes its time with the others."""

        failed = 0

        def step(self, body: dict[str, Any]) -> str | dict[str, Any]:
            if "question 0" not in str(body):
                time.sleep(0.05)  # one at a time asks: the others are not answered before it has failed a few times
            elif self.failed < 8:
                self.failed += 1
                return "status=500"
            return completion()

    with Odd() as server, Journal(tmp_path / "journal.sqlite") as journal:
        done = asyncio.run(asked(journal, at(server.base_url, max_retries=9, backoff_s=0.001), range(6)))
    assert all(isinstance(one, Answered) and one.reply is not None for one in done), done
    assert server.failed == 8
