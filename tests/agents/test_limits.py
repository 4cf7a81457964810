"""Limits: an endpoint is asked for as much as it bears, at the pace that it allows, and fairly among agents."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest
from tests.agents.faulty import FaultyServer

from vivavoce.agents import Agent, open_agent
from vivavoce.agents.journal import Journal
from vivavoce.agents.limits import Limits, limits_of
from vivavoce.debate.prompting import prompt_set
from vivavoce.debate.rounds import Committee, debate_all
from vivavoce.debate.rules import DebateRules
from vivavoce.debate.speaking import Member
from vivavoce.errors import AgentError
from vivavoce.records import Message, Problem, Sampling
from vivavoce.tasks import open_task

ASK: list[Message] = [{"role": "user", "content": "What is 2 + 2?"}]


async def pressed(limits: Limits, bears: float, chance: float, calls: int, seed: int = 0) -> tuple[int, list[float]]:
    """Calls at an endpoint that bears so many at once and refuses by chance too: refusals, and windows over time."""
    rng, busy, refusals, windows = random.Random(seed), 0, 0, list[float]()

    async def one() -> None:
        nonlocal busy, refusals
        tries = 0
        while True:
            await limits.enter("ada", 0, first=tries > 0)
            tries += 1
            busy += 1
            refused = busy > bears or rng.random() < chance
            await asyncio.sleep(0 if refused else 0.002)
            busy -= 1
            windows.append(limits.window)
            if refused:
                refusals += 1
                limits.refused()
                await asyncio.sleep(0.002)
                limits.leave("ada")
                continue
            limits.answered()
            limits.leave("ada")
            return

    await asyncio.gather(*(one() for _ in range(calls)))
    return refusals, windows


def test_the_window_finds_what_an_endpoint_bears_and_stays_near_it() -> None:
    limits = Limits(64)
    refusals, windows = asyncio.run(pressed(limits, bears=8, chance=0.0, calls=1500))
    late = windows[len(windows) // 2 :]
    assert 5 < sum(late) / len(late) < 12
    assert refusals < 450, "an endpoint that is asked for 64 at once refuses seven of eight"


def test_a_refusal_by_chance_costs_next_to_nothing() -> None:
    _, windows = asyncio.run(pressed(Limits(64), bears=1000, chance=0.02, calls=3000))
    assert sum(windows) / len(windows) > 60


def test_the_window_opens_again_when_the_crowd_is_gone() -> None:
    limits = Limits(64)
    asyncio.run(pressed(limits, bears=2, chance=0.0, calls=200))
    assert limits.window < 8

    async def later() -> None:
        await pressed(limits, bears=1000, chance=0.0, calls=400)

    asyncio.run(later())
    assert limits.window == 64


async def spread(limits: Limits, calls: int, tokens: int = 0, correction: int = 0) -> list[float]:
    """Seconds after which each of the calls got its turn."""
    began, got = time.monotonic(), list[float]()

    async def one() -> None:
        await limits.enter("ada", tokens)
        got.append(time.monotonic() - began)
        limits.leave("ada", correction)

    await asyncio.gather(*(one() for _ in range(calls)))
    return got


def test_requests_keep_to_their_number_a_minute_and_evenly() -> None:
    limits = Limits(64)
    limits.narrow(64, requests_per_minute=60 * 50)
    got = asyncio.run(spread(limits, 40))
    assert 0.65 < got[-1] < 5, "40 requests at 50 a second, of which 0.1 s may come at once"
    assert sum(t < got[-1] / 2 for t in got) < 30


def test_tokens_keep_to_their_number_a_minute_and_are_put_right_afterwards() -> None:
    limits = Limits(64)
    limits.narrow(64, tokens_per_minute=60 * 10_000)
    assert 0.75 < asyncio.run(spread(limits, 10, tokens=1000))[-1] < 5
    limits = Limits(64)
    limits.narrow(64, tokens_per_minute=60 * 10_000)
    assert asyncio.run(spread(limits, 10, tokens=1000, correction=-900))[-1] < 0.7, "fewer were taken than expected"


def test_of_two_agents_bounds_the_tighter_counts_and_equal_names_share_limits() -> None:
    async def run() -> None:
        limits = limits_of("there", 64)
        assert limits_of("there", 32) is limits
        assert limits_of("elsewhere", 64) is not limits
        limits.narrow(32)
        limits.narrow(48, requests_per_minute=100)
        assert (limits.max_concurrency, limits.window) == (32, 32)

    asyncio.run(run())


def test_an_agent_whose_calls_hang_leaves_its_neighbour_half_of_the_turns() -> None:
    async def run() -> tuple[int, int]:
        limits, hung = Limits(8), list[asyncio.Task[None]]()

        async def hang() -> None:
            await limits.enter("slow", 0)
            await asyncio.sleep(30)

        served = 0

        async def work() -> None:
            nonlocal served
            await limits.enter("quick", 0)
            await asyncio.sleep(0.001)
            served += 1
            limits.leave("quick")

        work_list = [work() for _ in range(200)]
        hung += [asyncio.create_task(hang()) for _ in range(4)]
        quick = [asyncio.create_task(w) for w in work_list]
        hung += [asyncio.create_task(hang()) for _ in range(100)]
        await asyncio.wait_for(asyncio.gather(*quick), 20)
        held = limits.in_flight
        for task in hung:
            task.cancel()
        await asyncio.gather(*hung, return_exceptions=True)
        return served, held

    served, held = asyncio.run(run())
    assert served == 200
    assert held == 8, "when nobody else waits, the slow one may have every turn"


def test_a_call_that_is_given_up_leaves_its_turn_to_the_next() -> None:
    async def run() -> None:
        limits = Limits(1)
        await limits.enter("ada", 0)
        waiting = [asyncio.create_task(limits.enter("ada", 0)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        limits.leave("ada")  # the turn goes to the second
        waiting[1].cancel()  # in the moment in which it came
        await asyncio.wait_for(waiting[2], 5)
        assert limits.in_flight == 1
        limits.leave("ada")
        assert limits.in_flight == 0

    asyncio.run(run())


def agent_at(server: FaultyServer, name: str = "ada", **options: Any) -> Agent:
    settings = {"backoff_s": 0.01, "max_retries": 2, "timeout_s": 0.3, "api_key_env": None, **options}
    return open_agent(name, "openai_chat", {"model": name, "base_url": server.base_url, **settings})


def test_a_dead_endpoint_fails_at_once_and_is_tried_now_and_then_until_it_answers(
    faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.script = ["status=500"] * 20

    async def run() -> None:
        agent = agent_at(faulty, give_up_s=0.2)
        with pytest.raises(AgentError, match="3 attempts"):
            await agent.reply(ASK, Sampling(), 1)
        await asyncio.sleep(0.3)
        before = len(faulty.requests)
        ended = await asyncio.gather(*(agent.reply(ASK, Sampling(), i) for i in range(10)), return_exceptions=True)
        assert all(isinstance(error, AgentError) for error in ended)
        assert sum("answered nothing" in str(error) for error in ended) == 9
        assert len(faulty.requests) - before == 1, "one call tries, and only once"
        faulty.script = []
        monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 31)
        assert (await agent.reply(ASK, Sampling(), 2)).text
        ended = await asyncio.gather(*(agent.reply(ASK, Sampling(), i) for i in range(10)))
        assert len(ended) == 10
        await agent.aclose()

    asyncio.run(run())


def test_a_teacher_that_never_answers_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    rules = DebateRules(max_rounds=2, stop="cap_only", reflect=False, feedback_from="none")
    problems = [Problem(f"q{i}", f"What is 2 + 2, in world {i}?", "4") for i in range(60)]

    async def run(good: FaultyServer, dead: FaultyServer) -> None:
        agents = [agent_at(good, "ada"), agent_at(dead, "bob", give_up_s=0.5, max_concurrency=8)]
        members = tuple(Member(agent, "teacher", Sampling()) for agent in agents)
        with Journal(tmp_path / "journal.sqlite") as journal:
            committee = Committee(members, rules, prompt_set("general"), open_task("gsm8k", {}), journal)
            graphs = await asyncio.wait_for(debate_all(problems, committee, in_flight=16), 60)
        for agent in agents:
            await agent.aclose()
        assert all(len(g.answers(None, ["ada"])) == 2 for g in graphs)
        assert not any(g.answers(None, ["bob"]) for g in graphs)
        assert len(dead.requests) < 60, "without giving up it would be 120 calls of 3 attempts"

    with FaultyServer() as good, FaultyServer() as dead:
        dead.script = ["stall"] * 1000
        asyncio.run(run(good, dead))
