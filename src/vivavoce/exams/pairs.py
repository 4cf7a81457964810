"""Paired comparisons of arms on the same questions: gain, interval, one test over seeds and questions, corrected.

Two arms are compared answer by answer: the same question, the same training seed. What is drawn by itself counts once,
however many seeds answered it: a question, a group of questions that belong together, or a subject.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from vivavoce.config import Statistics
from vivavoce.exams.arms import Pair
from vivavoce.exams.examine import Judged
from vivavoce.records import Problem
from vivavoce.stats import difference, holm, mcnemar, mean_sd
from vivavoce.tasks import Task

BySeed = Mapping[int, Sequence[Judged]]
"""The judged test questions of one arm, by training seed."""
Clusters = Mapping[str, str]
"""Problem id to its cluster; a problem that is not there is a cluster by itself."""


def clusters_of(task: Task, problems: Sequence[Problem], statistics: Statistics) -> dict[str, str]:
    """The clusters of the test questions: their group, or the value of the task's ``cluster(problem)``, if it has
    one.
    """
    if statistics.cluster == "group":
        return {p.id: p.group for p in problems}
    belongs = getattr(task, "cluster", None)
    return {p.id: belongs(p) for p in problems} if belongs else {}


def paired_entries(
    tested: Mapping[str, BySeed], pairs: Sequence[Pair], clusters: Mapping[str, str] = {}
) -> list[dict[str, Any]]:
    """The entries of ``results.json`` for every pair of which both arms were tested.

    ``gain``, ``a_only``, ``b_only``, ``p`` (McNemar's exact test), ``repaired`` and ``regressed`` are of the first
    seed, ``seeds`` of each. ``pooled`` is one comparison over all seeds (:func:`vivavoce.stats.difference`), and
    ``p_holm`` its p-value corrected for all of ``pairs``: the family that was planned, whether or not each could be
    made. A gain is that of ``b`` over ``a``, as a share of the answers.
    """
    rows = [_pair(a, b, tested[a], tested[b], clusters) for a, b in pairs if a in tested and b in tested]
    corrected = holm([pair["pooled"]["p"] for pair in rows], len(pairs))
    return [{**pair, "p_holm": p} for pair, p in zip(rows, corrected, strict=True)]


def _pair(a: str, b: str, of_a: BySeed, of_b: BySeed, clusters: Clusters) -> dict[str, Any]:
    """An arm with one model meets every seed of the other."""
    both = [(seed, _of(of_a, seed), _of(of_b, seed)) for seed in dict.fromkeys([*of_a, *of_b])]
    tests = [{"seed": seed, **_test(x, y)} for seed, x, y in both]
    first = {k: v for k, v in tests[0].items() if k != "seed"}
    pooled = _pool([(x, y) for _, x, y in both], clusters)
    return {"a": a, "b": b, **first, **({"seeds": tests} if len(tests) > 1 else {}), "pooled": pooled}


def _of(rows: BySeed, seed: int) -> Sequence[Judged]:
    return rows.get(seed) or next(iter(rows.values()))


def _pool(seeds: Sequence[tuple[Sequence[Judged], Sequence[Judged]]], clusters: Clusters) -> dict[str, Any]:
    """One comparison over all seeds; the spread of the gain over seeds beside it."""
    totals: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for of_a, of_b in seeds:
        for x, y in zip(of_a, of_b, strict=True):
            at = totals[clusters.get(x.problem, x.problem)]
            at[0] += bool(y.correct) - bool(x.correct)
            at[1] += 1
    gain = difference([(t, m) for t, m in totals.values()])
    all_a, all_b = ([j for pair in seeds for j in pair[k]] for k in (0, 1))
    spread = mean_sd([_right(of_b) / len(of_b) - _right(of_a) / len(of_a) for of_a, of_b in seeds])
    return {
        **_count(all_a, all_b),
        "interval95": [round(end, 6) for end in gain.interval],
        "p": gain.p,
        "detectable": None if gain.detectable is None else round(gain.detectable, 6),
        "clusters": gain.clusters,
        "seeds": len(seeds),
        "sd_of_seeds": None if spread.sd is None else round(spread.sd, 6),
    }


def _test(a: Sequence[Judged], b: Sequence[Judged]) -> dict[str, Any]:
    assert [j.problem for j in a] == [j.problem for j in b], "paired tests need the same questions in the same order"
    return {"p": mcnemar([bool(j.correct) for j in a], [bool(j.correct) for j in b]).p, **_count(a, b)}


def _count(a: Sequence[Judged], b: Sequence[Judged]) -> dict[str, Any]:
    """Answers that only one of two arms got right, and what that is of all."""
    both = [(bool(x.correct), bool(y.correct)) for x, y in zip(a, b, strict=True)]
    a_only, b_only, right = both.count((True, False)), both.count((False, True)), _right(a)
    wrong = len(a) - right
    return {
        "a_only": a_only,
        "b_only": b_only,
        "gain": round((b_only - a_only) / len(a), 6),
        "repaired": round(b_only / wrong, 6) if wrong else None,
        "regressed": round(a_only / right, 6) if right else None,
    }


def _right(rows: Sequence[Judged]) -> int:
    return sum(bool(j.correct) for j in rows)


__all__ = ["BySeed", "Clusters", "clusters_of", "paired_entries"]
