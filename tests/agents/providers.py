"""Two providers in one server on loopback: OpenAI's chat, files and batches; Anthropic's messages and batches.

It keeps what it was sent for as long as it runs, so that a client may be killed and come back. Answers are drawn from
the question alone. Requests are held to the rules that the providers state.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.listening import Handler, Listening

FULL = {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum"}


class Refuse(Exception):
    """An HTTP error, with its body."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.body = status, {"type": "error", "error": {"type": kind, "message": message}}


class Redirect(Exception):
    """To another address."""


class Providers(Listening):
    """The server.

    Attributes:
        looks: How often a batch has to be looked at until it has ended.
        answered: How often each question was worked on, alone or in a batch.
        created: Batches that were made.
        asked: ``METHOD path`` of every request.
        bodies: Of every call, alone or in a batch.
        outcome: Of a question within a batch: None for an answer, else what stands in its place.
        before: Called with ``METHOD path`` before a request is worked on, and ``after`` before it is answered.
        status: Of every batch of OpenAI's that has ended.
        reply: Makes an Anthropic message other than the usual one.
    """

    def __init__(self) -> None:
        self.looks = 2
        self.answered: Counter[str] = Counter()
        self.created: list[str] = []
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.outcome: Callable[[str], dict[str, Any] | None] = lambda question: None
        self.before: Callable[[str], None] = lambda path: None
        self.after: Callable[[str], None] = lambda path: None
        self.status = "completed"
        self.reply: Callable[[dict[str, Any]], dict[str, Any]] = _message
        self._files: dict[str, str] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        outer = self

        class Asked(Handler):
            def do_POST(self) -> None:
                outer._serve(self, self.body())

            do_GET = do_POST

        super().__init__(Asked)

    def _serve(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        what, headers = f"{handler.command} {handler.path}", dict[str, str]()
        try:
            self.before(what)
            with self._lock:
                self.asked.append(what)
                self.headers.append({key.lower(): value for key, value in handler.headers.items()})
                status, reply_body = 200, self._work(handler, body)
        except Refuse as refused:
            status, reply_body = refused.status, json.dumps(refused.body).encode()
        except Redirect as away:
            status, reply_body, headers = 307, b"", {"Location": str(away)}
        self.after(what)
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(reply_body)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(reply_body)

    def _work(self, handler: BaseHTTPRequestHandler, body: bytes) -> bytes:
        path, _, query = handler.path.partition("?")
        if handler.command == "POST":
            if path == "/v1/files":
                return self._upload(handler.headers["content-type"], body)
            made = json.loads(body)
            if path == "/v1/chat/completions":
                return json.dumps(self._completion(made)).encode()
            if path == "/v1/messages":
                return json.dumps(self._message(made)).encode()
            if path == "/v1/batches":
                return self._openai_batch(made)
            if path == "/v1/messages/batches":
                return self._anthropic_batch(made)
        elif path in ("/v1/batches", "/v1/messages/batches"):
            return self._list(path, query)
        elif match := re.fullmatch(r"/v1/files/([^/]+)/content", path):
            return self._files[match[1]].encode()
        elif match := re.fullmatch(r"/v1/(?:messages/)?batches/([^/]+)(/results)?", path):
            return self._look(match[1], bool(match[2]))
        raise Refuse(404, "Not Found", "not_found_error")

    # --- single calls

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        question = body["messages"][-1]["content"]
        self.answered[question] += 1
        return {
            "id": "c1",
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": f"Answer to {question}."}}],
            "usage": {"prompt_tokens": len(question), "completion_tokens": 3},
        }

    def _message(self, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        if not isinstance(body.get("max_tokens"), int):
            raise Refuse(400, "max_tokens: Field required")
        roles = [message["role"] for message in body["messages"]]
        if roles[::2] != ["user"] * len(roles[::2]) or roles[1::2] != ["assistant"] * len(roles[1::2]):
            raise Refuse(400, f"messages: roles must alternate, and begin with the user: {roles}")
        if not all(message["content"].strip() for message in body["messages"]) or body.get("system") == "":
            raise Refuse(400, "messages: text content blocks must be non-empty")
        if unknown := body.keys() - {"model", "max_tokens", "messages", "system", "stop_sequences", "thinking"}:
            raise Refuse(400, f"{unknown}: Extra inputs are not permitted")
        self.answered[body["messages"][-1]["content"]] += 1
        return self.reply(body)

    # --- batches

    def _upload(self, kind: str, body: bytes) -> bytes:
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
            f"Content-Type: {kind}\n\n".encode() + body
        )
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        assert parts["purpose"].get_payload() == "batch"
        assert parts["file"].get_filename()
        content = parts["file"].get_payload(decode=True)
        assert isinstance(content, bytes)
        return json.dumps({"id": self._file(content.decode()), "object": "file", "purpose": "batch"}).encode()

    def _file(self, text: str) -> str:
        id = f"file-{len(self._files)}"
        self._files[id] = text
        return id

    def _openai_batch(self, made: dict[str, Any]) -> bytes:
        assert made["endpoint"] == "/v1/chat/completions"
        assert made["completion_window"] == "24h"
        rows = [json.loads(line) for line in self._files[made["input_file_id"]].splitlines()]
        assert all(row["method"] == "POST" and row["url"] == made["endpoint"] for row in rows)
        calls = {row["custom_id"]: row["body"] for row in rows}
        assert len(calls) == len(rows) > 0
        now = int(time.time())
        batch = {"id": f"batch_{len(self.created)}", "status": "in_progress", "created_at": now}
        return self._made({**batch, "metadata": made["metadata"], "output_file_id": None, "error_file_id": None}, calls)

    def _anthropic_batch(self, made: dict[str, Any]) -> bytes:
        calls = {row["custom_id"]: row["params"] for row in made["requests"]}
        assert len(calls) == len(made["requests"]) > 0
        if not all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", id) for id in calls):
            raise Refuse(400, "custom_id: String should match pattern")
        counts = {"processing": len(calls), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        batch = {"id": f"msgbatch_{len(self.created)}", "processing_status": "in_progress", "request_counts": counts}
        when = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return self._made({**batch, "created_at": when, "results_url": None}, calls)

    def _made(self, batch: dict[str, Any], calls: dict[str, Any]) -> bytes:
        self.created.append(batch["id"])
        self._batches[batch["id"]] = {"said": batch, "calls": calls, "looks": 0}
        return json.dumps(batch).encode()

    def _list(self, path: str, query: str) -> bytes:
        ids = [id for id in reversed(self.created) if id.startswith("msg") == ("messages" in path)]
        after = re.search(r"after(?:_id)?=(\w+)", query)
        rest = ids[ids.index(after[1]) + 1 :] if after else ids
        page = [self._batches[id]["said"] for id in rest[:2]]  # short pages
        last = page[-1]["id"] if page else None
        return json.dumps({"data": page, "has_more": len(rest) > 2, "last_id": last}).encode()

    def _look(self, id: str, results: bool) -> bytes:
        batch = self._batches[id]
        if results:
            return batch["results"].encode()
        batch["looks"] += 1
        if batch["looks"] == self.looks:
            (self._end_anthropic if id.startswith("msg") else self._end_openai)(batch)
        return json.dumps(batch["said"]).encode()

    def _end_openai(self, batch: dict[str, Any]) -> None:
        summary = batch["said"]
        if self.status == "failed":
            summary |= {"status": "failed", "errors": {"data": [{"code": "token_limit_exceeded", "message": "later"}]}}
            self.status = "completed"
            return
        good, bad = list[str](), list[str]()
        for key, body in reversed(batch["calls"].items()):
            other = self.outcome(body["messages"][-1]["content"])
            if other is None:
                response = {"status_code": 200, "request_id": "r", "body": self._completion(body)}
                good.append(json.dumps({"id": "r", "custom_id": key, "response": response, "error": None}))
            else:
                bad.append(json.dumps({"id": "r", "custom_id": key, "response": None, "error": None, **other}))
        summary["status"] = self.status
        summary["output_file_id"] = self._file("\n".join(good) + "\n") if good else None
        summary["error_file_id"] = self._file("\n".join(bad) + "\n") if bad else None

    def _end_anthropic(self, batch: dict[str, Any]) -> None:
        rows = list[str]()
        for key, body in reversed(batch["calls"].items()):
            try:
                result = self.outcome(body["messages"][-1]["content"])
                result = result or {"type": "succeeded", "message": self._message(body)}
            except Refuse as refused:
                result = {"type": "errored", "error": refused.body}
            rows.append(json.dumps({"custom_id": key, "result": result}))
        batch["results"] = "\n".join(rows) + "\n"
        url = f"http://elsewhere.invalid/{batch['said']['id']}"
        counts = {"processing": 0, "succeeded": len(rows), "errored": 0, "canceled": 0, "expired": 0}
        batch["said"] |= {"processing_status": "ended", "request_counts": counts, "results_url": url}


def message(text: str | None = "The answer is 4.", why: str | None = "end_turn", **changes: Any) -> dict[str, Any]:
    """A well-formed message."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "served-name",
        "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]
        + ([{"type": "text", "text": text}] if text is not None else []),
        "stop_reason": why,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 7,
            "cache_read_input_tokens": 20,
            "cache_creation_input_tokens": 3,
            "output_tokens": 5,
        },
        **changes,
    }


def _message(body: dict[str, Any]) -> dict[str, Any]:
    return message(f"Answer to {body['messages'][-1]['content']}.")
