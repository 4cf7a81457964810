"""An event loop whose clock jumps to the next thing that happens, and endpoints in it: hours pass in a second."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from vivavoce.agents.endpoint import Endpoint, EndpointOptions
from vivavoce.agents.faults import Failed
from vivavoce.records import Reply

T = TypeVar("T")


class _Clock(asyncio.SelectorEventLoop):
    """Never waits: when nothing is ready, it is already the time of what comes next."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def simulate(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end in simulated time."""
    with asyncio.Runner(loop_factory=_Clock) as runner:
        return runner.run(work)


class Server:
    """An endpoint: an answer takes ``latency_s``, and requests are turned away at once, to come again after ``wait_s``.

    Args:
        chance: Share of requests that it turns away for no reason.
        slots: Requests that it works on at once; it turns others away.
        per_minute: Requests that it accepts, evenly, and ``burst`` of them at once.
        quota: Requests that it accepts in each minute of the clock; then they are told to wait for the next one.
    """

    def __init__(
        self,
        latency_s: float = 0.05,
        chance: float = 0.0,
        slots: float = float("inf"),
        per_minute: float | None = None,
        burst: int = 10,
        quota: int | None = None,
        wait_s: float = 0.5,
    ) -> None:
        self.latency_s, self.chance, self.slots, self.wait_s = latency_s, chance, slots, wait_s
        self.per_minute, self.burst, self.quota = per_minute, burst, quota
        self.busy = self.answered = self.refused = self.most_at_once = 0
        self._rng = random.Random(7)
        self._left, self._at = float(burst), 0.0
        self._minute = self._used = 0

    def _wait_s(self, now: float) -> float | None:
        """What a request that comes now is told to wait for; None: it is accepted."""
        if self._rng.random() < self.chance or self.busy >= self.slots:
            return self.wait_s
        if self.per_minute is not None:
            self._left = min(self.burst, self._left + (now - self._at) * self.per_minute / 60)
            self._at = now
            if self._left < 1:
                return self.wait_s
            self._left -= 1
        if self.quota is not None:
            if int(now // 60) != self._minute:
                self._minute, self._used = int(now // 60), 0
            if self._used >= self.quota:
                return 60 - now % 60
            self._used += 1
        return None

    async def ask(self) -> Reply | Failed:
        """One request."""
        await asyncio.sleep(0.0005)
        wait_s = self._wait_s(asyncio.get_running_loop().time())
        if wait_s is not None:
            self.refused += 1
            return Failed("rate_limit", "slow down", True, wait_s, refused=True)
        self.busy += 1
        self.most_at_once = max(self.most_at_once, self.busy)
        await asyncio.sleep(self.latency_s * self._rng.uniform(0.9, 1.1))
        self.busy -= 1
        self.answered += 1
        return Reply("x")


async def asked(server: Server, calls: int, in_flight: int = 512, **options: Any) -> tuple[float, Endpoint]:
    """Make so many calls, so many of them at once at most; the seconds that it took."""
    endpoint = Endpoint("ada", EndpointOptions(api_key_env=None, **options), "http://127.0.0.1:9", {})
    todo = iter(range(calls))

    async def work() -> None:
        for _ in todo:
            await endpoint.persist(server.ask, 0)

    random.seed(7)  # of the jitter
    await asyncio.gather(*(work() for _ in range(in_flight)))
    await endpoint.aclose()
    return asyncio.get_running_loop().time(), endpoint
