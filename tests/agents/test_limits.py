"""Limits: an endpoint is asked for as much as it bears, at the pace that it allows, and fairly among agents."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from tests.agents.faulty import FaultyServer, completion
from tests.agents.simulated import Server, asked, simulate

from vivavoce.agents import Agent, open_agent
from vivavoce.agents.journal import Journal
from vivavoce.agents.limits import EndpointLimits, limits_of
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.table import Member, Setting, hold_all
from vivavoce.errors import AgentError
from vivavoce.protocols import debate_reflect
from vivavoce.records import Message, Problem, Reply, Sampling
from vivavoce.tasks import open_task

ASK: list[Message] = [{"role": "user", "content": "What is 2 + 2?"}]


def rate(server: Server, calls: int, **how: Any) -> float:
    """Answers a second."""
    return calls / simulate(asked(server, calls, **how))[0]


CLEAN = rate(Server(), 10_000)
"""64 at once, and none is turned away."""


@pytest.mark.parametrize(
    ("chance", "share"), [(0.02, 0.85), (0.05, 0.8), (0.1, 0.7), (0.2, 0.45), (0.33, 0.35), (0.6, 0.1)]
)
def test_refusals_by_chance_cost_the_calls_that_they_hit_and_no_others(chance: float, share: float) -> None:
    server = Server(chance=chance)
    assert rate(server, 10_000, max_retries=20) > share * CLEAN
    assert server.answered == 10_000


@pytest.mark.parametrize("slots", [60, 32, 16, 8, 3, 1])
@pytest.mark.parametrize("chance", [0.0, 0.05])
def test_a_limit_of_requests_at_once_is_found_filled_and_not_stormed(slots: int, chance: float) -> None:
    server = Server(slots=slots, chance=chance)
    calls = max(500, 150 * slots)
    assert rate(server, calls) > 0.8 * (1 - chance) * slots / 0.0505
    assert server.refused < (0.5 if slots > 3 else 0.8) * calls
    assert server.most_at_once == slots


def test_more_slots_than_a_few_are_filled_too() -> None:
    server = Server(slots=64)
    assert rate(server, 10_000, in_flight=1000, max_concurrency=256) > 0.9 * CLEAN
    assert server.refused < 0.2 * 10_000


@pytest.mark.parametrize("wait_s", [0.1, 0.5, 5.0])
@pytest.mark.parametrize("latency_s", [0.002, 0.05, 0.5, 2.0])
def test_a_limit_of_requests_a_minute_that_nobody_told_of_is_filled_and_not_stormed(
    latency_s: float, wait_s: float
) -> None:
    server = Server(latency_s, per_minute=600, wait_s=wait_s)
    assert rate(server, 1800) > 0.85 * 10
    assert server.refused < 0.5 * 1800


def test_a_limit_that_allows_no_two_at_once_is_mostly_filled() -> None:
    server = Server(per_minute=600, burst=1)
    assert rate(server, 1800) > 0.75 * 10
    assert server.refused < 0.6 * 1800


def test_a_quota_of_each_minute_is_used_up_and_the_next_one_waited_for() -> None:
    server = Server(quota=600)
    assert rate(server, 3600) > 0.95 * 10
    assert server.refused < 0.4 * 3600


def test_the_window_opens_again_when_the_crowd_is_gone() -> None:
    async def run() -> tuple[float, float]:
        limits = EndpointLimits(64)

        async def call(server: Server) -> None:
            while True:
                turn = await limits.enter("ada", 0)
                wait_s = 0.0
                try:
                    outcome = await server.ask()
                    if isinstance(outcome, Reply):
                        return limits.count_answered(turn)
                    limits.count_refused(turn, outcome.wait_s or 0.0)
                    wait_s = await limits.stay(outcome.wait_s or 0.0)
                finally:
                    limits.leave(turn)
                await asyncio.sleep(wait_s)

        crowd, free = Server(slots=2), Server()
        await asyncio.gather(*(call(crowd) for _ in range(200)))
        narrow = limits.window
        await asyncio.gather(*(call(free) for _ in range(800)))
        return narrow, limits.window

    narrow, wide = simulate(run())
    assert narrow < 8
    assert wide == 64


def test_a_refusal_that_is_everybodys_stops_all_and_another_one_only_itself() -> None:
    async def run(everybody: bool) -> list[float]:
        limits, sent = EndpointLimits(4), list[float]()

        async def call(i: int) -> None:
            turn = await limits.enter("ada", 0)
            sent.append(limits.now())
            if i == 0:
                limits.count_refused(turn, 60.0, everybody)
            else:
                await asyncio.sleep(0.1)
                limits.count_answered(turn)
            limits.leave(turn)

        await asyncio.gather(*(call(i) for i in range(40)))
        return sent

    alone, together = simulate(run(False)), simulate(run(True))
    assert max(alone) < 2
    assert sum(at >= 60 for at in together) == 39


async def spread(limits: EndpointLimits, calls: int, tokens: int = 0, correction: int = 0) -> list[float]:
    """Seconds after which each of the calls got its turn."""
    got = list[float]()

    async def one() -> None:
        turn = await limits.enter("ada", tokens)
        got.append(limits.now())
        limits.leave(turn, correction)

    await asyncio.gather(*(one() for _ in range(calls)))
    return got


def test_requests_keep_to_their_number_a_minute_and_evenly() -> None:
    limits = EndpointLimits(64)
    limits.narrow(64, requests_per_minute=60 * 50)
    got = simulate(spread(limits, 40))
    assert 0.65 < got[-1] < 0.85, "40 requests at 50 a second, of which 0.1 s may come at once"
    assert sum(t < got[-1] / 2 for t in got) < 30


def test_tokens_keep_to_their_number_a_minute_and_are_put_right_afterwards() -> None:
    limits = EndpointLimits(64)
    limits.narrow(64, tokens_per_minute=60 * 10_000)
    assert 0.75 < simulate(spread(limits, 10, tokens=1000))[-1] < 1
    limits = EndpointLimits(64)
    limits.narrow(64, tokens_per_minute=60 * 10_000)
    got = simulate(spread(limits, 10, tokens=1000, correction=-900))
    assert got[-1] < 0.7, "fewer were taken than expected"


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
        limits, hung = EndpointLimits(8), list[asyncio.Task[None]]()

        async def hang() -> None:
            await limits.enter("slow", 0)
            await asyncio.sleep(30)

        served = 0

        async def work() -> None:
            nonlocal served
            turn = await limits.enter("quick", 0)
            await asyncio.sleep(0.001)
            served += 1
            limits.leave(turn)

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
        limits = EndpointLimits(1)
        turn = await limits.enter("ada", 0)
        waiting = [asyncio.create_task(limits.enter("ada", 0)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        limits.leave(turn)  # the turn goes to the second
        waiting[1].cancel()  # in the moment in which it came
        third = await asyncio.wait_for(waiting[2], 5)
        assert limits.in_flight == 1
        limits.leave(third)
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


def test_a_teacher_that_falls_silent_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    rules = debate_reflect.Options(max_rounds=2, stop="cap_only", reflect=False, feedback_from="none")
    problems = [Problem(f"q{i}", f"What is 2 + 2, in world {i}?", "4") for i in range(60)]

    async def run(good: FaultyServer, dead: FaultyServer) -> None:
        agents = [agent_at(good, "ada"), agent_at(dead, "bob", give_up_s=0.5, max_concurrency=8)]
        members = tuple(Member(agent, "teacher", Sampling()) for agent in agents)
        with Journal(tmp_path / "journal.sqlite") as journal:
            setting = Setting(
                debate_reflect.run, members, rules, prompt_set("general"), open_task("gsm8k", {}), journal
            )
            graphs = await asyncio.wait_for(hold_all(problems, setting, in_flight=16), 60)
        for agent in agents:
            await agent.aclose()
        assert all(len(g.answers(None, ["ada"])) == 2 for g in graphs)
        assert sum(len(g.answers(None, ["bob"])) for g in graphs) == 1
        assert len(dead.requests) < 60, "without giving up it would be 120 calls of 3 attempts"

    with FaultyServer() as good, FaultyServer() as dead:
        dead.script = [completion(), *["stall"] * 1000]
        asyncio.run(run(good, dead))
