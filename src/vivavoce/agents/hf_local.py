"""Hugging Face models in this process. Calls that are made at the same time are answered in one batch.

::

    replies asked for ──▶ waiting ──▶ worker thread: render, tokenise, sort by length ──▶ one batch at a time per device

Nothing heavy is imported and nothing is loaded before the first reply.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.agents import weights
from vivavoce.errors import AgentError, MissingDependency
from vivavoce.records import Message, Reply, Sampling, digest

if TYPE_CHECKING:
    from vivavoce.agents.decode import Decoded, Decoder, Prompt

# How long nothing new must arrive before a batch starts. A reply passes a few turns of the event loop (journal, debate)
# before the next question of the same debate arrives; starting at once would run many small batches.
_GATHER_S = 0.005
# Two forwards at a time on one device only slow each other down.
_DEVICE_LOCKS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


class Options(BaseModel):
    """Which model, and how much of it at a time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """A folder, a hub id, or ``schoolhouse:NAME`` for a model that comes with the package. A LoRA adapter loads too."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """``auto`` is the checkpoint's own type."""
    device: str = "auto"
    """``auto`` is cuda where there is a device, otherwise cpu; or ``cuda:1``."""
    max_batch: int = Field(default=256, ge=1)
    max_batch_tokens: int = Field(default=131072, ge=1)
    """Bound of rows times (longest prompt + most new tokens) of a batch; what the cache's memory grows with."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch in the whole process; None leaves torch's default."""
    chat_template_kwargs: dict[str, Any] = Field(default={})
    """Further arguments of the model's chat template, say ``enable_thinking: false``; part of the identity."""
    trust_remote_code: bool = False


@dataclass(eq=False, slots=True)
class _Waiting:
    """One call that waits for its batch."""

    messages: Sequence[Message]
    sampling: Sampling
    seed: int
    future: asyncio.Future[Reply]
    since: float
    prompt: Prompt | None = None
    outcome: Decoded | AgentError | None = None


class HFLocal:
    """An agent whose model runs in this process.

    Attributes:
        batches: Batches decoded so far.
    """

    def __init__(self, name: str, options: Options) -> None:
        self.name, self.options, self.batches = name, options, 0
        self._waiting: list[_Waiting] = []
        self._drain: asyncio.Task[None] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._decoder: Decoder | None = None
        self._context: int | None = None
        self._stop = threading.Event()

    @cached_property
    def folder(self) -> Path:
        """The folder with the model's files. Downloads a hub id. Raises RecipeError where there is none."""
        return weights.folder(self.options.model, self.options.revision)

    @cached_property
    def identity(self) -> str:
        """Hash of weights, tokenizer and config, and the type that they run in; a retrained folder is somebody else."""
        rendered = self.options.chat_template_kwargs
        extra = f":{digest(rendered)[:16]}" if rendered else ""
        return f"hf:{weights.fingerprint(self.folder)}:{self.options.dtype}{extra}"

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """Answer, in one batch with whoever asks at the same time.

        New tokens are bounded by ``max_new_tokens`` and by what the prompt leaves of the model's context. Raises
        AgentError ``overlong`` where the prompt leaves nothing (it is never cut), ``bad_request`` where the chat
        template refuses the messages, ``server`` where the device's memory does not hold even one row; RecipeError
        where the model cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(messages, sampling, seed, loop.create_future(), time.perf_counter())
        if self._drain is None or self._drain.done():
            self._stop = threading.Event()  # a worker that was told to stop keeps the old one
            self._waiting.clear()  # left over from an event loop that was cancelled
            self._drain = loop.create_task(self._run())
        self._waiting.append(waiting)
        return await waiting.future

    async def aclose(self) -> None:
        """Stop what runs, end the worker thread and free the model. A later reply starts anew."""
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
        for waiting in self._waiting:
            waiting.future.cancel()
        self._waiting.clear()

    async def _run(self) -> None:
        """Hand batches to the worker until nobody waits. Cancelled (Ctrl-C), it stops the worker within a step."""
        loop = asyncio.get_running_loop()
        self._pool = self._pool or ThreadPoolExecutor(1, f"vivavoce-{self.name}")
        while self._waiting:
            count = 0
            while count < len(self._waiting) < self.options.max_batch:
                count = len(self._waiting)
                await asyncio.sleep(_GATHER_S)
            # rows whose caller went away are not worth decoding
            self._waiting = [waiting for waiting in self._waiting if not waiting.future.done()]
            if not self._waiting:
                return
            asked = list(self._waiting)
            work = loop.run_in_executor(self._pool, self._work, asked, self._stop)
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                self._stop.set()
                work.cancel()
                raise
            error = None if work.cancelled() else work.exception()
            for waiting in asked:
                if waiting.outcome is None and error is None:
                    continue
                self._waiting.remove(waiting)
                if not waiting.future.done():
                    self._settle(waiting, error)

    def _settle(self, waiting: _Waiting, error: BaseException | None) -> None:
        said = waiting.outcome
        if isinstance(said, AgentError):
            waiting.future.set_exception(said)
        elif said is None:
            assert error is not None
            waiting.future.set_exception(error)
        else:
            latency = time.perf_counter() - waiting.since
            model = self.options.model if self.options.model.startswith("schoolhouse:") else self.folder.name
            waiting.future.set_result(Reply(said.text, said.finish, said.usage, model, said.tokens, latency))

    def _work(self, asked: list[_Waiting], stop: threading.Event) -> None:
        """In the worker thread: fill in the outcome of one batch out of ``asked``, and of what cannot be asked."""
        if self._decoder is None:
            self._decoder, self._context = self._load()
        for waiting in asked:
            if waiting.prompt is None:
                self._render(waiting, self._decoder)
        batch = self._batch([waiting for waiting in asked if waiting.outcome is None])
        if batch:
            lock = _DEVICE_LOCKS[str(self._decoder.device)]
            while not lock.acquire(timeout=0.05):
                if stop.is_set():  # closing must not wait for another agent's batch
                    return
            try:
                self._decode(batch, self._decoder, stop)
            finally:
                lock.release()

    def _load(self) -> tuple[Decoder, int | None]:
        import torch

        from vivavoce.agents.decode import Decoder

        if self.options.threads is not None:
            torch.set_num_threads(self.options.threads)
        device = self.options.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model, tokenizer = weights.load(self.folder, self.options.dtype, device, self.options.trust_remote_code)
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        return Decoder(model, tokenizer), context

    def _render(self, waiting: _Waiting, decoder: Decoder) -> None:
        """Messages to text by the chat template, text to ids. The template writes all special tokens itself."""
        from dataclasses import replace

        from jinja2 import TemplateError

        from vivavoce.agents.decode import Prompt

        tokenizer, messages, sampling = decoder.tokenizer, waiting.messages, waiting.sampling
        try:
            text = str(
                tokenizer.apply_chat_template(
                    cast("list[dict[str, str]]", [dict(message) for message in messages]),
                    add_generation_prompt=True,
                    tokenize=False,
                    **self.options.chat_template_kwargs,
                )
            )
        except TemplateError as error:  # say, a template that wants roles to alternate
            waiting.outcome = AgentError("bad_request", f"the chat template refuses the messages: {error}")
            return
        ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        if self._context is not None:
            if len(ids) >= self._context:
                detail = f"the prompt has {len(ids)} tokens, the model's context {self._context}"
                waiting.outcome = AgentError("overlong", detail)
                return
            most = min(sampling.max_new_tokens, self._context - len(ids))
            sampling = replace(sampling, max_new_tokens=most)
        waiting.prompt = Prompt(ids, sampling, waiting.seed)

    def _batch(self, asked: list[_Waiting]) -> list[_Waiting]:
        """The longest-waiting call and those nearest to it in length, as many as fit."""
        if not asked:
            return []
        sized = sorted(
            ((len(w.prompt.ids), w.prompt.sampling.max_new_tokens, w) for w in asked if w.prompt),
            key=lambda size: size[:2],
        )
        low = next(i for i, size in enumerate(sized) if size[2] is asked[0])
        high, new = low + 1, sized[low][1]

        def fits(low: int, high: int, new: int) -> bool:
            longest = sized[high - 1][0]
            return (high - low) * (longest + new) <= self.options.max_batch_tokens

        while high - low < self.options.max_batch:
            # shorter ones first: they cost no padding to those already in
            if low > 0 and fits(low - 1, high, max(new, sized[low - 1][1])):
                low -= 1
                new = max(new, sized[low][1])
            elif high < len(sized) and fits(low, high + 1, max(new, sized[high][1])):
                new = max(new, sized[high][1])
                high += 1
            else:
                break
        return [size[2] for size in sized[low:high]]

    def _decode(self, batch: list[_Waiting], decoder: Decoder, stop: threading.Event) -> None:
        import torch

        self.batches += 1
        try:
            decoded = decoder.decode([w.prompt for w in batch if w.prompt], stop.is_set)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                batch[0].outcome = AgentError("server", f"out of device memory for one row: {error}")
                return
        else:
            for waiting, said in zip(batch, decoded, strict=True):
                waiting.outcome = said
            return
        # outside the handler, whose traceback would keep the tensors that did not fit
        torch.cuda.empty_cache()
        half = len(batch) // 2
        self._decode(batch[:half], decoder, stop)
        self._decode(batch[half:], decoder, stop)


def agent(name: str, options: Options) -> HFLocal:
    """Make the agent. Raises MissingDependency without torch or transformers, RecipeError for a missing folder."""
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(f"local models need {package}", f"agent {name!r}", 'pip install "vivavoce[train]"')
    weights.check(options.model)
    return HFLocal(name, options)
