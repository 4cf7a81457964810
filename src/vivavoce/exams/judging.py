"""The trustworthiness of judges: their agreement, their unreadable verdicts, and their agreement with gold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from vivavoce.agents.journal import Call, Journal
from vivavoce.committee.judges import KIND, Judging, Order, Verdict, decide_verdict, values
from vivavoce.stats import kappa, wilson


def judging(journal: Journal, rules: Judging) -> dict[str, Any]:
    """A summary of the journal's verdicts, for ``results.json``: nothing is asked.

    ``judges`` has by name the number of verdicts, of those that cannot be read, and of calls that failed; the mean
    score; the share of answers that the judge finds right; and, of answers judged in both orders, the share with equal
    verdicts. ``between``
    is how often two judges agree, with Cohen's kappa (chance agreement taken out). ``gold`` is the same of each judge,
    and of all together, against the task's own grader, if it has one. ``tests`` is the same summary of the answers to
    test questions alone, if some were judged: those decide what a run says of its students.
    """
    calls = [call for call in journal if call.tags.get("kind") == KIND]
    summary = _summary(calls, rules)
    asked_in_tests = [call for call in calls if "test" in call.stage.split(":")]
    if asked_in_tests:
        summary["tests"] = _summary(asked_in_tests, rules)
    return summary


def _summary(calls: Sequence[Call], rules: Judging) -> dict[str, Any]:
    answers, failed, gold = _by_answer(calls, rules)
    opinions = {target: values(verdicts) for target, verdicts in answers.items()}
    judges = sorted({v.judge for verdicts in answers.values() for v in verdicts})
    right: dict[str, dict[str, bool]] = {
        name: {t: opinion >= rules.threshold for t, by in opinions.items() if (opinion := by.get(name)) is not None}
        for name in judges
    }
    ruling = {t: ok for t, verdicts in answers.items() if (ok := decide_verdict(verdicts, rules)) is not None}
    summary: dict[str, Any] = {
        "form": rules.form,
        "right_from": rules.threshold,
        "answers": len(answers),
        "unjudged": len(answers) - len(ruling),
        "judges": {name: _judge(name, answers, opinions, right[name], failed) for name in judges},
        "between": [{"a": a, "b": b, **_agreement(right[a], right[b])} for a, b in combinations(judges, 2)],
    }
    if gold:
        summary["gold"] = {
            **{name: _against(right[name], gold) for name in judges},
            "all together": _against(ruling, gold),
        }
    return summary


def _by_answer(
    calls: Sequence[Call], rules: Judging
) -> tuple[dict[str, list[Verdict]], Mapping[str, int], dict[str, bool]]:
    """Verdicts by answer, failed calls by judge, and what gold says of answers."""
    last: dict[tuple[str, str, Order], Verdict] = {}
    gold, failed = dict[str, bool](), defaultdict[str, int](int)
    for call in calls:
        target, order = str(call.tags["target"]), call.tags.get("order", "")
        assert order in ("", "first", "second"), order
        if "gold" in call.tags:
            gold[target] = bool(call.tags["gold"])
        value, status = (None, "error") if call.reply is None else rules.read(call.reply, order)
        failed[call.agent] += call.reply is None
        key = (target, call.agent, order)
        if key not in last or last[key].value is None:  # the first that can be read is the verdict
            last[key] = Verdict(call.agent, order, value, status)
    answers = defaultdict[str, list[Verdict]](list)
    for (target, _, _), verdict in last.items():
        answers[target].append(verdict)
    return answers, failed, gold


def _judge(
    name: str,
    answers: Mapping[str, Sequence[Verdict]],
    opinions_on: Mapping[str, Mapping[str, float | None]],
    right: Mapping[str, bool],
    failed: Mapping[str, int],
) -> dict[str, Any]:
    verdicts_of = [v for verdicts in answers.values() for v in verdicts if v.judge == name]
    opinions = [value for by in opinions_on.values() if (value := by.get(name)) is not None]
    summary: dict[str, Any] = {
        "verdicts": len(verdicts_of),
        "unreadable": sum(v.value is None and v.status != "error" for v in verdicts_of),
        "failed": failed.get(name, 0),
        "mean": round(fmean(opinions), 4) if opinions else None,
        "right": round(fmean(right.values()), 4) if right else None,
    }
    both = [[v.value for v in verdicts if v.judge == name] for verdicts in answers.values()]
    both = [pair for pair in both if len(pair) == 2 and None not in pair]
    if both:
        summary["same_in_both_orders"] = round(fmean(a == b for a, b in both), 4)
    return summary


def _agreement(a: Mapping[str, bool], b: Mapping[str, bool]) -> dict[str, Any]:
    shared = [t for t in a if t in b]
    one, other = [a[t] for t in shared], [b[t] for t in shared]
    agree = sum(x == y for x, y in zip(one, other, strict=True))
    k = kappa(one, other)
    return {
        "n": len(shared),
        "agree": round(agree / len(shared), 4) if shared else None,
        "wilson95": [round(end, 4) for end in wilson(agree, len(shared))] if shared else None,
        "kappa": None if k is None else round(k, 4),
    }


def _against(rulings: Mapping[str, bool], gold: Mapping[str, bool]) -> dict[str, Any]:
    """Agreement with gold, and the two kinds of error."""
    shared = [t for t in rulings if t in gold]
    return {
        **_agreement(rulings, gold),
        "right_called_wrong": sum(gold[t] and not rulings[t] for t in shared),
        "wrong_called_right": sum(rulings[t] and not gold[t] for t in shared),
    }


__all__ = ["judging"]
