"""The outcome of a run, in a plain sentence, and what a reader must know before believing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivavoce.report import costs
from vivavoce.report.comparison import Paired, duration, final_arm, p_value, paired_tests, percent
from vivavoce.report.sources import Sources

_FEW = 100
"""Number of questions below which a test shows only large differences."""
_DECIDES = 6
"""Number of questions that must differ, all in one direction, before McNemar's test at the 5 % level sees it."""
_FAILED = 0.05
"""Share of a teacher's failed calls from which it is told before anything else."""


@dataclass(frozen=True)
class Headline:
    """The outcome of a run."""

    sentence: str
    """The student's result, its teachers, and the cost."""
    against: str
    """The comparison with the best baseline, in words; empty if there is none."""
    certain: str
    """Whether a test shows the gain."""
    student: Path | None
    """The folder of the student that the run is about."""
    arm: str
    """The arm that the run is about; empty if it has not come to its tests."""
    banners: tuple[tuple[str, str], ...]
    """``(kind, text)`` of each warning; kinds are ``worse``, ``few``, ``failed``, ``stopped``."""


def headline(sources: Sources) -> Headline:
    """The headline of a run, finished or not."""
    results = sources.results
    spent, _ = sources.costs()
    lines = costs.lines(spent, sources.recipe)
    banners = [*_stop_line(sources), *_failing(lines, sources)]
    if results is None or not results["arms"]:
        return Headline("This run has not come to its tests yet.", "", "", None, "", tuple(banners))
    arms: dict[str, Mapping[str, Any]] = {arm["name"]: arm for arm in results["arms"]}
    final = final_arm(results, sources.recipe.get("method"))
    if final is None and results.get("main"):
        untaught = _untaught(sources, results, arms.get("student"))
        return Headline(untaught, "", "", None, results["main"], tuple(banners))
    main = arms[final] if final else results["arms"][-1]
    tests = [t for t in paired_tests(results) if t.b == main["name"]]
    gain = next((t for t in tests if t.a == "student"), None)
    best = best_other(tests, arms)
    student = sources.checkpoint(main["name"])
    before = costs.lent_facts(sources.lent(), sources.recipe)["money"]
    sentence = _sentence(sources, results, arms.get("student"), main, costs.total(lines).money, before)
    return Headline(
        sentence,
        _against(best, arms),
        _certain(gain, results["n"]),
        student,
        main["name"],
        (*_worse(tests), *_few(gain, results["n"]), *banners),
    )


def teachers(sources: Sources) -> list[str]:
    """The teachers by the names of their models."""
    return list(dict.fromkeys(_model(t) for t in sources.recipe.get("teachers") or ()))


def _model(spec: Mapping[str, Any]) -> str:
    model = str(spec.get("model") or "")
    if not model or spec.get("backend") == "scripted":
        return str(spec.get("name", "?"))
    return Path(model).name if model.startswith(("/", ".", "~")) else model


def _sentence(
    sources: Sources,
    results: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    main: Mapping[str, Any],
    spent: float,
    lent: float,
) -> str:
    student = _model(sources.recipe.get("student") or {"name": "the student"})
    by = teachers(sources)
    several = f"{', '.join(by[:-1])} and {by[-1]}" if len(by) > 1 else (by or ["no agent"])[0]
    was = f", {percent(before['accuracy'])} % before" if before is not None and before is not main else ""
    took = [duration(results["wall_s"])] if results.get("wall_s") is not None else []
    currency = sources.recipe.get("currency", "USD")
    took += [f"{costs.money(spent)} {currency}"] if spent else []
    took += [f"{costs.money(lent)} {currency} that earlier runs have paid"] if lent else []
    end = f"; that took {' and '.join(filter(None, (', '.join(took[:-1]), took[-1])))}" if took else ""
    taught = f", taught by {several}," if by else ""
    return (
        f"{student}{taught} now answers {percent(main['accuracy'])} % of {results['n']:,} {_unseen(results)} "
        f"right{was}{end}."
    )


def _unseen(results: Mapping[str, Any]) -> str:
    """The name of the test questions; those of a user's own file have none but that of their reader."""
    named = "" if results["task"] in ("jsonl", "hub") else f"{results['task']} "
    return f"unseen {named}questions"


def _untaught(sources: Sources, results: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """The headline of a run whose own arm had nothing to learn from."""
    student = _model(sources.recipe.get("student") or {"name": "the student"})
    sentence = f"No student was trained as {results['main']}, because the run had no rows from which it could learn"
    if before is not None:
        of = f"of {results['n']:,} {_unseen(results)} right"
        sentence += f"; {student} as it came answers {percent(before['accuracy'])} % {of}"
    return f"{sentence}."


def rival_name(arm: Mapping[str, Any]) -> str:
    """A name for the arm that :func:`best_other` has chosen: the best of all, or of those without a debate."""
    return "the best student taught without a debate" if arm.get("material") == "drafts" else "the best other student"


def best_other(tests: Sequence[Paired], arms: Mapping[str, Mapping[str, Any]]) -> Paired | None:
    """The test against the best of the students that were taught in another way, one without a debate if there is."""
    rivals = [t for t in tests if t.a != "student" and t.a in arms]
    plain = [t for t in rivals if arms[t.a].get("material") == "drafts"]
    return max(plain or rivals, key=lambda t: arms[t.a]["right"], default=None)


def _against(best: Paired | None, arms: Mapping[str, Mapping[str, Any]]) -> str:
    if best is None:
        return ""
    points, rival = f"{abs(best.gain):.1f} points", f"{rival_name(arms[best.a])} ({best.a})"
    if best.winner == best.b:
        return f"That is {points} more than {rival}."
    if best.winner:
        return f"{rival[0].upper()}{rival[1:]} answers {points} more."
    if points == "0.0 points":
        return f"That is as much as {rival}."
    more = "more" if best.gain > 0 else "less"
    return f"That is {points} {more} than {rival}, which may be chance."


def _certain(gain: Paired | None, n: int) -> str:
    if gain is None:
        return f"No test against the student as it came was made on these {n:,} questions."
    if gain.winner == gain.b:
        return f"Chance does not explain the gain: p {p_value(gain.p)} on {n:,} questions."
    if gain.winner:
        return (
            f"The student is worse than before, and chance does not explain it: p {p_value(gain.p)} on {n:,} questions."
        )
    return f"It is not certain that the student gained: {gain.doubt}, p {p_value(gain.p)} on {n:,} questions."


def _worse(tests: list[Paired]) -> list[tuple[str, str]]:
    banners = []
    for t in tests:
        if t.winner == t.a:
            what = "before it was taught" if t.a == "student" else f"{t.a}"
            banners.append(("worse", f"Worse: {t.b} is {abs(t.gain):.1f} points below {what} (p {p_value(t.p)})."))
    return banners


def _few(gain: Paired | None, n: int) -> list[tuple[str, str]]:
    if n >= _FEW or (gain is not None and gain.winner):
        return []
    least = min(100.0, 100 * _DECIDES / n)
    return [("few", f"Too few questions to tell (n = {n}): a difference below {least:.0f} points cannot be shown.")]


def _failing(lines: list[costs.CostLine], sources: Sources) -> list[tuple[str, str]]:
    names = [str(t.get("name")) for t in sources.recipe.get("teachers") or ()]
    banners = []
    for name in names:
        spent = [line for line in lines if line.agent == name]
        calls, failures = sum(line.calls for line in spent), sum(line.failures for line in spent)
        if failures and failures >= _FAILED * calls:
            what = "none was answered" if failures == calls else f"{failures:,} of {calls:,} calls got no answer"
            banners.append(("failed", f"Teacher {name} failed: {what}."))
    return banners


def _stop_line(sources: Sources) -> list[tuple[str, str]]:
    stopped = sources.manifest.get("stopped")
    if not isinstance(stopped, Mapping) or "stage" not in stopped:
        return []
    done, of = stopped.get("done", 0), stopped.get("of", 0)
    return [("stopped", f"The run stopped at a cap, in {stopped['stage']}: {done:,} of {of:,} were done.")]


__all__ = ["Headline", "best_other", "headline", "rival_name", "teachers"]
