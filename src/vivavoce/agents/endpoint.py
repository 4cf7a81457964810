"""What every backend behind HTTP needs: connections, limits, bounded retries, and what each fault means.

A backend says where to post, what, and how to read the answer; every call ends, after a bounded number of attempts,
as a reply or as an AgentError::

    reply = await endpoint.ask("/chat/completions", body, read, sampling.max_new_tokens)

    body ──▶ turn (limits.py) ──▶ POST ──▶ status, body ──▶ read(answer) ──▶ Reply
              ▲                     │  fault of the world    │ Failed
              └──── wait, jitter ◀──┴────────────────────────┘ ──▶ AgentError when trying again is no use
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import importlib.util
import json
import math
import os
import random
import ssl
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.agents.limits import Limits, limits_of
from vivavoce.errors import AgentError, MissingDependency, MissingKey, RecipeError
from vivavoce.records import Reply, Usage, to_json

if TYPE_CHECKING:
    from aiohttp import ClientSession

_LONGEST_BACKOFF_S = 30.0
_CONNECT_S = 20.0  # a host that is not there must not take the time that an answer may take
_REFUSALS = 4  # being turned away is no fault of the call: it may happen to it so many times as often as faults
_PROBE_S = 30.0
_DETAIL_LENGTH = 300
_OVERLOADED = (503, 529)
# OpenAI; vLLM; llama.cpp; Anthropic
_OVERLONG = ("context_length", "maximum context length", "exceed_context_size", "prompt is too long")
_NO_ANSWER = ("timeout", "connection", "server", "rate_limit")
T = TypeVar("T")


class EndpointOptions(BaseModel):
    """Where an endpoint is, and how patient to be with it. A backend's ``Options`` is a subclass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = ""
    """Empty: what ``base_url_env`` names, otherwise the backend's own."""
    base_url_env: str | None = None
    """Name of an environment variable with the address, so that a recipe can be shared."""
    api_key_env: str | None = None
    """Name of the environment variable with the key; null for local servers that want none."""
    timeout_s: float = Field(default=120.0, gt=0)
    """For one attempt, from request to last byte."""
    max_retries: int = Field(default=5, ge=0)
    """After a fault; a call that is turned away (429, overloaded) may come back four times as often."""
    backoff_s: float = Field(default=0.5, ge=0)
    """Before the first retry, with jitter; doubled before each further one, at most 30 s."""
    max_wait_s: float = Field(default=120.0, ge=0)
    """The longest Retry-After that is honoured; a server that asks for more fails the call."""
    give_up_s: float = Field(default=180.0, ge=0)
    """An endpoint that has answered nothing for so long is taken for dead: calls fail at once, but for one every
    ``timeout_s`` (30 s at least) that tries, until it answers again. So the other agents are not kept waiting."""
    max_concurrency: int = Field(default=64, ge=1)
    """Requests in flight at most; fewer while the endpoint turns some away."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Prompt and new tokens together."""

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if self.base_url and self.base_url_env:
            raise ValueError("give either `base_url` or `base_url_env`")
        return self


class Failed(NamedTuple):
    """What went wrong with one attempt."""

    reason: str
    """As :class:`vivavoce.errors.AgentError` has them."""
    detail: str
    again: bool
    """Another attempt may go better."""
    wait_s: float | None = None
    """What the server asked for; None where it left that to us."""
    usage: Usage = Usage()
    """Tokens that the endpoint counted for it all the same."""
    refused: bool = False
    """The endpoint was asked for too much at once: a limit of its rate, or overload."""


class Endpoint:
    """One address and key, on behalf of one agent.

    Args:
        name: Of the agent.
        options: The recipe's.
        base_url: What paths are appended to.
        headers: Of every request. They hold the key, so nothing here shows them.
        key: Taken out of whatever the endpoint says.
        share: Agents with equal ``(base_url, key, share)`` share one set of limits. Empty where the limits are the
            server's; the model's name where the provider limits each model by itself.

    Attributes:
        attempts: Requests sent so far, retries included.
    """

    def __init__(
        self,
        name: str,
        options: EndpointOptions,
        base_url: str,
        headers: Mapping[str, str],
        key: str | None = None,
        share: str = "",
    ) -> None:
        self.name, self.options, self.base_url = name, options, base_url.rstrip("/")
        self.attempts = 0
        self._headers = {"Content-Type": "application/json", **headers}
        self._share = (self.base_url, key, share)
        self._secrets = _spellings(key) if key else frozenset[bytes]()
        self._proxy, self._proxy_headers = _proxy(self.base_url, f"agent {name!r}")
        self._open: _Open | None = None

    async def ask(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], Reply | Failed], max_new_tokens: int
    ) -> Reply:
        """Post ``body`` as JSON until ``read`` makes a reply of the answer.

        ``read`` gets the parsed answer; a LookupError, TypeError, ValueError or AttributeError of its says that this
        is no answer at all. What the endpoint counted for answers that were thrown away is the reply's ``wasted``;
        the latency is that of the whole.

        Raises AgentError with one of these reasons: ``timeout``, ``rate_limit``, ``connection``, ``server``,
        ``malformed`` (no reply could be read), ``refused`` (also by a content filter), ``overlong``, ``auth``,
        ``bad_request``, and those of ``read``.
        """
        started = time.perf_counter()
        data = to_json(body).encode("utf-8", "replace")

        async def attempt() -> Reply | Failed:
            answer = await self._send("POST", path, data, self._headers)
            return answer if isinstance(answer, Failed) else self.parsed(answer, read)

        # about four bytes a token; put right when the endpoint has counted
        reply, spent = await self.persist(attempt, len(data) // 4 + max_new_tokens)
        return replace(reply, wasted=spent, latency_s=time.perf_counter() - started)

    async def fetch(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        once: bool = False,
    ) -> bytes:
        """The body of a good answer to any other request, say for a file. Raises AgentError as :meth:`ask` does.

        ``once``: for what must not be done twice, as :meth:`persist` has it.
        """
        merged = {**self._headers, **(headers or {})}
        return (await self.persist(lambda: self._send(method, path, data, merged), 0, once=once))[0]

    async def aclose(self) -> None:
        """Close the connections. A later call opens new ones."""
        opened, self._open = self._open, None
        if opened is not None and opened.loop is asyncio.get_running_loop():
            await opened.session.close()

    async def persist(
        self, attempt: Callable[[], Awaitable[T | Failed]], tokens: int, *, once: bool = False
    ) -> tuple[T, Usage]:
        """Attempt it within the limits until it works; also the usage of what did not. Raises AgentError.

        For backends that send by themselves, through a provider's own package. ``tokens`` is what one attempt is
        expected to take. With ``once``, only what the endpoint turned away unread is attempted again: after a lost
        answer nobody knows what was done.
        """
        limits = self._opened().limits
        spent, faults, refusals = Usage(), 0, 0
        while True:
            await limits.enter(self.name, tokens, first=faults + refusals > 0)
            correction = 0
            try:
                outcome = await self._attempt(limits, attempt)
                if not isinstance(outcome, Failed):
                    if isinstance(outcome, Reply) and outcome.usage != Usage():
                        correction = outcome.usage.prompt + outcome.usage.completion - tokens
                    return outcome, spent
                spent += outcome.usage
                if outcome.refused and outcome.reason != "timeout":
                    refusals += 1
                else:
                    faults += 1
                wait_s = None if once and outcome.reason != "rate_limit" else self._wait_s(outcome, faults, refusals)
                if wait_s is None or self._dead(limits):
                    raise AgentError(outcome.reason, self._told(outcome, faults + refusals), spent)
                if outcome.refused:  # its turn stays taken, or the next in the queue would be refused as well
                    await asyncio.sleep(wait_s)
                    wait_s = 0.0
            finally:
                limits.leave(self.name, correction)
            await asyncio.sleep(wait_s)

    def _wait_s(self, failed: Failed, faults: int, refusals: int) -> float | None:
        """Seconds until the next attempt, or None where there is to be none."""
        retries = self.options.max_retries
        if not failed.again or faults > retries or refusals > retries * _REFUSALS:
            return None
        if failed.wait_s is not None:
            return failed.wait_s if failed.wait_s <= self.options.max_wait_s else None
        # jitter, or everybody who was turned away together comes back together
        return min(self.options.backoff_s * 2.0 ** (faults + refusals - 1), _LONGEST_BACKOFF_S) * random.uniform(0.5, 1)

    def _told(self, failed: Failed, attempts: int) -> str:
        """For people: what was wrong, and how it was tried."""
        # what no attempt changes is told alike, however many there were: the record of it is no matter of luck
        tried = [f"{attempts} attempts"] if failed.again and attempts > 1 else []
        if failed.wait_s is not None and failed.wait_s > self.options.max_wait_s:
            tried.append(f"asked to wait {failed.wait_s:.0f} s")
        return f"{failed.detail} ({', '.join(tried)})" if tried else failed.detail

    async def _attempt(self, limits: Limits, attempt: Callable[[], Awaitable[T | Failed]]) -> T | Failed:
        """One attempt, whose outcome the limits learn from."""
        if self._dead(limits):
            if time.monotonic() < limits.probe_at:
                return Failed("connection", f"the endpoint has answered nothing for {limits.down_s():.0f} s", False)
            limits.probe_at = time.monotonic() + max(self.options.timeout_s, _PROBE_S)
        self.attempts += 1
        outcome = await attempt()
        if not isinstance(outcome, Failed) or outcome.reason not in _NO_ANSWER:
            limits.answered()
            return outcome
        limits.failed()
        if outcome.refused:
            wait_s = outcome.wait_s or 0.0
            limits.refused(wait_s if wait_s <= self.options.max_wait_s else 0.0)
        return outcome

    def _dead(self, limits: Limits) -> bool:
        return limits.down_s() > self.options.give_up_s

    async def _send(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]) -> bytes | Failed:
        """The body of a good answer. What the world may do wrong is returned: no traceback then holds the key."""
        import aiohttp

        session = self._opened().session
        try:
            async with (
                asyncio.timeout(self.options.timeout_s),
                session.request(
                    method,
                    self.base_url + path,
                    data=data,
                    headers=headers,
                    proxy=self._proxy,
                    proxy_headers=self._proxy_headers,
                    allow_redirects=method == "GET",  # prompts stay where the recipe sent them; keys in any case
                ) as response,
            ):
                body = self.scrub(await response.read())
        except TimeoutError:
            detail = f"no complete answer within {self.options.timeout_s:g} s"
            return Failed("timeout", detail, True, refused=True)
        except (aiohttp.ClientError, OSError) as error:
            said = self.scrub(f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
            return Failed("connection", short(said.decode()), True)
        return body if response.status < 300 else failed_status(response.status, body, response.headers)

    def parsed(self, body: bytes, read: Callable[[Any], Reply | Failed]) -> Reply | Failed:
        """What ``read`` makes of a body, see :meth:`ask`."""
        try:
            return read(json.loads(body))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return Failed("malformed", short(f"{type(error).__name__} in body {body[:200]!r}"), True)

    def _opened(self) -> _Open:
        """Connections and limits of the running event loop; neither survives its loop."""
        loop = asyncio.get_running_loop()
        if self._open is None or self._open.loop is not loop:
            import aiohttp

            session = aiohttp.ClientSession(
                # the limits are ours
                connector=aiohttp.TCPConnector(limit=0, ssl=trusted() if self.base_url.startswith("https:") else True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            options = self.options
            limits = limits_of(self._share, options.max_concurrency)
            limits.narrow(options.max_concurrency, options.requests_per_minute, options.tokens_per_minute)
            self._open = _Open(loop, session, limits)
        return self._open

    def scrub(self, said: bytes) -> bytes:
        """Servers like to quote the key that they did not accept. To be done before anything cuts the key in two."""
        for secret in self._secrets:
            said = said.replace(secret, b"***")
        return said


class _Open(NamedTuple):
    loop: asyncio.AbstractEventLoop
    session: ClientSession
    limits: Limits


def located(options: EndpointOptions, default_url: str, where: str) -> tuple[str, str | None]:
    """Address and key, from options and environment.

    Raises MissingKey where a named environment variable is empty, RecipeError where the address holds a password or
    cannot be used, MissingDependency without the HTTP library.
    """
    if importlib.util.find_spec("aiohttp") is None:
        raise MissingDependency("endpoints need aiohttp", where, 'pip install "vivavoce[endpoints]"')
    key = None
    if options.api_key_env is not None:
        key = os.environ.get(options.api_key_env, "").strip()
        if not key:
            do = f"export {options.api_key_env}=…, or write `api_key_env: null` for a server that wants none"
            raise MissingKey(f"no API key: ${options.api_key_env} is empty", where, do)
    base_url = options.base_url or default_url
    if options.base_url_env is not None:
        base_url = os.environ.get(options.base_url_env, "").strip()
        if not base_url:
            raise MissingKey(f"no address: ${options.base_url_env} is empty", where, f"export {options.base_url_env}=…")
    address = urlsplit(base_url)
    if address.password or address.query:  # libraries log addresses, and journals hold them
        do = "put the key into the environment variable that `api_key_env` names"
        raise RecipeError("the address holds a password or a query", where, do)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise RecipeError("the address is not one of HTTP", where, "write `base_url: https://host/v1`")
    return base_url, key


def _proxy(base_url: str, where: str) -> tuple[str | None, dict[str, str] | None]:
    """What HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say of an address: a proxy, and headers for it alone."""
    address = urlsplit(base_url)
    if urllib.request.proxy_bypass(address.netloc):
        return None, None
    proxies = urllib.request.getproxies()
    named = proxies.get(address.scheme) or proxies.get("all")
    if not named:
        return None, None
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme not in ("http", "https"):
        raise RecipeError("only HTTP proxies can be used", where, "set HTTPS_PROXY to one, or NO_PROXY to the host")
    headers = None
    if proxy.username:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        headers = {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    return f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}", headers


def _spellings(key: str) -> frozenset[bytes]:
    """A key as it is, in JSON, in the JSON of those who escape slashes, in Python, and in an address."""
    quoted = json.dumps(key)[1:-1]
    return frozenset(
        s.encode() for s in (key, quoted, quoted.replace("/", "\\/"), repr(key)[1:-1], quote(key, safe=""))
    )


def short(text: str) -> str:
    """One line, cut where it is longer than an error should be."""
    text = " ".join(text.split())
    return text if len(text) <= _DETAIL_LENGTH else f"{text[:_DETAIL_LENGTH]}…"


def trusted() -> ssl.SSLContext:
    """Whom to trust: what SSL_CERT_FILE or SSL_CERT_DIR name, else the machine's own store."""
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context()  # reads both
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def failed_status(status: int, body: bytes, headers: Mapping[str, str]) -> Failed:
    """What an HTTP error means. ``body`` is without the key."""
    code, said = _complaint(body)
    detail = short(f"HTTP {status}{f' {code}' if code else ''}: {said or 'empty body'}")
    wait_s = _retry_after(headers)
    if status == 429:
        # an empty account does not fill while we wait
        return Failed("rate_limit", detail, code != "insufficient_quota", wait_s, refused=True)
    if status == 408:
        return Failed("timeout", detail, True, wait_s, refused=True)
    if status == 409 or status >= 500:
        return Failed("server", detail, True, wait_s, refused=status in _OVERLOADED)
    if status in (401, 403):
        return Failed("auth", detail, False)
    if "content_filter" in code or "content_policy" in code:
        return Failed("refused", detail, False)
    if status == 413 or any(sign in detail for sign in _OVERLONG):
        return Failed("overlong", detail, False)
    return Failed("bad_request", detail, False)


def _complaint(body: bytes) -> tuple[str, str]:
    """Code and message out of the body of an error, in the shapes that providers give it."""
    try:
        said: Any = json.loads(body)
    except ValueError:
        return "", body.decode("utf-8", "replace")
    if isinstance(said, list) and len(said) == 1:  # Gemini
        said = said[0]
    if isinstance(said, dict) and isinstance(said.get("error"), dict):
        said = said["error"]
    if not isinstance(said, dict):
        return "", str(said or "")
    code = said.get("code")
    if not isinstance(code, str):  # some repeat the status there
        code = said.get("type") or code
    return str(code or ""), str(said.get("message") or said.get("detail") or said)


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
