"""A chat endpoint on loopback for measurements: known latency, slots, faults; answers that depend on the request alone.

A bare protocol on asyncio, so that it is not the limit of what is measured: several thousand calls a second on one
core. Run as a process of its own; it prints its port, and counts what it served at ``GET /stats``::

    python -m vivavoce.bench.loopback '{"latency_s": 0.2, "slots": 64, "core": 1}'
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

_REASONING = "First we look at what is given. " * 30


def completion(body: bytes) -> bytes:
    """Right (4) for about half of the requests to ``2 + 2``, by a hash of the request."""
    right = hashlib.sha256(body).digest()[0] % 2
    usage = {"prompt_tokens": len(body) // 4, "completion_tokens": len(_REASONING) // 4}
    message = {"role": "assistant", "content": f"{_REASONING}\nFinal answer: {4 if right else 5}"}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "loopback", "choices": [choice]}
    return json.dumps({**answer, "usage": usage}).encode()


@dataclass(frozen=True)
class Faults:
    """The faults of a server, besides its answers."""

    refuses: float = 0.0
    """Share of requests that it turns away, whatever the load."""
    fails: float = 0.0
    """Share of requests that end with status 500."""
    resets: float = 0.0
    """Share of requests whose connection it breaks."""
    turns_away: bool = False
    """Requests beyond the slots are turned away; otherwise they wait."""
    per_minute: float | None = None
    """Requests that it accepts in a minute, evenly, and ten at once; it turns others away."""
    wait_s: float = 0.5
    """Seconds after which a request that was refused (429) may come again."""


NO_FAULTS = Faults()


class Loopback:
    """``slots`` requests are worked on at once, each for ``latency_s``; the others wait in the order they came."""

    def __init__(self, latency_s: float, slots: int, faults: Faults) -> None:
        self.latency_s, self.slots, self.faults = latency_s, slots, faults
        self.busy = self.served = self.refused = self.failed = self.most_waiting = self.repeated = 0
        self._answered: set[bytes] = set()
        self.first_at = self.last_at = 0.0
        self.waiting: deque[tuple[_Connection, bytes]] = deque()
        self._rng = random.Random(0)
        self._left, self._left_at = 10.0, 0.0

    def take(self, connection: _Connection, body: bytes) -> None:
        """A request has come."""
        self.first_at = self.first_at or time.monotonic()
        drawn, faults = self._rng.random(), self.faults
        if drawn < faults.refuses or (faults.turns_away and self.busy >= self.slots) or not self._allow():
            self.refused += 1
            wait = b"Retry-After: %.3f\r\n" % faults.wait_s
            connection.answer(b'{"error": {"message": "slow down"}}', b"429 Too Many Requests", wait)
        elif drawn < faults.refuses + faults.fails:
            self.failed += 1
            connection.answer(b'{"error": {"message": "oops"}}', b"500 Internal Server Error")
        elif drawn < faults.refuses + faults.fails + faults.resets:
            self.failed += 1
            connection.transport.abort()  # type: ignore[attr-defined]
        elif self.busy < self.slots:
            self._begin(connection, body)
        else:
            self.waiting.append((connection, body))
            self.most_waiting = max(self.most_waiting, len(self.waiting))

    def stats(self) -> dict[str, Any]:
        """Counts of the server so far; ``span_s`` is from the first arrival to the last answer."""
        span_s = self.last_at - self.first_at
        done = {"served": self.served, "refused": self.refused, "failed": self.failed, "repeated": self.repeated}
        return {**done, "span_s": span_s, "most_waiting": self.most_waiting}

    def _allow(self) -> bool:
        if self.faults.per_minute is None:
            return True
        now = time.monotonic()
        self._left = min(10.0, self._left + (now - self._left_at) * self.faults.per_minute / 60)
        self._left_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _begin(self, connection: _Connection, body: bytes) -> None:
        self.busy += 1
        if self.latency_s:
            asyncio.get_running_loop().call_later(self.latency_s, self._end, connection, body)
        else:
            self._end(connection, body)

    def _end(self, connection: _Connection, body: bytes) -> None:
        key = hashlib.sha256(body).digest()
        self.repeated += key in self._answered  # requests that had been answered before
        if not connection.transport.is_closing():  # a client that was killed has no answer
            self._answered.add(key)
            connection.answer(completion(body))
        self.busy -= 1
        self.served += 1
        self.last_at = time.monotonic()
        if self.waiting:
            self._begin(*self.waiting.popleft())


class _Connection(asyncio.Protocol):
    """One request after the other, each with a Content-Length: enough HTTP for clients that are not under test."""

    def __init__(self, server: Loopback) -> None:
        self.server, self.received = server, bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.received[:end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.received) < end + 4 + length:
            return
        body = bytes(self.received[end + 4 : end + 4 + length])
        del self.received[: end + 4 + length]
        if head.startswith(b"get "):
            self.answer(json.dumps(self.server.stats()).encode())
        else:
            self.server.take(self, body)

    def answer(self, body: bytes, status: bytes = b"200 OK", headers: bytes = b"") -> None:
        kind = b"Content-Type: application/json\r\n"
        head = b"HTTP/1.1 %s\r\n%s%sContent-Length: %d\r\n\r\n" % (status, kind, headers, len(body))
        self.transport.write(head + body)  # type: ignore[attr-defined]


@contextlib.contextmanager
def loopback(latency_s: float, slots: int, core: int | None = None, faults: Faults = NO_FAULTS) -> Iterator[str]:
    """Start such a server in a process of its own, on that core if the machine allows it, and return its address."""
    settings = json.dumps({"latency_s": latency_s, "slots": slots, "core": core, "faults": asdict(faults)})
    command = [sys.executable, "-m", "vivavoce.bench.loopback", settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        finally:
            server.kill()


def stats(address: str) -> dict[str, Any]:
    """The counts of a server."""
    with urllib.request.urlopen(f"{address}/stats", timeout=30) as answer:
        return json.load(answer)


def pin(core: int | None) -> None:
    """Keep this process to one core, if the platform can."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


async def _serve(latency_s: float, slots: int, core: int | None, faults: dict[str, Any] | None = None) -> None:
    pin(core)
    server = Loopback(latency_s, slots, Faults(**(faults or {})))
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Connection(server), "127.0.0.1", 0, backlog=4096)
    print(listening.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(**json.loads(sys.argv[1])))
