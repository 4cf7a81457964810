"""Attention over a flattened token trie, through the public doors of transformers.

``blocks`` is an attention function registered with ``AttentionInterface``. It takes the plan that
:func:`vivavoce.train.packing.blocks` makes, so that a tree of T tokens costs the scores that it needs and not T x T. A
long run of queries has a scaled-dot-product call of its own; short ones share a batch with others of their size. The
plan travels as a keyword argument of the model's forward. ``flex`` hands FlexAttention a block mask made of the same
two comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from vivavoce.train.packing import Block, Packed, blocks

BLOCKS = "vivavoce_blocks"
_FLEX_BLOCK = 128
# Multiplications of a run (queries x keys x width of all heads) that is short: a call of its own takes longer.
SHORT = 2**20
# Scores of a batch, of one head: what lies between its products has to stay in a processor's cache.
_BATCH = 2**18


# What models hand to an attention function and what changes nothing here: all is seen that precedes, windows are longer
# than the rows (:mod:`vivavoce.train.choosing` sees to it), and positions are in queries and keys already.
_IDLE = {
    "cache",
    "cache_position",
    "cu_seq_lens_k",
    "cu_seq_lens_q",
    "is_causal",
    "max_length_k",
    "max_length_q",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "position_ids",
    "return_dict",
    "sliding_window",
    "use_cache",
}


def trie_mask(ends: Tensor) -> Tensor:
    """The attention mask, shape (T, T), bool: query q sees key k if ``k <= q < ends[k]``. ``ends`` has shape (T,).

    >>> trie_mask(torch.tensor([4, 2, 4, 4])).int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    """
    index = torch.arange(len(ends), device=ends.device)
    return (index[None, :] <= index[:, None]) & (index[:, None] < ends[None, :])


@dataclass(frozen=True, slots=True, eq=False)
class RunBatch:
    """Short runs of about the same size, padded with copies of their last tokens. Padding tokens: their outputs are
    discarded, and the mask hides them from every other token.
    """

    queries: Tensor
    """Token indices, shape (runs, most queries)."""
    keys: Tensor
    """Token indices, shape (runs, most keys)."""
    mask: Tensor
    """Additive, shape (runs, most queries, most keys), 0 or -inf."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The runs of one packed row with their masks, made once and used by every layer."""

    runs: tuple[int, ...]
    """Query tokens of each run."""
    pieces: tuple[int, ...]
    """Tokens of each piece that keys and values are cut into, at the places where the context of a long run starts
    or stops.
    """
    keys: tuple[tuple[int, ...], ...]
    """The pieces that each run attends to, its own last; none if it belongs to a batch."""
    masks: tuple[Tensor | None, ...]
    """The mask of each run: None for a plain causal mask, else additive, shape (queries, keys), 0 or -inf."""
    batches: tuple[RunBatch, ...]
    order: Tensor | None
    """The place of each token in the outputs of long runs and batches, one after the other; None: in its own place."""


def plan(packed: Packed, dtype: torch.dtype, device: torch.device, width: int) -> Plan:
    """The block plan of ``packed`` for a model whose heads have ``width`` numbers together; masks in its ``dtype``."""
    runs = [_Run(block, np.concatenate([np.arange(a, b) for a, b in block.keys])) for block in blocks(packed.ends)]
    short = [run for run in runs if run.scores * width <= SHORT] if len(runs) > 1 else []
    batched = {run.block.start for run in short}
    alone = [run for run in runs if run.block.start not in batched]

    cuts = sorted({0, len(packed), *(edge for run in alone for interval in run.block.keys for edge in interval)})
    piece = {cut: i for i, cut in enumerate(cuts)}
    groups = _alike(short)
    queries = [np.stack([run.queries(max(len(r) for r in group)) for run in group]) for group in groups]
    return Plan(
        tuple(len(run) for run in runs),
        tuple(b - a for a, b in pairwise(cuts)),
        tuple(
            () if run.block.start in batched else tuple(i for a, b in run.block.keys for i in range(piece[a], piece[b]))
            for run in runs
        ),
        tuple(
            None
            if run.block.causal or run.block.start in batched
            else _additive(_sees(run.queries(len(run)), run.keys, packed.ends), dtype, device)
            for run in runs
        ),
        tuple(
            _batch(group, members, packed.ends, dtype, device) for group, members in zip(groups, queries, strict=True)
        ),
        _order([run.queries(len(run)) for run in alone] + queries, device) if groups else None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """A block and the indices of its keys."""

    block: Block
    keys: np.ndarray

    def __len__(self) -> int:
        return self.block.stop - self.block.start

    @property
    def scores(self) -> int:
        return len(self) * len(self.keys)

    def queries(self, count: int) -> np.ndarray:
        """Its first tokens, the last one repeated."""
        return np.minimum(np.arange(self.block.start, self.block.start + count), self.block.stop - 1)


def _alike(runs: Sequence[_Run]) -> list[list[_Run]]:
    """Batches in which padding is a third at most."""
    batches: list[list[_Run]] = []
    real = padded = 0
    for run in sorted(runs, key=lambda run: (-len(run.keys), -len(run))):
        if batches:
            most = max(len(run), *(len(r) for r in batches[-1]))
            padded = (len(batches[-1]) + 1) * most * len(batches[-1][0].keys)
        if batches and padded <= min(1.5 * (real + run.scores), _BATCH):
            batches[-1].append(run)
            real += run.scores
        else:
            batches.append([run])
            real = run.scores
    return batches


def _batch(
    runs: Sequence[_Run], queries: np.ndarray, ends: np.ndarray, dtype: torch.dtype, device: torch.device
) -> RunBatch:
    most = max(len(run.keys) for run in runs)
    keys = np.stack([np.pad(run.keys, (0, most - len(run.keys)), "edge") for run in runs])
    there = np.arange(most) < np.array([len(run.keys) for run in runs])[:, None]
    mask = _additive(_sees(queries, keys, ends) & there[:, None, :], dtype, device)
    return RunBatch(torch.from_numpy(queries).to(device), torch.from_numpy(keys).to(device), mask)


def _sees(queries: np.ndarray, keys: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether each of the queries (..., Q) sees each of the keys (..., K), shape (..., Q, K)."""
    query, key = queries[..., :, None], keys[..., None, :]
    return (key <= query) & (query < ends[key])


def _additive(seen: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~torch.from_numpy(seen), -torch.inf).to(device)


def _order(outputs: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """The first place of each token in ``outputs`` that hold them all, one after the other."""
    return torch.from_numpy(np.unique(np.concatenate([o.ravel() for o in outputs]), return_index=True)[1]).to(device)


def block_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    trie: Plan | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row, run by run. Query and key (1, H or G, T, D), value (1, G, T, E); result (1, T, H, E).

    Raises NotImplementedError if the model asks for more than that, for example for capped scores or for sinks.
    """
    assert trie is not None, "the model does not pass keyword arguments on to its attention"
    if wanted := [name for name, value in others.items() if value is not None and name not in _IDLE]:
        raise NotImplementedError(f"its attention needs {', '.join(wanted)}")
    outputs = _long(query, key, value, dropout, scaling, trie) if any(trie.keys) else []
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    outputs += [_together(q, k, v, batch, dropout, scaling) for batch in trie.batches]
    joined = torch.cat(outputs)
    return (joined if trie.order is None else joined.index_select(0, trie.order))[None], None


def _long(query: Tensor, key: Tensor, value: Tensor, dropout: float, scaling: float | None, trie: Plan) -> list[Tensor]:
    """Runs that are attended to alone, each (tokens, H, D)."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    # One split each and not a slice for every run: the backward pass of a slice fills a tensor of the whole length.
    queries, keys, values = query.split(trie.runs, 2), key.split(trie.pieces, 2), value.split(trie.pieces, 2)
    return [
        scaled_dot_product_attention(
            members,
            torch.cat([keys[i] for i in seen], 2),
            torch.cat([values[i] for i in seen], 2),
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scaling,
        )[0].transpose(0, 1)
        for members, seen, mask in zip(queries, trie.keys, trie.masks, strict=True)
        if seen
    ]


def _together(
    query: Tensor, key: Tensor, value: Tensor, batch: RunBatch, dropout: float, scaling: float | None
) -> Tensor:
    """A batch of short runs, from tokens (T, H, D), (T, G, D) and (T, G, E); shape (runs x most queries, H, E).

    It is written out, because in products this small a fused kernel is all overhead. Heads that share their keys are
    rows of one product.
    """
    (runs, count), most = batch.queries.shape, batch.keys.shape[1]
    (heads, size), groups, width = query.shape[1:], key.shape[1], value.shape[-1]
    queries = query.index_select(0, batch.queries.flatten()) * (size**-0.5 if scaling is None else scaling)
    queries = queries.view(runs, count, groups, -1, size).transpose(1, 2).reshape(runs * groups, -1, size)
    keys, values = (
        x.index_select(0, batch.keys.flatten())
        .view(runs, most, groups, -1)
        .transpose(1, 2)
        .reshape(runs * groups, most, x.shape[-1])
        for x in (key, value)
    )
    scores = torch.bmm(queries, keys.transpose(1, 2)).view(runs, groups, count, -1, most)
    weights = drop(torch.softmax(scores + batch.mask[:, None, :, None], -1), dropout)
    attended = torch.bmm(weights.view(runs * groups, -1, most).to(values.dtype), values)
    return attended.view(runs, groups, count, -1, width).transpose(1, 2).reshape(runs * count, heads, width)


AttentionInterface.register(BLOCKS, block_attention)


def flex_mask(packed: Packed, device: torch.device) -> Any:
    """FlexAttention's BlockMask of ``packed``. Needs CUDA to be worth it; not exercised on CPU by our tests."""
    from torch.nn.attention.flex_attention import BlockMask

    ends = torch.from_numpy(packed.ends).to(device)

    def ancestors(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (q < ends[k])

    partial, full = mask_blocks(packed.ends, _FLEX_BLOCK)
    return BlockMask.from_kv_blocks(
        *_list_blocks(partial, device),
        *_list_blocks(full, device),
        BLOCK_SIZE=_FLEX_BLOCK,
        mask_mod=ancestors,
        seq_lengths=(len(packed), len(packed)),
    )


def mask_blocks(ends: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of the mask that are seen in part, and those seen as a whole: bool, shape (blocks, blocks), query by key.

    They are read off ``ends``; ``create_block_mask`` looks at all T x T pairs, which takes as long as a layer or two.

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


def _list_blocks(blocks: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """The number of chosen blocks in each row of blocks, and their indices, first."""
    count = blocks.sum(1, dtype=np.int32)
    which = np.argsort(~blocks, 1, kind="stable").astype(np.int32)
    return torch.from_numpy(count)[None, None].to(device), torch.from_numpy(which)[None, None].to(device)


__all__ = ["BLOCKS", "Plan", "block_attention", "flex_mask", "mask_blocks", "plan", "trie_mask"]
