"""Who cannot be asked is found by free requests; who is asked for it is asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.agents.faulty import FaultyServer
from tests.methods.word_server import Teacher, WordServer

from vivavoce.agents import open_agent
from vivavoce.agents.journal import Journal
from vivavoce.agents.reaching import reach
from vivavoce.errors import AgentUnusable
from vivavoce.records import Sampling


def reached(journal: Path, *options: dict[str, Any], backend: str = "openai_chat") -> list[str]:
    """The stages of the calls that the journal has after agents with these options were reached for."""

    async def all_of_them(kept: Journal) -> None:
        named = [{"api_key_env": None, "backoff_s": 0.01, **given} for given in options]
        agents = [open_agent(f"a{n}", backend, given) for n, given in enumerate(named)]
        try:
            await reach([(agent, Sampling(max_new_tokens=9)) for agent in agents], kept)
        finally:
            for agent in agents:
                await agent.aclose()

    with Journal(journal) as kept:
        asyncio.run(all_of_them(kept))
        return [call.stage for call in kept]


@pytest.mark.parametrize(("listed", "model"), [(["ada"], "ada"), (["ada:latest"], "ada"), ([], "whatever")])
def test_who_is_listed_or_whose_endpoint_has_no_list_is_not_asked(
    listed: Sequence[str], model: str, tmp_path: Path
) -> None:
    with WordServer({"ada": Teacher(1, 5)}, listed=listed) as server:
        assert reached(tmp_path / "j", {"base_url": server.base_url, "model": model}) == []
        assert server.requests == 0


def test_who_is_not_listed_is_asked_one_question_that_is_kept(tmp_path: Path) -> None:
    with WordServer({"alias": Teacher(1, 5)}, listed=["ada"]) as server:
        for _ in range(2):
            assert reached(tmp_path / "j", {"base_url": server.base_url, "model": "alias"}) == ["reach"]
        assert server.requests == 1
        with pytest.raises(AgentUnusable, match="no model nobody"):
            reached(tmp_path / "k", {"base_url": server.base_url, "model": "nobody"})


@pytest.mark.parametrize("backend", ["openai_chat", "anthropic_messages"])
def test_an_address_at_which_nobody_is_is_told(backend: str, tmp_path: Path) -> None:
    with pytest.raises(AgentUnusable, match="cannot answer any call: unreachable") as error:
        reached(tmp_path / "j", {"base_url": "http://127.0.0.1:9", "model": "ada"}, backend=backend)
    assert "whether the server is up" in error.value.do


def test_who_has_answered_before_needs_no_endpoint(tmp_path: Path) -> None:
    with WordServer({"alias": Teacher(1, 5)}, listed=["ada"]) as server:
        reached(tmp_path / "j", {"base_url": server.base_url, "model": "alias"})
    assert reached(tmp_path / "j", {"base_url": server.base_url, "model": "alias"}) == ["reach"]
    with pytest.raises(AgentUnusable, match="unreachable"):
        reached(tmp_path / "k", {"base_url": server.base_url, "model": "alias"})


@pytest.mark.parametrize("backend", ["openai_chat", "anthropic_messages"])
def test_a_key_that_is_not_taken_is_told_without_a_call(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-wrong-0123456789")
    with FaultyServer() as server:
        server.lists = "status=401"
        given = {"base_url": server.base_url, "model": "ada", "api_key_env": "TEST_KEY"}
        with pytest.raises(AgentUnusable, match="cannot answer any call: auth") as error:
            reached(tmp_path / "j", given, backend=backend)
        assert "check the key in $TEST_KEY" in error.value.do
        assert "sk-wrong" not in str(error.value)


def test_a_list_that_cannot_be_read_or_is_forbidden_says_nothing(tmp_path: Path) -> None:
    with FaultyServer() as server:
        for server.lists in ("status=403", "status=500", "body=<html>", 'body={"data": 3}', "truncated", "reset"):
            assert reached(tmp_path / "j", {"base_url": server.base_url, "model": "ada"}) == []
        assert not server.requests
