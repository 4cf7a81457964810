"""Preference trees made ready to train on: tokenised, measured, ordered into updates, packed into rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from vivavoce.errors import DataError
from vivavoce.records import Tree, digest
from vivavoce.train.checkpoint import training_order
from vivavoce.train.packing import Packed, pack, rows_of
from vivavoce.train.rows import row_name
from vivavoce.train.settings import TreeDPOSettings
from vivavoce.train.tokens import ScoredRow, score_rows


@dataclass(frozen=True)
class Branching:
    """One tree in tokens: its answers as rows, the right ones first."""

    id: str
    problem: str
    rows: tuple[ScoredRow, ...]
    right: int
    weight: float
    name: str = ""
    """The tree's name in errors."""

    @property
    def pairs(self) -> int:
        return self.right * (len(self.rows) - self.right)

    @cached_property
    def size(self) -> int:
        """Distinct tokens."""
        return len(pack(self.rows))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name for each answer that depends on its tokens and context alone."""
        return tuple(digest([row.ids, row.start]) for row in self.rows)

    @property
    def content(self) -> list[object]:
        """The content that training depends on, as plain JSON."""
        return [self.problem, self.names, self.right, self.weight]


def branchings(
    tokenizer: PreTrainedTokenizerBase,
    trees: Sequence[Tree],
    max_length: int,
    source: Path | None = None,
    template: Mapping[str, Any] | None = None,
) -> list[Branching]:
    """Tokenise ``trees``; those of weight 0 or with a row over ``max_length`` are left out, never truncated.

    ``template`` holds further arguments of the chat template. Raises DataError for a tree without right or without
    wrong answers, and if tokenisation does; it names the row, and ``source``, the file of the trees.
    """
    result = []
    for number, tree in enumerate(trees):
        if not tree.weight:
            continue
        where = row_name(tree, number, source)
        if not tree.chosen or not tree.rejected:
            raise DataError("a tree needs right and wrong answers", where, "leave it out")
        texts = [completion.text for completion in (*tree.chosen, *tree.rejected)]
        rows = score_rows(
            tokenizer,
            tree.prompt,
            texts,
            prefix=tree.prefix,
            complete=tree.complete,
            where=where,
            template=template,
        )
        if max(len(row.ids) for row in rows) <= max_length:
            result.append(Branching(tree.id, tree.problem, tuple(rows), len(tree.chosen), tree.weight, where))
    return result


@dataclass(frozen=True)
class PackedTrees:
    """Some trees in one packed row. Iterating gives each tree with the indices of its answers in ``packed.answers``."""

    packed: Packed
    trees: tuple[Branching, ...]

    @property
    def names(self) -> list[str]:
        return [name for tree in self.trees for name in tree.names]

    def __iter__(self) -> Iterator[tuple[Branching, slice]]:
        at = 0
        for tree in self.trees:
            yield tree, slice(at, at + len(tree.rows))
            at += len(tree.rows)


class Updates(Dataset[dict[str, list[PackedTrees]]]):
    """All updates of a run in order. Item ``i`` is the share of device ``i % devices`` in update ``i // devices``.

    Packing happens on demand and depends on the update alone, so a resumed run, and the reference pass, see the same
    rows: equal floating-point results, and a loss that starts at exactly ln 2.
    """

    def __init__(
        self, trees: Sequence[Branching], settings: TreeDPOSettings, updates: int, seed: int, devices: int = 1
    ) -> None:
        self.trees, self.budget, self.devices = list(trees), settings.token_budget, devices
        self.size = settings.trees_per_step
        groups = [tree.problem for tree in trees] if settings.group_by_problem else None
        self.order = training_order(len(trees), self.size, updates, seed, groups=groups)

    def __len__(self) -> int:
        return len(self.order) // self.size * self.devices

    def __getitem__(self, item: int) -> dict[str, list[PackedTrees]]:
        return {"rows": self.rows(item)}

    def rows(self, item: int) -> list[PackedTrees]:
        """The packed rows of one device's share of one update."""
        update, device = divmod(item, self.devices)
        whole = self.order[update * self.size : (update + 1) * self.size]
        trees = [self.trees[i] for i in whole[device :: self.devices]]
        # A device without a tree must still take part in the exchange of gradients.
        trees = trees or [replace(self.trees[whole[0]], weight=0.0)]
        split = rows_of([tree.rows for tree in trees], [tree.size for tree in trees], self.budget)
        rows = []
        for part in split:
            together = tuple(trees[i] for i in part)
            rows.append(PackedTrees(pack([row for tree in together for row in tree.rows]), together))
        return rows

    def facts(self) -> dict[str, int]:
        """Counts for the report: pairs, and the tokens of one pass over all trees, pairwise and packed tree by tree."""
        return {
            "pairs": sum(tree.pairs for tree in self.trees),
            "tokens_pairwise": sum(
                sum(len(row.ids) * (len(tree.rows) - tree.right) for row in tree.rows[: tree.right])
                + sum(len(row.ids) * tree.right for row in tree.rows[tree.right :])
                for tree in self.trees
            ),
            "tokens_packed": sum(tree.size for tree in self.trees),
        }


__all__ = ["Branching", "PackedTrees", "Updates", "branchings"]
