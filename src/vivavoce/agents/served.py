"""An agent whose local model is served by an engine: it answers as :class:`~vivavoce.agents.hf_local.HFLocal` does.

Prompts are rendered and cut into tokens here, by the model's own chat template, and answers come back in tokens. So
serving and training use the same tokens, whichever program runs the model. A trained adapter is served by the engine of
its base model, under a name that is the hash of its content.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vivavoce.agents import engines, weights
from vivavoce.agents.attached import Attached, Drawn, Server
from vivavoce.agents.endpoint import EndpointOptions, address_and_key
from vivavoce.agents.engines import Serve
from vivavoce.agents.faults import short
from vivavoce.agents.rendering import Rendering, check_rendering, encode_call, rendering
from vivavoce.agents.replies import without_marks
from vivavoce.errors import AgentError, RecipeError
from vivavoce.records import Message, Reply, Sampling, digest

if TYPE_CHECKING:
    from vivavoce.agents.drawn import TokenReader


_SAMPLE = "Née in 1984:\n  x_1 + 12,351.78 = 'forty-two', 汉字 🙂"
"""A text that tokenizers of different models cut differently."""
_BUSY: Counter[tuple[str, str]] = Counter()
"""Calls under way, by the engine that answers them."""


class LocalModel(Protocol):
    """A recipe's entry for a local model: options of :mod:`~vivavoce.agents.hf_local`."""

    @property
    def model(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def dtype(self) -> str: ...
    @property
    def chat_template_kwargs(self) -> dict[str, Any]: ...
    @property
    def trust_remote_code(self) -> bool: ...


class Served:
    """An agent behind an engine. Nothing is started before its first reply.

    Attributes:
        attached: The connection to its engine; None before the first reply.
    """

    def __init__(self, name: str, options: LocalModel, serve: Serve) -> None:
        address_and_key(
            EndpointOptions(base_url=serve.root if serve.url else "http://127.0.0.1"), "", f"agent {name!r}"
        )
        self.name, self.options, self.serve = name, options, serve
        self.attached: Attached | None = None
        self._form: tuple[Rendering, TokenReader] | None = None
        self._context: int | None = None
        self._opening = asyncio.Lock()

    @cached_property
    def folder(self) -> Path:
        """The folder with the model's files, which may be an adapter's. Raises RecipeError if there is none."""
        return weights.folder(self.options.model, self.options.revision)

    @cached_property
    def identity(self) -> str:
        """Hash of weights, tokenizer and config, the type that they run in, and the engine."""
        rendered = self.options.chat_template_kwargs
        extra = f":{digest(rendered)[:16]}" if rendered else ""
        return f"{self.serve.engine}:{weights.fingerprint(self.folder)}:{self.options.dtype}{extra}"

    @cached_property
    def adapter(self) -> str | None:
        """The name under which the engine serves this agent's adapter; None for a whole model."""
        return adapter_name(self.folder) if weights.base_folder(self.folder) else None

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """Answer the messages. Raises AgentError as HFLocal does, and ``server`` for a call over which engines die.

        Raises AgentUnusable if the engine cannot be started, or is not there any more.
        """
        begun = time.perf_counter()
        _BUSY[self._key] += 1
        try:
            attached, form, reader = await self._connect()
            call = encode_call(form, messages, sampling, self._context)
            ids, logprobs = await attached.ask(
                lambda server: self._draw(server, call.ids, call.sampling, seed, reader.eos)
            )
        finally:
            _BUSY[self._key] -= 1
        decoded = reader.read(call.sampling, len(call.ids), ids, logprobs)
        exact = () if form.says(decoded.ids, decoded.text) else decoded.ids
        latency = time.perf_counter() - begun
        reply = Reply(decoded.text, decoded.finish, decoded.usage, self.folder.name, decoded.tokens, latency, ids=exact)
        return without_marks(reply, call.opened)

    async def lists_model(self) -> bool | None:
        """Whether the engine at an address serves this agent's model, which is waited for; None for one that is started
        here.

        Raises AgentError if it serves other models, or one with another tokenizer; AgentUnusable if it does not come.
        """
        if self.serve.url is None:
            return None
        attached, form, _ = await self._connect()
        names = await attached.ask(lambda server: server.listed())
        if self.serve.served_name is not None and self.serve.served_name not in names:
            what = f"the engine at {self.serve.root} does not serve {self.serve.served_name!r}, but {', '.join(names)}"
            raise AgentError("not_found", short(what), do="correct `serve.served_name`, or leave it out")
        theirs = await attached.ask(lambda server: server.tokens(_SAMPLE))
        if theirs not in (None, list(form.tokenizer(_SAMPLE, add_special_tokens=False, verbose=False).input_ids)):
            what = f"the engine at {self.serve.root} serves {names[0]}, whose tokenizer is not that of {self.folder}"
            raise AgentError("not_found", short(what), do="serve this model there, or correct `serve.url`")
        return True

    async def aclose(self) -> None:
        """Close the connections. The engine goes on until the run ends, or its agent serves another model."""
        attached, self.attached = self.attached, None
        if attached is not None:
            await attached.aclose()

    async def rest(self) -> None:
        """End the engine until the next reply, if this process started it and no call waits for an answer of it."""
        if self.serve.url is None and not _BUSY[self._key]:
            await self.aclose()
            logs = engines.state_file(self.name, self.serve).parent
            await asyncio.to_thread(engines.close, self.name, logs, lambda: _BUSY[self._key] > 0)

    @property
    def _key(self) -> tuple[str, str]:
        return self.name, self.serve.url or str(engines.state_file(self.name, self.serve).parent)

    async def _connect(self) -> tuple[Attached, Rendering, TokenReader]:
        if self.attached is not None and self.serve.url is None and not engines.there(self.name, self.serve):
            await self.aclose()  # it rested, for another agent that it served too
        if self.attached is None or self._form is None:
            async with self._opening:
                if self.attached is None or self._form is None:
                    attached = Attached(self.name, self.serve, await asyncio.to_thread(self._engine))
                    self._form = self._form or await asyncio.to_thread(self._read)
                    self._context = await attached.ask(lambda server: server.context())
                    self.attached = attached
        return self.attached, *self._form

    def _engine(self) -> Path | None:
        """Have the engine started; returns the file of its state, or None for one that runs already."""
        if self.serve.url is not None:
            return None
        return start(self.name, self.options, self.serve, self.folder).state

    def _read(self) -> tuple[Rendering, TokenReader]:
        from transformers import AutoTokenizer, GenerationConfig

        from vivavoce.agents.drawn import TokenReader

        whole = weights.base_folder(self.folder) or self.folder
        folder = weights.tokenizer_folder(self.folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=self.options.trust_remote_code)
        if not tokenizer.chat_template:
            raise RecipeError("the model has no chat template", str(folder), "use an instruction-tuned model")
        check_rendering(tokenizer, self.options.chat_template_kwargs)
        there = (whole / "generation_config.json").is_file()
        config = GenerationConfig.from_pretrained(whole) if there else None
        return rendering(tokenizer, self.options.chat_template_kwargs), TokenReader(tokenizer, config)

    async def _draw(
        self, server: Server, ids: Sequence[int], sampling: Sampling, seed: int, ends: Sequence[int]
    ) -> Drawn:
        return await with_adapter(server, self.adapter, self.folder, ids, sampling, seed, ends)


def start(name: str, options: LocalModel, serve: Serve, folder: Path, rank: int | None = None) -> engines.Engine:
    """Have the engine of an agent started that serves the model in ``folder``, or the base of the adapter there."""
    base = weights.base_folder(folder)
    if base is not None:
        rank = max(rank or 0, weights.adapter_rank(folder)) or None
    return engines.engine(name, serve, base or folder, dtype=options.dtype, rank=rank, trust=options.trust_remote_code)


def adapter_name(folder: Path) -> str:
    """An engine's name for the adapter in ``folder``. Other content has another name, so that none is mistaken."""
    return f"viva-{weights.fingerprint(folder)}"


async def with_adapter(
    server: Server,
    adapter: str | None,
    folder: Path,
    ids: Sequence[int],
    sampling: Sampling,
    seed: int,
    ends: Sequence[int],
) -> Drawn:
    """Continue ``ids`` with the adapter in ``folder``, which the engine is told of if it does not know it."""
    try:
        return await server.draw(ids, sampling, seed, ends, adapter)
    except AgentError as error:
        if adapter is None or error.reason not in ("not_found", "bad_request"):
            raise
        await server.load(adapter, folder)
        return await server.draw(ids, sampling, seed, ends, adapter)


__all__ = ["Served", "adapter_name", "start", "with_adapter"]
