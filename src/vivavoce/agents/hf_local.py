"""Hugging Face models in this process. Calls that are made at the same time are answered together.

::

    replies asked for ──▶ waiting ──▶ worker thread: render, tokenise ──▶ those alike in length join the batch
                                           ▲                                      │ one step at a time per device
                                           └────────── lines are free ◀───────────┴──▶ each reply as it ends

Nothing heavy is imported and nothing is loaded before the first reply.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vivavoce.agents import weights
from vivavoce.agents.chat_template import DAY, day
from vivavoce.agents.engines import Serve
from vivavoce.agents.given_template import source
from vivavoce.agents.quantised import Quantise, need_quantiser
from vivavoce.agents.rendering import check_rendering, encode_call, rendering
from vivavoce.agents.replies import without_marks
from vivavoce.errors import AgentError, MissingDependency
from vivavoce.progress import awaited
from vivavoce.records import Message, Reply, Sampling, digest

if TYPE_CHECKING:
    import torch

    from vivavoce.agents.batch import TokenPrompt
    from vivavoce.agents.decode import Decoder
    from vivavoce.agents.drawn import Decoded
    from vivavoce.agents.served import Served

# How long nothing new must arrive before the worker starts. A reply passes a few turns of the event loop (journal,
# debate) before the next question of the same debate arrives; starting at once would run many small batches.
_GATHER_S = 0.005


class Options(BaseModel):
    """The model, and how much of it at a time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    """A folder, a hub id, or ``schoolhouse:NAME`` for a model that comes with the package. A LoRA adapter loads too, as
    does a GGUF file, or a folder with one."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """``auto`` is the checkpoint's own type."""
    quantise: Quantise | None = None
    """``nf4`` keeps the linear layers in 4 bits, by the package bitsandbytes, and computes in ``dtype``: they take a
    quarter of the memory of bfloat16. A student's adapter is then trained beside them (QLoRA). null: weights as they
    are."""
    device: str = "auto"
    """``auto`` is cuda if there is a device, otherwise cpu; or ``cuda:1``."""
    max_batch: int = Field(default=256, ge=1)
    """The largest number of replies that are computed side by side."""
    max_batch_tokens: int = Field(default=131072, ge=1)
    """Bound of rows times (longest prompt + most new tokens) of a batch; the cache's memory grows with it."""
    prefix_memory: int = Field(default=0, ge=0)
    """MiB for beginnings of prompts, so that each is computed once though it is asked at different times. Calls that
    start together share their beginning without it. It pays if prompts are long and the debates in flight fit.
    """
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of a forward pass, for the whole process; None leaves torch's default, all cores. Small models answer
    faster with one each: so many of them then answer at the same time as there are cores."""
    chat_template: str | None = None
    """For a base model, which has none: ``plain`` (it ends answers with its own end of text), ``chatml``, or a .jinja
    file. The student is then trained, tested and saved with it. null: the model's own."""
    chat_template_kwargs: dict[str, Any] = Field(default={})
    """Further arguments of the model's chat template, for example ``enable_thinking: false``; part of the identity.
    A day under ``strftime_now`` is today's date to a template that asks for it; without it, the day that the run was
    begun.
    """
    trust_remote_code: bool = False
    """Run Python code that comes with the model. It may do anything: only for a model that you trust."""
    serve: Serve | None = None
    """Have an engine serve the model (vLLM), in place of this process; null: this process runs it."""

    @field_validator("chat_template_kwargs")
    @classmethod
    def _a_day_is_a_text(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        return {**arguments, DAY: day(arguments[DAY]).isoformat()} if DAY in arguments else arguments

    @model_validator(mode="after")
    def _an_engine_quantises_by_itself(self) -> Self:
        if self.quantise and self.serve is not None:
            raise ValueError(
                "`quantise` is for models that this process runs: leave it out, and give the engine its own flag in "
                "serve.args, such as [--quantization, bitsandbytes]"
            )
        return self


@dataclass(eq=False, slots=True)
class _Waiting:
    """One call that waits for its batch."""

    messages: Sequence[Message]
    sampling: Sampling
    seed: int
    future: asyncio.Future[Reply]
    since: float
    prompt: TokenPrompt | None = None
    size: tuple[int, int] = (0, 0)
    """Tokens of the prompt, and the most new ones."""
    opened: bool = False
    """Whether the prompt opens a thought, as some chat templates do."""


class HFLocal:
    """An agent whose model runs in this process.

    Attributes:
        batches: The number of times that calls have joined a batch under way, or begun one.
    """

    def __init__(self, name: str, options: Options) -> None:
        self.name, self.options, self.batches = name, options, 0
        self._waiting = deque[_Waiting]()
        """Calls that the worker has not seen yet."""
        self._ready: list[_Waiting] = []
        """The worker's calls, in tokens, that wait for a line."""
        self._under_way: dict[int, _Waiting] = {}
        """The worker's calls that are on a line, by identity."""
        self._most = options.max_batch
        self._drain: asyncio.Task[None] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._decoder: Decoder | None = None
        self._context: int | None = None
        self._stop = threading.Event()

    @cached_property
    def folder(self) -> Path:
        """The folder with the model's files. Downloads a hub id. Raises RecipeError if there is no such model."""
        return weights.folder(self.options.model, self.options.revision, template=self.options.chat_template)

    @cached_property
    def identity(self) -> str:
        """Hash of weights, tokenizer and config, and the type that they run in; a retrained folder has another
        identity.
        """
        rendered = self.options.chat_template_kwargs
        extra = f":{digest(rendered)[:16]}" if rendered else ""
        quantised = f":{self.options.quantise}" if self.options.quantise else ""
        return f"hf:{weights.fingerprint(self.folder)}:{self.options.dtype}{quantised}{extra}"

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """Answer the messages, in one batch with other calls of the same time.

        New tokens are bounded by ``max_new_tokens`` and by the rest of the model's context. Raises AgentError
        ``overlong`` if the prompt leaves no room (it is never cut), ``bad_request`` if the chat template refuses the
        messages, ``server`` if the device's memory does not hold even one row; RecipeError if the model cannot be
        loaded.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(messages, sampling, seed, loop.create_future(), time.perf_counter())
        if self._drain is None or self._drain.done():
            self._stop = threading.Event()  # a worker that was told to stop keeps the old one
            self._take_waiting()  # left over from an event loop that was cancelled
            self._drain = loop.create_task(self._run())
        self._waiting.append(waiting)
        return await waiting.future

    async def aclose(self) -> None:
        """Stop what runs, end the worker thread and free the model. The next reply loads it again."""
        self._stop.set()
        if self._drain is not None:
            self._drain.cancel()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        on_cuda = self._decoder is not None and self._decoder.device.type == "cuda"
        self._pool = self._decoder = self._drain = None
        if on_cuda:
            import torch

            torch.cuda.empty_cache()  # or the allocator keeps the memory from other processes
        for waiting in self._take_waiting():
            waiting.future.cancel()

    def _take_waiting(self) -> list[_Waiting]:
        """Take all waiting calls. Not while the worker runs."""
        calls = [*self._under_way.values(), *self._ready, *self._waiting]
        self._under_way.clear()
        self._ready.clear()
        self._waiting.clear()
        return calls

    async def _run(self) -> None:
        """Keep the worker at it until no call waits. Cancelled (Ctrl-C), it stops the worker within a step."""
        loop = asyncio.get_running_loop()
        self._pool = self._pool or ThreadPoolExecutor(1, f"vivavoce-{self.name}")
        while self._waiting:
            count = 0
            while count < len(self._waiting) < self.options.max_batch:
                count = len(self._waiting)
                await asyncio.sleep(_GATHER_S)
            work = loop.run_in_executor(self._pool, self._work, loop, self._stop)
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                self._stop.set()
                work.cancel()
                raise
            if not work.cancelled() and (error := work.exception()):
                for waiting in self._take_waiting():
                    if not waiting.future.done():
                        waiting.future.set_exception(error)

    def _work(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        """Answer, in the worker thread, the calls that wait and those that come meanwhile."""
        if self._decoder is None:
            with awaited(f"loading {self.options.model} for {self.name}"):
                self._decoder, self._context = self._load()
        turns = _TURNS[str(self._decoder.device)]
        while not turns.take(_at_once(self._decoder.device), timeout=0.05):
            if stop.is_set():  # closing must not wait for another agent's batch
                return
        try:
            while not self._stream(self._decoder, loop, stop):
                pass
        finally:
            turns.give_back()

    def _stream(self, decoder: Decoder, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> bool:
        """Decode until no call waits. False if memory did not suffice, and fewer rows at a time are to be tried."""
        import torch

        def finished(prompt: TokenPrompt, ids: list[int], logprobs: list[float]) -> None:
            waiting = self._under_way.pop(id(prompt.tag))
            decoded = decoder.reader.read(prompt.sampling, len(prompt.ids), ids, logprobs)
            if decoded.ids and rendering(decoder.tokenizer, self.options.chat_template_kwargs).says(
                decoded.ids, decoded.text
            ):
                decoded = replace(decoded, ids=())  # the text says it all
            self._tell(loop, waiting, decoded)

        try:
            decoder.stream(lambda under_way: self._joining(decoder, loop, under_way), finished, stop.is_set)
        except torch.OutOfMemoryError as error:
            if len(self._under_way) == 1:
                [alone] = self._under_way.values()
                self._tell(loop, alone, AgentError("server", f"out of device memory for one row: {error}"))
                self._under_way.clear()
        else:
            return True
        # outside the handler, whose traceback would keep the tensors that did not fit; every call keeps its seed
        decoder.prefixes.clear()
        torch.cuda.empty_cache()
        self._most = max(1, len(self._under_way) // 2)
        self._ready += self._under_way.values()
        self._under_way.clear()
        return False

    def _joining(
        self, decoder: Decoder, loop: asyncio.AbstractEventLoop, under_way: Sequence[TokenPrompt]
    ) -> list[TokenPrompt]:
        """The calls that join those under way: none, while too few could to be worth a prefill."""
        from vivavoce.agents.decode import SHARE

        enough = max(1, math.ceil(SHARE * len(under_way)))
        if min(len(self._ready) + len(self._waiting), self._most - len(under_way)) < enough:
            return []
        while self._waiting:
            waiting = self._waiting.popleft()
            failure = self._render(waiting, decoder)
            if failure is None:
                self._ready.append(waiting)
            else:
                self._tell(loop, waiting, failure)
        # rows whose caller went away are not worth decoding
        self._ready = [waiting for waiting in self._ready if not waiting.future.done()]
        joining = self._fitting(under_way)
        if len(joining) < enough:
            return []
        self.batches += 1
        started = {id(waiting): waiting for waiting in joining}
        self._ready = [waiting for waiting in self._ready if id(waiting) not in started]
        self._under_way |= started
        return [waiting.prompt for waiting in joining if waiting.prompt]

    def _tell(self, loop: asyncio.AbstractEventLoop, waiting: _Waiting, outcome: Decoded | AgentError) -> None:
        with suppress(RuntimeError):  # the loop was closed, so no caller waits
            loop.call_soon_threadsafe(self._settle, waiting, outcome)

    def _settle(self, waiting: _Waiting, outcome: Decoded | AgentError) -> None:
        if waiting.future.done():
            return
        if isinstance(outcome, AgentError):
            waiting.future.set_exception(outcome)
        else:
            latency = time.perf_counter() - waiting.since
            model = self.options.model if self.options.model.startswith("schoolhouse:") else self.folder.name
            reply = Reply(outcome.text, outcome.finish, outcome.usage, model, outcome.tokens, latency, ids=outcome.ids)
            waiting.future.set_result(without_marks(reply, waiting.opened))

    def _load(self) -> tuple[Decoder, int | None]:
        import torch

        from vivavoce.agents.decode import Decoder

        if self.options.threads is not None:
            torch.set_num_threads(self.options.threads)
        # Between two operations a decoding thread wants the interpreter for microseconds, and would wait five
        # milliseconds for it wherever another thread, say the journal's, computes.
        sys.setswitchinterval(1e-4)
        device = self.options.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        trust, quantise = self.options.trust_remote_code, self.options.quantise
        model, tokenizer = weights.load(self.folder, self.options.dtype, device, trust, quantise)
        check_rendering(tokenizer, self.options.chat_template_kwargs)
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        return Decoder(model, tokenizer, self.options.prefix_memory * 2**20), context

    def _render(self, waiting: _Waiting, decoder: Decoder) -> AgentError | None:
        """The ids of the rendered messages, or the reason why the chat template or the context takes none."""
        from vivavoce.agents.batch import TokenPrompt

        form = rendering(decoder.tokenizer, self.options.chat_template_kwargs)
        try:
            ids, sampling, waiting.opened = encode_call(form, waiting.messages, waiting.sampling, self._context)
        except AgentError as error:
            return error
        waiting.prompt, waiting.size = (
            TokenPrompt(ids, sampling, waiting.seed, waiting),
            (len(ids), sampling.max_new_tokens),
        )
        return None

    def _fitting(self, under_way: Sequence[TokenPrompt]) -> list[_Waiting]:
        """Take the call that has waited longest, and those nearest to it in length, as many as fit."""
        if not self._ready:
            return []
        self._ready.sort(key=lambda waiting: waiting.size)  # mostly sorted already: only new calls are out of place
        low = min(range(len(self._ready)), key=lambda i: self._ready[i].since)
        high = low
        longest = max((len(prompt.ids) for prompt in under_way), default=0)
        new = max((prompt.sampling.max_new_tokens for prompt in under_way), default=0)

        def fits(i: int) -> bool:
            rows = len(under_way) + high - low + 1
            prompt, most = self._ready[i].size
            return rows == 1 or rows * (max(longest, prompt) + max(new, most)) <= self.options.max_batch_tokens

        while high - low < self._most - len(under_way):
            # shorter ones first: they cost no padding to those already in
            if low < high and low > 0 and fits(low - 1):
                low -= 1
                at = low
            elif high < len(self._ready) and fits(high):
                at = high
                high += 1
            else:
                break
            prompt, most = self._ready[at].size
            longest, new = max(longest, prompt), max(new, most)
        return self._ready[low:high]


class _Turns:
    """Turns on a device: agents beyond a number wait."""

    def __init__(self) -> None:
        self._taken, self._changed = 0, threading.Condition()

    def take(self, of: int, timeout: float) -> bool:
        """Take one of ``of`` turns; False if none was free for ``timeout`` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._taken < of, timeout):
                return False
            self._taken += 1
            return True

    def give_back(self) -> None:
        with self._changed:
            self._taken -= 1
            self._changed.notify()


_TURNS: defaultdict[str, _Turns] = defaultdict(_Turns)


def _at_once(device: torch.device) -> int:
    """The number of forward passes that a device is given at a time. More than it has room for only slow each other
    down.
    """
    import torch

    if device.type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // torch.get_num_threads())


def agent(name: str, options: Options) -> HFLocal | Served:
    """Make the agent. Raises MissingDependency without torch or transformers, RecipeError for a missing folder."""
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(f"local models need {package}", f"agent {name!r}", 'pip install "vivavoce[train]"')
    weights.check(options.model)
    if options.quantise:
        need_quantiser(f"agent {name!r}, quantise", options.device)
    if options.chat_template:
        source(options.chat_template)
    if options.serve is not None:
        from vivavoce.agents.served import Served

        return Served(name, options, options.serve)
    return HFLocal(name, options)
