"""A scripted agent: replies come from a function. For tests and dry runs, like a mock transport of an HTTP client.

::

    def respond(messages, sampling, seed):
        if "riddle" in messages[-1]["content"]:
            raise AgentError("refused", "no riddles")
        return "The answer is 4."

    agent = Scripted("ada", respond)
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce import plugins
from vivavoce.errors import RecipeError
from vivavoce.records import Message, Reply, Sampling, Usage, digest, seed_of

Respond = Callable[[Sequence[Message], Sampling, int], str | Reply | Awaitable[str | Reply]]


class Options(BaseModel):
    """The source of the replies: exactly one of ``replies`` and ``function``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replies: list[str] = Field(default=[])
    """Replies, of which a stable hash of messages and seed picks one, so that a resumed run gets the same."""
    function: str = ""
    """``path/to/file.py:name`` of a function of messages, sampling and seed."""
    latency_s: float = Field(default=0.0, ge=0)
    """Seconds that every reply takes."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.replies) == bool(self.function):
            raise ValueError("give either `replies` or `function`")
        return self


class Scripted:
    """An agent whose replies ``respond(messages, sampling, seed)`` makes: a text, a Reply, or a raised AgentError.

    A text is finished like a model's: cut before the first stop string, and after ``max_new_tokens`` words (then
    ``finish`` is "length"); words are counted as tokens. A Reply is passed on as it is. ``respond`` may be async.
    ``latency_s`` is waited before each reply; ``calls`` counts the calls that began.
    """

    def __init__(self, name: str, respond: Respond, *, identity: str = "", latency_s: float = 0.0) -> None:
        self.name, self.identity, self.latency_s = name, identity or f"scripted:{name}", latency_s
        self.calls = 0
        self._respond = respond

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """The reply of ``respond``. Raises whatever it raises."""
        self.calls += 1
        started = time.perf_counter()
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        reply = self._respond(messages, sampling, seed)
        if inspect.isawaitable(reply):
            reply = await reply
        if isinstance(reply, Reply):
            return reply
        for stop in sampling.stop:
            reply = reply.partition(stop)[0]
        words, finish = _words(reply), "stop"
        if words > sampling.max_new_tokens:
            words, finish = sampling.max_new_tokens, "length"
            kept = re.match(rf"(?:\s*\S+){{{words}}}", reply) if words else None
            reply = kept[0] if kept else ""
        prompt = sum(_words(message["content"]) for message in messages)
        usage = Usage(prompt, words)
        return Reply(reply, finish, usage, self.identity, latency_s=time.perf_counter() - started)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to free."""


_SHAPE = bytes(ord(" ") if chr(code).isspace() else ord("x") for code in range(256))


def _words(text: str) -> int:
    """The number of words between white space: those that ``split`` gives, counted at a third of its time if possible,
    because prompts are long.
    """
    if not text.isascii():
        return len(text.split())
    return (b" " + text.encode().translate(_SHAPE)).count(b" x")


def agent(name: str, options: Options) -> Scripted:
    """Make the agent. Raises RecipeError if ``function`` names nothing that can be called."""
    if options.replies:
        replies = options.replies

        def pick(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
            return replies[seed_of(digest(list(messages)), seed) % len(replies)]

        return Scripted(name, pick, identity=f"scripted:{digest(replies)[:16]}", latency_s=options.latency_s)
    path, _, function = options.function.rpartition(":")
    do = "write `function: path/to/file.py:name`"
    if not path:
        raise RecipeError(f"`function: {options.function}` names no function", f"agent {name!r}", do)
    respond = getattr(plugins.load_file(path, f"agent {name!r}"), function, None)
    if not callable(respond):
        raise RecipeError(f"{path} defines no function {function!r}", f"agent {name!r}", do)
    identity = f"scripted:{function}:{digest(Path(path).read_text(encoding='utf-8'))[:16]}"
    return Scripted(name, cast(Respond, respond), identity=identity, latency_s=options.latency_s)
