"""The growth of cost: one measure of the work is changed at a time, ours and the peer's beside each other.

T-DPO by width of the tree, context and answers, against TRL's DPOTrainer pair by pair; the on-policy step by length and
vocabulary, against its DistillationTrainer; scoring by number of teachers, against each answer with its own transcript.
The models are small, so that a table takes minutes: read how a column grows, not how long a step is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vivavoce.bench import on_policy, tree_dpo
from vivavoce.bench.models import ModelDimensions
from vivavoce.bench.side_by_side import LossComparison, ratios
from vivavoce.progress import say

_SIZE = ModelDimensions.narrow(256, 2, 4096)
_TREE = tree_dpo.TreeShape(2, 2, context=512, answer=128)
_STEP = on_policy.UpdateShape(states=4, prompt=64, answer=128, rollouts=8, transcript=512)
_VOCABULARY = 8192

HEAD = ("work", "varies", "value", "theirs ms", "ours ms", "ratio", "theirs MiB", "ours MiB")


@dataclass(frozen=True)
class Work:
    """Work to measure. Two rows of the table may show the same work, which is then measured once."""

    name: str
    shape: tree_dpo.TreeShape | on_policy.UpdateShape
    vocabulary: int = _SIZE.vocabulary

    def measure(self, repeats: int) -> LossComparison:
        """Measure both sides. Raises AssertionError if they differ."""
        size = replace(_SIZE, vocabulary=self.vocabulary)
        if isinstance(self.shape, tree_dpo.TreeShape):
            return tree_dpo.run(self.shape, size, budget=8192, repeats=repeats, batch_sizes=(1, 4))
        if self.name == "scoring":
            return on_policy.scoring(self.shape, size, repeats=repeats)
        return on_policy.step(self.shape, size, "jsd", repeats=repeats)


@dataclass(frozen=True)
class Row:
    """A row that the table is to have."""

    varies: str
    value: str
    work: Work


@dataclass(frozen=True)
class Point:
    """A row of the table, measured."""

    row: Row
    measured: LossComparison

    def summary(self) -> dict[str, Any]:
        """The figures that a script wants."""
        row = self.row
        return {"work": row.work.name, "varies": row.varies, "value": row.value, **self.measured.summary()}

    @property
    def cells(self) -> tuple[str, ...]:
        """The row for people: times of a step, their ratio, and memory above what was held before."""
        ours, theirs = self.measured.ours, self.measured.theirs
        low, middle, high = ratios(ours, theirs)
        peaks = [f"{side.peak_mb:,.0f}" if side.peak_mb else "" for side in (theirs, ours)]
        times = [f"{1000 * side.seconds:,.0f}" for side in (theirs, ours)]
        return (
            self.row.work.name,
            self.row.varies,
            self.row.value,
            *times,
            f"{middle:.2f} ({low:.2f}–{high:.2f})",
            *peaks,
        )


def rows(wide: bool = False) -> list[Row]:
    """The rows of the table, in its order; with ``wide``, up to larger values."""

    def tree(**changed: int) -> Work:
        return Work("T-DPO", replace(_TREE, **changed))

    def step(vocabulary: int = _VOCABULARY, **changed: int) -> Work:
        return Work("on-policy", replace(_STEP, **changed), vocabulary)

    def scoring(**changed: int) -> Work:
        return Work("scoring", replace(_STEP, **changed))

    varied: list[tuple[str, Sequence[int], Sequence[int], Callable[[int], Work]]] = [
        ("right x wrong", (1, 2, 3), (1, 2, 3, 4), lambda n: tree(right=n, wrong=n)),
        ("context", (128, 512, 1024), (128, 512, 2048), lambda n: tree(context=n)),
        ("answer", (32, 128, 256), (32, 128, 512), lambda n: tree(answer=n)),
        ("answer", (64, 128, 256), (64, 256, 1024), lambda n: step(answer=n)),
        ("vocabulary", (4096, 8192, 16384), (4096, 16384, 65536), lambda n: step(n)),
        ("teachers", (1, 2, 4), (1, 2, 4), lambda n: scoring(teachers=n)),
        ("transcript", (128, 512, 1024), (128, 512, 2048), lambda n: scoring(transcript=n)),
        ("answers", (1, 8, 16), (1, 4, 16), lambda n: scoring(rollouts=n)),
    ]
    return [
        Row(varies, f"{n}x{n}" if varies == "right x wrong" else f"{n:,}", work(n))
        for varies, few, more, work in varied
        for n in (more if wide else few)
    ]


def run(repeats: int = 2, minutes: float | None = 8, wide: bool = False) -> tuple[list[Point], list[Row]]:
    """Measure the table: its rows, and those that were left out, because they had not begun after ``minutes``.

    What several rows share is measured first, then the first value of each series, then the others: a table that is cut
    short has something of each. Raises AssertionError if the sides differ.
    """
    wanted = rows(wide)
    measured, begun = dict[Work, LossComparison](), time.monotonic()
    works = _in_order(wanted)
    for i, work in enumerate(works, 1):
        spent = time.monotonic() - begun
        if minutes is not None and spent > 60 * minutes:
            say(f"{minutes:g} minutes are over: {len(works) - i + 1} of {len(works)} measurements are left out")
            break
        say(f"{i} of {len(works)}, after {spent:.0f} s")
        measured[work] = work.measure(repeats)
    points = [Point(row, measured[row.work]) for row in wanted if row.work in measured]
    return points, [row for row in wanted if row.work not in measured]


def _in_order(wanted: Sequence[Row]) -> list[Work]:
    """The different works, in the order to measure them."""
    shared, place = Counter(row.work for row in wanted), dict[Work, int]()
    series = Counter[tuple[str, str]]()
    for row in wanted:
        place.setdefault(row.work, series[row.work.name, row.varies])
        series[row.work.name, row.varies] += 1
    return sorted(place, key=lambda work: (-shared[work], place[work]))


__all__ = ["HEAD", "Point", "Row", "Work", "rows", "run"]
