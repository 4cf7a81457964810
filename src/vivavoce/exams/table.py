"""The comparison table: counts and intervals for every arm, paired tests between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from vivavoce.exams.arms import Arm, Pair
from vivavoce.exams.examine import Judged
from vivavoce.stats import mcnemar, mean_sd, wilson

Tested = Mapping[str, Mapping[int, Sequence[Judged]]]
"""Arm name to training seed to its judged test questions; an arm that was not trained has the one seed 0."""


def results(
    task: str, tested: Tested, pairs: Sequence[Pair], wall_s: float, arms: Mapping[str, Arm] = {}, **facts: Any
) -> dict[str, Any]:
    """What ``results.json`` holds: the comparison on the task, and facts about the run."""
    return {**compared(task, tested, pairs, arms), "wall_s": round(wall_s, 1), **facts}


def compared(task: str, tested: Tested, pairs: Sequence[Pair], arms: Mapping[str, Arm] = {}) -> dict[str, Any]:
    """Arms on one set of test questions. ``arms`` say what each is; one that is not there is a student.

    An arm's headline figures are those of its first seed, so that its interval and the paired tests are about one
    model on one set of questions; ``seeds`` holds every seed and ``mean``/``sd`` are over seeds. A question without a
    parseable answer counts as wrong and is counted apart in ``unparsed``, one whose call failed in ``failed_calls``.
    ``paired`` is McNemar's exact test, each arm
    against the other on the same questions: on the first seed, and on each seed that both arms have. ``gain`` is what
    ``b`` has right over ``a``, as a share of the questions, and negative if ``a`` has more right. ``repaired`` is
    the share of what the first got wrong that the second gets right, ``regressed`` the share of what the first got
    right that the second gets wrong: a student that learns from its mistakes alone may forget the rest. Each is None
    where there is nothing to take a share of. ``untested`` are those of ``pairs`` of which an arm was not tested, for
    want of rows to learn from: p-values are corrected for them too, for they were planned.
    """
    there = [(a, b) for a, b in pairs if a in tested and b in tested]
    return {
        "task": task,
        "n": len(next(iter(next(iter(tested.values())).values()))),
        "arms": [_arm(arms.get(name) or Arm(name), seeds) for name, seeds in tested.items()],
        "paired": [_pair(a, b, tested[a], tested[b]) for a, b in there],
        "untested": [[a, b] for a, b in pairs if (a, b) not in there],
    }


def _arm(arm: Arm, seeds: Mapping[int, Sequence[Judged]]) -> dict[str, Any]:
    first = next(iter(seeds.values()))
    right, n = _right(first), len(first)
    interval = wilson(right, n)
    accuracies = [_right(rows) / len(rows) for rows in seeds.values()]
    mean, sd = mean_sd(accuracies)
    prompt, completion = (sum(getattr(j.usage, kind) for j in first) / n for kind in ("prompt", "completion"))
    groups: defaultdict[str, list[Judged]] = defaultdict(list)
    for j in first:
        groups[j.group].append(j)
    return {
        **arm.facts(),
        "right": right,
        "n": n,
        "accuracy": right / n,
        "wilson95": [interval[0], interval[1]],
        "unparsed": sum(j.answer is None and j.status != "error" for j in first),
        "ungradable": sum(j.correct is None for j in first),
        "failed_calls": sum(j.status == "error" for j in first),
        "tokens_per_problem": round(prompt + completion, 2),
        "prompt_tokens_per_problem": round(prompt, 2),
        "completion_tokens_per_problem": round(completion, 2),
        "groups": {g: {"right": _right(rows), "n": len(rows)} for g, rows in sorted(groups.items())},
        "seeds": [
            {"seed": s, "right": _right(rows), "accuracy": a}
            for (s, rows), a in zip(seeds.items(), accuracies, strict=True)
        ],
        "mean": mean,
        "sd": sd,
    }


def _pair(a: str, b: str, of_a: Mapping[int, Sequence[Judged]], of_b: Mapping[int, Sequence[Judged]]) -> dict[str, Any]:
    """McNemar on the first seeds, then on each seed of either: an arm with one model meets every seed of the other."""
    seeds = list(dict.fromkeys([*of_a, *of_b]))

    def rows(of: Mapping[int, Sequence[Judged]], seed: int) -> Sequence[Judged]:
        return of.get(seed) or next(iter(of.values()))

    tests = [{"seed": s, **_test(rows(of_a, s), rows(of_b, s))} for s in seeds]
    first = {k: v for k, v in tests[0].items() if k != "seed"}
    return {"a": a, "b": b, **first, **({"seeds": tests} if len(tests) > 1 else {})}


def _test(a: Sequence[Judged], b: Sequence[Judged]) -> dict[str, Any]:
    assert [j.problem for j in a] == [j.problem for j in b], "paired tests need the same questions in the same order"
    test, right = mcnemar([bool(j.correct) for j in a], [bool(j.correct) for j in b]), _right(a)
    wrong = len(a) - right
    return {
        "p": test.p,
        "a_only": test.a_only,
        "b_only": test.b_only,
        "gain": round((test.b_only - test.a_only) / len(a), 6),
        "repaired": round(test.b_only / wrong, 6) if wrong else None,
        "regressed": round(test.a_only / right, 6) if right else None,
    }


def _right(rows: Sequence[Judged]) -> int:
    return sum(bool(j.correct) for j in rows)
