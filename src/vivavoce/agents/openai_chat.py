"""Any endpoint that speaks the OpenAI chat protocol: OpenAI, vLLM, SGLang, llama.cpp, Ollama, OpenRouter and others.

The SDK carries the requests; retries are ours, because a malformed or cut body, a trickle that never ends and an empty
answer deserve one too. Every call ends, after at most ``max_retries`` retries, as a Reply or as an AgentError.
"""

from __future__ import annotations

import asyncio
import codecs
import email.utils
import importlib.util
import json
import logging
import math
import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.errors import AgentError, MissingDependency, MissingKey, RecipeError
from vivavoce.records import Message, Reply, Sampling, Token, Usage, digest

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_log = logging.getLogger(__name__)
_OPENAI = "https://api.openai.com/v1"
_LONGEST_BACKOFF_S = 30.0
_DETAIL_LENGTH = 300


class Options(BaseModel):
    """Which endpoint and model, and how patient to be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    base_url: str = ""
    """Empty: what ``base_url_env`` names, otherwise OpenAI's."""
    base_url_env: str | None = None
    """Name of an environment variable with the address, so that a recipe can be shared."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """Name of the environment variable with the key; null for local servers that want none."""
    timeout_s: float = Field(default=120.0, gt=0)
    """For one attempt, from request to last byte."""
    max_retries: int = Field(default=5, ge=0)
    backoff_s: float = Field(default=0.5, ge=0)
    """Before the first retry, with jitter; doubled before each further one, at most 30 s."""
    max_wait_s: float = Field(default=120.0, ge=0)
    """The longest Retry-After that is honoured; a server that asks for more fails the call."""
    max_concurrency: int = Field(default=64, ge=1)
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the endpoint calls the bound of new tokens; OpenAI's reasoning models want the second."""
    omit: tuple[str, ...] = ()
    """Request fields that the endpoint rejects, say ``temperature`` or ``seed``."""
    extra_body: dict[str, Any] = Field(default={})
    """Further request fields; they determine replies, so they are part of the agent's identity."""

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if self.base_url and self.base_url_env:
            raise ValueError("give either `base_url` or `base_url_env`")
        return self


class OpenAIChat:
    """An agent behind an endpoint.

    Attributes:
        attempts: Requests sent so far, retries included.
        unmetered: Replies that came without usage; their tokens count as 0.
    """

    def __init__(self, name: str, options: Options, base_url: str, key: str | None) -> None:
        self.name, self.options = name, options
        self.attempts = self.unmetered = 0
        self._base_url, self._key = base_url, key
        extra = f":{digest(options.extra_body)[:16]}" if options.extra_body else ""
        self.identity = f"openai:{base_url.rstrip('/')}:{options.model}{extra}"
        self._open: _Open | None = None
        self._resume_at = 0.0
        self._logprobs_refused = False

    def __repr__(self) -> str:
        return f"OpenAIChat({self.name!r}, {self.identity!r})"

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """Answer; raises AgentError when ``max_retries`` retries did not help or could not.

        Reasons: ``timeout``, ``rate_limit``, ``connection``, ``server``, ``malformed`` (no reply could be read),
        ``empty``, ``refused`` (also by a content filter), ``overlong``, ``auth``, ``bad_request``. Usage sums over
        every answer that the endpoint counted, those that were thrown away as empty too.
        """
        started = time.perf_counter()
        spent = Usage()
        for retry in range(self.options.max_retries + 1):
            opened = self._opened()
            async with opened.slots:
                await self._pause()
                outcome = await self._attempt(opened.client, messages, sampling, seed)
            if isinstance(outcome, Reply):
                if outcome.usage == Usage():
                    self._mark_unmetered()
                return Reply(
                    outcome.text,
                    outcome.finish,
                    spent + outcome.usage,
                    outcome.model,
                    outcome.tokens,
                    time.perf_counter() - started,
                )
            spent += outcome.usage
            wait_s = outcome.wait_s
            if wait_s is None:
                # jitter, or everybody who was turned away together comes back together
                backoff = min(self.options.backoff_s * 2**retry, _LONGEST_BACKOFF_S)
                wait_s = backoff * (0.5 + random.random() / 2)
            elif wait_s > self.options.max_wait_s:
                raise AgentError(outcome.reason, f"asked to wait {wait_s:.0f} s; {outcome.detail}", spent)
            elif outcome.reason == "rate_limit":
                # the limit is the endpoint's, so the other calls wait too instead of running into it
                self._resume_at = max(self._resume_at, time.monotonic() + wait_s)
            if not outcome.again or retry == self.options.max_retries:
                tries = f" ({retry + 1} attempts)" if retry else ""
                raise AgentError(outcome.reason, outcome.detail + tries, spent)
            _log.debug("%s: %s, attempt %d, waiting %.1f s", self.name, outcome.reason, retry + 1, wait_s)
            await asyncio.sleep(wait_s)
        raise AssertionError(self.options.max_retries)

    async def aclose(self) -> None:
        """Close the connections. A later reply opens new ones."""
        opened, self._open = self._open, None
        if opened is not None and opened.loop is asyncio.get_running_loop():
            await opened.client.close()

    def _opened(self) -> _Open:
        """Client and slots of the running event loop; connections do not survive their loop."""
        loop = asyncio.get_running_loop()
        if self._open is None or self._open.loop is not loop:
            from openai import AsyncOpenAI

            client = AsyncOpenAI(
                api_key=self._key or "none",  # the SDK insists on one; keyless servers ignore it
                base_url=self._base_url,
                max_retries=0,
                timeout=self.options.timeout_s,
            )
            self._open = _Open(loop, client, asyncio.Semaphore(self.options.max_concurrency))
        return self._open

    async def _pause(self) -> None:
        while (wait_s := self._resume_at - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)

    async def _attempt(
        self, client: AsyncOpenAI, messages: Sequence[Message], sampling: Sampling, seed: int
    ) -> Reply | _Failed:
        """Send one request. What the world may do wrong is returned, not raised: no traceback then holds the key."""
        import openai

        self.attempts += 1
        request = self._request(messages, sampling, seed)
        try:
            async with asyncio.timeout(self.options.timeout_s):
                raw = await client.chat.completions.with_raw_response.create(**request)
            answer = _read(raw.http_response.content)
            if isinstance(answer, Reply):
                return answer
            failed = answer
        except (TimeoutError, openai.APITimeoutError):
            return _Failed("timeout", f"no complete answer within {self.options.timeout_s:g} s", True)
        except openai.APIStatusError as error:
            failed = _status(error.status_code, error.body, error.response.headers)
            if "logprobs" in request and failed.reason == "bad_request" and "logprob" in failed.detail:
                # an endpoint without log-probabilities; most ignore the wish, some reject it
                self._logprobs_refused = True
                failed = failed._replace(again=True, wait_s=0.0)
        except openai.APIConnectionError as error:
            failed = _Failed("connection", _chain(error), True)
        except _Malformed as error:
            failed = _Failed("malformed", str(error), True)
        except _transport_errors() as error:  # raised while the body is read, past the SDK's own handling
            failed = _Failed("connection", _chain(error), True)
        return failed._replace(detail=self._scrub(failed.detail))

    def _request(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> dict[str, Any]:
        wish: dict[str, Any] = {
            "model": self.options.model,
            "messages": list(messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self.options.token_limit: sampling.max_new_tokens,
            "seed": seed,
        }
        if sampling.stop:
            wish["stop"] = list(sampling.stop)
        if sampling.logprobs and not self._logprobs_refused:
            wish["logprobs"] = True
        wish = {field: value for field, value in wish.items() if field not in self.options.omit}
        return {**wish, "extra_body": self.options.extra_body}

    def _mark_unmetered(self) -> None:
        self.unmetered += 1
        if self.unmetered == 1:
            _log.warning("%s reports no usage; its tokens count as 0", self.name)

    def _scrub(self, text: str) -> str:
        """Servers like to quote the key that they did not accept."""
        return text.replace(self._key, "***") if self._key else text


class _Open(NamedTuple):
    loop: asyncio.AbstractEventLoop
    client: AsyncOpenAI
    slots: asyncio.Semaphore


class _Failed(NamedTuple):
    """What went wrong with one attempt."""

    reason: str
    detail: str
    again: bool
    wait_s: float | None = None
    """What the server asked for; None where it left that to us."""
    usage: Usage = Usage()


class _Malformed(Exception):
    """The body is no chat completion."""


def _transport_errors() -> tuple[type[BaseException], ...]:
    """Errors of the HTTP library under the SDK, which is httpx or httpx2 by version."""
    import openai

    http = importlib.import_module(openai.Timeout.__module__.partition(".")[0])
    return http.HTTPError, http.StreamError, OSError


def _chain(error: BaseException) -> str:
    """The error and its cause in one line: the SDK says only `Connection error.`"""
    cause = error.__cause__
    return _short(f"{error}{f' {type(cause).__name__}: {cause}' if cause else ''}")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _DETAIL_LENGTH else f"{text[:_DETAIL_LENGTH]}…"


def _status(status: int, body: object, headers: Mapping[str, str]) -> _Failed:
    """Classify an HTTP error."""
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    code = str(body.get("code") or body.get("type") or "") if isinstance(body, dict) else ""
    said = body.get("message") or body.get("detail") or body if isinstance(body, dict) else body
    detail = _short(f"HTTP {status}{f' {code}' if code else ''}: {said or 'empty body'}")
    if status == 429:
        # an empty account does not fill while we wait
        return _Failed("rate_limit", detail, code != "insufficient_quota", _retry_after(headers))
    if status == 408:
        return _Failed("timeout", detail, True, _retry_after(headers))
    if status == 409 or status >= 500:
        return _Failed("server", detail, True, _retry_after(headers))
    if status in (401, 403):
        return _Failed("auth", detail, False)
    if "content_filter" in code or "content_policy" in code:
        return _Failed("refused", detail, False)
    if "context_length" in code or "maximum context length" in detail:
        return _Failed("overlong", detail, False)
    return _Failed("bad_request", detail, False)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the server asks for them: milliseconds, seconds or a date."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
        except (KeyError, ValueError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _read(body: bytes) -> Reply | _Failed:
    """A reply out of a response body. Raises :class:`_Malformed` where it is none."""
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        message = choice["message"]
        text, refusal, finish = message.get("content"), message.get("refusal"), choice.get("finish_reason")
        usage = _usage(answer.get("usage"))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _Malformed(_short(f"{type(error).__name__} in body {body[:200]!r}")) from None
    if not isinstance(text, str | None):
        raise _Malformed(f"content is of type {type(text).__name__}")
    if refusal and not text:
        return _Failed("refused", _short(str(refusal)), False, usage=usage)
    if not text:
        if finish == "content_filter":
            return _Failed("refused", "by the endpoint's content filter", False, usage=usage)
        if finish == "length":  # a reasoning model that thought until the end would do so again
            return _Failed("empty", f"all {usage.completion} new tokens went by without an answer", False, usage=usage)
        return _Failed("empty", f"finish_reason {finish}", True, usage=usage)
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is JSON, but no text that can be stored
    ends: dict[Any, Literal["length", "filter"]] = {"length": "length", "content_filter": "filter"}
    return Reply(text, ends.get(finish, "stop"), usage, str(answer.get("model") or ""), _tokens(choice, text))


def _usage(usage: Any) -> Usage:
    if not usage:
        return Usage()
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        int(usage.get("prompt_tokens") or 0),
        int(usage.get("completion_tokens") or 0),
        int(details.get("cached_tokens") or 0),
    )


def _tokens(choice: Any, text: str) -> tuple[Token, ...] | None:
    """The tokens of a reply; None where the endpoint gives none, or some that do not spell the text."""
    try:
        content = choice["logprobs"]["content"]
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces = [decoder.decode(bytes(t["bytes"])) if t.get("bytes") is not None else t["token"] for t in content]
        values = [float(t["logprob"]) for t in content]
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
    if "".join(pieces) != text or not all(map(math.isfinite, values)):
        return None
    return tuple(Token(piece, value) for piece, value in zip(pieces, values, strict=True))


def agent(name: str, options: Options) -> OpenAIChat:
    """Make the agent.

    Raises MissingKey where a named environment variable is empty, RecipeError where the address holds a password,
    MissingDependency without the openai package.
    """
    where = f"agent {name!r}"
    if importlib.util.find_spec("openai") is None:
        raise MissingDependency("endpoints need the openai package", where, 'pip install "vivavoce[openai]"')
    key = None
    if options.api_key_env is not None:
        key = os.environ.get(options.api_key_env, "").strip()
        if not key:
            do = f"export {options.api_key_env}=…, or write `api_key_env: null` for a server that wants none"
            raise MissingKey(f"no API key: ${options.api_key_env} is empty", where, do)
    base_url = options.base_url or _OPENAI
    if options.base_url_env is not None:
        base_url = os.environ.get(options.base_url_env, "").strip()
        if not base_url:
            raise MissingKey(f"no address: ${options.base_url_env} is empty", where, f"export {options.base_url_env}=…")
    address = urlsplit(base_url)
    if address.password or address.query:  # the HTTP library logs addresses, and journals hold them
        do = "put the key into the environment variable that `api_key_env` names"
        raise RecipeError("the address holds a password or a query", where, do)
    return OpenAIChat(name, options, base_url, key)
