"""The growth of cost: one measure of the work is changed at a time, ours and the peer's beside each other.

T-DPO by width of the tree, context and answers, against TRL's DPOTrainer pair by pair; the on-policy step by length and
vocabulary, against its DistillationTrainer; scoring by number of teachers, against each answer with its own transcript.
The models are small, so that a table takes minutes: read how a column grows, not how long a step is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vivavoce.bench import on_policy, tree_dpo
from vivavoce.bench.models import ModelDimensions
from vivavoce.bench.side_by_side import LossComparison, ratios

_SIZE = ModelDimensions.narrow(256, 2, 4096)
_TREE = tree_dpo.TreeShape(2, 2, context=512, answer=128)
_STEP = on_policy.UpdateShape(states=4, prompt=64, answer=128, rollouts=8, transcript=512)


@dataclass(frozen=True)
class Point:
    """One row of the table."""

    work: str
    varies: str
    value: str
    measured: LossComparison

    def summary(self) -> dict[str, Any]:
        """The figures that a script wants."""
        return {"work": self.work, "varies": self.varies, "value": self.value, **self.measured.summary()}

    @property
    def cells(self) -> tuple[str, ...]:
        """The row for people: times of a step, their ratio, and memory above what was held before."""
        ours, theirs = self.measured.ours, self.measured.theirs
        low, middle, high = ratios(ours, theirs)
        peaks = [f"{side.peak_mb:,.0f}" if side.peak_mb else "" for side in (theirs, ours)]
        times = [f"{1000 * side.seconds:,.0f}" for side in (theirs, ours)]
        return (self.work, self.varies, self.value, *times, f"{middle:.2f} ({low:.2f}–{high:.2f})", *peaks)


HEAD = ("work", "varies", "value", "theirs ms", "ours ms", "ratio", "theirs MiB", "ours MiB")


def run(repeats: int = 3) -> Iterator[Point]:
    """Measure every point, some twenty minutes. Raises AssertionError if the sides differ."""

    def tree(shape: tree_dpo.TreeShape) -> LossComparison:
        return tree_dpo.run(shape, _SIZE, budget=8192, repeats=repeats, batch_sizes=(1, 4))

    def step(shape: on_policy.UpdateShape, vocabulary: int = 8192) -> LossComparison:
        return on_policy.step(shape, ModelDimensions.narrow(256, 2, vocabulary), "jsd", repeats=repeats)

    def scoring(shape: on_policy.UpdateShape) -> LossComparison:
        return on_policy.scoring(shape, _SIZE, repeats=repeats)

    def points(work: str, varies: str, values: Sequence[Any], one: Callable[[Any], LossComparison]) -> Iterator[Point]:
        for value in values:
            yield Point(work, varies, f"{value:,}" if isinstance(value, int) else value, one(value))

    def wide(value: str) -> LossComparison:
        right, wrong = map(int, value.split("x"))
        return tree(replace(_TREE, right=right, wrong=wrong))

    yield from points("T-DPO", "right x wrong", ("1x1", "2x2", "3x3", "4x4"), wide)
    yield from points("T-DPO", "context", (128, 512, 2048), lambda n: tree(replace(_TREE, context=n)))
    yield from points("T-DPO", "answer", (32, 128, 512), lambda n: tree(replace(_TREE, answer=n)))
    yield from points("on-policy", "answer", (64, 256, 1024), lambda n: step(replace(_STEP, answer=n)))
    yield from points("on-policy", "vocabulary", (4096, 16384, 65536), lambda n: step(_STEP, n))
    yield from points("scoring", "teachers", (1, 2, 4), lambda n: scoring(replace(_STEP, teachers=n)))
    yield from points("scoring", "transcript", (128, 512, 2048), lambda n: scoring(replace(_STEP, transcript=n)))
    yield from points("scoring", "answers", (1, 4, 16), lambda n: scoring(replace(_STEP, rollouts=n)))


__all__ = ["HEAD", "Point", "run"]
