"""The journal pays once: killed, cancelled, asked twice at the same time, or read by a report."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.agents.drive import CALLS, IN_FLIGHT
from tests.command import python

from vivavoce.agents.journal import Answered, Journal, key_of
from vivavoce.agents.scripted import Scripted
from vivavoce.agents.stored_calls import decompress
from vivavoce.errors import AgentError, DataError, RunConflict
from vivavoce.records import Message, Reply, Sampling, Token, Usage

ASK: list[Message] = [{"role": "user", "content": "What is 2 + 2?"}]
SAMPLING = Sampling()


def parrot(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    return f"{messages[-1]['content']} {seed}"


def ask(journal: Journal, agent: Scripted, seed: int = 1, **tags: Any) -> Answered:
    return asyncio.run(journal.call(agent, ASK, SAMPLING, seed, **tags))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "journal.sqlite"


def test_a_killed_run_repeats_no_completed_call_and_ends_the_same(tmp_path: Path) -> None:
    def contents(journal: Path) -> dict[str, Any]:
        with Journal(journal, read_only=True) as opened:
            return {c.key: (c.seed, c.messages, c.reply and c.reply.text, str(c.error), c.stage) for c in opened}

    def noted() -> list[int]:
        return [int(line) for line in log.read_text().splitlines()] if log.exists() else []

    journal, log = tmp_path / "killed.sqlite", tmp_path / "log"
    program = Path(__file__).with_name("drive.py")
    draw = random.Random(7)
    before, done = list[int](), set[int]()
    for target in sorted(draw.sample(range(CALLS - 50), 4)):
        process = python(program, journal, log)
        while len(noted()) < target + IN_FLIGHT and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = noted()
        done = {seed for seed, *_ in contents(journal).values()}
        assert done <= set(before)
        assert len(set(before) - done) <= IN_FLIGHT  # what was lost was in flight
    assert python(program, journal, log).wait() == 0
    assert not done & set(noted()[len(before) :])
    counts = Counter(noted())
    assert len(counts) == CALLS
    assert sum(counts.values()) <= CALLS + 4 * IN_FLIGHT
    whole = tmp_path / "whole.sqlite"
    assert python(program, whole, tmp_path / "other").wait() == 0
    assert contents(journal) == contents(whole)


def test_a_reply_is_in_the_file_before_the_caller_sees_it(path: Path) -> None:
    async def run() -> None:
        with Journal(path) as journal:
            for seed in range(20):
                answered = await journal.call(Scripted("ada", parrot), ASK, SAMPLING, seed)
                with Journal(path, read_only=True) as other:
                    assert other[answered.key].reply == answered.reply

    asyncio.run(run())


def test_a_second_asking_is_free_and_equal_in_every_field(path: Path) -> None:
    tokens = (Token("Vier ", -0.25), Token("€\ud7ff", -1e-9))
    reply = Reply("Vier €\ud7ff", "length", Usage(3, 2, 1), "m-1", tokens, 0.125)
    agent = Scripted("ada", lambda *_: reply)
    with Journal(path) as journal:
        first = ask(journal, agent)
        assert (first.reply, first.error, first.cached) == (reply, None, False)
        assert ask(journal, agent) == Answered(first.key, reply, cached=True)
    with Journal(path) as journal:
        assert ask(journal, agent) == Answered(first.key, reply, cached=True)
    assert agent.calls == 1


def test_the_key_is_what_determines_the_reply_and_nothing_else(path: Path) -> None:
    ada, bob = Scripted("ada", parrot, identity="same"), Scripted("bob", parrot, identity="same")
    key = key_of(ada, ASK, SAMPLING, 1)
    assert key == key_of(bob, ASK, SAMPLING, 1)
    assert key == key_of(ada, [{"content": ASK[0]["content"], "role": "user"}], SAMPLING, 1)
    others = [
        key_of(Scripted("ada", parrot, identity="other"), ASK, SAMPLING, 1),
        key_of(ada, [*ASK, *ASK], SAMPLING, 1),
        key_of(ada, ASK, Sampling(temperature=0.31), 1),
        key_of(ada, ASK, Sampling(stop=("x",)), 1),
        key_of(ada, ASK, SAMPLING, 2),
    ]
    assert len({key, *others}) == 6
    with Journal(path) as journal:
        assert not ask(journal, ada, stage="debate", problem="p1").cached
        assert ask(journal, bob, stage="exam").cached


def test_a_failure_is_a_record_and_stays_one_until_asked_to_retry(path: Path) -> None:
    def respond(*_: Any) -> str:
        if broken:
            raise AgentError("server", "down")
        return "up again"

    broken = True
    agent = Scripted("ada", respond)
    with Journal(path) as journal:
        first = ask(journal, agent)
        second = ask(journal, agent)
    assert first.error is not None
    assert second.error is not None
    assert (first.error.reason, first.error.detail, first.cached) == ("server", "down", False)
    assert (second.error.reason, second.error.detail, second.cached) == ("server", "down", True)
    assert agent.calls == 1
    broken = False
    with Journal(path, retry_failed=True) as journal:
        healed = ask(journal, agent)
        assert healed.reply is not None
        assert healed.reply.text == "up again"
        assert journal[healed.key].attempts == 2
        assert ask(journal, agent).cached
    assert agent.calls == 2


def test_equal_calls_in_flight_share_one(path: Path) -> None:
    async def run() -> list[Answered]:
        async def respond(*_: Any) -> str:
            await asyncio.sleep(0.02)
            return "once"

        agent = Scripted("ada", respond)
        with Journal(path) as journal:
            answers = await asyncio.gather(*(journal.call(agent, ASK, SAMPLING, 1) for _ in range(10)))
        assert agent.calls == 1
        return answers

    answers = asyncio.run(run())
    assert {answered.reply.text for answered in answers if answered.reply} == {"once"}
    assert sum(answered.cached for answered in answers) == 9


def test_a_cancelled_caller_takes_nothing_from_the_others(path: Path) -> None:
    async def run() -> None:
        gate, cancelled = asyncio.Event(), list[int]()

        async def respond(_messages: Any, _sampling: Any, seed: int) -> str:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                cancelled.append(seed)
                raise
            return "fine"

        agent = Scripted("ada", respond)
        with Journal(path) as journal:
            shared = [asyncio.create_task(journal.call(agent, ASK, SAMPLING, 1)) for _ in range(3)]
            alone = asyncio.create_task(journal.call(agent, ASK, SAMPLING, 2))
            await asyncio.sleep(0.01)
            shared[0].cancel()
            alone.cancel()
            await asyncio.sleep(0.01)
            assert cancelled == [2]  # nobody else waited for it
            gate.set()
            results = await asyncio.gather(*shared, alone, return_exceptions=True)
            assert [type(result) for result in results] == [
                asyncio.CancelledError,
                Answered,
                Answered,
                asyncio.CancelledError,
            ]
            assert len(journal) == 1
            assert (await journal.call(agent, ASK, SAMPLING, 2)).reply is not None

    asyncio.run(run())


def test_an_interrupted_event_loop_leaves_a_journal_that_goes_on(path: Path) -> None:
    async def respond(_messages: Any, _sampling: Any, seed: int) -> str:
        if seed % 2:
            await asyncio.sleep(60)
        return "fine"

    async def run() -> None:
        await asyncio.wait_for(asyncio.gather(*(journal.call(agent, ASK, SAMPLING, i) for i in range(20))), 0.2)

    agent = Scripted("ada", respond)
    with Journal(path) as journal:
        with pytest.raises(TimeoutError):
            asyncio.run(run())
        assert len(journal) == 10
        assert ask(journal, agent, seed=0).cached
        assert not ask(journal, agent, seed=20).cached


def test_what_an_ended_loop_left_is_written_with_the_next_call_and_may_be_asked_again(path: Path) -> None:
    agent = Scripted("ada", parrot)
    with Journal(path) as journal:
        ended = asyncio.new_event_loop()
        call = ended.create_task(journal.call(agent, ASK, SAMPLING, 1))
        ended.call_soon(lambda: ended.call_soon(ended.stop))  # after the agent's answer, before it is written
        ended.run_forever()
        assert agent.calls == 1
        assert len(journal) == 0
        for seed in (2, 1):
            repeated = asyncio.run(asyncio.wait_for(journal.call(agent, ASK, SAMPLING, seed), 10))
            assert repeated.reply is not None
        assert len(journal) == 2
        ended.run_until_complete(call)
        ended.close()


def test_a_bug_in_an_agent_is_raised_to_everybody_and_not_recorded(path: Path) -> None:
    async def run() -> None:
        agent = Scripted("ada", lambda *_: {}["missing"])
        with Journal(path) as journal:
            calls = (journal.call(agent, ASK, SAMPLING, 1) for _ in range(3))
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [KeyError] * 3
            assert len(journal) == 0

    asyncio.run(run())


def test_a_full_disk_is_an_error_for_the_caller(path: Path) -> None:
    with Journal(path) as journal:
        journal._db.execute("PRAGMA max_page_count = 8")
        with pytest.raises(DataError, match=r"cannot write the journal: .*full"):
            ask(journal, Scripted("ada", lambda *_: random.Random(0).randbytes(100_000).hex()))
        journal._db.execute("PRAGMA max_page_count = 1000")
        recorded = journal[ask(journal, Scripted("ada", parrot)).key]
        assert recorded.messages == ASK  # its text was rolled back with the failed call, and is stored now
        assert recorded.reply is not None


def test_the_ledger_adds_up_by_agent_and_stage(path: Path) -> None:
    def respond(messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        if seed == 3:
            raise AgentError("refused")
        return Reply("x", usage=Usage(10, seed, 2))

    ada, bob = Scripted("ada", respond), Scripted("bob", respond)
    calls_seen = list[tuple[str, bool, Usage]]()
    with Journal(path, on_call=lambda *call: calls_seen.append(call)) as journal:
        for seed in (1, 2, 3, 2, 3):
            ask(journal, ada, seed, stage="debate", problem="p", kind="answer")
        ask(journal, bob, 4, stage="debate")
        ask(journal, ada, 1, stage="exam")
        costs = journal.costs()
    with Journal(path, read_only=True) as journal:
        assert journal.costs() == costs
        first = next(iter(journal))
    assert [(c.agent, c.stage, c.calls, c.hits, c.failures, c.usage) for c in costs] == [
        ("ada", "debate", 3, 2, 1, Usage(20, 3, 4)),
        ("ada", "exam", 0, 1, 0, Usage()),
        ("bob", "debate", 1, 0, 0, Usage(10, 4, 2)),
    ]
    assert all(cost.seconds >= 0 for cost in costs)
    assert calls_seen[0] == ("ada", False, Usage(10, 1, 2))
    assert calls_seen[3] == ("ada", True, Usage(10, 2, 2))
    assert (first.stage, first.tags, first.messages, first.sampling, first.seed) == (
        "debate",
        {"problem": "p", "kind": "answer"},
        ASK,
        SAMPLING,
        1,
    )


def test_a_journal_opened_for_reading_answers_what_it_holds(path: Path) -> None:
    agent = Scripted("ada", parrot)
    with Journal(path) as journal:
        ask(journal, agent)
    with Journal(path, read_only=True) as journal:
        assert ask(journal, agent).cached
        with pytest.raises(RunConflict, match="not in the journal"):
            ask(journal, agent, seed=2)
        with pytest.raises(KeyError):
            journal["nothing"]
    assert agent.calls == 1


def test_what_is_no_journal_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no journal"):
        Journal(path, read_only=True)
    text = tmp_path / "text"
    text.write_text("not a database, though long enough to look like one " * 100)
    with pytest.raises(DataError, match="cannot open"):
        Journal(text)
    Journal(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(RunConflict, match="format 99"):
        Journal(path)


def test_two_writers_do_not_corrupt_the_file(path: Path) -> None:
    async def run() -> None:
        agent = Scripted("ada", parrot)
        with Journal(path) as one, Journal(path) as two:
            calls = [j.call(agent, ASK, SAMPLING, seed) for seed in range(50) for j in (one, two)]
            answers = await asyncio.gather(*calls)
            assert len({answered.key for answered in answers}) == len(one) == len(two) == 50
            assert one._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    asyncio.run(run())


def test_long_texts_are_stored_compressed_and_a_journal_from_before_is_read_as_it_is(path: Path) -> None:
    def long(_: Sequence[Message], __: Sampling, seed: int) -> str:
        return f" \n{seed}: " + "Three apples and four pears are seven pieces of fruit, né? " * 40 + "\n"

    with Journal(path) as journal:
        answered = [ask(journal, Scripted("ada", long), seed=seed) for seed in range(3)]
        stored = journal._db.execute("SELECT text FROM texts WHERE typeof(text) = 'blob'").fetchall()
        assert len(stored) == 3
        assert all(len(text) < 400 for (text,) in stored)
        for (text,) in stored:  # as the format before kept it
            journal._db.execute("UPDATE texts SET text = ? WHERE text = ?", (decompress(text), text))
        journal._db.execute("PRAGMA user_version = 2")
    with Journal(path) as journal:
        second = [ask(journal, Scripted("ada", parrot), seed=seed) for seed in range(4)]
        assert [a.reply for a in second[:3]] == [a.reply for a in answered]
        assert [a.cached for a in second] == [True, True, True, False]
        assert [c.reply for c in journal][:3] == [a.reply for a in answered]
        assert journal._db.execute("PRAGMA user_version").fetchone() == (3,)


def test_seconds_in_which_nobody_was_asked_are_no_time_of_a_stage(path: Path) -> None:
    with Journal(path) as journal:
        for seed in (1, 2, 3):
            ask(journal, Scripted("ada", parrot), seed, stage="test")
    begun_and_ended = [(100.0, 110.0), (105.0, 112.0), (5000.0, 5003.0)]  # the third after a night's pause
    with sqlite3.connect(path) as db:
        for row, (begun, ended) in enumerate(begun_and_ended, 1):
            db.execute("UPDATE calls SET latency_s = ?, created_at = ? WHERE rowid = ?", (ended - begun, ended, row))
    db.close()
    with Journal(path, read_only=True) as journal:
        assert journal.busy() == {"test": (3, pytest.approx(15.0))}


def test_a_journal_in_a_folder_that_may_only_be_read_is_read_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(path) as journal:
        ask(journal, Scripted("ada", parrot))
        monkeypatch.setattr("os.access", lambda *_: False)
        with Journal(path, read_only=True) as other:
            assert len(other) == 1, "what still lies in the WAL beside it, too"
    assert not path.with_name("journal.sqlite-wal").exists()
    with Journal(path, read_only=True) as other:
        assert len(other) == 1
