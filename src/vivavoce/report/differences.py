"""How much each student gains, question by question, over the student as it came and over the best other one.

For a pair of arms with ``b`` questions that only the first got right and ``c`` that only the second did, of ``n``::

    gain = (c - b) / n        interval: g ± 1.96 · sqrt(c' + b' - n' g²) / n',   b' = b + 1/2, c' = c + 1/2, n' = n + 2,
                              g = (c' - b') / n'

Source: Agresti and Min 2005, Statistics in Medicine 24:729: half a question added to each of the four cells keeps the
coverage of Wald's interval where few questions differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, NamedTuple

from vivavoce.report.charts import Tick
from vivavoce.report.sources import Sources


class Gain(NamedTuple):
    """What an arm gains over another, in points, with its 95 % interval."""

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
        """Where a gain stands, in per cent of the chart's width."""
        return round(100 * (points - self.low) / ((self.high - self.low) or 1), 2)


def gain(arm: str, b: int, c: int, n: int) -> Gain:
    """The gain of an arm that alone is right on ``c`` questions, over one that alone is right on ``b``."""
    b1, c1, n1 = b + 0.5, c + 0.5, n + 2
    middle = (c1 - b1) / n1
    half = 1.96 * sqrt(max(0.0, c1 + b1 - n1 * middle * middle)) / n1
    low, high = 100 * (middle - half), 100 * (middle + half)
    return Gain(arm, 100 * (c - b) / n, max(-100.0, low), min(100.0, high), b, c)


def differences(sources: Sources, over: Sequence[str]) -> list[Compared]:
    """For each arm of ``over``, what the students gain over it, on the first seed; empty if that was not tested."""
    results = sources.results
    if results is None:
        return []
    students = [a["name"] for a in results["arms"] if a.get("family") in ("student", None, "")]
    right = {name: [bool(row.correct) for row in sources.answers(name)] for name in students}
    found = []
    for base in dict.fromkeys(over):
        gains = [g for name in students if name != base and (g := _of(results, right, base, name)) is not None]
        if gains:
            low, high = min(0.0, *(g.low for g in gains)), max(0.0, *(g.high for g in gains))
            step = 5 if high - low <= 40 else 10 if high - low <= 80 else 25
            first, last = int(low // step), -int(-high // step)
            ticks = [Tick(100 * (i - first) / ((last - first) or 1), _signed(i * step)) for i in range(first, last + 1)]
            found.append(Compared(base, gains, ticks, first * step, last * step))
    return found


def _signed(points: int) -> str:
    return f"{points:+d}".replace("-", "−") if points else "0"


def _of(results: Mapping[str, Any], right: Mapping[str, list[bool]], base: str, name: str) -> Gain | None:
    """From the answers themselves or, if they are gone, from a paired test of the results."""
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
