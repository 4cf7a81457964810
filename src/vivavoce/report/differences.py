"""The gain of each student, question by question, over the untrained student and over the best other one.

The interval is the one of the paired comparisons (:func:`vivavoce.stats.difference`), of the first training seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vivavoce.report.charts import Tick
from vivavoce.report.sources import Sources
from vivavoce.stats import difference


class Gain(NamedTuple):
    """The gain of an arm over another, in points, with its 95 % interval."""

    arm: str
    points: float
    low: float
    high: float
    only_before: int
    only_after: int


class Compared(NamedTuple):
    """Gains of several arms over one, and the axis of their chart."""

    over: str
    gains: list[Gain]
    ticks: list[Tick]
    low: float
    high: float

    def at(self, points: float) -> float:
        """The place of a gain, in per cent of the chart's width."""
        return round(100 * (points - self.low) / ((self.high - self.low) or 1), 2)


def gain(arm: str, b: int, c: int, n: int) -> Gain:
    """The gain of an arm that alone is right on ``c`` questions, over one that alone is right on ``b``."""
    change = difference([(-1, 1)] * b + [(1, 1)] * c + [(0, 1)] * (n - b - c))
    return Gain(arm, 100 * change.gain, 100 * change.interval.low, 100 * change.interval.high, b, c)


def differences(sources: Sources, over: Sequence[str]) -> list[Compared]:
    """The gains of the students over each arm of ``over``, on the first seed; empty if that was not tested."""
    results = sources.results
    if results is None:
        return []
    students = [a["name"] for a in results["arms"] if a.get("family") in ("student", None, "")]
    right = {name: [bool(row.correct) for row in sources.answers(name)] for name in students}
    compared = []
    for base in dict.fromkeys(over):
        gains = [g for name in students if name != base and (g := _of(results, right, base, name)) is not None]
        if gains:
            low, high = min(0.0, *(g.low for g in gains)), max(0.0, *(g.high for g in gains))
            step = 5 if high - low <= 40 else 10 if high - low <= 80 else 25
            first, last = int(low // step), -int(-high // step)
            ticks = [Tick(100 * (i - first) / ((last - first) or 1), _sign(i * step)) for i in range(first, last + 1)]
            compared.append(Compared(base, gains, ticks, first * step, last * step))
    return compared


def _sign(points: int) -> str:
    return f"{points:+d}".replace("-", "−") if points else "0"


def _of(results: Mapping[str, Any], right: Mapping[str, list[bool]], base: str, name: str) -> Gain | None:
    """The gain of ``name`` over ``base``, from the answers or, without them, from a paired test of the results."""
    before, after, n = right.get(base), right.get(name), results["n"]
    if before and after and len(before) == len(after):
        b = sum(x and not y for x, y in zip(before, after, strict=True))
        c = sum(y and not x for x, y in zip(before, after, strict=True))
        return gain(name, b, c, len(before))
    for pair in results["paired"]:
        if (pair["a"], pair["b"]) == (base, name):
            return gain(name, pair["a_only"], pair["b_only"], n)
        if (pair["b"], pair["a"]) == (base, name):
            return gain(name, pair["b_only"], pair["a_only"], n)
    return None


__all__ = ["Compared", "Gain", "differences", "gain"]
