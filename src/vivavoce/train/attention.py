"""Attention over a flattened token trie, through the public doors of transformers.

``blocks`` is an attention function registered with ``AttentionInterface``: one scaled-dot-product call for each run of
the plan that :func:`vivavoce.train.packing.blocks` makes, so that a tree of T tokens costs the scores that it needs
and not T x T; unrelated short rows go in one call together. The plan travels as a keyword argument of the model's
forward. ``flex`` hands FlexAttention a block mask made of the same two comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from vivavoce.train.packing import Block, Packed, blocks

BLOCKS = "vivavoce_blocks"
_FLEX_BLOCK = 128


def trie_mask(ends: Tensor) -> Tensor:
    """Who attends to whom, shape (T, T), bool: query q sees key k where ``k <= q < ends[k]``. ``ends`` has shape (T,).

    >>> trie_mask(torch.tensor([4, 2, 4, 4])).int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    """
    index = torch.arange(len(ends), device=ends.device)
    return (index[None, :] <= index[:, None]) & (index[:, None] < ends[None, :])


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The runs of one packed row with their masks, made once and used by every layer."""

    runs: tuple[int, ...]
    """Query tokens of each run that is attended to alone; what lies between them is 0 long or belongs to a batch."""
    pieces: tuple[int, ...]
    """Tokens of each piece that keys and values are cut into, where any run's context starts or stops."""
    keys: tuple[tuple[int, ...], ...]
    """Per run: the pieces that it attends to, its own last; none for what belongs to a batch."""
    masks: tuple[Tensor | None, ...]
    """Per run: None for a plain causal one, else additive, shape (queries, keys), 0 or -inf."""
    batches: tuple[Tensor, ...]
    """Plain causal runs of like length, attended to at once: token indices (runs, longest), the last one repeated."""
    order: Tensor | None
    """Where each token stands in the outputs of runs and batches, one after the other; None: in its place."""


def plan(packed: Packed, dtype: torch.dtype, device: torch.device) -> Plan:
    """The block plan of ``packed``, masks in the model's ``dtype``."""
    runs = blocks(packed.ends)
    batches = _alike([run for run in runs if run.causal])
    together = {run.start for batch in batches for run in batch}
    spans = [() if r.start in together else (*r.context, (r.start, r.stop)) for r in runs]
    cuts = sorted({0, len(packed), *(edge for span in spans for interval in span for edge in interval)})
    piece = {cut: i for i, cut in enumerate(cuts)}
    ends = torch.from_numpy(packed.ends)
    masks: list[Tensor | None] = []
    for run, span in zip(runs, spans, strict=True):
        if run.causal:
            masks.append(None)
            continue
        keys = torch.from_numpy(np.concatenate([np.arange(a, b) for a, b in span]))
        queries = torch.arange(run.start, run.stop)[:, None]
        seen = (keys <= queries) & (queries < ends[keys])
        masks.append(torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, -torch.inf).to(device))
    indices = [np.stack([_stretched(run, max(r.stop - r.start for r in b)) for run in b]) for b in batches]
    return Plan(
        tuple(run.stop - run.start for run in runs),
        tuple(b - a for a, b in pairwise(cuts)),
        tuple(tuple(i for a, b in span for i in range(piece[a], piece[b])) for span in spans),
        tuple(masks),
        tuple(torch.from_numpy(index).to(device) for index in indices),
        _order(runs, together, indices, len(packed), device) if batches else None,
    )


def _alike(runs: Sequence[Block]) -> list[list[Block]]:
    """Batches of runs that differ by a quarter in length at most: a short row alone is one small call among many."""
    batches: list[list[Block]] = []
    for run in sorted(runs, key=lambda run: run.start - run.stop):
        if batches and 4 * (run.stop - run.start) >= 3 * (batches[-1][0].stop - batches[-1][0].start):
            batches[-1].append(run)
        else:
            batches.append([run])
    return [batch for batch in batches if len(batch) > 1]


def _stretched(run: Block, length: int) -> np.ndarray:
    """The tokens of ``run``, its last one repeated: no query sees what comes after it, so padding changes nothing."""
    return np.minimum(np.arange(run.start, run.start + length), run.stop - 1)


def _order(
    runs: Sequence[Block], together: set[int], indices: Sequence[np.ndarray], size: int, device: torch.device
) -> Tensor:
    order, at = np.empty(size, np.int64), 0
    for run in runs:
        if run.start not in together:
            order[run.start : run.stop] = np.arange(at, at + run.stop - run.start)
            at += run.stop - run.start
    for index in indices:
        flat = index.ravel()
        first = np.unique(flat, return_index=True)
        order[first[0]] = at + first[1]
        at += len(flat)
    return torch.from_numpy(order).to(device)


def block_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    trie: Plan | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row, run by run. Query (1, H, T, D), key and value (1, G, T, D); result (1, T, H, D)."""
    assert trie is not None, "the model does not pass keyword arguments on to its attention"
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    # One split each and not a slice for every run: the backward pass of a slice fills a tensor of the whole length.
    queries, keys, values = query.split(trie.runs, 2), key.split(trie.pieces, 2), value.split(trie.pieces, 2)
    outputs = [
        scaled_dot_product_attention(
            some,
            torch.cat([keys[i] for i in seen], 2),
            torch.cat([values[i] for i in seen], 2),
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scaling,
        )
        for some, seen, mask in zip(queries, trie.keys, trie.masks, strict=True)
        if seen
    ]
    for index in trie.batches:
        some, seen, values_ = (_gathered(x, index) for x in (query, key, value))
        together = scaled_dot_product_attention(some, seen, values_, dropout_p=dropout, is_causal=True, scale=scaling)
        outputs.append(together.transpose(0, 1).flatten(1, 2)[None])
    found = torch.cat(outputs, 2)
    if trie.order is not None:
        found = found.index_select(2, trie.order)
    return found.transpose(1, 2).contiguous(), None


def _gathered(x: Tensor, index: Tensor) -> Tensor:
    """Tokens ``index`` (B, L) of x (1, H, T, D), shape (B, H, L, D)."""
    return x[0].index_select(1, index.flatten()).unflatten(1, index.shape).transpose(0, 1)


AttentionInterface.register(BLOCKS, block_attention)


def flex_mask(packed: Packed, device: torch.device) -> Any:
    """FlexAttention's BlockMask of ``packed``. Needs CUDA to be worth it; not exercised on CPU by our tests."""
    from torch.nn.attention.flex_attention import BlockMask

    ends = torch.from_numpy(packed.ends).to(device)

    def ancestors(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (q < ends[k])

    partial, full = mask_blocks(packed.ends, _FLEX_BLOCK)
    return BlockMask.from_kv_blocks(
        *_listed(partial, device),
        *_listed(full, device),
        BLOCK_SIZE=_FLEX_BLOCK,
        mask_mod=ancestors,
        seq_lengths=(len(packed), len(packed)),
    )


def mask_blocks(ends: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of the mask that are seen in part, and those seen as a whole: bool, shape (blocks, blocks), query by key.

    Read off ``ends``, where ``create_block_mask`` looks at all T x T pairs, which takes as long as a layer or two.

    >>> [m.astype(int).tolist() for m in mask_blocks(np.array([6, 6, 4, 4, 6, 6]), 2)]
    [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 0], [1, 0, 0], [1, 0, 0]]]
    """
    count, short = -(-len(ends) // size), -len(ends) % size
    blocks = np.pad(ends, (0, short), "edge").reshape(count, size)
    least, most = blocks.min(1), blocks.max(1)
    query, key = np.arange(count)[:, None], np.arange(count)[None, :]
    seen = (key <= query) & (most[None, :] > query * size)
    full = (key < query) & (least[None, :] >= np.minimum((query + 1) * size, len(ends)))
    return seen & ~full, full


def _listed(blocks: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each row of blocks: how many, and which, those first."""
    count = blocks.sum(1, dtype=np.int32)
    which = np.argsort(~blocks, 1, kind="stable").astype(np.int32)
    return torch.from_numpy(count)[None, None].to(device), torch.from_numpy(which)[None, None].to(device)


__all__ = ["BLOCKS", "Plan", "block_attention", "flex_mask", "mask_blocks", "plan", "trie_mask"]
