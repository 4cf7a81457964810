"""Anthropic's Messages API, through Anthropic's own package.

The package sends; limits, retries and faults are those of every endpoint (:mod:`vivavoce.agents.endpoint`), so its own
retries are off. The conversation is brought into the API's form: system texts are apart, user and assistant take turns,
and the user begins.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from vivavoce.agents.endpoint import Endpoint, EndpointOptions, address_and_key, trust_store
from vivavoce.agents.faults import Failed, failed_kind, failed_status, failure_inside, short
from vivavoce.agents.provider_batches import BatchOptions, Request
from vivavoce.agents.reading import NO_MORE, End, end_of, usage_of
from vivavoce.agents.variables import Variable
from vivavoce.errors import AgentError, MissingDependency
from vivavoce.files import lines_in
from vivavoce.records import Message, Reply, Sampling, digest

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

_HERE = "https://api.anthropic.com"
_CONNECT_S = 20.0
_TALKATIVE = ("anthropic._base_client", "httpx2", "httpcore2.http11", "httpcore2.http2", "httpcore2.connection")
_CLOCKS_S = 600.0  # the provider's clock may be so far behind ours


class Options(EndpointOptions):
    """The model, and how patient to be with it."""

    model: str = Field(min_length=1)
    """Name of the model at the provider."""
    api_key_env: Variable | None = "ANTHROPIC_API_KEY"
    """Name of the environment variable with the key."""
    takes: tuple[Literal["temperature", "top_p", "top_k"], ...] = ()
    """Sampling fields that are sent. Newer models reject all; older ones take one of the first two, and ``top_k``."""
    extra_body: dict[str, Any] = Field(default={})
    """Further request fields, for example ``thinking``. They determine replies, so they are part of the agent's
    identity.
    """
    batch: BatchOptions | None = None
    """Send calls as Message Batches; null: each by itself."""


class AnthropicMessages:
    """An agent behind the Messages API. Its replies have no log-probabilities, and it takes no seed."""

    def __init__(self, name: str, options: Options, base_url: str, key: str | None) -> None:
        self.name, self.options, self.batch = name, options, options.batch
        extra = {"takes": options.takes, **options.extra_body} if options.takes else options.extra_body
        suffix = f":{digest(extra)[:16]}" if extra else ""
        self.identity = f"anthropic:{base_url.rstrip('/')}:{options.model}{suffix}"
        self._key = key
        self._endpoint = Endpoint(name, options, base_url, {}, key, options.model)
        self._open: _Open | None = None
        self._hiding = _Hiding(self._endpoint)

    def __repr__(self) -> str:
        return f"AnthropicMessages({self.name!r}, {self.identity!r})"

    @property
    def attempts(self) -> int:
        """Requests sent so far, retries included."""
        return self._endpoint.attempts

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """Answer the messages. Raises AgentError for the reasons of :meth:`Endpoint.ask`, and ``empty`` for an empty
        answer.
        """
        started = time.perf_counter()
        body = self.body(messages, sampling, seed)

        async def attempt() -> Reply | Failed:
            answer = await self._send("post", "/v1/messages", body)
            return answer if isinstance(answer, Failed) else self._endpoint.parse(answer, self._read)

        size = sum(len(message["content"]) for message in messages)
        reply, spent = await self._endpoint.persist(attempt, size // 4 + sampling.max_new_tokens)
        return replace(reply, wasted=spent, latency_s=time.perf_counter() - started)

    async def lists_model(self) -> bool | None:
        """Whether the endpoint lists the model, as :class:`vivavoce.agents.reaching.Reachable` has it."""
        self._client()  # what is imported for it takes no time of the request
        listed = await self._endpoint.list_models("/v1/models?limit=1000", lambda path: self._send("get", path))
        return None if listed is None else self.options.model in listed

    async def aclose(self) -> None:
        """Close the connections. A later reply opens new ones."""
        opened, self._open = self._open, None
        for name in _TALKATIVE:
            logging.getLogger(name).removeFilter(self._hiding)
        if opened is not None and opened.loop is asyncio.get_running_loop():
            await opened.client.close()
        await self._endpoint.aclose()

    def _read(self, answer: Any) -> Reply | Failed:
        return read(answer, self.options.finish_reasons)

    # --- batches: what provider_batches.py asks for

    def body(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> dict[str, Any]:
        """A call in the form of the API, alone or in a batch. Raises AgentError as :func:`conversation` does."""
        system, turns = conversation(messages)
        wish: dict[str, Any] = {
            "model": self.options.model,
            "max_tokens": sampling.max_new_tokens,
            "messages": turns,
            **{field: value for field in self.options.takes if (value := getattr(sampling, field)) or field != "top_k"},
        }
        if system:
            wish["system"] = system
        if sampling.stop:
            wish["stop_sequences"] = list(sampling.stop)
        return {**wish, **self.options.extra_body}

    async def submit(self, token: str, requests: Sequence[Request]) -> str:
        """Make a batch and return its id."""
        entries = [{"custom_id": request.key, "params": request.body} for request in requests]
        return str((await self._json("post", "/v1/messages/batches", {"requests": entries}, once=True))["id"])

    async def find(self, token: str, keys: frozenset[str], since: float) -> str | None:
        """The batch that was made after ``since`` (Unix time) and holds ``keys``, or None.

        The API keeps no mark of ours, and shows the content of a batch only when it has ended. Batches of that age and
        size are therefore waited for, until one turns out to be it.
        """
        assert self.batch is not None, self.name
        path = "/v1/messages/batches?limit=100"
        while True:
            page = await self._json("get", path)
            for batch in page["data"]:
                if datetime.fromisoformat(batch["created_at"]).timestamp() < since - _CLOCKS_S:
                    return None
                if sum(batch["request_counts"].values()) != len(keys):
                    continue
                while (replies := await self.results(batch["id"])) is None:
                    await asyncio.sleep(self.batch.poll_s)
                if replies.keys() == keys:
                    return str(batch["id"])
            if not page.get("has_more"):
                return None
            path = f"/v1/messages/batches?limit=100&after_id={page['last_id']}"

    async def results(self, batch: str) -> dict[str, Reply | Failed] | None:
        """The outcome of each call of a batch, by its key; None while it is worked on."""
        path = f"/v1/messages/batches/{batch}"
        if (await self._json("get", path))["processing_status"] != "ended":
            return None
        # not by the address in the answer, which the key would be sent to
        body, _ = await self._endpoint.persist(lambda: self._send("get", f"{path}/results"), 0, is_call=False)
        rows = [json.loads(line) for line in lines_in(body)]
        return {row["custom_id"]: self._result(row["result"]) for row in rows}

    def _result(self, result: dict[str, Any]) -> Reply | Failed:
        if result["type"] == "succeeded":
            return self._endpoint.parse(json.dumps(result["message"]).encode(), self._read)
        if result["type"] == "errored":
            return failed_kind(result["error"])
        return Failed("server", f"{result['type']} in its batch", True)

    async def _json(self, method: Literal["get", "post"], path: str, body: Any = None, *, once: bool = False) -> Any:
        reply, _ = await self._endpoint.persist(lambda: self._send(method, path, body), 0, once=once, is_call=False)
        try:
            return json.loads(reply)
        except (ValueError, RecursionError):
            raise AgentError("malformed", short(f"no JSON: {reply[:200]!r}")) from None

    # --- one request

    async def _send(self, method: Literal["get", "post"], path: str, body: Any = None) -> bytes | Failed:
        """The body of a good answer. Faults of the world are returned, not raised: no traceback then holds the key."""
        import anthropic
        import httpx2

        client = self._client()
        try:
            async with asyncio.timeout(self.options.timeout_s):
                if method == "get":
                    answer = await client.get(path, cast_to=httpx2.Response)
                else:
                    answer = await client.post(path, cast_to=httpx2.Response, body=body)
            return self._endpoint.scrub(answer.content)
        except (TimeoutError, anthropic.APITimeoutError):
            return Failed("timeout", f"no complete answer within {self.options.timeout_s:g} s", True, refused=True)
        except anthropic.APIStatusError as error:
            detail = self._endpoint.scrub(error.response.content)
            return failed_status(error.status_code, detail, error.response.headers)
        except (anthropic.APIConnectionError, httpx2.HTTPError) as error:
            cause = error.__cause__ or error
            detail = self._endpoint.scrub(f"{type(cause).__name__}: {cause}".encode("utf-8", "replace"))
            unreached = isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout)
            return Failed("unreachable" if unreached else "connection", short(detail.decode()), True)

    def _client(self) -> AsyncAnthropic:
        """The package's client in the running event loop. A client does not survive its loop."""
        loop = asyncio.get_running_loop()
        if self._open is None or self._open.loop is not loop:
            import anthropic
            import httpx2

            made = anthropic.AsyncAnthropic(
                api_key=self._key or "none",
                base_url=self._endpoint.base_url,
                max_retries=0,
                timeout=httpx2.Timeout(self.options.timeout_s, connect=_CONNECT_S),
                http_client=anthropic.DefaultAsyncHttpxClient(
                    verify=trust_store(),
                    follow_redirects=False,  # the key stays where the recipe sent it
                    # the limits are ours
                    limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
                ),
            )
            self._open = _Open(loop, made)
            for name in _TALKATIVE:
                logging.getLogger(name).addFilter(self._hiding)
        return self._open.client


class _Hiding(logging.Filter):
    """Removes the key from a server's headers in the logs of packages."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage().encode("utf-8", "replace")
        record.msg, record.args = self._endpoint.scrub(line).decode("utf-8", "replace"), ()
        return True


class _Open(NamedTuple):
    loop: asyncio.AbstractEventLoop
    client: AsyncAnthropic


def conversation(messages: Sequence[Message]) -> tuple[str, list[dict[str, str]]]:
    """The system text, and the turns as the API wants them: neighbours of one role are one turn, none is empty.

    Raises AgentError ``bad_request`` if the first turn is not the user's, because the API takes no such conversation.
    """
    filled = [message for message in messages if message["content"].strip()]
    system = "\n\n".join(message["content"] for message in filled if message["role"] == "system")
    turns: list[dict[str, str]] = []
    for message in filled:
        if message["role"] == "system":
            continue
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1]["content"] += f"\n\n{message['content']}"
        else:
            turns.append({"role": message["role"], "content": message["content"]})
    if not turns or turns[0]["role"] != "user":
        raise AgentError("bad_request", "a conversation with this API begins with the user")
    return system, turns


def read(answer: Any, means: Mapping[str, End] = NO_MORE) -> Reply | Failed:
    """A reply out of a message. Raises the errors that :meth:`Endpoint.parse` expects if it is none. Thoughts are kept
    apart.

    ``means`` explains stop reasons that are not known here.
    """
    usage = usage_of(answer)
    if (failed := failure_inside(answer, usage)) is not None:
        return failed
    why, text = answer.get("stop_reason"), "".join(b["text"] for b in answer["content"] if b["type"] == "text")
    end = end_of(why, means)
    if not text:
        if end == "filter":
            reason = (answer.get("stop_details") or {}).get("explanation") or "the model declined"
            return Failed("refused", short(str(reason)), False, usage=usage)
        if end == "length":  # a model that thought until the end would do so again
            return Failed("empty", f"all {usage.completion} new tokens went by without an answer", False, usage=usage)
        return Failed("empty", f"stop_reason {why}", True, usage=usage)
    if isinstance(end, Failed):
        return end._replace(usage=usage)
    if end == "error":
        return Failed("server", f"the reply broke off: stop_reason {why}", True, usage=usage)
    thought = "\n\n".join(str(block["thinking"]) for block in answer["content"] if block["type"] == "thinking")
    return Reply(text, end, usage, str(answer.get("model") or ""), thought=thought)


def unsent(options: Options) -> dict[str, str]:
    """Settings of a sampling that are not sent, in the form of :func:`vivavoce.agents.unsent.unsent`."""
    drawn = {field: f"add `takes: [{field}]` if the model takes it" for field in ("temperature", "top_p", "top_k")}
    kept = {
        **drawn,
        "repetition_penalty": "set it to 1: the API has no such setting",
        "logprobs": "set `logprobs: false`: the API returns none",
        "seed": "",
    }
    return {field: do for field, do in kept.items() if field not in (*options.takes, *options.extra_body)}


def agent(name: str, options: Options) -> AnthropicMessages:
    """Make the agent. Raises MissingKey, RecipeError or MissingDependency, see
    :func:`vivavoce.agents.endpoint.address_and_key`."""
    where = f"agent {name!r}"
    if importlib.util.find_spec("anthropic") is None:
        raise MissingDependency("this backend needs Anthropic's package", where, 'pip install "vivavoce[anthropic]"')
    base_url, key = address_and_key(options, _HERE, where)
    return AnthropicMessages(name, options, base_url, key)
