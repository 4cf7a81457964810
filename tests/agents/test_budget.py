"""Caps hold while calls are in flight, whatever the order in which they end, and over the sessions of a run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.agents.budget import Caps, Ledger, Price, money
from vivavoce.agents.journal import Answered, Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.errors import AgentError, BudgetReached
from vivavoce.records import Message, Reply, Sampling, Usage

PRICE = Price(prompt=2.0, completion=10.0, cached=0.5)
SAMPLING = Sampling(max_new_tokens=50)


def ask(i: int) -> list[Message]:
    return [{"role": "user", "content": f"question {i} " + "x" * (7 * i % 40)}]


def slow(name: str, spent: list[Usage], seed: int = 0, latency_s: float = 0.002) -> Scripted:
    """Answers after a while that differs, and notes what each answer cost."""
    rng = random.Random(seed)

    async def respond(messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        await asyncio.sleep(rng.random() * latency_s)
        usage = Usage(len(messages[0]["content"]), 1 + seed % sampling.max_new_tokens)
        spent.append(usage)
        return Reply("x", usage=usage)

    return Scripted(name, respond, identity=name)


def test_a_price_counts_cached_tokens_apart() -> None:
    assert PRICE.of(Usage(1_000_000, 100_000, 400_000)) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.1 * 10)
    assert Price(prompt=2, completion=0).of(Usage(1_000_000, 0, 400_000)) == pytest.approx(2)
    assert [money(x) for x in (0, 12.3, 0.0042, 0.0000123, 1234.5)] == [
        "0.00",
        "12.30",
        "0.0042",
        "1.2e-05",
        "1,234.50",
    ]


async def everybody(journal: Journal, agents: Sequence[Scripted], calls: int, **tags: Any) -> list[Any]:
    asked = (journal.call(agents[i % len(agents)], ask(i), SAMPLING, i, stage="s", **tags) for i in range(calls))
    return await asyncio.gather(*asked, return_exceptions=True)


@given(
    cap=st.integers(50, 6000),
    kind=st.sampled_from(["tokens", "money", "calls"]),
    scope=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_no_cap_is_ever_passed_and_what_was_in_flight_is_kept(
    tmp_path_factory: pytest.TempPathFactory, cap: int, kind: str, scope: bool, seed: int
) -> None:
    amount = {"tokens": cap, "money": cap / 1e6 * 4, "calls": cap // 100}[kind]
    caps = Caps(**{kind: amount})
    spent: list[Usage] = []
    ledger = Ledger({"ada": PRICE}, agents={"ada": caps}) if scope else Ledger({"ada": PRICE}, run=caps)
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    with Journal(path, ledger=ledger) as journal:
        results = asyncio.run(everybody(journal, [slow("ada", spent, seed)], 60))
        answered = [r for r in results if isinstance(r, Answered)]
        assert all(isinstance(r, Answered | BudgetReached) for r in results)
        assert len(journal) == len(answered) == len(spent), "whatever was paid is written down"
    paid = sum(spent, Usage())
    total = {"tokens": paid.prompt + paid.completion, "money": PRICE.of(paid), "calls": len(spent)}[kind]
    assert total <= amount
    if len(answered) < 60:
        most = max(len(ask(i)[0]["content"]) for i in range(60)) + 150 + SAMPLING.max_new_tokens
        reserved = {"tokens": most, "money": PRICE.of(Usage(most, 50)), "calls": 1}[kind]
        assert total + reserved > amount, "it stops only where another call would not fit"


def test_a_raised_cap_goes_on_where_the_lower_one_stopped_and_asks_nothing_twice(tmp_path: Path) -> None:
    spent: list[Usage] = []
    ada = slow("ada", spent)
    for cap in (10, 10, 25, 60):
        with Journal(tmp_path / "journal.sqlite", ledger=Ledger(run=Caps(calls=cap))) as journal:
            results = asyncio.run(everybody(journal, [ada], 60))
            assert len(spent) == len(journal) == cap
            assert sum(isinstance(r, BudgetReached) for r in results) == 60 - cap
    with pytest.raises(BudgetReached, match=r"60 calls of 60 calls spent|60 of 60 calls"):
        _call_again(tmp_path / "journal.sqlite", ada)


def _call_again(path: Path, agent: Scripted) -> None:
    with Journal(path, ledger=Ledger(run=Caps(calls=60))) as journal:
        asyncio.run(journal.call(agent, ask(99), SAMPLING, 99))


def test_calls_that_wait_for_room_get_it_as_soon_as_others_cost_less_than_they_reserved(tmp_path: Path) -> None:
    """Each call reserves 50 new tokens and the bytes of its prompt, and takes two: all fit one after the other."""

    async def respond(*_: Any) -> Reply:
        await asyncio.sleep(0.001)
        return Reply("x", usage=Usage(1, 1))

    most = 60 + len('{"messages":[{"content":"question 0 ","role":"user"}],"sampling":{}}') + 120
    with Journal(tmp_path / "journal.sqlite", ledger=Ledger(run=Caps(tokens=2 * most))) as journal:
        results = asyncio.run(everybody(journal, [Scripted("ada", respond)], 20))
        assert all(isinstance(r, Answered) for r in results)


def test_a_teacher_at_its_cap_holds_up_nobody_else_before_the_run_stops(tmp_path: Path) -> None:
    spent: list[Usage] = []
    both = [slow("ada", spent), slow("bob", spent)]
    with Journal(tmp_path / "journal.sqlite", ledger=Ledger(agents={"ada": Caps(calls=3)})) as journal:
        results = asyncio.run(everybody(journal, both, 60))
        by_agent = {c.agent: c.calls for c in journal.costs()}
    assert by_agent == {"ada": 3, "bob": 30}, "bob's calls were under way before ada's cap was known to be reached"
    reached = [r for r in results if isinstance(r, BudgetReached)]
    assert len(reached) == 27
    assert "`ada`" in reached[0].what


def test_a_question_at_its_cap_is_refused_without_a_record_and_the_same_after_a_restart(tmp_path: Path) -> None:
    async def asked(journal: Journal, ada: Scripted) -> list[list[bool]]:
        async def one(question: str) -> list[bool]:
            texts: list[Message] = [{"role": "user", "content": f"{question} {i} {'x' * 60}"} for i in range(6)]
            calls = (
                journal.call(ada, [text], SAMPLING, i, stage="s", question=question) for i, text in enumerate(texts)
            )
            return [a.refused for a in await asyncio.gather(*calls)]

        return list(await asyncio.gather(*map(one, "abcdefgh")))

    caps, spent, by_attempt = Caps(tokens=400), list[Usage](), []
    for seed in range(3):
        with Journal(tmp_path / "journal.sqlite", ledger=Ledger(question=caps)) as journal:
            by_attempt.append(asyncio.run(asked(journal, slow("ada", spent, seed))))
            assert len(journal) == len(spent) == 8 * by_attempt[0][0].count(False)
    assert by_attempt[0] == by_attempt[1] == by_attempt[2]
    assert 0 < by_attempt[0][0].count(True) < 6
    with Journal(tmp_path / "journal.sqlite", ledger=Ledger(question=Caps(tokens=4000))) as journal:
        assert not any(map(any, asyncio.run(asked(journal, slow("ada", spent)))))


def test_seconds_count_calls_side_by_side_once_and_over_sessions(tmp_path: Path) -> None:
    async def respond(*_: Any) -> str:
        await asyncio.sleep(0.1)
        return "x"

    def session(cap: float) -> tuple[int, float]:
        with Journal(tmp_path / "journal.sqlite", ledger=Ledger(run=Caps(seconds=cap))) as journal:

            async def in_turn() -> None:
                for i in range(0, 40, 10):
                    await asyncio.gather(
                        *(journal.call(Scripted("ada", respond), ask(j), SAMPLING, j) for j in range(i, i + 10))
                    )

            with pytest.raises(BudgetReached, match="s of"):
                asyncio.run(in_turn())
            return len(journal), journal.ledger.run.seconds()

    assert session(0.05)[0] == 10
    calls, seconds = session(0.15)
    assert calls == 20
    assert 0.2 <= seconds < 0.4
    assert session(0.15)[0] == 20


def test_failed_calls_cost_what_the_endpoint_told(tmp_path: Path) -> None:
    def respond(*_: Any) -> str:
        raise AgentError("empty", "again", Usage(100, 20))

    with Journal(tmp_path / "journal.sqlite", ledger=Ledger({"ada": PRICE})) as journal:
        asyncio.run(journal.call(Scripted("ada", respond), ask(0), SAMPLING, 0))
        assert journal.ledger.run.money == pytest.approx(PRICE.of(Usage(100, 20)))
    with Journal(tmp_path / "journal.sqlite", retry_failed=True) as journal:
        asyncio.run(journal.call(Scripted("ada", respond), ask(0), SAMPLING, 0))
        (cost,) = journal.costs()
        assert (cost.calls, cost.failures, cost.usage) == (1, 1, Usage(200, 40)), "both attempts were paid"


def test_a_call_that_is_cut_off_counts_as_spent_and_one_that_waited_does_not(tmp_path: Path) -> None:
    """Nobody knows whether the endpoint charged it, so the cap holds whatever it did; the next session knows it too."""

    async def respond(_messages: Any, _sampling: Any, seed: int) -> str:
        await asyncio.sleep(60 if seed == 0 else 0)
        return "x"

    async def run(journal: Journal) -> None:
        ada = Scripted("ada", respond)
        first, second, third = (asyncio.create_task(journal.call(ada, ask(i), SAMPLING, i)) for i in range(3))
        await asyncio.sleep(0.01)
        third.cancel()
        await asyncio.sleep(0.01)
        first.cancel()
        assert (await second).reply is not None
        with pytest.raises(BudgetReached):
            await journal.call(ada, ask(3), SAMPLING, 3)

    for cap, calls in ((2, 1), (3, 2)):
        with Journal(tmp_path / "journal.sqlite", ledger=Ledger(run=Caps(calls=cap))) as journal:
            if cap == 2:
                asyncio.run(run(journal))
            else:
                asyncio.run(journal.call(Scripted("ada", respond), ask(4), SAMPLING, 4))
            assert len(journal) == calls
            assert [(agent, n) for agent, n, _ in journal.under_way()] == [("ada", 1)]
            with pytest.raises(BudgetReached):
                asyncio.run(journal.call(Scripted("ada", respond), ask(5), SAMPLING, 5))
