"""Many rows as one sequence: a token trie, flattened so that every shared token is there once.

::

    rows                    trie              flattened, in pre-order
    P P P a a               P-P-P-a-a         token     P P P a a b b b
    P P P b b b                  \\-b-b-b     position  0 1 2 3 4 3 4 5
                                              parent    - 0 1 2 3 2 5 6
                                              end       8 8 8 5 5 8 8 8

``end`` is where the subtree of a token stops. Pre-order makes each subtree one interval, so *k is an ancestor of q, or
q itself* is ``k <= q < end[k]``: two comparisons are the whole attention mask, for one tree, for several trees that
share a prefix and for unrelated tries side by side. The rows, sorted, lie in pre-order already: a row adds the tokens
after its common prefix with the row before.

The hidden state that predicts a token is that of its parent, which siblings share. So each token is scored once, and
an answer's log-probability is a sum over its tokens' indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vivavoce.train.tokens import ScoredRow, common_prefix


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Some rows as one flattened trie of T tokens. Arrays are int64."""

    input_ids: np.ndarray
    """Shape (T,)."""
    position_ids: np.ndarray
    """Shape (T,): depth in the trie, so that a token has the position that it has in its own row."""
    ends: np.ndarray
    """Shape (T,): index after the last token of the subtree; ``k <= q < ends[k]`` is the attention mask."""
    parents: np.ndarray
    """Shape (T,): index of the token before, in every row that holds this token; -1 at a root."""
    answers: tuple[np.ndarray, ...]
    """Per row, in the order in which rows were given: the indices of its scored tokens."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def unpacked(self) -> int:
        """Tokens of the same rows one by one."""
        return sum(int(self.position_ids[a[-1]]) + 1 for a in self.answers)


def pack(rows: Sequence[ScoredRow]) -> Packed:
    """Flatten the trie of ``rows``. The result does not depend on their order, but for the order of ``answers``.

    >>> packed = pack([ScoredRow((7, 7, 1, 2), 2), ScoredRow((7, 7, 3), 2)])
    >>> packed.input_ids.tolist(), packed.position_ids.tolist(), packed.ends.tolist()
    ([7, 7, 1, 2, 3], [0, 1, 2, 3, 2], [5, 5, 4, 4, 5])
    >>> packed.parents.tolist(), [a.tolist() for a in packed.answers]
    ([-1, 0, 1, 2, 1], [[2, 3], [4]])
    """
    order = sorted(range(len(rows)), key=lambda i: rows[i].ids)
    size = sum(len(row.ids) for row in rows)
    ids, ends, parents, depth = (np.empty(size, np.int64) for _ in range(4))
    answers = [np.empty(0, np.int64)] * len(rows)
    path = np.empty(0, np.int64)  # where the tokens of the row before lie
    before = np.empty(0, np.int64)
    top = 0
    for i in order:
        row = np.asarray(rows[i].ids, np.int64)
        common = _common(before, row)
        new = len(row) - common
        ends[path[common:]] = top
        ids[top : top + new] = row[common:]
        depth[top : top + new] = np.arange(common, len(row))
        parents[top : top + new] = np.arange(top - 1, top + new - 1)
        if new:
            parents[top] = path[common - 1] if common else -1
        path = np.concatenate([path[:common], np.arange(top, top + new)])
        answers[i] = path[rows[i].start :]
        before = row
        top += new
    ends[path] = top
    return Packed(ids[:top], depth[:top], ends[:top], parents[:top], tuple(answers))


def _common(left: np.ndarray, right: np.ndarray) -> int:
    size = min(len(left), len(right))
    differ = left[:size] != right[:size]
    return int(differ.argmax()) if differ.any() else size


def rows_of(trees: Sequence[Sequence[ScoredRow]], sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Share out trees among packed rows of at most ``budget`` distinct tokens; gives lists of indices into ``trees``.

    ``sizes`` are the distinct tokens of each tree. Greedy over the sorted trees, so that trees with a common prefix
    are neighbours; what neighbours share is counted once. A tree above the budget gets a row of its own.

    >>> a, b = [ScoredRow((1, 2, 3), 1)], [ScoredRow((1, 2, 4), 1)]
    >>> rows_of([a, b], [3, 3], 4), rows_of([a, b], [3, 3], 3)
    ([[0, 1]], [[0], [1]])
    """
    result: list[list[int]] = []
    used = 0
    last: tuple[int, ...] = ()
    for i in sorted(range(len(trees)), key=lambda i: min(row.ids for row in trees[i])):
        extra = sizes[i] - common_prefix(last, min(row.ids for row in trees[i]))
        if result and used + extra <= budget:
            result[-1].append(i)
            used += extra
        else:
            result.append([i])
            used = sizes[i]
        last = max(row.ids for row in trees[i])
    return result


def segments(ends: np.ndarray) -> list[int]:
    """The starts of the radix trie's segments, and T at the end: runs of tokens with the same subtree end.

    >>> segments(np.array([8, 8, 8, 5, 5, 8, 8, 8]))
    [0, 3, 5, 8]
    """
    if not len(ends):
        return [0]
    return [0, *(np.flatnonzero(np.diff(ends)) + 1).tolist(), len(ends)]


@dataclass(frozen=True, slots=True)
class Block:
    """A run of query tokens that is attended to in one call: its keys are ``context`` and the run itself."""

    start: int
    stop: int
    context: tuple[tuple[int, int], ...]
    """Intervals of earlier tokens that are ancestors of some token of the run."""
    causal: bool
    """Whether it has no context and a plain causal triangle, so that it needs no mask."""

    @property
    def keys(self) -> tuple[tuple[int, int], ...]:
        """Intervals of all tokens that it is attended to with."""
        return (*self.context, (self.start, self.stop))


def blocks(ends: np.ndarray, overhead: int = 2048) -> list[Block]:
    """Cut the flattened trie into runs so that few masked-out scores are computed.

    One run of n queries with m context keys costs n * (m + n) scores and ``overhead`` (another run, in scores: 512
    to 2,048 were alike, 4,096 slower in a narrow model). Runs start as the segments of the radix trie, and neighbours
    are merged if that costs no more: a large tree is cut into prefix and answers, and many small ones stay together.
    Ancestors of any token of a run that lie before the run are ancestors of its first token, so its context is
    ``{k < start: ends[k] > start}``.
    """
    cuts = segments(ends)
    starts = cuts[:-1]
    contexts = [int((ends[:a] > a).sum()) for a in starts]
    runs: list[tuple[int, int, int]] = []  # start, stop, context size
    for a, b, context in zip(starts, cuts[1:], contexts, strict=True):
        while runs:
            start, stop, before = runs[-1]
            together = (b - start) * (before + b - start)
            apart = (stop - start) * (before + stop - start) + (b - a) * (context + b - a) + overhead
            if together > apart:
                break
            runs.pop()
            a, context = start, before
        runs.append((a, b, context))
    result = []
    for a, b, _ in runs:
        keys = np.flatnonzero(ends[:a] > a)
        result.append(Block(a, b, _intervals(keys), causal=not len(keys) and bool((ends[a:b] == ends[a]).all())))
    return result


def _intervals(keys: np.ndarray) -> tuple[tuple[int, int], ...]:
    if not len(keys):
        return ()
    gaps = np.flatnonzero(np.diff(keys) != 1) + 1
    return tuple((int(run[0]), int(run[-1]) + 1) for run in np.split(keys, gaps))


__all__ = ["Block", "Packed", "blocks", "pack", "rows_of", "segments"]
