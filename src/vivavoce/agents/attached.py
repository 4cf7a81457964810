"""Calls to an engine that serves a model, which are made again if the engine died before it answered.

::

    async with Attached(name, serve, state) as engine:
        drawn = await engine.ask(lambda server: server.draw(ids, sampling, seed, ends, model))

A server is one life of an engine. Calls are in tokens: ids in, ids out, with log-probabilities, so that nothing is lost
between what a model writes and what it learns from. vLLM and SGLang have dialects of their own.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from vivavoce.agents.endpoint import Endpoint, EndpointOptions
from vivavoce.agents.engine_probes import alive, healthy, spare_loopback
from vivavoce.agents.engines import Running, Serve, state_of
from vivavoce.agents.faults import Failed, short
from vivavoce.errors import AgentError, AgentUnusable, MissingKey
from vivavoce.progress import say
from vivavoce.records import Sampling

_POLL_S = 0.2
_NOTICED_S = 20.0
"""Seconds after a lost answer within which it is known whether the engine has died."""
_LOST = ("connection", "unreachable", "server", "timeout", "malformed")
"""Reasons for a missing answer that a death of the engine can cause."""
_ENDS = ("stop", "length")
_BROKEN = ("connection", "unreachable")
"""The reasons that only an engine gives which does not run."""
_ALONE, _DEADLY = 2, 4
"""Deaths of an engine after which a call that saw them all is made alone, and after which it fails."""
_HOPELESS = 8
"""Lives of an engine in a row, none of which answered a call, after which it is given up."""
T = TypeVar("T")


class Drawn(NamedTuple):
    """The continuation of a prompt: token ids, the end of turn included, and the model's own log-probabilities."""

    ids: list[int]
    logprobs: list[float]


class Server:
    """An engine from one start to its end, for calls from one event loop."""

    def __init__(self, name: str, serve: Serve, running: Running, key: str | None) -> None:
        self.generation, self.url, self.model = running
        self.key, self._serve = key, serve
        options = EndpointOptions(
            timeout_s=serve.timeout_s,
            max_retries=1,
            backoff_s=0.2,
            give_up_s=1e9,  # whether it is dead is known otherwise
            max_concurrency=serve.max_concurrency,
        )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._endpoint = Endpoint(name, options, self.url, headers, key)

    async def draw(
        self, prompt: Sequence[int], sampling: Sampling, seed: int, ends: Sequence[int], model: str | None = None
    ) -> Drawn:
        """Continue ``prompt`` until a token of ``ends``, a stop string or the limit. Raises AgentError.

        ``model`` is an adapter's name; None is the engine's own model.
        """
        if self._serve.engine == "sglang":
            return await self._draw_sglang(prompt, sampling, seed, ends, model)

        def read(answer: Any) -> Drawn | Failed:
            choice = answer["choices"][0]
            if choice.get("finish_reason") not in _ENDS:
                return _cut_off(choice.get("finish_reason"))
            return _read_drawn(choice["token_ids"], choice["logprobs"]["token_logprobs"])

        return await self._draw(
            "/v1/completions",
            {
                "model": model or await self.own_name(),
                "prompt": list(prompt),
                "add_special_tokens": False,
                "max_tokens": sampling.max_new_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "min_p": 0.0,
                "repetition_penalty": sampling.repetition_penalty,
                "seed": seed % 2**63,
                "stop": list(sampling.stop),
                "stop_token_ids": list(ends),
                "logprobs": 0,
                "return_token_ids": True,
                "skip_special_tokens": False,
            },
            read,
            sampling.max_new_tokens,
        )

    async def _draw_sglang(
        self, prompt: Sequence[int], sampling: Sampling, seed: int, ends: Sequence[int], model: str | None
    ) -> Drawn:
        sampling_params: dict[str, Any] = {
            "max_new_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "min_p": 0.0,
            "repetition_penalty": sampling.repetition_penalty,
            "sampling_seed": seed % 2**31,
            "stop": list(sampling.stop),
            "stop_token_ids": list(ends),
            "skip_special_tokens": False,
            "no_stop_trim": True,
        }
        body = {"input_ids": list(prompt), "sampling_params": sampling_params, "return_logprob": True}

        def read(answer: Any) -> Drawn | Failed:
            meta = answer["meta_info"]
            if (why := meta["finish_reason"]["type"]) not in _ENDS:
                return _cut_off(why)
            tokens = meta["output_token_logprobs"]
            return _read_drawn([token for _, token, *_ in tokens], [value for value, *_ in tokens])

        body |= {"lora_path": model} if model else {}
        return await self._draw("/generate", body, read, sampling.max_new_tokens)

    async def load(self, adapter: str, folder: Path) -> None:
        """Have the engine serve the adapter in ``folder`` under the name ``adapter``. Raises AgentError."""
        path = "/load_lora_adapter" if self._serve.engine == "sglang" else "/v1/load_lora_adapter"
        try:
            await self._post(path, {"lora_name": adapter, "lora_path": str(folder.resolve())})
        except AgentError as error:
            if "already" not in error.detail:  # a name stands for one content, so that this is as good
                raise

    async def unload(self, adapter: str) -> None:
        """Have the engine forget an adapter. It is no error if the engine does not know it."""
        path = "/unload_lora_adapter" if self._serve.engine == "sglang" else "/v1/unload_lora_adapter"
        try:
            await self._post(path, {"lora_name": adapter})
        except AgentError as error:
            if error.reason not in ("not_found", "bad_request"):
                raise

    async def replace(self, folder: Path) -> None:
        """Have the engine serve the weights in ``folder`` from now on, and forget what it has stored of prompts."""
        path = str(folder.resolve())
        if self._serve.engine == "sglang":
            answer = await self._post("/update_weights_from_disk", {"model_path": path})
            if not answer.get("success"):
                raise AgentError("bad_request", short(f"the engine did not take new weights: {answer.get('message')}"))
            return
        await self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": path}})
        await self._post("/reset_prefix_cache", {})

    async def own_name(self) -> str:
        """The engine's name of its own model."""
        if not self.model:
            self.model = (await self.listed())[0]
        return self.model

    async def listed(self) -> list[str]:
        """The engine's names of the models that it serves, adapters among them. Raises AgentError if it tells none."""
        listed = await self._get("/v1/models")
        try:
            return [str(listed["data"][0]["id"]), *(str(one["id"]) for one in listed["data"][1:])]
        except (LookupError, TypeError, AttributeError) as error:
            message = short(f"{type(error).__name__}: {error} in the engine's answer to /v1/models")
            raise AgentError("malformed", message) from None

    async def tokens(self, text: str) -> list[int] | None:
        """The engine's own tokens of a text, nothing added; None if it does not tell them."""
        try:
            body = {"model": await self.own_name(), "prompt": text, "add_special_tokens": False}
            return [int(token) for token in (await self._post("/tokenize", body))["tokens"]]
        except (AgentError, LookupError, TypeError, ValueError):
            return None

    async def context(self) -> int | None:
        """Tokens that prompt and answer may have together, if the engine tells it."""
        if self._serve.engine == "sglang":
            length = (await self._get("/get_model_info")).get("context_length")
        else:
            listed = await self._get("/v1/models")
            length = next(
                (one.get("max_model_len") for one in listed.get("data", ()) if one.get("max_model_len")), None
            )
        return length if isinstance(length, int) else None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._endpoint.aclose()

    async def _draw(self, path: str, body: dict[str, Any], read: Callable[[Any], Drawn | Failed], new: int) -> Drawn:
        return (await self._endpoint.answer(path, body, read, new))[0]

    async def _post(self, path: str, body: Any) -> Any:
        reply = await self._endpoint.fetch("POST", path, json.dumps(body).encode())
        return _json(reply)

    async def _get(self, path: str) -> Any:
        return _json(await self._endpoint.fetch("GET", path))


class Attached:
    """An engine, for all that need answers of it. Use it in one event loop at a time.

    Args:
        name: The agent's name.
        serve: The settings by which its model is served.
        state: The file in which the process that started the engine says its address; None for one at a ``url``.
    """

    def __init__(self, name: str, serve: Serve, state: Path | None) -> None:
        self.name, self.serve, self.state = name, serve, state
        self.asked_again = 0
        """Calls that were made once more because the engine had died."""
        self._server: Server | None = None
        self._before: list[Server] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alone = asyncio.Lock()
        self._generation, self._awaited = 0, -1
        """The number of lives of an engine at an address, as far as known, and the last that was said to be missing."""
        self._barren = set[int]()
        """The last lives of the engine, if none of them has answered a call."""
        if state is not None:
            spare_loopback()
        self._log = "its log" if state is None else state.with_suffix(".log")
        self._key = _key(name, serve)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def ask(self, attempt: Callable[[Server], Awaitable[T]]) -> T:
        """The result of ``attempt`` with the engine. It is attempted again with the next one if the engine dies
        meanwhile.

        A call that saw an engine die twice is made alone, so that the call that kills it is found; after four deaths it
        fails with AgentError ``server``. Raises AgentUnusable if there is no engine any more, or only such as die.
        """
        deaths, seen = 0, -1
        while True:
            server = await self.server(after=seen)
            try:
                if deaths < _ALONE:
                    result = await attempt(server)
                else:
                    async with self._alone:
                        server = await self.server(after=seen)
                        result = await attempt(server)
                self._barren.clear()
                return result
            except AgentError as error:
                if error.reason not in _LOST:
                    raise
                lives = await self._lives(server)
                # an engine at an address may have started again by now, and its starts look alike from here
                if lives and (self.state is not None or error.reason not in _BROKEN):
                    if not error.do or self.state is None:
                        raise
                    raise AgentError(error.reason, error.detail, error.usage, f"read {self._log}") from None
                seen, deaths = seen if lives else server.generation, deaths + 1
                self._barren.add(server.generation)
                if len(self._barren) >= _HOPELESS:
                    what = f"the engine has died {len(self._barren)} times in a row, and answered no call"
                    do = f"read {self._log}; `serve.args` and `serve.env` are passed to the engine"
                    raise AgentUnusable(what, f"agent {self.name!r}, `serve`", do) from None
                self.asked_again += 1
                if deaths >= _DEADLY:
                    message = f"the engine died {deaths} times over this call; at last: {error.detail}"
                    raise AgentError("server", short(message)) from None

    async def server(self, after: int = -1) -> Server:
        """The engine's life that is ready, and later than ``after``; waits for it."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._server, self._before, self._alone = loop, None, [], asyncio.Lock()
        running = await self._running(after)
        if self._server is None or self._server.generation != running.generation or self._server.url != running.url:
            old, self._server = self._server, Server(self.name, self.serve, running, self._key)
            if old is not None:  # a call that still holds it would open it again, so it is closed at the end too
                self._before.append(old)
                await old.aclose()
        return self._server

    async def aclose(self) -> None:
        """Close the connections; the engine goes on."""
        server, self._server = self._server, None
        before, self._before = self._before, []
        for one in (*before, *([] if server is None else [server])):
            await one.aclose()

    async def _running(self, after: int) -> Running:
        if self.state is None:
            return await self._remote(after)
        while True:
            state = state_of(self.state)
            if state.get("failed"):
                do = f"read {state.get('log', 'its log')}; `serve.args` and `serve.env` are passed to the engine"
                raise AgentUnusable(str(state["failed"]), f"agent {self.name!r}, `serve`", do)
            if state.get("ready") and state["generation"] > after:
                return Running(state["generation"], state["url"], state["model"])
            if not state or not alive(state.get("owner")):
                what = "the process that started the engine has ended" if state else f"{self.state} is gone"
                raise AgentUnusable(
                    what, f"agent {self.name!r}, `serve`", "give the same command: it goes on from here"
                )
            await asyncio.sleep(_POLL_S)

    async def _remote(self, after: int) -> Running:
        """An engine at an address. It cannot be started from here, so it is waited for."""
        url, begun = self.serve.root, time.monotonic()
        self._generation = max(self._generation, after + 1)
        while not await asyncio.to_thread(healthy, url, 10.0):
            if self._awaited < self._generation:  # the first to notice says so; the others wait with it
                self._awaited = self._generation
                say(
                    f"engine {self.name} at {url} does not answer: the run waits for it, {self.serve.start_s:g} "
                    "s at most"
                )
            if time.monotonic() - begun > self.serve.start_s:
                do = "start the engine again and give the same command: the run goes on"
                raise AgentUnusable(f"the engine at {url} has not answered for {self.serve.start_s:g} s", self.name, do)
            await asyncio.sleep(1.0)
        return Running(self._generation, url, self.serve.served_name or "")

    async def _lives(self, server: Server) -> bool:
        """Whether the engine is the same as before and well, after an answer of it was lost."""
        until = time.monotonic() + _NOTICED_S
        while time.monotonic() < until:
            if self.state is not None:
                state = state_of(self.state)
                if state.get("generation") != server.generation or not state.get("ready"):
                    return False
            if await asyncio.to_thread(healthy, server.url, 5.0):
                return True
            if self.state is None:
                return False
            await asyncio.sleep(_POLL_S)
        return False


def _cut_off(why: object) -> Failed:
    return Failed("server", short(f"the engine ended an answer for the reason {why}"), True)


def _read_drawn(ids: Sequence[Any], logprobs: Sequence[Any]) -> Drawn:
    if len(ids) != len(logprobs) or not ids:
        raise ValueError(f"{len(logprobs)} log-probabilities for {len(ids)} tokens")
    values = [float(value) for value in logprobs]
    if any(math.isnan(value) or value > 1e-3 for value in values):
        raise ValueError(f"{max(values)} is no log-probability")
    return Drawn([int(token) for token in ids], values)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body.strip() else {}
    except ValueError:
        return {"said": body.decode("utf-8", "replace")}  # vLLM answers some requests with a sentence


def _key(name: str, serve: Serve) -> str | None:
    if serve.api_key_env is None:
        return None
    key = os.environ.get(serve.api_key_env, "").strip()
    if not key:
        raise MissingKey(
            f"no API key: ${serve.api_key_env} is empty", f"agent {name!r}", f"export {serve.api_key_env}=…"
        )
    return key


__all__ = ["Attached", "Drawn", "Server"]
