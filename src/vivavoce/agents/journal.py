"""The journal pays once: every model call is written to an embedded database before its reply is used.

Cache, resume, audit and cost ledger are this one mechanism. The key of a call is made of what determines its reply
(agent identity, messages, sampling, seed). Asked again, in this run or after a crash, it is answered from the file::

    call ──▶ in the file? ──▶ in flight? ──▶ agent.reply ──▶ group commit ──▶ the caller sees it
               hit, free       share it       paid            WAL, one transaction for all that came back together

The form of calls in the file is in :mod:`vivavoce.agents.stored_calls`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from vivavoce.agents import Agent, takes_tools
from vivavoce.agents.budget import Ledger, Spent, Ticket
from vivavoce.agents.provider_batches import UNREAD, Batches, Notes
from vivavoce.agents.replies import without_marks
from vivavoce.agents.store import Replies
from vivavoce.agents.stored_calls import (
    COLUMNS,
    FORMAT,
    READABLE,
    SCHEMA,
    Arrived,
    Parts,
    Texts,
    key_from,
    merge,
    outcome_of,
    parts_of,
    read_only,
    request_of,
    request_parts,
    upgrade,
)
from vivavoce.errors import AgentError, AgentUnusable, DataError, RunConflict
from vivavoce.records import Message, Prompt, Reply, Sampling, Usage, canonical, storable

# A success is never overwritten; a failure that is tried again keeps count of attempts, tokens and time spent.
_WRITE = f"""
INSERT INTO calls ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    reply = excluded.reply, said = excluded.said, reason = excluded.reason, detail = excluded.detail,
    tags = excluded.tags,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens, latency_s = latency_s + excluded.latency_s,
    attempts = attempts + excluded.attempts, created_at = excluded.created_at
WHERE reply IS NULL
"""
_COUNT_HITS = """
INSERT INTO hits VALUES (?, ?, ?) ON CONFLICT (agent, stage) DO UPDATE SET count = count + excluded.count
"""
# One row for every (agent, stage) that made calls or only hits. What came out of the store was asked 0 times, so it is
# no call; it is among the hits.
_COSTS = """
SELECT agent, stage, sum(calls), sum(hits), sum(failures), sum(prompt), sum(completion), sum(cached), sum(seconds)
FROM (SELECT agent, stage, attempts > 0 AS calls, 0 AS hits, reply IS NULL AS failures, prompt_tokens AS prompt,
             completion_tokens AS completion, cached_tokens AS cached, latency_s AS seconds FROM calls
      UNION ALL SELECT agent, stage, 0, count, 0, 0, 0, 0, 0.0 FROM hits)
GROUP BY agent, stage ORDER BY agent, stage
"""
# What a ledger starts from: sums by agent or, where caps ask for more, every call in the order in which it began.
_SUMS = """
SELECT agent, '', NULL, sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens), sum(attempts), 0.0, 0.0
FROM calls GROUP BY agent
"""
_PAST = """
SELECT agent, stage, json_extract(tags, '$.problem'), prompt_tokens, completion_tokens, cached_tokens, attempts,
       created_at - latency_s AS begun, created_at
FROM calls ORDER BY begun
"""
# Calls that were sent under a cap and are not written down, with what each may take at most. One leaves when its reply
# is written; those that a kill or a cancellation cut off stay, and count as spent.
_UNDER_WAY = """
SELECT agent, '', NULL, sum(prompt_tokens), sum(completion_tokens), 0, count(*), 0.0, 0.0 FROM under_way GROUP BY agent
"""
# A reply that another run has paid for counts as what it took there.
_TALLIES = """
SELECT stage, agent, identity, coalesce(json_extract(tags, '$.problem'), ''),
       coalesce(json_extract(tags, '$.kind'), ''), sum(max(attempts, 1)),
       sum(iif(attempts, prompt_tokens, coalesce(json_extract(reply, '$.usage.prompt'), 0))),
       sum(iif(attempts, completion_tokens, coalesce(json_extract(reply, '$.usage.completion'), 0))),
       sum(iif(attempts, cached_tokens, coalesce(json_extract(reply, '$.usage.cached'), 0)))
FROM calls GROUP BY 1, 2, 3, 4, 5 ORDER BY min(rowid)
"""
_LENT = """
SELECT agent, count(*), coalesce(sum(json_extract(reply, '$.usage.prompt')), 0),
       coalesce(sum(json_extract(reply, '$.usage.completion')), 0),
       coalesce(sum(json_extract(reply, '$.usage.cached')), 0)
FROM calls WHERE attempts = 0 GROUP BY agent ORDER BY agent
"""
_PERHAPS_CHARGED = ("timeout", "malformed")
"""Reasons of calls that an endpoint may have worked on without telling their tokens."""
_END_S = 10.0
"""Seconds for which calls under way are waited for when an agent turns out to be unusable."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The outcome of one call: a reply or, if the call failed for good, the error that it ended with."""

    key: str
    reply: Reply | None = None
    error: AgentError | None = None
    cached: bool = False
    """Whether nothing was spent for this answer: it was in the journal, or an equal call was already in flight."""

    @property
    def refused(self) -> bool:
        """Whether no call was made, because a cap left no money for it. None is recorded."""
        return self.error is not None and self.error.reason == "budget"


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call, for audits and reports."""

    key: str
    agent: str
    identity: str
    stage: str
    tags: dict[str, str | int]
    messages: list[Message]
    sampling: Sampling
    seed: int
    reply: Reply | None
    error: AgentError | None
    latency_s: float
    attempts: int
    """The number of times that the journal asked the agent: 1, and 1 more for each retry of a recorded failure."""
    created_at: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One line of the cost ledger: the spend of one agent in one stage."""

    agent: str
    stage: str
    calls: int
    """Paid calls; a repeated one is a hit."""
    hits: int
    """Answers that cost nothing, over all sessions of the run."""
    failures: int
    usage: Usage
    seconds: float
    """Latency summed over calls; calls run side by side, so this is more than wall-clock time."""


class Lent(NamedTuple):
    """Replies of one agent that earlier runs have paid for."""

    agent: str
    calls: int
    usage: Usage
    """What they took there."""


class Tally(NamedTuple):
    """The calls of one agent about one question in one stage, by kind of text."""

    stage: str
    agent: str
    identity: str
    question: str
    kind: str
    calls: int
    usage: Usage


class Written(NamedTuple):
    """A call as :meth:`Journal.since` returns it: its row, agent, stage and question."""

    row: int
    agent: str
    stage: str
    problem: str
    failed: bool


def key_of(agent: Agent, messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    """The journal key of a call. Neither the agent's name nor a tag is part of it."""
    return key_from(agent.identity, storable(request_of(list(messages), sampling, seed)))


class Journal:
    """A file of calls, and the one choke point before all agents.

    Made for one writing process and one thread; any number of processes may read at the same time. One journal may
    serve several event loops one after the other. A commit survives the death of the process; a power cut may lose the
    last seconds but does not damage the file.

    Args:
        path: The database; made, with its parents, if it does not exist.
        retry_failed: Make calls again that are recorded as failed. Otherwise a recorded failure stays one.
        read_only: Open an existing file for reports; recorded calls are answered, any other raises RunConflict.
        store: Replies of other runs, which are free. This run's replies are added to a store, not to an earlier run.
        on_call: Called after each call with the agent's name, whether it was free, and the tokens of its reply.
        ledger: Prices and caps; the spend of earlier sessions is read into it. None: nothing is capped.

    Raises DataError if the file is no journal, or is missing and to be read; RunConflict if another version of vivavoce
    made it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        retry_failed: bool = False,
        read_only: bool = False,
        on_call: Callable[[str, bool, Usage], None] | None = None,
        ledger: Ledger | None = None,
        store: Replies | None = None,
    ) -> None:
        self.path, self.retry_failed, self.read_only, self.on_call = Path(path), retry_failed, read_only, on_call
        self.store = store
        self._in_flight: dict[str, _Flight] = {}
        self._pending: list[tuple[Arrived, int | None, asyncio.Future[None]]] = []
        self._flushes_in: asyncio.AbstractEventLoop | None = None
        """The loop in which a flush is scheduled."""
        self._hits: Counter[tuple[str, str]] = Counter()
        self._batches: dict[str, Batches] = {}
        self._db = self._open()
        self._texts = Texts(self._db)
        self._notes = None if read_only else Notes(self._db)
        self.ledger = ledger or Ledger()
        if read_only and ledger is None:
            return  # no agent is asked, so no cap has to know what was spent
        self.ledger.recall(
            Spent(agent, stage, question, Usage(prompt, completion, cached), calls, begun, ended)
            for past in (_PAST if self.ledger.needs_calls else _SUMS, *([] if read_only else [_UNDER_WAY]))
            for agent, stage, question, prompt, completion, cached, calls, begun, ended in self._db.execute(past)
        )

    def _open(self) -> sqlite3.Connection:
        where = str(self.path)
        if not self.read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        elif not self.path.is_file():
            raise DataError("there is no journal", where, "give the directory of a run that has started")
        # autocommit mode: transactions begin where this file says so
        db = read_only(self.path, 30) if self.read_only else sqlite3.connect(where, isolation_level=None, timeout=30)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if self.read_only and version == 1:
                do = (
                    "start `viva run` with its recipe and folder, which updates the journal; no paid call is made again"
                )
                raise RunConflict("the journal was written by an earlier version", where, do)
            if version not in (0, 1, *READABLE) or (self.read_only and version == 0):
                what = f"the journal has format {version}, and this version of vivavoce reads {FORMAT}"
                raise RunConflict(what, where, "use the version that wrote it, or choose another folder")
            if not self.read_only:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
                if version == 1:
                    upgrade(db)
                db.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            db.close()
            raise DataError(f"cannot open the journal: {error}", where, "move the file away") from error
        except RunConflict:
            db.close()
            raise
        return db

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is pending and close the file. Calls in flight are cancelled. Closing twice does nothing."""
        for flight in self._in_flight.values():
            flight.task.cancel()
        for batches in self._batches.values():
            batches.close()
        self._flush()
        self._db.close()

    async def call(
        self,
        agent: Agent,
        prompt: Sequence[Message] | Prompt,
        sampling: Sampling,
        seed: int,
        *,
        stage: str = "",
        question: str | None = None,
        **tags: str | int,
    ) -> Answered:
        """Ask ``agent``, or answer from the journal; written before it returns.

        ``prompt`` are the messages. Of a :class:`~vivavoce.records.Prompt` the parts are stored, so that quoted texts
        are not stored again. The key is that of the messages either way.

        A call that failed for good comes back as ``Answered.error``: it is a record, not a crash. ``stage`` and
        ``tags`` (for example ``problem`` and ``kind``) are stored for ledger and audit and do not change the key; an
        equal call keeps the tags that it was first made with. If the caller is cancelled, a call without other callers
        is cancelled too and leaves no record.

        ``question`` names the problem whose cap the call is under, if any. A call for which that cap leaves no room
        comes back as an error ``budget``, which is not recorded: with a higher cap it is made.

        Raises AgentUnusable if no call of the agent can be answered, which is not recorded. Raises BudgetReached if the
        run's cap or the agent's leaves no room, once the calls in flight are written down. Raises RunConflict if a
        read-only journal does not hold the call, and any error of an agent that is no :class:`AgentError` (a bug;
        nothing is recorded).
        """
        assert not sampling.tools or takes_tools(agent), (
            f"{agent.identity} accepts no tools: describe them in the prompt"
        )
        messages, parts = parts_of(prompt)
        request = storable(content := request_of(messages, sampling, seed))
        if request is not content:  # half a surrogate pair: no agent and no file takes it
            messages = json.loads(request)["messages"]
            parts = [(role, [storable(part) for part in texts]) for role, texts in parts]
        key = key_from(agent.identity, request)
        flight, loop = self._in_flight.get(key), asyncio.get_running_loop()
        if flight is None or flight.task.get_loop() is not loop:  # what a loop left when it ended never lands
            answered = self._look_up(key)
            if answered is not None:
                return self._tell(agent.name, stage, answered)
            if self.read_only:
                raise RunConflict("this call is not in the journal", str(self.path), "open the journal for writing")
            if question is not None:  # by this tag the ledger finds the question again
                tags["problem"] = question
            row = (key, agent.name, agent.identity, stage, canonical(tags), request)
            flight = _Flight(loop.create_task(self._ask(agent, messages, parts, sampling, seed, row, question)))
            self._in_flight[key] = flight
            flight.task.add_done_callback(partial(self._land, key, flight))
            cached = False
        else:
            cached = True
        # each caller waits for a future of its own: its cancellation does not take the call from the others
        answer = loop.create_future()
        flight.waiting.append(answer)
        try:
            answered = await answer
        finally:
            flight.waiting.remove(answer)
            if not flight.waiting:
                flight.task.cancel()  # does nothing to a task that is done
        if cached and not answered.refused:
            answered = replace(answered, cached=True)
        return self._tell(agent.name, stage, answered)

    def _land(self, key: str, flight: _Flight, task: asyncio.Task[Answered]) -> None:
        """Tell everyone who waits for a call how it ended."""
        if self._in_flight.get(key) is flight:
            del self._in_flight[key]
        failure = None if task.cancelled() else task.exception()
        for answer in flight.waiting:
            if answer.done():  # its caller was cancelled
                continue
            if task.cancelled():
                answer.cancel()
            elif failure is not None:
                answer.set_exception(failure)
            else:
                answer.set_result(task.result())

    def __getitem__(self, key: str) -> Call:
        """The recorded call with this key (a node's ``call``). Raises KeyError if there is no such call."""
        row = self._db.execute(f"SELECT {COLUMNS} FROM calls WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return self._read(row)

    def __iter__(self) -> Iterator[Call]:
        """All recorded calls in the order in which they were first written."""
        return map(self._read, self._db.execute(f"SELECT {COLUMNS} FROM calls ORDER BY rowid"))

    def answering(self) -> set[str]:
        """The identities of agents that have answered a call."""
        return {one for (one,) in self._db.execute("SELECT DISTINCT identity FROM calls WHERE reply IS NOT NULL")}

    def since(self, row: int) -> Iterator[Written]:
        """Calls that were first written after ``row``, in that order; 0: all."""
        query = (
            "SELECT rowid, agent, stage, coalesce(json_extract(tags, '$.problem'), ''), reply IS NULL FROM calls "
            "WHERE rowid > ? ORDER BY rowid"
        )
        for at, agent, stage, problem, failed in self._db.execute(query, (row,)):
            yield Written(at, agent, stage, str(problem), bool(failed))

    def rows(self, rows: Sequence[int]) -> list[Call]:
        """The calls of these rows that are still there."""
        query = f"SELECT {COLUMNS} FROM calls WHERE rowid IN ({', '.join('?' * len(rows))}) ORDER BY rowid"
        return [self._read(row) for row in self._db.execute(query, tuple(rows))]

    def first_about(self, problem: str, stage: str) -> Call | None:
        """The first call about a question in a stage, or in the stage of that name of any part of the run. It reads
        the whole stage.
        """
        query = (
            f"SELECT {COLUMNS} FROM calls WHERE (stage = ? OR stage LIKE '%/' || ?) "
            "AND json_extract(tags, '$.problem') = ? ORDER BY rowid LIMIT 1"
        )
        row = self._db.execute(query, (stage, stage, problem)).fetchone()
        return None if row is None else self._read(row)

    def merge(self, other: Journal) -> int:
        """Take over the calls of another journal that this one lacks; returns how many. They are not paid for again,
        and the costs of the run count them.
        """
        self._flush()
        return merge(self._db, other._db)

    def damage(self) -> str | None:
        """The fault of the file, in words; None if all of it can be read. It takes about as long as reading it."""
        try:
            (answer,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            return str(error)
        return None if answer == "ok" else " ".join(answer.split())

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM calls").fetchone()[0]

    def costs(self) -> list[Cost]:
        """The cost ledger by agent and stage, sorted. Of failed calls it has the tokens that endpoints told."""
        self._flush()
        return [
            Cost(agent, stage, calls, hits, failures, Usage(prompt, completion, cached), seconds)
            for agent, stage, calls, hits, failures, prompt, completion, cached, seconds in self._db.execute(_COSTS)
        ]

    def lent(self) -> list[Lent]:
        """The replies, by agent, that earlier runs or a store gave to this one."""
        self._flush()
        return [Lent(agent, calls, Usage(*tokens)) for agent, calls, *tokens in self._db.execute(_LENT)]

    def under_way(self) -> list[tuple[str, int, Usage]]:
        """Calls, by agent, that were sent under a cap and are not written down, and the most that they may take.

        If no session of the run is at work they were cut off: they are made again, and counted in caps as spent.
        """
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'under_way'").fetchone():
            return []  # read from a journal that an earlier version made
        return [(row[0], row[6], Usage(row[3], row[4])) for row in self._db.execute(_UNDER_WAY)]

    def by_question(self) -> Iterator[Tally]:
        """Calls and tokens by stage, agent, question and kind, in the order in which they were first written. Those
        that earlier runs have paid for are among them.
        """
        for row in self._db.execute(_TALLIES):
            stage, agent, identity, question, kind, calls, *tokens = row
            yield Tally(stage, agent, identity, question, kind, calls, Usage(*tokens))

    def busy(self) -> dict[str, tuple[int, float]]:
        """The calls of each stage that this run made, and the seconds during which at least one was under way."""
        by_stage, until = dict[str, tuple[int, float]](), ("", 0.0)
        query = (
            "SELECT stage, created_at - latency_s AS begun, created_at FROM calls WHERE attempts > 0 "
            "ORDER BY stage, begun"
        )
        for stage, begun, ended in self._db.execute(query):
            calls, seconds = by_stage.get(stage, (0, 0.0))
            free = max(begun, until[1]) if until[0] == stage else begun
            by_stage[stage] = calls + 1, seconds + max(0.0, ended - free)
            until = stage, max(ended, free)
        return by_stage

    def _look_up(self, key: str) -> Answered | None:
        query = "SELECT reply, text, reason, detail FROM calls LEFT JOIN texts ON said = id WHERE key = ?"
        row = self._db.execute(query, (key,)).fetchone()
        if row is None or (row[0] is None and self.retry_failed and not self.read_only):
            return None
        return Answered(key, *outcome_of(*row), cached=True)

    async def _ask(
        self,
        agent: Agent,
        messages: list[Message],
        parts: Parts,
        sampling: Sampling,
        seed: int,
        row: tuple[str, ...],
        question: str | None,
    ) -> Answered:
        if self.store is not None and (paid := self.store.get(row[0])) is not None:
            free = (None, None, 0, 0, 0, 0.0, 0, time.time())
            await self._write(Arrived(row[:-1], parts, sampling, seed, paid, free), None)
            return Answered(row[0], paid, cached=True)
        ticket = await self.ledger.admit(agent.name, row[3], question, row[5], sampling.max_new_tokens)
        if ticket is None:
            return Answered(row[0], error=AgentError("budget", "the question has reached its cap"))
        usage, sent, stops = ticket.most, None, None  # what a call that is cut off counts as
        try:
            # a batch is taken up again, and its calls with it; any other call is lost with the process
            if self.ledger.lasting and getattr(agent, "batch", None) is None:
                most = (agent.name, usage.prompt, usage.completion)
                sent = self._db.execute("INSERT INTO under_way VALUES (NULL, ?, ?, ?)", most).lastrowid
            answered, usage = await self._make_call(agent, messages, parts, sampling, seed, row, sent, ticket)
        except AgentError as failure:  # not written down, so that the call is made when the cause is mended
            answered, usage = Answered(row[0], error=failure), failure.usage
            self._db.execute("DELETE FROM under_way WHERE id = ?", (sent,))
            stops = unusable(agent, failure)
        finally:
            self.ledger.settle(ticket, usage)
        if stops is not None:
            await self.ledger.end(stops, _END_S)
        return answered

    async def _make_call(
        self,
        agent: Agent,
        messages: list[Message],
        parts: Parts,
        sampling: Sampling,
        seed: int,
        row: tuple[str, ...],
        sent: int | None,
        ticket: Ticket,
    ) -> tuple[Answered, Usage]:
        """Make the call, written down in place of ``sent``; returns its outcome and its cost.

        Raises AgentError if no call of the agent can be answered.
        """
        started = time.perf_counter()
        try:
            if getattr(agent, "batch", None) is None:
                reply, error = await agent.reply(messages, sampling, seed), None
            else:
                reply, error = await self._through(agent).reply(row[0], messages, sampling, seed), None
            reply = without_marks(reply)
        except AgentError as failure:
            if failure.do:
                raise
            reply, error = None, failure
        usage = error.usage if error else Usage()
        if reply:
            usage = self.ledger.charge_for(ticket, reply.usage) + reply.wasted
        elif usage == Usage() and error and error.reason in _PERHAPS_CHARGED:
            usage = self.ledger.charge_for(ticket, usage)
        failed = (error.reason if error else None, error.detail if error else None)
        numbers = (usage.prompt, usage.completion, usage.cached, time.perf_counter() - started, 1, time.time())
        await self._write(Arrived(row[:-1], parts, sampling, seed, reply, (*failed, *numbers)), sent)
        return Answered(row[0], reply, error), usage

    async def _write(self, call: Arrived, sent: int | None) -> None:
        """Write a call in place of ``sent``, together with all that came back; it is in the file when this ends."""
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._pending.append((call, sent, written))
        # Group commit: the flush runs after everything that is ready now, so replies that came together share one
        # transaction. One that was scheduled in a loop that has ended never runs.
        if self._flushes_in is not loop:
            self._flushes_in = loop
            loop.call_soon(self._flush)
        await written

    def _through(self, agent: Any) -> Batches:
        """The batches of an agent in the running event loop."""
        assert self._notes is not None, self.path
        batches = self._batches.get(agent.identity)
        if batches is None or batches.loop is not asyncio.get_running_loop():
            batches = self._batches[agent.identity] = Batches(agent, self._notes)
        return batches

    def _flush(self) -> None:
        """Commit pending calls, then let their callers go on."""
        self._flushes_in = None
        if self.read_only or not (self._pending or self._hits):
            return
        pending, self._pending = self._pending, []
        hits, self._hits = self._hits, Counter()
        failure = None
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                self._db.executemany(_WRITE, [call.row(self._texts) for call, *_ in pending])
                self._db.executemany(
                    "DELETE FROM under_way WHERE id = ?", [(i,) for _, i, _ in pending if i is not None]
                )
                self._db.executemany(_COUNT_HITS, [(*where, count) for where, count in hits.items()])
                if self._batches and self._notes is not None:
                    self._notes.settle([call.key for call, *_ in pending if call.reason != UNREAD])
        except sqlite3.Error as error:  # the disk is full, or the file was taken away: every caller hears of it
            do = (
                "free disk space and give the same command: the run goes on from here; or check the permissions "
                "of the file"
            )
            failure = DataError(f"cannot write the journal: {error}", str(self.path), do)
            self._texts.forget()
        if self.store is not None:  # paid calls, which another disk may have room for
            self.store.put((call.key, call.reply) for call, *_ in pending if call.paid and call.reply is not None)
        waiting = [written for *_, written in pending if not written.done()]  # one whose caller was cancelled is done
        for written in waiting:
            if failure is None:
                written.set_result(None)
            else:
                written.set_exception(failure)
        if failure is not None and not waiting:
            raise failure

    def _read(self, row: tuple[Any, ...]) -> Call:
        key, agent, identity, stage, tags, request, reply, text_id, reason, detail, _, _, _, latency_s, attempts, at = (
            row
        )
        return Call(
            key,
            agent,
            identity,
            stage,
            json.loads(tags),
            *request_parts(request, self._texts),
            *outcome_of(reply, None if text_id is None else self._texts[text_id], reason, detail),
            latency_s,
            attempts,
            at,
        )

    def _tell(self, agent: str, stage: str, answered: Answered) -> Answered:
        if answered.cached:
            self._hits[agent, stage] += 1  # written with the next commit: a count that is lost costs nothing
        if self.on_call is not None and not answered.refused:
            self.on_call(agent, answered.cached, answered.reply.usage if answered.reply else Usage())
        return answered


@dataclass(slots=True)
class _Flight:
    """A call on its way, and a future for each caller that waits for it."""

    task: asyncio.Task[Answered]
    waiting: list[asyncio.Future[Answered]] = field(default_factory=list)


def unusable(agent: Agent, failure: AgentError) -> AgentUnusable:
    """The error that ends a run because no call of an agent can be answered."""
    return AgentUnusable(
        f"`{agent.name}` cannot answer any call: {failure}",
        f"agent `{agent.name}`, {agent.identity}",
        f"{failure.do}; then give the same command: the run goes on from here, and pays for no call twice",
    )
