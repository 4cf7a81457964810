"""Limits of an endpoint: calls wait for their turn, by the limits that it states and those that its faults show.

::

    calls ──▶ queue of each agent ──▶ a turn when ┌ fewer are in flight than the window
                (fewest held first)               ├ the pace of requests and tokens a minute allows it
                                                  └ no pause is on that the endpoint asked for

The window moves as DCTCP's does (Alizadeh et al., SIGCOMM 2010). It shrinks in proportion to the share of a window's
requests that were turned away, by half at most. It grows by about one request a round trip, twice as fast after each
further one that went well. A window below one is a pace: one request at a time, with a pause after it.

Shrinking helps only against refusals that load causes. So each time the window begins to shrink, two explanations
compete. If load is the cause, a window W that was W0 when the share s0 was turned away accepts as many requests as
before, and the share falls to ``1 - (1 - s0) * W0 / W``. If chance is, the share stays s0. When the requests that
followed are 1,000 times likelier under chance, W0 is tried again. If it brings more answers, it stays, and from then on
only refusals beyond that share count as load.

A refused call waits by itself for as long as it was told to. Its turn stays taken for as long as an answer usually
takes: if it were free at once, the next in the queue would be refused in its place, a thousand times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import weakref
from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

_TOLERATED = 1 / 16  # a smaller share of refusals beyond chance is no sign that fewer at once would go better
_ROUND = 8  # outcomes that a share is taken of, at least
_CERTAIN = math.log(1000)  # odds at which one explanation of refusals is believed
_GENTLE = 3  # rounds without refusals in which the window grows slowly, before it grows faster and faster
_ROUNDS = 2  # that refusals are watched for, at least: those of one may have one cause
_AGAIN = 16  # rounds for which refusals count as load when a larger window was no use
_WIDER = 4.0  # times the window that is tried at once
_TRYOUT = 256  # outcomes of a larger window by which that is told, at most
_LEAST = 0.01  # no share is predicted to be smaller than this, or larger than 1 less this: one refusal proves little
_SLOWEST_S = 2.0  # the smallest window still lets one request through in so long
_SILENT = 8  # after so many refusals in a row, the endpoint is taken to refuse every request
_BURST_S = 0.1  # requests that a late event loop may catch up on; an even pace is what per-minute limits bear best


class EndpointLimits:
    """The turns at one endpoint, in one event loop. Agents that share an endpoint and a key share one of these.

    Attributes:
        window: Requests that may be in flight now, at most ``max_concurrency``. Below 1: the share of the time in which
            one is.
        chance: The share of requests that are turned away however few are in flight, as far as is known.
        in_flight: Requests in flight.
        latency_s: Seconds that an answer usually takes; None before the first one.
        probe_at: The time at which a dead endpoint may be tried next, in the event loop's seconds.
    """

    def __init__(self, max_concurrency: int) -> None:
        self.max_concurrency = max_concurrency
        self.window = float(max_concurrency)
        self.chance = 0.0
        self.in_flight = 0
        self.latency_s: float | None = None
        self._known = asyncio.Event()
        self._requests = self._tokens = _Pace()
        self._waiting: dict[str, deque[Permit]] = {}
        self._held: Counter[str] = Counter()
        self._resume_at = self._granted_at = self._answered_at = self._round_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._in_a_row = 0
        self._round, self._rounds, self._epoch = _Outcomes(), 0, 0
        self._trial: _Trial | None = None
        self._tryout: _Tryout | None = None
        self._load_until = 0  # in rounds
        self._well = 0
        self.probe_at = 0.0
        self._down_since: float | None = None

    def narrow(
        self, max_concurrency: int, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        """Keep to these bounds too. Of two agents' bounds the tighter one counts, for both."""
        self.max_concurrency = min(self.max_concurrency, max_concurrency)
        self.window = min(self.window, self.max_concurrency)
        self._requests = self._requests.tighter(requests_per_minute)
        self._tokens = self._tokens.tighter(tokens_per_minute)

    async def enter(self, agent: str, tokens: int, *, first: bool = False) -> Permit:
        """Wait for a turn of ``agent``'s that is expected to take so many tokens; ``first`` goes before its others.

        Each turn ends with :meth:`leave`.
        """
        turn = Permit(agent, tokens, asyncio.get_running_loop().create_future())
        queue = self._waiting.setdefault(agent, deque())
        if first:
            queue.appendleft(turn)
        else:
            queue.append(turn)
        self._grant()
        try:
            await turn.granted
        except asyncio.CancelledError:
            if not turn.granted.cancelled():  # the turn came in the moment in which it was given up
                self.leave(turn)
            raise
        return turn

    def leave(self, turn: Permit, correction: int = 0) -> None:
        """End a turn. ``correction`` is how many tokens more than expected it took (negative: fewer)."""
        self.in_flight -= 1
        self._held[turn.agent] -= 1
        if correction:
            self._tokens.take(correction)
        if turn.refused is not None and turn.epoch == self._epoch:
            # here and not before, so that refusals, which are quick, do not come before the answers to their like
            self._count(turn.refused)
        self._grant()

    def now(self) -> float:
        """Seconds of the event loop's clock."""
        return _now()

    def count_answered(self, turn: Permit) -> None:
        """Count a request that was answered."""
        latency_s = _now() - turn.granted_at
        self.latency_s = latency_s if self.latency_s is None else self.latency_s + (latency_s - self.latency_s) / 8
        self._answered_at, self._down_since = _now(), None
        self._known.set()
        self._in_a_row = 0
        turn.refused = False

    def count_refused(self, turn: Permit, wait_s: float = 0.0, everybody: bool = False) -> None:
        """Count a request that was turned away or timed out, and may come again after ``wait_s``.

        ``everybody``: the endpoint says that any other would be turned away too until then, so none is sent. An
        endpoint that has turned away all for some time, without saying so, is left alone for as long again.
        """
        turn.refused = True
        now, self._in_a_row = _now(), self._in_a_row + 1
        if everybody:
            self._resume_at = max(self._resume_at, now + wait_s)
        elif self.latency_s is not None and now > self._resume_at:
            silent_s = now - self._answered_at
            if self._in_a_row >= _SILENT and silent_s > 2 * self.latency_s:
                self._resume_at = now + min(wait_s, silent_s)

    async def stay(self, wait_s: float) -> float:
        """Keep the turn of a call that was turned away for as long as an answer takes; returns the rest of its wait."""
        began = _now()
        if self.latency_s is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._known.wait(), wait_s)
        stays_s = min(wait_s, self.latency_s or wait_s) - (_now() - began)
        await asyncio.sleep(max(0.0, stays_s))
        return max(0.0, wait_s - (_now() - began))

    def count_failed(self) -> None:
        """Count a request that brought no answer, for any other reason."""
        if self._down_since is None:
            self._down_since = _now()

    def down_s(self) -> float:
        """Seconds since the endpoint first failed to answer, without an answer since; 0 while it answers."""
        return 0.0 if self._down_since is None else _now() - self._down_since

    def _count(self, refused: bool) -> None:
        """Count one outcome; after as many as fill the window, move it."""
        self._round.add(refused)
        if self._round.seen < max(self.window, _ROUND):
            return
        done, self._round = self._round, _Outcomes()
        done.turns_s = self._bears() * (_now() - self._round_at)
        self._round_at, self._rounds = _now(), self._rounds + 1
        if self._tryout is not None:
            self._judge(self._tryout, done)
            return
        if self._trial is not None:
            self._weigh(self._trial, done)
        excess = done.share - self.chance
        if excess > max(_TOLERATED, 2 * _deviation(self.chance, done.seen)):
            trial = self._trial
            if trial is None or done.share > trial.share + 2 * _deviation(trial.share, done.seen):
                self._trial = _Trial(self._bears(), done.share)
            self._jump(max(self._smallest(), self.window * (1 - excess / (1 - self.chance) / 2)))
        elif self.in_flight + 1 >= self._bears():  # a window that is not filled says nothing about a larger one
            self._well += 1
            step = min(1.0, self.window / 16) * 2.0 ** max(0, self._well - _GENTLE)
            self.window = min(self.window + min(step, self.window), float(self.max_concurrency))
        self.chance += min(0.0, done.share - self.chance) / 32

    def _weigh(self, trial: _Trial, done: _Outcomes) -> None:
        """Whether the refusals since the window began to shrink are better explained by load or by chance."""
        by_load = max(self.chance, 1 - (1 - trial.share) * trial.window / self._bears(), _LEAST)
        by_chance = min(trial.share, 1 - _LEAST)
        if by_load > by_chance / 2:  # the window has to shrink further before the two differ
            return
        trial.since.join(done)
        trial.rounds += 1
        trial.for_chance += done.refused * math.log(by_chance / by_load)
        trial.for_chance += (done.seen - done.refused) * math.log((1 - by_chance) / (1 - by_load))
        since = trial.since
        if abs(trial.for_chance) < _CERTAIN or trial.rounds < _ROUNDS or since.seen - since.refused < _ROUND:
            return
        self._trial = None
        if trial.for_chance < 0 or self._rounds < self._load_until:
            return
        if since.share > 1.25 * trial.share:  # neither: the endpoint has become stricter meanwhile
            self._trial = _Trial(self._bears(), since.share)
            return
        wider = min(trial.window, _WIDER * self._bears(), float(self.max_concurrency))
        ratio = self._bears() / wider
        self._tryout = _Tryout(self.window, self.chance, since.rate * (1 + ratio) / 2, 64 / (1 - ratio) ** 2)
        self.chance = since.share
        self._jump(wider)

    def _judge(self, tryout: _Tryout, done: _Outcomes) -> None:
        """Judge whether the larger window answers more, as it must if chance is the cause; otherwise go back."""
        tryout.since.join(done)
        if tryout.since.seen < min(_TRYOUT, tryout.enough):
            return
        self._tryout = None
        if tryout.since.rate < tryout.wanted:
            self.chance = tryout.chance
            self._jump(tryout.window)
            self._load_until = self._rounds + _AGAIN
        else:
            self.chance = max(self.chance, tryout.since.share)

    def _jump(self, window: float) -> None:
        """Set the window. Requests that were sent under another one say nothing about it, and are not counted."""
        self.window, self._well = window, 0
        self._epoch += 1
        self._round, self._round_at = _Outcomes(), _now() + (self.latency_s or 0.0)  # when the first ones end

    def _bears(self) -> float:
        """The window in its effect: whole requests, or a share of the time."""
        return self.window if self.window < 1 else float(int(self.window))

    def _smallest(self) -> float:
        return 1.0 if self.latency_s is None else min(1.0, self.latency_s / _SLOWEST_S)

    def _grant(self) -> None:
        """Give turns to the waiting calls, as many as may go now."""
        while self.in_flight < max(1, self._bears()) and (agent := self._next()) is not None:
            wait_s = max(self._resume_at, self._requests.free_at, self._tokens.free_at) - _now()
            if self.window < 1 and self.latency_s is not None:
                wait_s = max(wait_s, self._granted_at + self.latency_s / self.window - _now())
            if wait_s > 0:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._grant)
                return
            turn = self._waiting[agent].popleft()
            self._requests.take(1)
            self._tokens.take(turn.tokens)
            self._granted_at = turn.granted_at = _now()
            self.in_flight += 1
            self._held[agent] += 1
            turn.epoch = self._epoch
            turn.granted.set_result(None)

    def _next(self) -> str | None:
        """The agent with waiting calls that holds the fewest turns: a slow model leaves its neighbours their share."""
        best = None
        for agent, queue in list(self._waiting.items()):
            while queue and queue[0].granted.done():  # given up
                queue.popleft()
            if not queue:
                del self._waiting[agent]
            elif best is None or self._held[agent] < self._held[best]:
                best = agent
        return best


@dataclass(slots=True)
class Permit:
    """Permission to send one request, once ``granted``."""

    agent: str
    tokens: int
    granted: asyncio.Future[None]
    granted_at: float = 0.0
    epoch: int = 0
    refused: bool | None = None
    """Whether it was refused; None if the outcome says nothing about how much the endpoint bears."""


@dataclass(slots=True)
class _Outcomes:
    """The outcomes of some requests."""

    seen: int = 0
    refused: int = 0
    turns_s: float = 0.0
    """Seconds that it took, times the window."""

    def add(self, refused: bool) -> None:
        self.seen += 1
        self.refused += refused

    def join(self, other: _Outcomes) -> None:
        self.seen += other.seen
        self.refused += other.refused
        self.turns_s += other.turns_s

    @property
    def share(self) -> float:
        """The share of requests that were turned away."""
        return self.refused / self.seen

    @property
    def rate(self) -> float:
        """Answers a second for each request of the window."""
        return (self.seen - self.refused) / max(self.turns_s, 1e-9)


@dataclass(slots=True)
class _Trial:
    """The window and the share of refusals when it began to shrink, and the outcomes since."""

    window: float
    share: float
    since: _Outcomes = field(default_factory=_Outcomes)
    rounds: int = 0
    for_chance: float = 0.0
    """Logarithm of how much likelier the outcomes are under chance than under load."""


@dataclass(slots=True)
class _Tryout:
    """A larger window that is tried because refusals look like chance, and the one to go back to if it is no use."""

    window: float
    chance: float
    wanted: float
    """Answers a second for each request of the window: half way between what chance and what load predict."""
    enough: float
    """Outcomes that distinguish the two."""
    since: _Outcomes = field(default_factory=_Outcomes)


class _Pace:
    """Lets so many units through a minute, evenly; any number if no limit is given."""

    def __init__(self, per_minute: float | None = None) -> None:
        self.per_minute = per_minute
        self.free_at = 0.0

    def take(self, units: float) -> None:
        """Let units through now; a negative number gives back."""
        if self.per_minute is not None:
            self.free_at = max(self.free_at, _now() - _BURST_S) + units * 60 / self.per_minute

    def tighter(self, per_minute: float | None) -> _Pace:
        """The slower of this pace and the given one."""
        slower = per_minute is not None and (self.per_minute is None or per_minute < self.per_minute)
        return _Pace(per_minute) if slower else self


def _deviation(share: float, n: int) -> float:
    """Standard deviation of a share of n outcomes."""
    return math.sqrt(share * (1 - share) / n)


def _now() -> float:
    return asyncio.get_running_loop().time()


_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, EndpointLimits]] = (
    weakref.WeakKeyDictionary()
)


def limits_of(endpoint: Hashable, max_concurrency: int) -> EndpointLimits:
    """The limits of an endpoint in the running event loop; one for all agents that name it alike."""
    here = _shared.setdefault(asyncio.get_running_loop(), {})
    return here.setdefault(endpoint, EndpointLimits(max_concurrency))
