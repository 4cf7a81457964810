"""The parts that every backend behind HTTP needs: connections, limits, bounded retries, and the meaning of each fault.

A backend gives the path, the body and a function that reads the answer. Every call ends, after a bounded number of
attempts, as a reply or as an AgentError::

    reply = await endpoint.ask("/chat/completions", body, read, sampling.max_new_tokens)

    body ──▶ turn (limits.py) ──▶ POST ──▶ status, body ──▶ read(answer) ──▶ Reply
              ▲                     │  fault of the world    │ Failed
              └──── wait, jitter ◀──┴────────────────────────┘ ──▶ AgentError when trying again is no use
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import os
import random
import re
import ssl
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.agents.faults import SETTINGS, Failed, failed_status, short
from vivavoce.agents.limits import EndpointLimits, Permit, limits_of
from vivavoce.agents.reading import End, usage_of
from vivavoce.agents.variables import Variable
from vivavoce.errors import AgentError, MissingDependency, MissingKey, RecipeError
from vivavoce.progress import say
from vivavoce.records import Reply, Usage, to_json

if TYPE_CHECKING:
    from aiohttp import ClientSession

_LONGEST_BACKOFF_S = 30.0
_CONNECT_S = 20.0  # a host that is not there must not take the time that an answer may take
_REFUSALS = 4  # a refusal is no fault of the call, so a call may meet this many times as many refusals as faults
_PATIENT, _LONGER = 4, 8.0  # after so many refusals a call waits longer than it is asked to, at most so many times
_NOBODY_THERE = 2  # retries of an address that has not answered yet, or has never answered anything that can be read
_SILENT = 3  # an agent is given up after so many calls without an answer, if no other call had one
_SAID_S = 10.0  # between two lines about trouble with one agent
_PROBE_S = 30.0
_REACH_S, _REACH_AGAIN_S = 5.0, 0.3  # how long a list of models may take, and how soon it is asked for again
_NO_ANSWER = ("timeout", "connection", "unreachable", "server", "rate_limit")
_OF_THE_CALL = ("overlong", "refused")  # the model was reached, and would answer another call
_TELLING = ("bad_request", "forbidden")  # one such failure is enough if no other call has succeeded
T = TypeVar("T")


class EndpointOptions(BaseModel):
    """The address of an endpoint, and how patient to be with it. A backend's ``Options`` is a subclass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = ""
    """Address; empty: the value of ``base_url_env``, otherwise the backend's own."""
    base_url_env: Variable | None = None
    """Name of an environment variable with the address, so that a recipe can be shared."""
    api_key_env: Variable | None = None
    """Name of the environment variable with the key; null for local servers that need none."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds for one attempt, from request to last byte."""
    max_retries: int = Field(default=5, ge=0)
    """Retries after a fault; a call that is turned away (429, overloaded) may come back four times as often."""
    backoff_s: float = Field(default=0.5, ge=0)
    """Seconds before the first retry, with jitter; doubled before each further one, at most 30 s."""
    max_wait_s: float = Field(default=120.0, ge=0)
    """The longest Retry-After that is honoured; a server that asks for more fails the call."""
    give_up_s: float = Field(default=180.0, ge=0)
    """Seconds without any answer after which an endpoint counts as down. Calls then fail at once, but for one
    every ``timeout_s`` (30 s at least) that tries, until it answers again. So the other agents are not kept waiting.
    """
    max_concurrency: int = Field(default=64, ge=1)
    """Requests in flight at most; fewer while the endpoint turns some away."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Calls that are begun in a minute at most; null: no such limit."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Prompt and new tokens of the calls begun in a minute, at most; null: no such limit."""

    finish_reasons: dict[str, End] = Field(default={})
    """The meaning of finish reasons that are not known here, ``missing`` for none: stop, length, filter or error."""

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if self.base_url and self.base_url_env:
            raise ValueError("give either `base_url` or `base_url_env`")
        return self


class Endpoint:
    """One address and key, on behalf of one agent.

    Args:
        name: The agent's name.
        options: The recipe's.
        base_url: The address that paths are appended to.
        headers: Headers of every request. They hold the key, so nothing here shows them.
        key: Removed from all texts of the endpoint.
        share: Agents with equal ``(base_url, key, share)`` share one set of limits. Empty if the limits are the
            server's; the model's name if the provider limits each model by itself.

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
        self._trouble = _Trouble()

    async def ask(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], Reply | Failed], max_new_tokens: int
    ) -> Reply:
        """Post ``body`` as JSON until ``read`` makes a reply of the answer.

        ``read`` gets the parsed answer; a LookupError, TypeError, ValueError or AttributeError in it means that this is
        no answer at all. Tokens that the endpoint counted for answers that were thrown away are the reply's ``wasted``;
        the latency is that of the whole.

        Raises AgentError with one of these reasons: ``timeout``, ``rate_limit``, ``connection``, ``server``,
        ``malformed`` (no reply could be read), ``refused`` (also by a content filter), ``overlong``, ``bad_request``,
        ``forbidden``, those of ``read``, and :data:`~vivavoce.agents.faults.SETTINGS`. It says what to ``do`` if no
        other call of the agent can be answered either.
        """
        started = time.perf_counter()
        reply, spent = await self.answer(path, body, read, max_new_tokens)
        return replace(reply, wasted=spent, latency_s=time.perf_counter() - started)

    async def answer(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], T | Failed], max_new_tokens: int
    ) -> tuple[T, Usage]:
        """The result of ``read`` for the answer to a call, as in :meth:`ask`, and the usage of failed attempts."""
        data = to_json(body).encode("utf-8", "replace")

        async def attempt() -> T | Failed:
            answer = await self._send("POST", path, data, self._headers)
            return answer if isinstance(answer, Failed) else self.parse(answer, read)

        # about four bytes a token; put right when the endpoint has counted
        return await self.persist(attempt, len(data) // 4 + max_new_tokens)

    async def fetch(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        once: bool = False,
    ) -> bytes:
        """The body of a good answer to any other request, for example for a file. Raises AgentError as :meth:`ask`
        does.

        ``once``: for requests that must not be made twice, as in :meth:`persist`.
        """
        merged = {**self._headers, **(headers or {})}
        attempt = lambda: self._send(method, path, data, merged)  # noqa: E731
        return (await self.persist(attempt, 0, once=once, is_call=False))[0]

    async def list_models(
        self, path: str, get: Callable[[str], Awaitable[bytes | Failed]] | None = None
    ) -> set[str] | None:
        """The names in the endpoint's list of models, which is free; None if it tells none.

        Raises AgentError, with what to ``do``, if no call can be answered: no server is there, or it refuses the key.
        It is asked twice at most, with a short wait; a call that is paid for is more patient. ``get`` is for backends
        that send by themselves.
        """
        get = get or (lambda path: self._send("GET", path, None, self._headers))
        for last in (False, True):
            try:
                async with asyncio.timeout(_REACH_S):
                    outcome = await get(path)
            except TimeoutError:
                return None
            if not isinstance(outcome, Failed) or outcome.reason != "unreachable" or last:
                break
            await asyncio.sleep(_REACH_AGAIN_S)
        if isinstance(outcome, Failed):
            if outcome.reason in ("auth", "unreachable"):
                raise AgentError(outcome.reason, outcome.detail, do=self._what_to_do(outcome))
            return None
        try:
            return {str(model["id"]) for model in json.loads(outcome)["data"]}
        except (ValueError, LookupError, TypeError, RecursionError):
            return None

    async def aclose(self) -> None:
        """Close the connections. A later call opens new ones."""
        opened, self._open = self._open, None
        if opened is not None and opened.loop is asyncio.get_running_loop():
            await opened.session.close()

    async def persist(
        self, attempt: Callable[[], Awaitable[T | Failed]], tokens: int, *, once: bool = False, is_call: bool = True
    ) -> tuple[T, Usage]:
        """Run an attempt within the limits until it works; returns its result and the usage of failed attempts. Raises
        AgentError.

        For backends that send by themselves, through a provider's own package. ``tokens`` is the expected number of one
        attempt. With ``once``, only a request that the endpoint turned away unread is made again, because after a lost
        answer its effect is unknown. ``is_call``: the outcome tells whether the agent can be asked at all.
        """
        opened = self._connections()
        limits, hope = opened.limits, opened.hope
        spent, faults, refusals = Usage(), 0, 0
        hope.calls += is_call
        try:
            while True:
                turn = await limits.enter(self.name, tokens, first=faults + refusals > 0)
                correction, wait_s = 0, None
                try:
                    outcome = await self._attempt(opened, attempt)
                    self._learn(limits, turn, outcome)
                    hope.reached |= not (isinstance(outcome, Failed) and outcome.reason == "unreachable")
                    if not isinstance(outcome, Failed):
                        if isinstance(outcome, Reply) and outcome.usage != Usage():
                            correction = outcome.usage.prompt + outcome.usage.completion - tokens
                        hope.answered |= is_call
                        return outcome, spent
                    spent += outcome.usage
                    hope.answered |= is_call and outcome.reason in _OF_THE_CALL
                    if outcome.refused and outcome.reason != "timeout":
                        refusals += 1
                    else:
                        faults += 1
                    early = is_call and self._looks_lasting(hope, outcome, faults)
                    if not (once and outcome.reason != "rate_limit") and not self._dead(limits):
                        wait_s = self._wait_s(outcome, faults, refusals, hope)
                    if wait_s is not None:
                        self._trouble.say(self.name, outcome, wait_s)
                        if outcome.refused:
                            wait_s = await limits.stay(wait_s)
                finally:
                    limits.leave(turn, correction)
                if wait_s is None or (early and await hope.lost_already()):
                    break
                await asyncio.sleep(wait_s)
        finally:
            hope.calls -= is_call
            hope.decide()
        raise await self._final_error(hope, outcome, faults + refusals, spent, is_call)

    def _looks_lasting(self, hope: _Hope, failed: Failed, faults: int) -> bool:
        """Whether a call that may be sent again should first see whether other calls are answered: none has been
        yet, and this one has failed a few times, though it was not turned away.
        """
        return not hope.answered and not failed.refused and failed.reason == "server" and faults > _NOBODY_THERE

    def _wait_s(self, failed: Failed, faults: int, refusals: int, hope: _Hope) -> float | None:
        """Seconds until the next attempt, or None if there is to be none."""
        retries = self.options.max_retries
        strange = failed.reason in ("malformed", "empty") and not hope.answered
        if strange or (failed.reason == "unreachable" and not hope.reached):
            retries = min(retries, _NOBODY_THERE)
        # what worked a moment ago may be no fault of the settings
        retry = failed.retryable or (hope.answered and failed.reason in ("auth", "not_found"))
        if not retry or faults > retries or refusals > retries * _REFUSALS:
            return None
        if failed.wait_s is not None:
            # a call that is turned away again and again asks ever more rarely
            asked_s = failed.wait_s * min(_LONGER, 2.0 ** max(0, refusals - _PATIENT))
            return asked_s if failed.wait_s <= self.options.max_wait_s else None
        # with jitter, because calls that were refused together would come back together
        backoff_s = self.options.backoff_s * 2.0 ** (faults + refusals - 1)
        return min(backoff_s, _LONGEST_BACKOFF_S) * random.uniform(0.5, 1)

    async def _final_error(self, hope: _Hope, failed: Failed, attempts: int, spent: Usage, is_call: bool) -> AgentError:
        """The error that a call ends with, once it is known whether only this call fails."""
        reason, lasting = failed.reason, failed.reason in SETTINGS
        if reason == "unreachable" and hope.reached:  # it was there before, and may come back
            reason, lasting = "connection", False
        if hope.answered:
            reason = "refused" if reason == "forbidden" else reason
        elif is_call and not lasting:
            lasting = await hope.lost(enough=1 if reason in _TELLING else _SILENT)
        if failed.refused and failed.wait_s is not None and failed.wait_s > self.options.max_wait_s:
            lasting = True
        return AgentError(
            reason, self._error_text(failed, attempts), spent, self._what_to_do(failed) if lasting else ""
        )

    def _error_text(self, failed: Failed, attempts: int) -> str:
        """A text for people: what was wrong, and how it was tried."""
        # what no attempt changes is told alike, however many there were: the record of it is no matter of luck
        tried = [f"{attempts} attempts"] if failed.retryable and attempts > 1 else []
        if failed.wait_s is not None and failed.wait_s > self.options.max_wait_s:
            tried.append(f"asked to wait {failed.wait_s:.0f} s")
        return f"{failed.detail} ({', '.join(tried)})" if tried else failed.detail

    def _what_to_do(self, failed: Failed) -> str:
        key = self.options.api_key_env
        key = f"the key in ${key}" if key else "a key (name its environment variable in `api_key_env`)"
        return {
            "auth": f"check {key}",
            "forbidden": f"check whether {key} may use this model",
            "account": "add credit at the provider, or raise its limit there",
            "not_found": f"check `base_url` ({self.base_url}: the part before /chat/completions or /v1/messages) and "
            "whether `model` is known there",
            "unreachable": f"check `base_url` ({self.base_url}) and whether the server is up",
            "bad_request": "check `model` and what the model takes: `omit`, `takes`, `token_limit`, `extra_body`",
            "empty": "raise `max_new_tokens`: the model may use them all for reasoning that it does not show",
            "rate_limit": "wait, or ask the provider for a higher limit",
            "timeout": "check whether the server is loading or busy; raise `timeout_s` if its answers take longer",
        }.get(failed.reason, f"find out what is wrong at {self.base_url}, or remove the agent")

    async def _attempt(self, opened: _Open, attempt: Callable[[], Awaitable[T | Failed]]) -> T | Failed:
        """Make one attempt; a failure at once if the endpoint is taken to be down."""
        limits = opened.limits
        if self._dead(limits):
            if limits.now() < limits.probe_at:
                return Failed("connection", f"the endpoint has answered nothing for {limits.down_s():.0f} s", False)
            limits.probe_at = limits.now() + max(self.options.timeout_s, _PROBE_S)
        self.attempts += 1
        self._trouble.requests += 1
        return await attempt()

    def _learn(self, limits: EndpointLimits, turn: Permit, outcome: object) -> None:
        """Tell the limits the outcome of a turn."""
        if not isinstance(outcome, Failed) or outcome.reason not in _NO_ANSWER:
            limits.count_answered(turn)
            return
        limits.count_failed()
        if outcome.refused:
            wait_s = outcome.wait_s or 0.0
            limits.count_refused(turn, wait_s if wait_s <= self.options.max_wait_s else 0.0, outcome.everybody)

    def _dead(self, limits: EndpointLimits) -> bool:
        return limits.down_s() > self.options.give_up_s

    async def _send(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]) -> bytes | Failed:
        """The body of a good answer. Faults of the world are returned, not raised: no traceback then holds the key."""
        import aiohttp

        session = self._connections().session
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
        except aiohttp.ConnectionTimeoutError:
            return Failed("unreachable", f"no connection within {_CONNECT_S:g} s", True)
        except TimeoutError:
            detail = f"no complete answer within {self.options.timeout_s:g} s"
            return Failed("timeout", detail, True, refused=True)
        except (aiohttp.ClientError, OSError) as error:
            message = short(self.scrub(f"{type(error).__name__}: {error}".encode("utf-8", "replace")).decode())
            unreached = isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL)
            return Failed("unreachable" if unreached else "connection", message, True)
        if response.status < 300:
            return body
        headers = {name.lower(): self.scrub(value.encode()).decode() for name, value in response.headers.items()}
        return failed_status(response.status, body, headers)

    def parse(self, body: bytes, read: Callable[[Any], T | Failed]) -> T | Failed:
        """The result of ``read`` for a body, see :meth:`ask`."""
        answer = None
        try:
            answer = json.loads(body)
            return read(answer)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            form = "its answer is none of this protocol" if answer is not None else "its answer is no JSON"
            message = short(f"{form}: {body[:200]!r}" if body.strip() else "its answer is empty")
            if answer is None and body.lstrip()[:1] == b"<":
                return Failed("not_found", short(f"a web page and no API is at this address: {body[:200]!r}"), False)
            return Failed("malformed", message, True, usage=usage_of(answer))

    def _connections(self) -> _Open:
        """Connections and limits of the running event loop. Neither survives its loop."""
        loop = asyncio.get_running_loop()
        if self._open is None or self._open.loop is not loop:
            import aiohttp

            session = aiohttp.ClientSession(
                # the limits are ours
                connector=aiohttp.TCPConnector(
                    limit=0, ssl=trust_store() if self.base_url.startswith("https:") else True
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            options = self.options
            limits = limits_of(self._share, options.max_concurrency)
            limits.narrow(options.max_concurrency, options.requests_per_minute, options.tokens_per_minute)
            self._open = _Open(loop, session, limits, _Hope())
        return self._open

    def scrub(self, body: bytes) -> bytes:
        """The text without the key, which servers like to quote if they did not accept it. Call it before anything
        cuts the text.
        """
        for secret in self._secrets:
            body = body.replace(secret, b"***")
        return body


class _Open(NamedTuple):
    loop: asyncio.AbstractEventLoop
    session: ClientSession
    limits: EndpointLimits
    hope: _Hope


class _Hope:
    """Whether an agent answers at all, as far as is known in one event loop.

    A call that failed for good waits here while others of the agent are under way: if one of them is answered, only
    that call fails. If all fail, the run must not go on without the agent.
    """

    def __init__(self) -> None:
        self.reached = self.answered = False
        self.calls = 0
        """Calls under way."""
        self.failed = self._doubtful = 0
        self.gone = False
        """Whether the agent was given up before its calls had been tried as often as they may."""
        self._waiting = list[asyncio.Future[None]]()

    async def lost(self, enough: int) -> bool:
        """Count a failure; returns whether no call of the agent can be answered: the last one under way, or the
        third, has failed too, ``enough`` of them in all.
        """
        self.failed += 1
        self.decide()
        if not self.answered and self.calls and self.failed < _SILENT:
            self._waiting.append(asyncio.get_running_loop().create_future())
            await self._waiting[-1]
        return not self.answered and (self.gone or self.failed >= enough)

    async def lost_already(self) -> bool:
        """Whether no call of the agent can be answered, for one that has failed a few times and may be sent again.

        It waits until another is answered, or until as many have failed so as are still under way, three at least.
        """
        self.calls -= 1
        self._doubtful += 1
        try:
            self.decide()
            if not self.answered and self.calls and not self.gone:
                self._waiting.append(asyncio.get_running_loop().create_future())
                await self._waiting[-1]
            return self.gone and not self.answered
        finally:
            self.calls += 1
            self._doubtful -= 1

    def decide(self) -> None:
        """Let waiting calls go on, if it is known by now."""
        self.gone |= not self.answered and self._doubtful + self.failed >= max(_SILENT, self.calls)
        if self.answered or self.gone or not self.calls or self.failed >= _SILENT:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                if not one.done():
                    one.set_result(None)


class _Trouble:
    """Tells the user now and then that requests of an agent are turned away or fail."""

    def __init__(self) -> None:
        self.requests = self._failed = 0
        self._said_at: float | None = None

    def say(self, name: str, failed: Failed, wait_s: float) -> None:
        """Note that a request failed, and comes again after ``wait_s``."""
        self._failed += 1
        now = time.monotonic()
        if self._said_at is not None and now - self._said_at < _SAID_S:
            return
        what = "turned away" if failed.refused and failed.reason != "timeout" else "failed"
        say(
            f"{name}: {self._failed} of the last {self.requests} requests {what} ({failed.detail}); "
            f"they wait and are sent again, this one after {wait_s:.1f} s"
        )
        self._said_at, self._failed, self.requests = now, 0, 0


def address_and_key(options: EndpointOptions, default_url: str, where: str) -> tuple[str, str | None]:
    """Address and key, from options and environment.

    Raises MissingKey if a named environment variable is empty, RecipeError if the address holds a password or cannot be
    used, MissingDependency without the HTTP library.
    """
    if importlib.util.find_spec("aiohttp") is None:
        raise MissingDependency("endpoints need aiohttp", where, 'pip install "vivavoce[endpoints]"')
    key = None
    if options.api_key_env is not None:
        key = os.environ.get(options.api_key_env, "").strip()
        if not key:
            do = f"export {options.api_key_env}=…, or write `api_key_env: null` for a server that needs none"
            raise MissingKey(f"no API key: ${options.api_key_env} is empty", where, do)
        if strange := re.search(r"^[\"']|[^ -~]", key):  # in quotation marks, or no plain sign
            what = f"${options.api_key_env} holds a sign that no API key has, U+{ord(strange[0]):04X}"
            raise MissingKey(what, where, "copy the key again, alone and whole, without quotation marks")
    base_url = options.base_url or default_url
    if options.base_url_env is not None:
        base_url = os.environ.get(options.base_url_env, "").strip()
        if not base_url:
            raise MissingKey(f"no address: ${options.base_url_env} is empty", where, f"export {options.base_url_env}=…")
    address = http_address(base_url, where)
    if address.password or address.query:  # libraries log addresses, and journals hold them
        do = "put the key into the environment variable that `api_key_env` names"
        raise RecipeError("the address holds a password or a query", where, do)
    for path in ("/chat/completions", "/completions", "/messages", "/responses"):
        if address.path.rstrip("/").endswith(path):
            rest = address._replace(path=address.path.rstrip("/").removesuffix(path)).geturl()
            raise RecipeError(f"the address ends in {path}, which is added to it", where, f"write `base_url: {rest}`")
    return base_url, key


def http_address(url: str, where: str) -> SplitResult:
    """The parts of an address. Raises RecipeError if it is none of HTTP."""
    try:
        address = urlsplit(url)
        usable = address.scheme in ("http", "https") and address.hostname and not re.search(r"\s", url)
        if usable and (address.port is None or address.port > 0):
            return address
    except ValueError:  # brackets without an IPv6 address, or a port that is none
        pass
    raise RecipeError("the address is not one of HTTP", where, "write `base_url: https://host/v1`")


def _proxy(base_url: str, where: str) -> tuple[str | None, dict[str, str] | None]:
    """The proxy of an address by HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, and headers for it alone."""
    address = urlsplit(base_url)
    if urllib.request.proxy_bypass(address.netloc):
        return None, None
    proxies = urllib.request.getproxies()
    named = proxies.get(address.scheme) or proxies.get("all")
    if not named:
        return None, None
    try:
        proxy = urlsplit(named if "://" in named else f"http://{named}")
    except ValueError:
        proxy = urlsplit("")
    if proxy.scheme not in ("http", "https"):
        raise RecipeError("only HTTP proxies can be used", where, "set HTTPS_PROXY to one, or NO_PROXY to the host")
    headers = None
    if proxy.username:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        headers = {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    return f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}", headers


def _spellings(key: str) -> frozenset[bytes]:
    """A key as it is, in JSON, in JSON with escaped slashes, in Python, and in an address."""
    quoted = json.dumps(key)[1:-1]
    return frozenset(
        s.encode() for s in (key, quoted, quoted.replace("/", "\\/"), repr(key)[1:-1], quote(key, safe=""))
    )


def trust_store() -> ssl.SSLContext:
    """The certificates to trust: those that SSL_CERT_FILE or SSL_CERT_DIR name, else the machine's own store."""
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context()  # reads both
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
