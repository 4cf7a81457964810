"""Write a section of docs/results.md from the results of a run: the verdict on each claim, and a table of the arms.

    python docs/make_results.py ablations runs/ablations

The claims are those of docs/claims.yaml. The section is what stands between the comments ``<!-- ablations -->`` and
``<!-- end of ablations -->``. Without them, or with --print, it is printed.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vivavoce.exams.across import RunTests, kept_tests
from vivavoce.exams.pairs import paired_entries
from vivavoce.report.comparison import Paired, paired_tests, percent

DOCS = Path(__file__).parent
BEST = "single:best"


def claims_of(section: str) -> list[dict[str, str]]:
    """The claims of a section."""
    return yaml.safe_load((DOCS / "claims.yaml").read_text("utf-8"))[section]


def section_of(name: str, run: Path) -> str:
    """The section in Markdown: a paragraph for each claim, then the table of arms."""
    tests, claims = kept_tests(run, name), claims_of(name)
    best = {BEST: tests.results.get("best_single")}
    pairs = [(str(best.get(c["over"], c["over"])), c["arm"]) for c in claims]
    judged = compared(tests, pairs)
    told = [told_of(c, pair, judged.get(pair)) for c, pair in zip(claims, pairs, strict=True)]
    return "\n\n".join([scope(tests, judged), *told, arms_table(tests.results)])


def compared(tests: RunTests, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Paired]:
    """The paired tests of the claims. p-values are corrected for the pairs of the run and of the claims together."""
    results = tests.results
    planned = [(p["a"], p["b"]) for p in results["paired"]] + [(a, b) for a, b in results.get("untested", ())]
    family = list(dict.fromkeys([*planned, *pairs]))
    tested = {arm: {seed: list(rows.values()) for seed, rows in seeds.items()} for arm, seeds in tests.arms.items()}
    entries = paired_entries(tested, family, tests.clusters)
    untested = [pair for pair in family if pair not in {(e["a"], e["b"]) for e in entries}]
    table = {**results, "paired": entries, "untested": untested}
    return {(test.a, test.b): test for test in paired_tests(table)}


def scope(tests: RunTests, judged: Mapping[tuple[str, str], Paired]) -> str:
    """A sentence on what the figures are about."""
    questions, seeds = tests.results["n"], max(len(one) for one in tests.arms.values())
    return textwrap.fill(
        f"Gains are in points, of {questions:,} test questions with {seeds} training seeds, paired by question. "
        f"Intervals hold 95 %. p is corrected for all {len(judged)} comparisons of the run by Holm's rule.",
        145,
    )


def told_of(claim: Mapping[str, str], pair: tuple[str, str], test: Paired | None) -> str:
    """A claim with its verdict, and the figures that decide it, at most three in a sentence."""
    head, (over, arm) = claim["claim"][0].upper() + claim["claim"][1:], pair
    if test is None or test.low is None or test.high is None:
        return f"**{head}: cannot be told.** An arm was not tested: `{arm}` was to be compared with `{over}`."
    word, why = verdict(test)
    ends = f"{minus(test.low)} to {minus(test.high)}"
    figures = f"The gain of `{arm}` over `{over}` is {minus(test.gain)} points ({ends})."
    parts = [f"**{head}: {word}.**", figures, f"Its p is {probability(test.p_holm)}.", why, claim.get("note", "")]
    return textwrap.fill(" ".join(part for part in parts if part), 145, break_on_hyphens=False)


def verdict(test: Paired) -> tuple[str, str]:
    """``holds``, ``does not hold`` or ``cannot be told`` for "the second is better", and what else is to be said."""
    if test.winner == test.b:
        return "holds", ""
    if test.winner == test.a:
        return "does not hold", "The other arm is better."
    if test.a_only + test.b_only == 0:
        return "does not hold", "Both gave right answers to the same questions."
    if test.matters is not None and test.high is not None and test.high < test.matters:
        return "does not hold", f"A gain of {test.matters:g} points or more is excluded."
    if test.p_holm < 0.05:
        return "cannot be told", "The seeds disagree."
    if test.detectable is None:
        return "cannot be told", "So few questions can show no gain."
    found = f"a gain of {test.detectable:.1f} points would be found four times in five"
    return "cannot be told", f"With so many questions {found}."


def arms_table(results: Mapping[str, Any]) -> str:
    """Every arm with its right answers, interval, mean over seeds and, if they were drawn, pass@k."""
    drawn = next((a["pass_at_k"]["drawn"] for a in results["arms"] if a.get("pass_at_k")), None)
    heads = [f"right of {results['n']:,}", "% (95 % interval)", "mean ± sd of seeds"]
    heads += [f"pass@{drawn}"] if drawn else []
    rows = ["| arm | " + " | ".join(heads) + " |", "| --- " * (1 + len(heads)) + "|"]
    for arm in results["arms"]:
        low, high = arm["wilson95"]
        spread = "" if arm["sd"] is None else f"{100 * arm['mean']:.1f} ± {100 * arm['sd']:.1f}"
        cells = [f"`{arm['name']}`", f"{arm['right']:,}"]
        cells += [f"{percent(arm['accuracy'])} ({percent(low)}–{percent(high)})", spread]
        if drawn:
            several = arm.get("pass_at_k")
            cells.append(percent(several["k"][str(drawn)]["mean"]) if several else "")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def minus(points: float) -> str:
    """Points with one decimal, and a minus sign that is no hyphen."""
    return f"{points:.1f}".replace("-0.0", "0.0").replace("-", "−")


def probability(p: float) -> str:
    """A p-value with two digits, or its order of magnitude."""
    if p < 1e-99:
        return "below 1e-99"
    if p < 0.001:
        return f"{p:.0e}".replace("e-0", "e-")
    return "1" if p > 0.995 else f"{p:.2f}".lstrip("0") if p >= 0.0995 else f"{p:.3f}".lstrip("0")


def put(page: str, name: str, section: str) -> str | None:
    """The page with the section between its comments; None if it has no such comments."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    return pattern.sub(lambda m: f"{m[1]}\n{section}\n\n{m[2]}", page) if pattern.search(page) else None


def main() -> int:
    """Make the section, and write or print it."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("section", help="a section of docs/claims.yaml")
    asked.add_argument("run", type=Path, help="the folder of a run that has ended")
    asked.add_argument("--print", action="store_true", help="write nothing")
    given = asked.parse_args()
    section, path = section_of(given.section, given.run), DOCS / "results.md"
    page = None if given.print else put(path.read_text("utf-8"), given.section, section)
    if page is None:
        sys.stdout.write(f"{section}\n")
    else:
        path.write_text(page, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
