"""A chat endpoint on loopback that goes wrong on demand: one fault a request, then right answers."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.listening import Handler, Listening


def completion(text: Any = "The answer is 4.", finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    """A well-formed chat completion."""
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "served-name",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }


class FaultyServer(Listening):
    """Takes one entry of ``script`` a request: a fault's name, or a dict to answer with. Afterwards it answers right.

    ``requests`` holds the bodies and ``arrived`` the times (monotonic, seconds) of what came in. ``lists`` is the fault
    that a request for the list of models, which is none of these, is answered with.
    """

    def __init__(self) -> None:
        self.script: list[str | dict[str, Any]] = []
        self.lists = "status=404"
        self.requests: list[dict[str, Any]] = []
        self.arrived: list[float] = []
        self.released = threading.Event()
        self._lock = threading.Lock()
        outer = self

        class Asked(Handler):
            def do_POST(self) -> None:
                outer._serve(self)

            def do_GET(self) -> None:
                outer._fail(self, outer.lists)

        super().__init__(Asked)

    def __exit__(self, *_: object) -> None:
        self.released.set()
        super().__exit__()

    def step(self, body: dict[str, Any]) -> str | dict[str, Any]:
        """What to do with a request; one at a time asks."""
        return self.script.pop(0) if self.script else completion()

    def answered(self, body: dict[str, Any], answer: dict[str, Any]) -> None:
        """The answer was sent whole."""

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            self.requests.append(body)
            self.arrived.append(time.monotonic())
            step = self.step(body)
        if isinstance(step, dict):
            _send(handler, 200, json.dumps(step).encode())
            self.answered(body, step)
        else:
            self._fail(handler, step)

    def _fail(self, handler: BaseHTTPRequestHandler, step: str) -> None:
        fault, _, value = step.partition("=")
        getattr(self, f"_{fault}")(handler, value)

    def _status(self, handler: BaseHTTPRequestHandler, value: str) -> None:
        # quotes the key, as some servers do
        message = f"no, {handler.headers.get('x-api-key') or handler.headers.get('authorization')}"
        _send(handler, int(value), json.dumps({"error": {"message": message, "code": None}}).encode())

    def _error(self, handler: BaseHTTPRequestHandler, value: str) -> None:
        status, code, message = value.split(",", 2)
        _send(handler, int(status), json.dumps({"error": {"message": message, "code": code}}).encode())

    def _busy(self, handler: BaseHTTPRequestHandler, value: str) -> None:
        _send(handler, 429, b'{"error": {"message": "slow down"}}', {"Retry-After": value} if value else {})

    def _redirect(self, handler: BaseHTTPRequestHandler, value: str) -> None:
        status, where = value.split(",")
        _send(handler, int(status), b"", {"Location": where})

    def _reset(self, handler: BaseHTTPRequestHandler, _: str) -> None:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.close()

    def _truncated(self, handler: BaseHTTPRequestHandler, _: str) -> None:
        body = json.dumps(completion()).encode()
        _send(handler, 200, body[: len(body) // 2], length=len(body))
        handler.close_connection = True

    def _body(self, handler: BaseHTTPRequestHandler, value: str) -> None:
        _send(handler, 200, value.encode())

    def _stall(self, handler: BaseHTTPRequestHandler, _: str) -> None:
        self.released.wait(30)
        handler.close_connection = True

    def _trickle(self, handler: BaseHTTPRequestHandler, _: str) -> None:
        """A byte now and then: no single read times out."""
        handler.close_connection = True
        try:
            _send(handler, 200, b"", length=10_000)
            while not self.released.wait(0.05):
                handler.wfile.write(b" ")
        except OSError:
            pass


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    length: int | None = None,
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
