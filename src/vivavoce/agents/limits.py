"""How hard an endpoint is worked: turns for calls, within what it allows and what it can bear.

::

    calls ──▶ queue of each agent ──▶ a turn when ┌ fewer are in flight than the window
                (fewest held first)               ├ the pace of requests and tokens a minute allows it
                                                  └ no pause is on that the endpoint asked for

The window moves as DCTCP's does (Alizadeh et al., SIGCOMM 2010): it shrinks in proportion to the share of a window's
requests that were turned away, by half at most, so that a few refusals by chance cost nothing while an endpoint that
refuses nearly all is let off within a few round trips. It grows by one request a round trip, and twice as fast after
each further one that went well.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass

_CHANCE = 1 / 16  # a smaller share of refusals is no sign that fewer at once would go better
_BURST_S = 0.1  # requests that a late event loop may catch up on; an even pace is what per-minute limits bear best


class Limits:
    """The turns at one endpoint, in one event loop. Agents that share an endpoint and a key share one of these.

    Attributes:
        window: Requests that may be in flight now, 1 to ``max_concurrency``.
        in_flight: Requests that are.
        probe_at: When a dead endpoint may be tried next, in monotonic seconds.
    """

    def __init__(self, max_concurrency: int) -> None:
        self.max_concurrency = max_concurrency
        self.window = float(max_concurrency)
        self.in_flight = 0
        self._requests = self._tokens = _Pace()
        self._waiting: dict[str, deque[_Turn]] = {}
        self._held: Counter[str] = Counter()
        self._resume_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._seen = self._refused = 0
        self._step = 1
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

    async def enter(self, who: str, tokens: int, *, first: bool = False) -> None:
        """Wait for a turn of ``who``'s that is expected to take so many tokens; ``first`` goes before its others.

        Each turn ends with :meth:`leave`.
        """
        turn = _Turn(tokens, asyncio.get_running_loop().create_future())
        queue = self._waiting.setdefault(who, deque())
        if first:
            queue.appendleft(turn)
        else:
            queue.append(turn)
        self._grant()
        try:
            await turn.granted
        except asyncio.CancelledError:
            if not turn.granted.cancelled():  # the turn came in the moment in which it was given up
                self.leave(who)
            raise

    def leave(self, who: str, correction: int = 0) -> None:
        """The turn is over. ``correction`` is how many tokens more than expected it took (negative: fewer)."""
        self.in_flight -= 1
        self._held[who] -= 1
        if correction:
            self._tokens.take(correction)
        self._grant()

    def answered(self) -> None:
        """A request was answered."""
        self._down_since = None
        self._count(0)

    def refused(self, wait_s: float = 0.0) -> None:
        """A request was turned away or timed out: too much is asked of the endpoint, or too fast.

        Nothing is sent for ``wait_s``, as the endpoint asked: the limit is the endpoint's, so that the other calls
        would only run into it as well.
        """
        self._resume_at = max(self._resume_at, time.monotonic() + wait_s)
        self._count(1)

    def failed(self) -> None:
        """A request brought no answer, for whatever reason."""
        if self._down_since is None:
            self._down_since = time.monotonic()

    def down_s(self) -> float:
        """Seconds since the endpoint first failed to answer, without an answer since; 0 while it answers."""
        return 0.0 if self._down_since is None else time.monotonic() - self._down_since

    def _count(self, refused: int) -> None:
        self._seen += 1
        self._refused += refused
        if self._seen < self.window:
            return
        share = self._refused / self._seen
        if share > _CHANCE:
            self.window = max(1.0, self.window * (1 - share / 2))
            self._step = 1
        elif self.in_flight + 1 >= self.window:  # a window that is not filled says nothing about a larger one
            self.window = min(self.window + self._step, float(self.max_concurrency))
            self._step *= 2
        self._seen = self._refused = 0

    def _grant(self) -> None:
        """Give turns to those who wait, as many as may go now."""
        while self.in_flight < max(1, int(self.window)) and (who := self._next()) is not None:
            now = time.monotonic()
            wait_s = max(self._resume_at, self._requests.free_at, self._tokens.free_at) - now
            if wait_s > 0:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._grant)
                return
            turn = self._waiting[who].popleft()
            self._requests.take(1)
            self._tokens.take(turn.tokens)
            self.in_flight += 1
            self._held[who] += 1
            turn.granted.set_result(None)

    def _next(self) -> str | None:
        """Of those who wait, the one who holds the fewest turns: a slow model leaves its neighbours their share."""
        best = None
        for who, queue in list(self._waiting.items()):
            while queue and queue[0].granted.done():  # given up
                queue.popleft()
            if not queue:
                del self._waiting[who]
            elif best is None or self._held[who] < self._held[best]:
                best = who
        return best


@dataclass(slots=True)
class _Turn:
    tokens: int
    granted: asyncio.Future[None]


class _Pace:
    """Lets so many units through a minute, evenly; any number where no limit is given."""

    def __init__(self, per_minute: float | None = None) -> None:
        self.per_minute = per_minute
        self.free_at = 0.0

    def take(self, units: float) -> None:
        """Units go through now; a negative number gives back."""
        if self.per_minute is not None:
            self.free_at = max(self.free_at, time.monotonic() - _BURST_S) + units * 60 / self.per_minute

    def tighter(self, per_minute: float | None) -> _Pace:
        """This pace, or the given one where it is slower."""
        slower = per_minute is not None and (self.per_minute is None or per_minute < self.per_minute)
        return _Pace(per_minute) if slower else self


_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Limits]] = weakref.WeakKeyDictionary()


def limits_of(endpoint: Hashable, max_concurrency: int) -> Limits:
    """The limits of an endpoint in the running event loop; one for all who name it alike."""
    here = _shared.setdefault(asyncio.get_running_loop(), {})
    return here.setdefault(endpoint, Limits(max_concurrency))
