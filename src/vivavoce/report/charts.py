"""Positions and ticks in charts, in per cent or pixels; the templates draw them as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from vivavoce.report.sources import Curve


class Tick(NamedTuple):
    """A mark on an axis and its text."""

    at: float
    label: str


class Axis:
    """Accuracies on a line: the range that the intervals need, widened to full tens."""

    def __init__(self, arms: Iterable[Mapping[str, Any]]) -> None:
        arms = list(arms)
        low = min(min(a["wilson95"][0], *_seeds(a)) for a in arms)
        high = max(max(a["wilson95"][1], *_seeds(a)) for a in arms)
        step = 1 if high - low < 0.6 else 2
        first, last = math.floor(10 * low / step), math.ceil(10 * high / step - 1e-9)
        self.low, self.high = first * step / 10, last * step / 10
        self.ticks = [Tick(self(i * step / 10), f"{10 * i * step}") for i in range(first, last + 1)]

    def __call__(self, share: float) -> float:
        """The place of an accuracy, in per cent of the chart's width."""
        return round(100 * (share - self.low) / (self.high - self.low), 2)


def _seeds(arm: Mapping[str, Any]) -> list[float]:
    return [s["accuracy"] for s in arm["seeds"]]


class Dot(NamedTuple):
    """An arm in the chart of accuracy against cost, in pixels."""

    name: str
    family: str
    x: float
    y: float
    right: bool
    """Whether its name stands to the right of it."""


class Scatter:
    """Accuracy against tokens, on a logarithmic scale, in pixels of :attr:`wide` by :attr:`high`.

    ``tokens`` is the field of an arm with its tokens: those of an answer, or another.
    """

    wide, high = 640, 300

    def __init__(self, arms: Iterable[Mapping[str, Any]], tokens: str = "tokens_per_problem") -> None:
        arms = [a for a in arms if a[tokens] > 0]
        costs = [math.log10(a[tokens]) for a in arms] or [0.0, 1.0]
        low, high = min(costs) - 0.08, max(costs) + 0.08
        axis = Axis(arms) if arms else None
        left, right, top, bottom = 44, 150, 12, 34

        def x(cost: float) -> float:
            return round(left + (self.wide - left - right) * (cost - low) / ((high - low) or 1), 1)

        def y(share: float) -> float:
            place = axis(share) if axis else 0
            return round(top + (self.high - top - bottom) * (1 - place / 100), 1)

        self.dots = [
            Dot(a["name"], a.get("family", ""), x(c), y(a["accuracy"]), True)
            for a, c in sorted(zip(arms, costs, strict=False), key=lambda one: -one[0]["accuracy"])
        ]
        marks = [m * 10**e for e in range(12) for m in ((1, 2, 5) if high - low < 4 else (1,))]
        self.x_ticks = [Tick(x(math.log10(m)), f"{m:,}") for m in marks if low <= math.log10(m) <= high]
        self.y_ticks = [Tick(y(float(t.label) / 100), t.label) for t in axis.ticks] if axis else []
        self.left, self.bottom = left, self.high - bottom
        self.end = self.wide - right
        self.labels = _apart(self.dots)


def _apart(dots: Sequence[Dot], least: float = 12.0) -> list[tuple[Dot, float]]:
    """The height of each dot's name, so that no two names overlap."""
    placed: list[tuple[Dot, float]] = []
    for dot in sorted(dots, key=lambda d: d.y):
        near = [at for other, at in placed if abs(other.x - dot.x) < 150]
        placed.append((dot, max([dot.y, *(at + least for at in near)])))
    return placed


class CurveLine(NamedTuple):
    """One curve: its seed and its points as SVG wants them."""

    seed: str
    points: str
    last: tuple[float, float]


class Panel(NamedTuple):
    """The curves of one arm, one for each seed, in pixels of a box of :data:`WIDE` by :data:`HIGH`."""

    title: str
    measure: str
    lines: list[CurveLine]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    facts: str


WIDE, HIGH = 300, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 10, 24
_POINTS = 400  # more than there are pixels across


def panels(curves: Sequence[Curve]) -> list[Panel]:
    """A panel of losses for each arm, and one of preference accuracies for an arm that has them."""
    charts = []
    for arm, several in groupby(curves, key=lambda c: c.arm):
        drawn = [c for c in several if c.points]
        if drawn:
            charts.append(_panel(arm, "loss", drawn, "loss"))
        if ranked := [c for c in drawn if any("rewards/accuracies" in p for p in c.points)]:
            charts.append(_panel(arm, "share of pairs ranked right", ranked, "rewards/accuracies"))
    return charts


def _panel(arm: str, measure: str, curves: Sequence[Curve], key: str) -> Panel:
    series = [
        (c.seed, [(float(p["step"]), float(p[key])) for p in c.points if key in p and math.isfinite(p[key])])
        for c in curves
    ]
    steps = max((x for _, points in series for x, _ in points), default=1.0) or 1.0
    values = [y for _, points in series for _, y in points]
    top = max(values, default=1.0)
    y_ticks = _ticks(min(0.0, min(values, default=0.0)), 1.0 if key != "loss" else top)
    low, high = y_ticks[0], max(y_ticks[-1], top)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            round(_LEFT + (WIDE - _LEFT - _RIGHT) * x / steps, 1),
            round(_TOP + (HIGH - _TOP - _BOTTOM) * (1 - (y - low) / ((high - low) or 1)), 1),
        )

    lines = []
    for seed, points in series:
        if points:
            every = math.ceil(len(points) / _POINTS)
            at = [place(*p) for p in (*points[:-1:every], points[-1])]
            lines.append(CurveLine(seed, " ".join(f"{x},{y}" for x, y in at), at[-1]))
    x_ticks = [Tick(place(x, low)[0], f"{x:,.0f}") for x in _ticks(0, steps) if x <= steps]
    return Panel(arm, measure, lines, x_ticks, [Tick(place(0, y)[1], f"{y:.4g}") for y in y_ticks], _facts(curves))


def _ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that span ``low`` to ``high``."""
    span = (high - low) or 1.0
    raw = span / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    return [round(i * step, 10) for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def _facts(curves: Sequence[Curve]) -> str:
    """Facts about the trainings of an arm, of the first seed if they differ."""
    done = [c.result for c in curves if c.result]
    if not done:
        return "still in training"
    first = done[0]
    dropped = f", {first['rows_dropped']:,} too long and left out" if first["rows_dropped"] else ""
    waiting = f"; {len(curves) - len(done)} still in training" if len(done) < len(curves) else ""
    return (
        f"{first['steps']:,} updates on {first['rows_used']:,} rows{dropped}; "
        f"{sum(r['seconds'] for r in done) / len(done):,.0f} s{' each' if len(done) > 1 else ''}{waiting}"
    )


__all__ = ["HIGH", "WIDE", "Axis", "CurveLine", "Dot", "Panel", "Scatter", "Tick", "panels"]
