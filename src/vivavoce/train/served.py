"""A scorer behind a vLLM server, which gives a part of its distribution over the student's tokens.

::

    teacher   p(its k likeliest) , p(the student's token) | everything else       one bucket, so that nothing is lost
    student   q(the same tokens)                          | everything else

The two are compared as they are. With k the whole vocabulary this equals a local scorer; with less, it compares the
named tokens and one rest. Differs from TRL's server teachers, which leave the rest away.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from vivavoce.agents import vllm, weights
from vivavoce.agents.attached import Attached, Server
from vivavoce.agents.served import adapter_name
from vivavoce.errors import AgentError, DataError, RecipeError
from vivavoce.records import View
from vivavoce.train.alignment import SAMPLES
from vivavoce.train.divergences import NOTHING, distillation_loss, silence, with_rest
from vivavoce.train.objective import Objective, OnPolicySettings, Scorer
from vivavoce.train.scorers import Answer, Marks, OpenScorer

_ROUNDING = 1e-6
"""The largest rest that is rounding of a server's float32 numbers, and no opinion of its model."""
T = TypeVar("T")


class OnEngine:
    """Asks an engine of the run as :class:`~vivavoce.agents.vllm.VLLM` asks a server, and again what it lost when it
    died. An adapter's folder is served by the engine of its base."""

    def __init__(self, spec: Scorer) -> None:
        assert spec.engine is not None, spec.name
        assert spec.model is not None, spec.name
        self._spec, self._serve, self._folder = spec, spec.engine.serve, Path(spec.model)
        self._adapter = adapter_name(self._folder) if weights.base_folder(self._folder) else None
        self._attached = Attached(spec.engine.name, spec.engine.serve, spec.engine.state)

    async def score(self, prompt: Sequence[int], start: int) -> list[vllm.Position]:
        """Score as a server does. Raises AgentUnusable too, if there is no engine any more."""
        return await self._ask(lambda server: server.score(prompt, start))

    async def tokens(self, text: str) -> tuple[list[int], int | None]:
        """Give the tokens of a text, as a server does."""
        return await self._ask(lambda server: server.tokens(text))

    async def aclose(self) -> None:
        """Close the connections; the engine goes on."""
        await self._attached.aclose()

    async def _ask(self, what: Callable[[vllm.VLLM], Awaitable[T]]) -> T:
        async def attempt(server: Server) -> T:
            model = self._adapter or await server.own_name()
            options = vllm.Options(
                model=model, base_url=f"{server.url}/v1", top_logprobs=self._serve.top_logprobs or 20, max_retries=1
            )
            model_on_server = vllm.VLLM(self._spec.name, options, f"{server.url}/v1", server.key)
            try:
                try:
                    return await what(model_on_server)
                except AgentError as error:
                    if self._adapter is None or error.reason not in ("not_found", "bad_request"):
                        raise
                    await server.load(self._adapter, self._folder)
                    return await what(model_on_server)
            finally:
                await model_on_server.aclose()

        return await self._attached.ask(attempt)


class ServedScorer(OpenScorer):
    """A scorer whose model runs elsewhere. Made by :func:`open_served`."""

    def __init__(self, spec: Scorer, server: vllm.VLLM | OnEngine, tokenizer: Any, settings: OnPolicySettings) -> None:
        super().__init__(spec, tokenizer, settings)
        self.server = server

    def read(self, views: Sequence[View], answers: Sequence[Answer]) -> ServedTargets:
        """Ask for every token of every answer, all at once. Raises AgentError if the server does not answer."""
        contexts = [self.context(view) for view in views]

        async def ask() -> list[list[vllm.Position]]:
            try:
                return await asyncio.gather(
                    *(self.server.score([*(c := contexts[a.state]), *a.ids], len(c)) for a in answers)
                )
            finally:
                await self.server.aclose()

        positions = [position for answer in _apart(ask()) for position in answer]
        self.tokens += sum(len(contexts[a.state]) + len(a.ids) for a in answers)
        return ServedTargets.of(positions, self.columns, self.marks)

    def logprobs(self, views: Sequence[View], answers: Sequence[Answer]) -> Tensor:
        """log p of every token of every answer, answer after answer: shape (tokens,), in nats."""
        targets = torch.tensor([token for answer in answers for token in answer.ids])
        return (
            self.read(views, answers)
            .teacher(np.arange(len(targets)), targets.device)[0]
            .gather(1, targets[:, None])[:, 0]
        )

    def check(self) -> None:
        """Raise RecipeError if the server cuts text into other tokens than ours, or gives no log-probabilities."""

        async def ask() -> list[tuple[list[int], int | None]]:
            try:
                texts_as_read = [await self.server.tokens(text) for text in SAMPLES]
                await self.server.score(texts_as_read[0][0], 1)
                return texts_as_read
            finally:
                await self.server.aclose()

        where, do = f"scorer {self.spec.name}", "serve the model with vLLM, and --max-logprobs of top_logprobs or more"
        try:
            replies = _apart(ask())
        except AgentError as error:
            if error.reason not in ("bad_request", "malformed"):
                raise
            raise RecipeError(f"the server does not score: {error.detail}", where, do) from None
        for text, (theirs, limit) in zip(SAMPLES, replies, strict=True):
            if theirs != list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids):
                what = f"the server has another tokenizer than {self.spec.model}: it cuts {text!r} into {theirs[:8]}…"
                raise RecipeError(what, where, "name the served model's own tokenizer with `tokenizer`")
            self.limit = limit


@dataclass(slots=True, eq=False)
class ServedTargets:
    """A served scorer's opinion of the tokens of one update, in order. T tokens, K named ones, V ids of the student."""

    ids: Tensor
    """Shape (T, K), V if fewer were named."""
    logprobs: Tensor
    """Shape (T, K), in nats."""
    columns: int
    marks: Marks
    left_out: frozenset[int] = frozenset()

    @classmethod
    def of(cls, positions: Sequence[vllm.Position], columns: int, marks: Marks) -> ServedTargets:
        """The targets of named tokens. Raises DataError if the probabilities of one token's names sum to more than
        1.
        """
        width = max(len(position.ids) for position in positions)
        ids = np.full((len(positions), width), columns)
        logprobs = np.full((len(positions), width), NOTHING)
        for row, position in enumerate(positions):
            size = len(position.ids)
            ids[row, :size] = position.ids
            logprobs[row, :size] = position.logprobs
        if (mass := np.exp(logprobs).sum(1).max()) > 1.01:
            do = "start the server with --logprobs-mode raw_logprobs"
            raise DataError(
                f"the probabilities that the server returns for one token sum to {mass:.3f}", "prompt_logprobs", do
            )
        padding = ids >= columns  # rows of the embedding that no text has: they belong to the rest
        ids[padding], logprobs[padding] = columns, NOTHING
        return cls(torch.from_numpy(ids), torch.from_numpy(logprobs).clamp(min=NOTHING), columns, marks)

    def teacher(self, tokens: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Log-probabilities of some tokens, shape (n, V + 1), the rest in the last column; and which ones are known."""
        at = torch.from_numpy(tokens)
        ids, named, width = self.ids[at], self.logprobs[at], self.columns
        log_p = torch.full((len(at), width + 1), NOTHING, dtype=torch.float64).scatter_(1, ids, named)
        known = torch.zeros(len(at), width + 1, dtype=torch.bool).scatter_(1, ids, True)[:, :width]
        left = (1 - named.exp().sum(1)).clamp(min=_ROUNDING).masked_fill(known.all(1), math.exp(NOTHING))
        log_p[:, width] = left.log()
        never, as_end = list(self.marks.never), list(self.marks.as_end)
        log_p = silence(log_p, never, as_end, self.marks.end)
        if as_end:
            known[:, self.marks.end] |= known[:, as_end].any(1)
        known[:, never + as_end] = True
        log_p[:, :width] = log_p[:, :width].masked_fill(~known, NOTHING)
        return log_p.to(device, torch.float32), known.to(device)

    def begin(self, tokens: np.ndarray, log_q: Callable[[], Tensor]) -> None:
        """Do nothing: there is nothing to prepare."""

    def compare(
        self, logits: Tensor, tokens: np.ndarray, sampled: Tensor, objective: Objective
    ) -> tuple[Tensor, Tensor]:
        """The objective, as :class:`~vivavoce.train.scorers.PartTargets` says."""
        log_p, known = self.teacher(tokens, logits.device)
        log_q = with_rest(torch.log_softmax(logits.float(), -1), known)
        same = objective.model_copy(update={"top_k": None, "aggregate": "sum"})
        loss = distillation_loss(log_q, [log_p], log_q.new_ones(len(log_q), 1).detach(), sampled, same)
        return loss, log_p[:, :-1].argmax(1)


def merged_loss(
    z: Tensor,
    teachers: Sequence[Tensor | tuple[Tensor, Tensor]],
    weights: Tensor,
    sampled: Tensor,
    objective: Objective,
) -> Tensor:
    """The objective of scorers that are merged, if some of them name a part of their distribution only; shape (n,).

    ``z`` are the student's logits (n, V), with gradient. For a local scorer ``teachers`` holds logits (n, V), for a
    served one the result of :meth:`ServedTargets.teacher`. ``weights`` (n, K) sum to 1. All are compared on the tokens
    that all of them named, with one bucket for the rest: so all are distributions over the same events, and with whole
    vocabularies named the loss is that of local scorers. The student's token is always named.
    """
    common = torch.ones_like(z, dtype=torch.bool)
    for k, one in enumerate(teachers):
        if isinstance(one, tuple):
            common &= one[1] | (weights[:, k] == 0)[:, None]
    cut = [_restrict(one, common) for one in teachers]
    log_q = with_rest(torch.log_softmax(z.float(), -1), common)
    return distillation_loss(log_q, cut, weights, sampled, objective.model_copy(update={"top_k": None}))


def _restrict(one: Tensor | tuple[Tensor, Tensor], common: Tensor) -> Tensor:
    """A scorer's log-probabilities of the tokens in ``common``, and of all others together: shape (n, V + 1)."""
    if not isinstance(one, tuple):
        return with_rest(torch.log_softmax(one.float(), -1), common)
    log_p, width = one[0], common.shape[1]
    others = log_p[:, :width].masked_fill(common, NOTHING)
    rest = torch.cat([others, log_p[:, width:]], 1).logsumexp(1, keepdim=True)
    return torch.cat([log_p[:, :width].masked_fill(~common, NOTHING), rest], 1)


def open_served(spec: Scorer, settings: OnPolicySettings) -> ServedScorer:
    """Open a scorer by HTTP, and find out that it scores.

    Raises RecipeError for another temperature than 1, and as :meth:`ServedScorer.check`.
    """
    assert spec.model is not None, spec.name
    if settings.objective.temperature != 1:
        what = f"scorer {spec.name} is behind a server, which tells log-probabilities at temperature 1 alone"
        raise RecipeError(what, "objective.temperature", "use temperature: 1, or a local scorer")
    folder = weights.folder(spec.model, tokenizer_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
    server = OnEngine(spec) if spec.server is None else vllm.agent(spec.name, spec.server)
    opened = ServedScorer(spec, server, tokenizer, settings)
    opened.check()
    return opened


def _apart(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a thread of its own, because the caller's may have an event loop that runs."""
    with ThreadPoolExecutor(1, "vivavoce-served") as pool:
        return pool.submit(asyncio.run, work).result()


__all__ = ["OnEngine", "ServedScorer", "ServedTargets", "merged_loss", "open_served"]
