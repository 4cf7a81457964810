"""A cache of prompts' beginnings: keys and values of prompts, found again by their tokens.

Debates repeat themselves. The instructions are the same in every question, the critics of one answer all read the
question and their own solution first, and a debate that every agent reads from its start only grows. A prompt is known
by the chained hashes of its blocks of :data:`BLOCK` tokens; the longest beginning that any remembered prompt shares is
reused, to the token. It was computed from the same tokens, so a reply does not depend on it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

# Shorter beginnings are computed faster than they are found and copied.
BLOCK = 16


def chain(ids: Sequence[int]) -> list[int]:
    """One hash for each whole block of ``ids``, which stands for all tokens up to its end."""
    hashes, before = list[int](), 0
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        before = hash((before, *ids[start : start + BLOCK]))
        hashes.append(before)
    return hashes


@dataclass(eq=False, slots=True)
class Known:
    """The keys and values of one prompt: for each layer two tensors (heads, tokens, size)."""

    ids: Sequence[int]
    layers: list[tuple[Tensor, Tensor]]

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for layer in self.layers for part in layer)


@dataclass(slots=True)
class Prefixes:
    """Remembered prompts. The least recently used are forgotten first if they take more than ``budget`` bytes."""

    budget: float
    copies: bool = True
    """Whether added tensors are copied, so that they do not hold the batch that they were computed in."""
    held: int = 0
    _prompts: OrderedDict[int, Known] = field(default_factory=OrderedDict[int, Known])
    _by_block: dict[int, Known] = field(default_factory=dict[int, Known])

    def longest(self, ids: Sequence[int], hashes: Sequence[int]) -> tuple[Known | None, int]:
        """A prompt that begins like ``ids``, and the number of shared tokens; at most all but the last, whose output
        is new.
        """
        for count in range(len(hashes), 0, -1):
            known = self._by_block.get(hashes[count - 1])
            if known is None or known.ids[: count * BLOCK] != ids[: count * BLOCK]:  # hashes may collide
                continue
            if id(known) in self._prompts:
                self._prompts.move_to_end(id(known))
            same, most = count * BLOCK, min(len(known.ids), len(ids)) - (len(known.ids) >= len(ids))
            while same < most and known.ids[same] == ids[same]:
                same += 1
            return known, min(same, len(ids) - 1)
        return None, 0

    def add(self, known: Known, hashes: Sequence[int]) -> None:
        """Remember a prompt, unless another one begins with all of its blocks."""
        if not hashes or hashes[-1] in self._by_block or known.bytes > self.budget:
            return
        if self.copies:
            known = Known(known.ids, [(keys.clone(), values.clone()) for keys, values in known.layers])
        self._prompts[id(known)] = known
        self.held += known.bytes
        for block in hashes:
            self._by_block[block] = known  # the newest: it is forgotten last
        while self.held > self.budget:
            self._forget()

    def clear(self) -> None:
        """Forget everything, for example because the weights have changed."""
        self._prompts.clear()
        self._by_block.clear()
        self.held = 0

    def _forget(self) -> None:
        _, oldest = self._prompts.popitem(last=False)
        self.held -= oldest.bytes
        for block in chain(oldest.ids):
            if self._by_block.get(block) is oldest:
                del self._by_block[block]
