"""`viva bench scaling` measures what a row says, each work once, and stops in time."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("trl")
from vivavoce.bench import on_policy, scaling
from vivavoce.bench.models import ModelDimensions
from vivavoce.bench.side_by_side import LossComparison, Timing

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of one library to another


def test_the_on_policy_step_and_scoring_are_compared_after_they_were_found_equal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shape = on_policy.UpdateShape(states=2, prompt=8, answer=8, rollouts=2, transcript=16)
    size = ModelDimensions.narrow(64, 1, 512)
    for measured in on_policy.run(shape, size, divergences=["jsd"], repeats=1):
        assert measured.loss_error < 1e-4
        assert len(measured.ours.wall) == len(measured.theirs.wall) == 1
    printed = capsys.readouterr().err
    assert "measuring on-policy step, jsd, 16 tokens x 512" in printed
    assert "measuring scoring 2 answers of 8 tokens under 16, 2 teachers" in printed


def test_each_work_is_measured_once_and_a_table_that_is_cut_short_has_some_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured, now = list[scaling.Work](), 0.0
    one = Timing((1.0,), (1.0,), None)
    comparison = LossComparison("", one, one, "", {}, 0.0, None, facts={})

    def measure(self: scaling.Work, repeats: int) -> LossComparison:
        nonlocal now
        now += 60
        measured.append(self)
        return comparison

    monkeypatch.setattr(scaling.Work, "measure", measure)
    monkeypatch.setattr(scaling.time, "monotonic", lambda: now)
    for wide in (False, True):
        measured.clear()
        rows = scaling.rows(wide)
        points, left_out = scaling.run(1, None, wide)
        assert [point.row for point in points] == rows
        assert not left_out
        assert len(measured) == len(set(measured)) < len(rows)
        assert min(Counter((row.work.name, row.varies) for row in rows).values()) >= 3
        assert all(len(point.cells) == len(scaling.HEAD) for point in points)
    points, left_out = scaling.run(1, 7.5)
    assert len(points) + len(left_out) == len(scaling.rows())
    assert left_out
    assert {point.row.varies for point in points} == {row.varies for row in scaling.rows()}
