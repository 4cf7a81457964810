"""Batched decoding of a causal language model of transformers, through its public forward.

Hundreds of prompts of different length, temperature, seed and stopping rule share one left-padded batch. Each row is
its own experiment: what it draws depends on its own seed and step, never on the rows beside it. Finished rows leave
the batch, so that one long answer does not make the others wait::

    prompts ──▶ left-pad ──▶ ┌ forward ──▶ draw one token per row ──▶ who is done? ┐ ──▶ cut, detokenise
                             └────────────── drop the rows that are ◀─────────────┘

Sampling is what :class:`vivavoce.records.Sampling` says and nothing else: defaults in a model's generation config
(top-k, penalties) do not apply, only its end-of-sequence ids do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from vivavoce.agents.detokenise import Detokeniser
from vivavoce.records import Sampling, Token, Usage

# Stop strings need text, and text needs the host: looking every step would cost more than a tiny model's forward.
# A row runs at most this many tokens too far; they are cut off and not counted.
_LOOK_EVERY = 8
# Dropping rows copies the cache; below this share of finished rows the copy costs more than it saves.
_DROP_SHARE = 1 / 8


class Interrupted(Exception):
    """Decoding was stopped from outside."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One row: token ids to go on from, how to draw, and the seed of its draws."""

    ids: Sequence[int]
    sampling: Sampling
    seed: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one row said."""

    text: str
    finish: Literal["stop", "length"]
    usage: Usage
    """Completion tokens count the end-of-sequence token, as servers do."""
    tokens: tuple[Token, ...] | None = None
    """Without the end-of-sequence token; None unless ``sampling.logprobs``."""


class Decoder:
    """Decodes with one model. Not thread-safe.

    Args:
        model: A causal decoder on its device, in evaluation mode.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.device = model.device
        self.forwards = 0
        """Forward passes so far."""
        config = getattr(model, "generation_config", None)
        ends = [getattr(config, "eos_token_id", None), tokenizer.eos_token_id]
        self.eos = sorted({i for end in ends for i in (end if isinstance(end, list) else [end]) if i is not None})
        pad = tokenizer.pad_token_id
        self._pad = cast(int, pad if pad is not None else self.eos[0] if self.eos else 0)
        self._detokeniser = Detokeniser(tokenizer)
        # the whole prompt's logits would be the largest tensor of all
        keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if keep else {}

    def decode(self, prompts: Sequence[Prompt], interrupted: Callable[[], bool] = lambda: False) -> list[Decoded]:
        """Continue every prompt, in one batch; results in the order of ``prompts``.

        Raises :class:`Interrupted` within one step after ``interrupted`` says so.
        """
        drawn, logprobs = self._draw_all(prompts, interrupted)
        return [
            self._finish(prompt, ids, lps)
            for prompt, ids, lps in zip(prompts, drawn.tolist(), logprobs.tolist(), strict=True)
        ]

    def draw(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The exact token ids that each prompt is continued with, its end-of-sequence token included."""
        rows = []
        for prompt, ids in zip(prompts, self._draw_all(prompts, lambda: False)[0].tolist(), strict=True):
            ids = ids[: prompt.sampling.max_new_tokens]
            at = next((i for i, token in enumerate(ids) if token in self.eos), None)
            rows.append(ids if at is None else ids[: at + 1])
        return rows

    @torch.inference_mode()
    def _draw_all(self, prompts: Sequence[Prompt], interrupted: Callable[[], bool]) -> tuple[Tensor, Tensor]:
        """Drawn ids and their log-probabilities, both (prompts, steps); rubbish after a row's end."""
        device, count = self.device, len(prompts)
        width = max(len(prompt.ids) for prompt in prompts)
        limits = torch.tensor([prompt.sampling.max_new_tokens for prompt in prompts], device=device)
        steps = max(prompt.sampling.max_new_tokens for prompt in prompts)
        ids = torch.tensor([[self._pad] * (width - len(p.ids)) + list(p.ids) for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p.ids)) + [1] * (len(p.ids) + steps) for p in prompts], device=device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        draws = _Draws(prompts, steps, device)
        score = any(prompt.sampling.logprobs for prompt in prompts)
        eos = torch.tensor(self.eos, device=device)
        drawn = torch.full((count, steps), self._pad, device=device)
        logprobs = torch.zeros((count, steps if score else 0), device=device)
        rows = torch.arange(count, device=device)  # which prompt each row of the batch belongs to
        done = torch.zeros(count, dtype=torch.bool, device=device)
        cache = _cache(self.model)
        look_every = 1 if device.type == "cpu" else _LOOK_EVERY  # on an accelerator, looking waits for the queue
        seen = 0
        for step in range(steps):
            if interrupted():
                raise Interrupted
            end = width + step
            logits = self._forward(ids, mask[:, :end], positions[:, seen:end], cache)
            seen = end
            token = draws.pick(logits, rows, step)
            drawn[rows, step] = token
            if score:
                chosen = logits.gather(1, token[:, None])[:, 0]
                logprobs[rows, step] = chosen - logits.logsumexp(-1)
            done |= torch.isin(token, eos) | (limits[rows] <= step + 1)
            ids = token[:, None]
            if (step + 1) % look_every and step + 1 < steps:
                continue
            if (step + 1) % _LOOK_EVERY == 0:
                done |= self._stopped(prompts, rows, done, drawn, step + 1)
            left = int((~done).sum())
            if not left:
                return drawn[:, : step + 1], logprobs[:, : step + 1]
            if left <= (1 - _DROP_SHARE) * len(rows):
                kept = (~done).nonzero()[:, 0]
                cache.reorder_cache(cast(Any, kept))  # selects rows for every kind of layer
                rows, done, ids, mask, positions = (x[kept] for x in (rows, done, ids, mask, positions))
        return drawn, logprobs

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Logits of the last position, (rows, vocabulary) in fp32."""
        self.forwards += 1
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **self._last_only,
        )
        return out.logits[:, -1].float()

    def _stopped(self, prompts: Sequence[Prompt], rows: Tensor, done: Tensor, drawn: Tensor, length: int) -> Tensor:
        """Which rows of the batch hold one of their stop strings."""
        found = torch.zeros_like(done)
        if not any(prompt.sampling.stop for prompt in prompts):
            return found
        for at, (row, over) in enumerate(zip(rows.tolist(), done.tolist(), strict=True)):
            stops = prompts[row].sampling.stop
            if over or not stops:
                continue
            # a character takes at most four tokens, so an older stop string was seen when we looked before
            tail = drawn[row, max(0, length - _LOOK_EVERY - 4 * max(map(len, stops))) : length].tolist()
            if any(stop in self._detokeniser.text(tail) for stop in stops):
                whole = self._detokeniser.text(drawn[row, :length].tolist())
                found[at] = any(stop in whole for stop in stops)
        return found

    def _finish(self, prompt: Prompt, ids: list[int], logprobs: list[float]) -> Decoded:
        """Cut a row at its end and turn it into text."""
        sampling = prompt.sampling
        ids = ids[: sampling.max_new_tokens]
        at = next((i for i, token in enumerate(ids) if token in self.eos), None)
        said = ids if at is None else ids[:at]
        count = len(said) if at is None else at + 1
        text = self._detokeniser.text(said)
        ended = at is not None
        pieces = None
        stops = [(text.find(stop), len(stop)) for stop in sampling.stop if stop in text]
        if sampling.logprobs or stops:
            pieces = self._detokeniser.pieces(said, text)
        if stops and pieces is not None:
            start, length = min(stops)
            text, ended = text[:start], True
            pieces, count = _cut(pieces, start, start + length)
        tokens = None
        if sampling.logprobs and pieces is not None:
            # zip stops at the last kept piece
            tokens = tuple(Token(piece, logprob) for piece, logprob in zip(pieces, logprobs, strict=False))
        return Decoded(text, "stop" if ended else "length", Usage(len(prompt.ids), count), tokens)


class _Draws:
    """Draws tokens: greedy, or by inverting the cumulative distribution at the row's own uniform numbers.

    Row ``i`` at step ``t`` uses the ``t``-th number of a generator seeded with the row's seed. Inversion runs over
    the vocabulary in its own order in fp64, so that no other row's settings change a choice.
    """

    def __init__(self, prompts: Sequence[Prompt], steps: int, device: torch.device) -> None:
        hot = [prompt.sampling.temperature > 0 for prompt in prompts]
        self.any_hot, self.all_hot = any(hot), all(hot)
        self.any_narrow = any(p.sampling.top_p < 1 and warm for p, warm in zip(prompts, hot, strict=True))
        if not self.any_hot:
            return
        self.hot = torch.tensor(hot, device=device)
        self.temperature = torch.tensor([p.sampling.temperature or 1.0 for p in prompts], device=device)
        self.top_p = torch.tensor([p.sampling.top_p for p in prompts], dtype=torch.float64, device=device)
        uniform = torch.zeros(len(prompts), steps, dtype=torch.float64)
        for i, prompt in enumerate(prompts):
            if hot[i]:
                # on the host, so that a seed means the same on every device
                generator = torch.Generator().manual_seed(prompt.seed)
                size = prompt.sampling.max_new_tokens
                uniform[i, :size] = torch.rand(size, generator=generator, dtype=torch.float64)
        self.uniform = uniform.to(device)

    def pick(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        """One token id per row of ``logits`` (rows, vocabulary)."""
        if not self.any_hot:
            return logits.argmax(-1)
        p = (logits / self.temperature[rows, None]).double().softmax(-1)
        if self.any_narrow:
            # the smallest set of likeliest tokens that holds top_p of the mass; the likeliest is always in it
            ordered, order = p.sort(-1, descending=True)
            outside = ordered.cumsum(-1) - ordered >= self.top_p[rows, None]
            p = torch.zeros_like(p).scatter_(-1, order, ordered.masked_fill_(outside, 0.0))
        total = p.cumsum(-1)
        # u < 1, but u * mass may round up to the mass itself: then the last token that has any
        mass = total[:, -1:]
        point = torch.minimum(self.uniform[rows, step, None] * mass, mass.nextafter(torch.zeros_like(mass)))
        token = torch.searchsorted(total, point, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
        return token if self.all_hot else torch.where(self.hot[rows], token, logits.argmax(-1))


class _RoomyLayer(DynamicLayer):
    """A cache layer with room to grow: writes in place where DynamicLayer copies all keys and values every step."""

    _room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old, new = self.get_seq_length(), key_states.shape[-2]
        if self._room is None or old + new > self._room[0].shape[-2]:
            room = old + new + max(32, (old + new) // 4)
            self._room = _grown(self.keys, key_states, room), _grown(self.values, value_states, room)
        keys, values = self._room
        keys[:, :, old : old + new] = key_states
        values[:, :, old : old + new] = value_states
        self.keys, self.values = keys[:, :, : old + new], values[:, :, : old + new]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Any) -> None:
        super().reorder_cache(beam_idx)
        self._room = None


def _grown(old: Tensor | None, like: Tensor, room: int) -> Tensor:
    grown = like.new_empty(*like.shape[:-2], room, like.shape[-1])
    if old is not None and old.numel():
        grown[:, :, : old.shape[-2]] = old
    return grown


def _cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache as the model's config asks for it, its plain layers replaced by roomy ones."""
    cache = DynamicCache(config=model.config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _cut(pieces: list[str], start: int, end: int) -> tuple[list[str], int]:
    """The pieces of the first ``start`` characters, and how many pieces it took to reach ``end``."""
    kept, length = list[str](), 0
    for count, piece in enumerate(pieces, 1):
        if length < start:
            kept.append(piece[: start - length])
        length += len(piece)
        if length >= end:
            return kept, count
    return kept, len(pieces)
