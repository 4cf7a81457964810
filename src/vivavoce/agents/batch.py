"""The rows that are continued together, and the one cache of keys and values that they share.

All rows end at the same column of the cache, whatever their length, so that a step writes one column for all of them.
A row that is done leaves its line; rows that join are set in beside the others, and columns to the left of the longest
row are cut off::

    ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ done            ▪ ▪ ▪ ▪
    . . . . ▪ ▪ ▪ ▪          ──▶    . ▪ ▪ ▪
    . . . . . ▪ ▪ ▪                 ▪ ▪ ▪ ▪ joined
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from vivavoce.agents.prefixes import Known
from vivavoce.records import Sampling


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """One row: the token ids of a prompt, its sampling, and the seed of its draws."""

    ids: Sequence[int]
    sampling: Sampling
    seed: int
    tag: object = None
    """The caller's name for it."""


@dataclass(slots=True)
class Lines:
    """The state of each row, on the model's device; the first dimension of every tensor is the row."""

    size: Tensor
    """Tokens of the prompt."""
    limit: Tensor
    """Most tokens to draw."""
    counts: Tensor
    """Tokens drawn so far."""
    done: Tensor
    drawn: Tensor
    """(rows, most tokens) ids; there is nothing to the right of ``said``."""
    logprobs: Tensor
    """(rows, most tokens), as the model gave them."""
    temperature: Tensor
    """0 if the row is greedy."""
    top_p: Tensor
    top_k: Tensor
    """0 if the row is drawn from all tokens."""
    penalty: Tensor
    """Penalty on tokens that were there before; 1 is none."""
    prompt: Tensor
    """(rows, tokens of the longest penalised prompt) ids, the row's first ``size``; nothing if no row is penalised."""
    uniform: Tensor
    """(rows, most tokens) numbers in [0, 1), fp64: the row's own, one for each step."""

    @classmethod
    def of(cls, prompts: Sequence[TokenPrompt], device: torch.device) -> Lines:
        """Rows for which nothing has been drawn yet."""
        samplings = [prompt.sampling for prompt in prompts]
        limits = [sampling.max_new_tokens for sampling in samplings]
        room = max(limits) + 1  # a row that is done writes behind its last token
        uniform = torch.zeros(len(prompts), room, dtype=torch.float64)
        for line, prompt in zip(uniform, prompts, strict=True):
            if prompt.sampling.temperature > 0:
                # on the host, so that a seed means the same on every device
                generator = torch.Generator().manual_seed(prompt.seed)
                limit = prompt.sampling.max_new_tokens
                line[:limit] = torch.rand(limit, generator=generator, dtype=torch.float64)
        rows = len(prompts)
        penalised = [one for one in prompts if one.sampling.repetition_penalty != 1]
        prompt_ids = torch.zeros(rows, max((len(one.ids) for one in penalised), default=0), dtype=torch.long)
        for line, one in zip(prompt_ids, prompts, strict=True):
            if one.sampling.repetition_penalty != 1:
                line[: len(one.ids)] = torch.tensor(one.ids)
        return cls(
            size=torch.tensor([len(prompt.ids) for prompt in prompts], device=device),
            limit=torch.tensor(limits, device=device),
            counts=torch.zeros(rows, dtype=torch.long, device=device),
            done=torch.zeros(rows, dtype=torch.bool, device=device),
            drawn=torch.zeros(rows, room, dtype=torch.long, device=device),
            logprobs=torch.zeros(rows, room, device=device),
            temperature=torch.tensor([s.temperature for s in samplings], dtype=torch.float32, device=device),
            top_p=torch.tensor([s.top_p for s in samplings], dtype=torch.float64, device=device),
            top_k=torch.tensor([s.top_k for s in samplings], device=device),
            penalty=torch.tensor([s.repetition_penalty for s in samplings], dtype=torch.float32, device=device),
            prompt=prompt_ids.to(device),
            uniform=uniform.to(device),
        )

    def __getitem__(self, rows: Tensor) -> Lines:
        return Lines(*(getattr(self, one.name)[rows] for one in fields(self)))

    @staticmethod
    def join(parts: Sequence[Lines]) -> Lines:
        """The rows of all parts, one part after the other."""
        columns = []
        for one in fields(Lines):
            tensors = [cast(Tensor, getattr(part, one.name)) for part in parts]
            if tensors[0].dim() == 2:
                room = max(tensor.shape[1] for tensor in tensors)
                tensors = [torch.nn.functional.pad(tensor, (0, room - tensor.shape[1])) for tensor in tensors]
            columns.append(torch.cat(tensors))
        return Lines(*columns)


class Batch:
    """Prompts, their lines and their cache, row by row the same.

    Args:
        prompts: One for each row.
        lines: One line for each.
        cache: Keys and values of all tokens but the last one drawn.
        plain: Whether the cache holds all keys and values of a row and nothing else, so that rows may join.
    """

    def __init__(self, prompts: Sequence[TokenPrompt], lines: Lines, cache: DynamicCache, plain: bool) -> None:
        self.prompts, self.lines, self.cache, self.plain = list(prompts), lines, cache, plain
        self.width = cache.get_seq_length()
        self._note()

    def _note(self) -> None:
        samplings = [prompt.sampling for prompt in self.prompts]
        warm = [sampling for sampling in samplings if sampling.temperature > 0]
        self._hot, self._all_hot = bool(warm), len(warm) == len(samplings)
        self._narrow = any(sampling.top_p < 1 or sampling.top_k for sampling in warm)
        self._penalised = any(sampling.repetition_penalty != 1 for sampling in samplings)
        self._score = any(sampling.logprobs for sampling in samplings)
        self._rows = torch.arange(len(samplings), device=self.lines.counts.device)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The next step's inputs: ids (rows, 1), mask (rows, width + 1), positions (rows, 1)."""
        lines = self.lines
        ids = lines.drawn[self._rows, lines.counts - 1][:, None]
        length = (lines.size + lines.counts)[:, None]
        self.width += 1
        columns = torch.arange(self.width, 0, -1, device=ids.device)
        return ids, (columns <= length).long(), length - 1

    def draw(self, logits: Tensor, eos: Tensor) -> None:
        """Draw one more token for each row from its logits (rows, vocabulary). Rows that end with it are done."""
        lines, rows = self.lines, self._rows
        token = self._pick(logits)
        lines.drawn[rows, lines.counts] = token
        if self._score:
            lines.logprobs[rows, lines.counts] = logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(-1)
        lines.counts += ~lines.done
        lines.done |= torch.isin(token, eos) | (lines.counts >= lines.limit)

    def _pick(self, logits: Tensor) -> Tensor:
        """Greedy, or by inverting the cumulative distribution at the row's own uniform number of this step.

        Inversion runs over the vocabulary in its own order in fp64, so that no other row's settings change a choice.
        """
        logits = self._penalise(logits) if self._penalised else logits
        if not self._hot:
            return logits.argmax(-1)
        lines = self.lines
        hot = lines.temperature > 0
        p = (logits / lines.temperature.where(hot, 1.0)[:, None]).double().softmax(-1)
        if self._narrow:
            # of the top_k likeliest tokens, and those as likely as the last of them, the smallest set that holds top_p
            # of their mass; the likeliest is always in it
            ordered, order = p.sort(-1, descending=True)
            few = (lines.top_k > 0)[:, None]
            last = ordered.gather(-1, (lines.top_k - 1).clamp(0, p.shape[-1] - 1)[:, None])
            ordered.masked_fill_(few & (ordered < last), 0.0)
            mass = ordered.sum(-1, keepdim=True).where(few, 1.0)
            outside = ordered.cumsum(-1) - ordered >= lines.top_p[:, None] * mass
            p = torch.zeros_like(p).scatter_(-1, order, ordered.masked_fill_(outside, 0.0))
        total = p.cumsum(-1)
        # u < 1, but u * mass may round up to the mass itself: then the last token that has any
        mass = total[:, -1:]
        point = torch.minimum(
            lines.uniform[self._rows, lines.counts, None] * mass, mass.nextafter(torch.zeros_like(mass))
        )
        token = torch.searchsorted(total, point, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
        return token if self._all_hot else torch.where(hot, token, logits.argmax(-1))

    def _penalise(self, logits: Tensor) -> Tensor:
        """The logits with those of each row's prompt and drawn tokens made smaller by its penalty.

        Source: arXiv:1909.05858, section 4.1; as RepetitionPenaltyLogitsProcessor of transformers.
        """
        lines = self.lines
        is_drawn = torch.arange(lines.drawn.shape[1], device=logits.device) < lines.counts[:, None]
        is_prompt = torch.arange(lines.prompt.shape[1], device=logits.device) < lines.size[:, None]
        # what stands at no place of a row is taken for its first token, which is there anyway
        first = lines.prompt[:, :1]
        ids = torch.cat([lines.prompt.where(is_prompt, first), lines.drawn.where(is_drawn, first)], -1)
        there, penalty = logits.gather(-1, ids), lines.penalty[:, None]
        return logits.scatter(-1, ids, torch.where(there < 0, there * penalty, there / penalty))

    def keys_and_values(self, row: int) -> list[tuple[Tensor, Tensor]]:
        """Views of the keys and values of a row's prompt in each layer, before the first step."""
        start = self.width - len(self.prompts[row].ids)
        return [(_of(layer.keys)[row, :, start:], _of(layer.values)[row, :, start:]) for layer in _layers(self.cache)]

    def rearrange(self, kept: Sequence[int], joining: Sequence[Batch] = ()) -> Batch:
        """The rows ``kept`` and those of ``joining``. The caches of all of them are used up, layer after layer."""
        at = torch.tensor(list(kept), dtype=torch.long, device=self.lines.counts.device)
        if not self.plain:
            assert not joining, "rows cannot join a cache that is not plain"
            self.cache.reorder_cache(cast(Any, at))  # selects rows for every kind of layer
            return Batch([self.prompts[row] for row in kept], self.lines[at], self.cache, False)
        lines = self.lines[at]
        used = [len(self.prompts[row].ids) + count - 1 for row, count in zip(kept, lines.counts.tolist(), strict=True)]
        width = max([*used, *(part.width for part in joining)])
        for layer, *others in zip(*(_layers(part.cache) for part in (self, *joining)), strict=True):
            layer.take([(layer, at), *((other, slice(None)) for other in others)], width)
        prompts = [self.prompts[row] for row in kept] + [prompt for part in joining for prompt in part.prompts]
        return Batch(prompts, Lines.join([lines, *(part.lines for part in joining)]), self.cache, True)

    def join(self, others: Sequence[Batch]) -> Batch:
        """All rows of this batch and of the others."""
        return self.rearrange(range(len(self.prompts)), others) if others else self


class RoomyLayer(DynamicLayer):
    """A cache layer with room to grow: writes in place where DynamicLayer copies all keys and values every step."""

    _room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old, new = self.get_seq_length(), key_states.shape[-2]
        if not old:
            # a prefill; most rows join others before they say a word, so room made now would be made twice
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        if self._room is None or old + new > self._room[0].shape[-2]:
            rooms = _empty(key_states, len(key_states), old + new), _empty(value_states, len(value_states), old + new)
            rooms[0][:, :, :old], rooms[1][:, :, :old] = _of(self.keys), _of(self.values)
            self._room = rooms
        keys, values = self._room
        keys[:, :, old : old + new] = key_states
        values[:, :, old : old + new] = value_states
        self.keys, self.values = keys[:, :, : old + new], values[:, :, : old + new]
        return self.keys, self.values

    def take(self, parts: Sequence[tuple[RoomyLayer, Tensor | slice]], width: int) -> None:
        """Become those rows of all parts, each at the right of ``width`` columns; the parts are emptied."""
        keys = _beside([(_of(part.keys), rows) for part, rows in parts], width)
        for part, _ in parts:
            part.keys = part._room = None
        values = _beside([(_of(part.values), rows) for part, rows in parts], width)
        for part, _ in parts:
            part.values = None
        self._room = keys, values
        self.keys, self.values = keys[:, :, :width], values[:, :, :width]

    def reorder_cache(self, beam_idx: Any) -> None:
        super().reorder_cache(beam_idx)
        self._room = None


def empty_cache(model: PreTrainedModel) -> tuple[DynamicCache, bool]:
    """An empty cache as the model's config asks for it, its plain layers made roomy, and whether all were plain."""
    cache = DynamicCache(config=model.config)
    plain = bool(cache.layers) and all(type(layer) is DynamicLayer for layer in cache.layers)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache, plain


def fill_cache(cache: DynamicCache, rows: Sequence[tuple[Known | None, int]], width: int) -> None:
    """Set the first so many tokens of each row's known prompt at the right of ``width`` columns of an empty cache."""
    like = next(known for known, size in rows if known is not None and size > 0)
    for depth, layer in enumerate(_layers(cache)):
        both = []
        for part in (0, 1):
            heads, _, size = like.layers[depth][part].shape
            filled = like.layers[depth][part].new_zeros(len(rows), heads, width, size)
            for line, (known, count) in zip(filled, rows, strict=True):
                if known is not None and count > 0:
                    line[:, width - count :] = known.layers[depth][part][:, :count]
            both.append(filled)
        layer.update(*both)


def _layers(cache: DynamicCache) -> list[RoomyLayer]:
    return cast("list[RoomyLayer]", cache.layers)


def _beside(parts: Sequence[tuple[Tensor, Tensor | slice]], width: int) -> Tensor:
    """Rows of several tensors (rows, heads, columns, size) in a new one with room, right of ``width`` columns."""
    sized = [(one, rows, len(rows) if isinstance(rows, Tensor) else len(one)) for one, rows in parts]
    room = _empty(parts[0][0], sum(count for _, _, count in sized), width)
    below = 0
    for one, rows, count in sized:
        columns = min(width, one.shape[-2])
        room[below : below + count, :, : width - columns] = 0  # masked, but nothing times NaN is NaN
        room[below : below + count, :, width - columns : width] = one[:, :, one.shape[-2] - columns :][rows]
        below += count
    return room


def _empty(like: Tensor, rows: int, columns: int) -> Tensor:
    """Room for ``columns`` columns and a quarter more."""
    return like.new_empty(rows, like.shape[1], columns + max(32, columns // 4), like.shape[3])


def _of(tensor: Tensor | None) -> Tensor:
    assert tensor is not None, "the layer is empty"
    return tensor
