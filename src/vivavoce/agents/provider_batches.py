"""Calls that are sent as a provider's batches: many at once, cheaper, answered within a day.

::

    calls ──▶ gather until none comes ──▶ note keys ──▶ submit ──▶ note id ──▶ poll … ──▶ results ──▶ journal
              (those of one round)        in the journal            in the journal

Nothing is submitted twice. A run that was killed goes on with the batches that its journal knows. If it was killed
between sending and noting the id, the provider is asked for the batch first. A call's note goes in the same transaction
in which its reply, or its failure, is written.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.agents.faults import SETTINGS, Failed, short
from vivavoce.errors import AgentError
from vivavoce.progress import say
from vivavoce.records import Message, Reply, Sampling, Usage

UNREAD = "batch"
"""Reason of a call whose batch could not be read: its outcome is still at the provider."""
_UNSURE = ("timeout", "connection", "server", "malformed")
_PASSING = (*_UNSURE, "rate_limit", "unreachable")
_DO = "check the key, the account and the model"
_TRIES = 5
T = TypeVar("T")


class BatchOptions(BaseModel):
    """The rules by which calls become batches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gather_s: float = Field(default=5.0, gt=0)
    """Seconds without a further call after which a batch is closed."""
    poll_s: float = Field(default=60.0, gt=0)
    """Seconds between two looks at a batch."""
    max_requests: int = Field(default=50_000, ge=1)
    """Calls in one batch at most; OpenAI takes 50,000, Anthropic 100,000."""
    max_mb: float = Field(default=100.0, gt=0)
    """Size of one batch at most, in 10^6 bytes; OpenAI takes 200, Anthropic 256."""
    max_retries: int = Field(default=2, ge=0)
    """Further batches that a call may go into after it expired, or failed for no reason of its own."""
    give_up_h: float = Field(default=48.0, gt=0)
    """Hours after which the calls of a batch that could not be read fail. ``viva run --retry-failed`` reads it
    still.
    """


class Request(NamedTuple):
    """One call of a batch: its journal key, and its request to the provider."""

    key: str
    body: dict[str, Any]


class Batching(Protocol):
    """The methods of a backend whose provider has batches.

    Every method raises AgentError. The errors that it raises if an answer has another form than it should (LookupError,
    TypeError, ValueError, AttributeError) are taken for one, ``malformed``.
    """

    name: str
    identity: str
    batch: BatchOptions | None

    def body(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> dict[str, Any]:
        """A call in the form of a batch."""
        ...

    async def submit(self, token: str, requests: Sequence[Request]) -> str:
        """Make a batch, marked with ``token`` if the provider can; returns its id. It is sent once, whatever the
        outcome.
        """
        ...

    async def find(self, token: str, keys: frozenset[str], since: float) -> str | None:
        """The id of the batch that an earlier :meth:`submit`, at ``since`` in Unix time or later, made; None: none."""
        ...

    async def results(self, batch: str) -> Mapping[str, Reply | Failed] | Failed | None:
        """The outcome of each call, by its key, or of all of them; None while the batch is worked on."""
        ...


class Noted(NamedTuple):
    """A batch that the journal knows. ``id`` is None if the run died before it was told."""

    token: str
    id: str | None
    created_at: float
    """Unix time, before it was sent."""


class Notes:
    """The batches on their way, in the journal's file."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.executescript("""
            CREATE TABLE IF NOT EXISTS batches (token TEXT PRIMARY KEY, id TEXT, created_at REAL NOT NULL);
            CREATE TABLE IF NOT EXISTS batched (key TEXT PRIMARY KEY, token TEXT NOT NULL);
        """)

    def intend(self, token: str, keys: Sequence[str]) -> None:
        """Note that a batch is about to be sent."""
        # a power cut after this must not lose it, unlike a call or two
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                self._db.execute("INSERT INTO batches VALUES (?, NULL, ?)", (token, time.time()))
                self._db.executemany("INSERT OR REPLACE INTO batched VALUES (?, ?)", [(key, token) for key in keys])
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")

    def note_submitted(self, token: str, id: str) -> None:
        """Note that the provider has it, under this id."""
        self._db.execute("UPDATE batches SET id = ? WHERE token = ?", (id, token))

    def of(self, key: str) -> Noted | None:
        """The batch that a call is in, if any."""
        row = self._db.execute(
            "SELECT b.token, b.id, b.created_at FROM batched JOIN batches b USING (token) WHERE key = ?", (key,)
        ).fetchone()
        return Noted(*row) if row else None

    def keys(self, token: str) -> frozenset[str]:
        """The calls of a batch that is not yet known to be sent; none of them is settled."""
        return frozenset(key for (key,) in self._db.execute("SELECT key FROM batched WHERE token = ?", (token,)))

    def settle(self, keys: Sequence[str]) -> None:
        """Note that calls are in no batch any more: written, or to go into another one."""
        self._db.executemany("DELETE FROM batched WHERE key = ?", [(key,) for key in keys])

    def drop(self, token: str) -> None:
        """Note that a batch was never made."""
        self._db.execute("DELETE FROM batched WHERE token = ?", (token,))
        self._db.execute("DELETE FROM batches WHERE token = ?", (token,))


@dataclass(slots=True)
class _Waiting:
    body: dict[str, Any]
    outcome: asyncio.Future[Reply | Failed]


@dataclass(slots=True)
class _Way:
    """A batch on its way: the calls that wait for it and, once it has ended, the outcomes that no caller has taken
    yet.
    """

    waiting: dict[str, _Waiting] = field(default_factory=dict[str, _Waiting])
    results: dict[str, Reply | Failed] | Failed | None = None


class Batches:
    """The calls of one agent, in one event loop, on their way through batches."""

    def __init__(self, agent: Batching, notes: Notes) -> None:
        assert agent.batch is not None, agent.name
        self.agent, self.options, self.notes = agent, agent.batch, notes
        self.loop = asyncio.get_running_loop()
        self._gathered: dict[str, _Waiting] = {}
        self._last = 0.0
        self._ways: dict[str, _Way] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def reply(self, key: str, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """Answer a call through a batch. Raises AgentError: the call's own failure, or :data:`UNREAD`."""
        started, wasted = time.perf_counter(), Usage()
        body = self.agent.body(messages, sampling, seed)
        for tries in range(self.options.max_retries + 1):
            outcome = await self._outcome(key, body)
            if isinstance(outcome, Reply):
                return replace(outcome, wasted=wasted, latency_s=time.perf_counter() - started)
            wasted += outcome.usage
            settings = outcome.reason in SETTINGS  # then the call is to be in another batch, once they are mended
            if settings or (outcome.retryable and tries < self.options.max_retries):
                self.notes.settle([key])
            if settings or not outcome.retryable or tries == self.options.max_retries:
                count = f" ({tries + 1} batches)" if tries else ""
                raise AgentError(outcome.reason, outcome.detail + count, wasted, _DO if settings else "")
        raise AssertionError(key)

    def close(self) -> None:
        """Wait no longer. Batches on their way go on at the provider, and are read when a call is made again."""
        for task in self._tasks:
            if not self.loop.is_closed():
                task.cancel()

    async def _outcome(self, key: str, body: dict[str, Any]) -> Reply | Failed:
        waiting = _Waiting(body, self.loop.create_future())
        noted = self.notes.of(key)
        if noted is None:
            self._gather(key, waiting)
            return await waiting.outcome
        way = self._ways.get(noted.token)
        if way is None:
            way = self._ways[noted.token] = _Way()
            self._start(self._resume(noted, way), way)
        if way.results is not None:
            return _take(way.results, key)
        way.waiting[key] = waiting
        return await waiting.outcome

    def _gather(self, key: str, waiting: _Waiting) -> None:
        first = not self._gathered
        self._gathered[key], self._last = waiting, self.loop.time()
        if first:
            self._start(self._close_when_quiet(), _Way(self._gathered))

    async def _close_when_quiet(self) -> None:
        while (wait_s := self._last + self.options.gather_s - self.loop.time()) > 0:
            await asyncio.sleep(wait_s)
        gathered, self._gathered = self._gathered, {}
        for part in self._parts({key: one for key, one in gathered.items() if not one.outcome.done()}):
            token, way = uuid.uuid4().hex, _Way(part)
            self.notes.intend(token, list(part))
            self._ways[token] = way
            self._start(self._send(token, way), way)

    def _parts(self, calls: Mapping[str, _Waiting]) -> list[dict[str, _Waiting]]:
        parts, size = list[dict[str, _Waiting]](), 0
        for key, waiting in calls.items():
            bytes_ = len(json.dumps(waiting.body, ensure_ascii=False).encode("utf-8", "replace")) + 200
            full = parts and (len(parts[-1]) >= self.options.max_requests or size + bytes_ > self.options.max_mb * 1e6)
            if not parts or full:
                parts.append({})
                size = 0
            parts[-1][key] = waiting
            size += bytes_
        return parts

    def _start(self, work: Coroutine[Any, Any, None], way: _Way) -> None:
        """Start the work; all that wait for ``way`` are told of its end, if it does not end well."""
        task = self.loop.create_task(work)
        self._tasks.add(task)

        def ended(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and task.exception() is None:
                return
            self._ways = {token: other for token, other in self._ways.items() if other is not way}
            for one in way.waiting.values():
                if task.cancelled():
                    one.outcome.cancel()
                elif not one.outcome.done():
                    one.outcome.set_exception(_copy_of(task.exception()))

        task.add_done_callback(ended)

    async def _send(self, token: str, way: _Way) -> None:
        """Submit a batch, once; then follow it."""
        requests = [Request(key, waiting.body) for key, waiting in way.waiting.items()]
        id = await self._submit(token, requests)
        self.notes.note_submitted(token, id)
        say(f"{self.agent.name}: {len(requests)} calls submitted as batch {id}")
        await self._follow(id, way)

    async def _submit(self, token: str, requests: Sequence[Request]) -> str:
        since, keys, problem = time.time(), frozenset(request.key for request in requests), ""
        for _ in range(_TRIES):
            try:
                return await _result(self.agent.submit(token, requests))
            except AgentError as error:
                if error.reason not in _UNSURE:  # it was turned away
                    self.notes.drop(token)
                    raise
                problem = str(error)
            await asyncio.sleep(self.options.poll_s)  # lists of batches may lag behind
            if (id := await self._find(token, keys, since)) is not None:
                return id
        self.notes.drop(token)
        raise AgentError("server", f"no batch could be submitted: {problem}")

    async def _resume(self, noted: Noted, way: _Way) -> None:
        """Go on with a batch of an earlier run."""
        id = noted.id
        if id is None:
            # lists of batches may lag behind
            await asyncio.sleep(max(0.0, noted.created_at + self.options.poll_s - time.time()))
            id = await self._find(noted.token, self.notes.keys(noted.token), noted.created_at)
            if id is None:  # it never got there
                self.notes.drop(noted.token)
                del self._ways[noted.token]
                for key, waiting in way.waiting.items():
                    self._gather(key, waiting)
                return
            self.notes.note_submitted(noted.token, id)
        say(f"{self.agent.name}: going on with batch {id}")
        await self._follow(id, way)

    async def _find(self, token: str, keys: frozenset[str], since: float) -> str | None:
        try:
            return await _result(self.agent.find(token, keys, since))
        except AgentError as error:
            raise AgentError(UNREAD, f"whether it was submitted is unknown: {error}", do=error.do) from None

    async def _follow(self, id: str, way: _Way) -> None:
        """Look at a batch until it has ended, then tell all that wait. A look that fails is followed by another one."""
        last_seen = self.loop.time()
        while True:
            try:
                results = await _result(self.agent.results(id))
                last_seen = self.loop.time()
            except AgentError as error:
                if error.reason not in _PASSING or self.loop.time() - last_seen > self.options.give_up_h * 3600:
                    raise AgentError(UNREAD, f"batch {id} could not be read: {error}", do=error.do) from None
                results = None
            if results is not None:
                break
            await asyncio.sleep(self.options.poll_s)
        way.results = results if isinstance(results, Failed) else dict(results)
        waiting, way.waiting = way.waiting, {}
        for key, one in waiting.items():
            if not one.outcome.done():
                one.outcome.set_result(_take(way.results, key))


async def _result(answer: Awaitable[T]) -> T:
    """The provider's answer. Raises AgentError ``malformed`` if it cannot be read."""
    try:
        return await answer
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise AgentError("malformed", short(f"{type(error).__name__}: {error}")) from None


def _take(results: dict[str, Reply | Failed] | Failed, key: str) -> Reply | Failed:
    """Remove a result from memory with the call that asked for it."""
    if isinstance(results, Failed):
        return results
    return results.pop(key, None) or Failed("server", "its batch came back without it", True)


def _copy_of(error: BaseException | None) -> BaseException:
    """A copy of an exception for each waiting call, because each is raised in its own task."""
    assert error is not None
    return AgentError(error.reason, error.detail, error.usage, error.do) if isinstance(error, AgentError) else error
