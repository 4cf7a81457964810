"""Readings of ``results.json`` that the terminal and the page share: families of arms, paired tests, plain verdicts."""

from __future__ import annotations

import io
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vivavoce.progress import page_width
from vivavoce.report.text import clean
from vivavoce.stats import LEVEL, holm

Results = Mapping[str, Any]
WIDTH = 100
SEVERAL = {
    "k": "pass@",
    "all": "pass^",
    "vote": "vote of ",
    "likeliest": "likeliest of ",
    "judged": "best judged of ",
}
"""What several answers to each question tell, by its key: one of k is right, all k are, the one that is chosen is."""


class Family(NamedTuple):
    """Arms that are compared like with like."""

    title: str
    note: str
    arms: list[Mapping[str, Any]]


class Paired(NamedTuple):
    """One paired test: what ``b`` gains over ``a`` on the same questions."""

    a: str
    b: str
    gain: float
    """Accuracy of ``b`` less that of ``a``, in points, over all training seeds."""
    a_only: int
    """Answers that only the first got right, over all seeds."""
    b_only: int
    p: float
    """The p-value of one exact test over all seeds and questions."""
    p_holm: float
    """Corrected for the family of tests that was planned (Holm)."""
    repaired: float | None
    """Share of ``a``'s wrong answers that ``b`` gets right; None if there is nothing to take a share of."""
    regressed: float | None
    """Share of ``a``'s right answers that ``b`` gets wrong."""
    seeds: list[tuple[int, float, float]]
    """Training seed, gain in points and p, if there are several."""
    low: float | None = None
    """Ends of the 95 % interval of the gain, in points; None: an earlier version wrote these results."""
    high: float | None = None
    detectable: float | None = None
    """The smallest gain that so many questions could have shown, in points; None: none at all, or as for the ends."""
    matters: float | None = None
    """The gain from which on a difference is of interest, in points."""

    @property
    def winner(self) -> str | None:
        """The one that is better beyond doubt of chance, if either is."""
        return None if self.doubt else self.b if self.gain > 0 else self.a

    @property
    def verdict(self) -> str:
        """The verdict in a few words, for a table whose caption explains them."""
        if self.winner:
            return f"{'second' if self.gain > 0 else 'first'} is better"
        if self.a_only + self.b_only == 0:
            return "same answers"
        if self.p_holm < LEVEL or self.low is None:
            return self.doubt
        if self.p < LEVEL:
            return "not shown (Holm)"
        return "alike" if self.alike else "too few to tell"

    @property
    def alike(self) -> bool:
        """Whether the whole interval is too small to matter."""
        if self.low is None or self.high is None or self.matters is None:
            return False
        return -self.matters < self.low and self.high < self.matters

    @property
    def doubt(self) -> str:
        """The reason, in words, why neither arm wins; empty if one does.

        A verdict rests on one test over all training seeds, after Holm's correction, and no seed may point the other
        way. If there is none, either the interval shows that no difference matters, or there are too few questions.
        """
        if self.a_only + self.b_only == 0:
            return "the same on every question"
        if self.p_holm < LEVEL:
            return "seeds disagree" if any((gain > 0) != (self.gain > 0) for _, gain, _ in self.seeds) else ""
        verdict = "not significant (Holm)" if self.p < LEVEL else "not significant"
        if self.alike:
            return f"no difference of {self.matters:g} points or more"
        if self.detectable is None:
            return verdict if self.low is None else f"{verdict}: too few questions to show any gain"
        return f"{verdict}: too few questions to tell less than {self.detectable:.1f} points"


_FAMILIES = {
    "student": ("students", "one small model answers alone"),
    "committee": ("committee without debate", "each teacher alone, and votes over their independent drafts"),
    "debate": ("committee after debate", "the vote over the last round"),
    "": ("arms", "an earlier version wrote these results, without saying what each arm is"),
}


def families(results: Results) -> list[Family]:
    """The arms in their families, in the order in which they were tested; empty families are left out."""
    by_key = {key: Family(*name_and_text, []) for key, name_and_text in _FAMILIES.items()}
    for arm in results["arms"]:
        by_key[arm.get("family", "")].arms.append(arm)
    return [f for f in by_key.values() if f.arms]


def strongest_without_debate(results: Results) -> dict[str, str]:
    """The strongest arms without a debate, each with its kind: students taught without a debate (without a review,
    if no arm of the run has learned from a debate), and committees that held none.
    """
    students = [a for a in results["arms"] if a.get("family") == "student"]
    taught = [a for a in students if a["material"] == "drafts"]
    silent = [a for a in results["arms"] if a.get("family") == "committee"]
    learnt = {a["material"] for a in students}
    without = "review" if "review" in learnt and "debate" not in learnt else "debate"
    marks = {}
    for arms, what in (
        (taught, f"strongest student without {without}"),
        (silent, "strongest committee without debate"),
    ):
        best = max((a["right"] for a in arms), default=0)
        marks |= {a["name"]: what for a in arms if a["right"] == best and len(arms) > 1}
    return marks


def paired_tests(results: Results) -> list[Paired]:
    """The paired tests, with gains counted from the questions that only one of the two got right.

    They are corrected for all tests that were planned, those too that could not be made.
    """
    pairs, n = results["paired"], results["n"]
    ofs = [pair.get("pooled", {}) for pair in pairs]  # an earlier version compared the first seeds alone
    corrected = holm([of.get("p", pair["p"]) for pair, of in zip(pairs, ofs, strict=True)], planned_tests(results))

    def gain(counts: Mapping[str, Any]) -> float:
        return 100 * (counts["b_only"] - counts["a_only"]) / n

    return [
        Paired(
            pair["a"],
            pair["b"],
            100 * of["gain"] if of else gain(pair),
            of.get("a_only", pair["a_only"]),
            of.get("b_only", pair["b_only"]),
            of.get("p", pair["p"]),
            p_holm,
            of.get("repaired", pair.get("repaired")),
            of.get("regressed", pair.get("regressed")),
            [(s["seed"], gain(s), s["p"]) for s in pair.get("seeds", ())],
            low=100 * of["interval95"][0] if of else None,
            high=100 * of["interval95"][1] if of else None,
            detectable=100 * of["detectable"] if of and of["detectable"] is not None else None,
            matters=100 * results["matters"] if "matters" in results else None,
        )
        for pair, of, p_holm in zip(pairs, ofs, corrected, strict=True)
    ]


def further(results: Results) -> dict[str, Results]:
    """The other tests that the students sat, by name; of the pairs there, what each student gained over the first."""
    return {
        name: {
            **comparison,
            "paired": [pair for pair in comparison["paired"] if pair["a"] == "student"],
            "untested": [pair for pair in comparison.get("untested", ()) if pair[0] == "student"],
        }
        for name, comparison in results.get("also", {}).items()
    }


def planned_tests(results: Results) -> int:
    """The number of paired tests that were planned: those that were made, and those of which an arm could not be
    trained.
    """
    return len(results["paired"]) + len(results.get("untested", ()))


def final_arm(results: Results, method: str | None) -> str | None:
    """The arm that the run is about: as the results say, else the method's own, else the one of most tests.

    None if there are no tests, or no model was tested as the arm that the results name: it had nothing to learn from.
    """
    names = [arm["name"] for arm in results["arms"]]
    if named := results.get("main"):
        return named if named in names else None
    if method in names:
        return method
    about = [pair["b"] for pair in results["paired"]]
    return max(about, key=about.count) if about else None


def percent(share: float | None) -> str:
    """The share in per cent: ``0.8125`` as ``81.2``, an exact ``100`` and ``0``, ``–`` if there is no share."""
    if share is None:
        return "–"
    return f"{100 * share:.0f}" if share in (0, 1) else f"{100 * share:.1f}"


def p_value(p: float) -> str:
    """The p-value with three decimals, or its order of magnitude if that would be 0."""
    if p >= 0.0995:
        return f"{p:.2f}"
    return f"{p:.3f}" if p >= 0.001 else "<1e-99" if p < 1e-99 else f"{p:.0e}".replace("e-0", "e-")


def signed(points: float) -> str:
    """``+1.5``, ``−0.3`` or ``0``."""
    return "0" if abs(points) < 0.05 else f"{points:+.1f}".replace("-", "−")


def duration(seconds: float) -> str:
    """``8 s``, ``4 min 10 s`` or ``3 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60) if seconds >= 3600 else int(seconds // 60)
    return f"{minutes} min {int(seconds % 60)} s" if seconds < 3600 else f"{minutes // 60} h {minutes % 60} min"


def table(results: Results) -> str:
    """The comparison as plain text of at most 100 columns: every arm, every paired test, and the other tests."""
    several = any(len(arm["seeds"]) > 1 for arm in results["arms"])
    strongest = strongest_without_debate(results)
    parts: list[RenderableType] = [
        Text(f"{clean(results['task'])}: {results['n']} test questions, accuracy in % with Wilson's 95 % interval"),
        _arms(results, several, strongest),
    ]
    if several:
        parts.append(Text("Right and interval are of the first training seed; mean ± sd over seeds."))
    for name, what in strongest.items():
        parts.append(Text(f"* {clean(name)}: {what}"))
    for arm in results["arms"]:
        if several_drawn := arm.get("pass_at_k"):
            parts.append(Text(_pass_at_k(several_drawn)))
    if paired := paired_tests(results):
        parts += [
            Text(
                f"\nPaired on the same questions{', all training seeds together' if several else ''}:\n"
                "points that the second gains, with the 95 % interval; answers that only the first / only the second "
                "got right; p of one exact two-sided test; repaired is a share of the student's wrong answers, "
                "regressed one of its right ones"
            ),
            _tests(paired),
        ]
        parts += _explain(paired)
        if (tests := planned_tests(results)) > 1:
            parts.append(
                Text(
                    f"Verdicts: 5 % level after Holm's correction for {tests} tests"
                    f"{', and no seed the other way' if several else ''}; p is uncorrected."
                )
            )
    if missing := results.get("untested"):
        pairs = ", ".join(f"{clean(a)} → {clean(b)}" for a, b in missing)
        parts.append(Text(f"Not tested, because an arm is missing: {pairs}"))
    for name, other in further(results).items():
        parts += [
            Text(f"\nAlso tested on {clean(name)} ({clean(other['task'])}): {other['n']} questions"),
            _arms(other, several, ()),
            *([_tests(tests)] if (tests := paired_tests(other)) else []),
        ]
    if mean := results.get("macro"):
        parts += [
            Text(f"\nMean over {len(mean['tasks'])} tasks, each counting the same, with 95 % intervals"),
            _means(mean),
        ]
    if lines := dropped_rows(results):
        parts.append(Text("\n" + "\n".join(lines)))
    return _render(parts)


def runs_table(comparison: Results) -> str:
    """Arms of several runs as plain text: :func:`vivavoce.exams.across.across`."""
    questions = ", ".join(f"{clean(name)} {n:,}" for name, n in comparison["questions"].items())
    if not comparison["apart"]:
        return f"{table(comparison)}\n\nOn the {comparison['n']:,} questions that all runs were asked, of: {questions}."
    rows = list[_Row]()
    for pair in comparison["apart"]:
        low, high = (signed(100 * end) for end in pair["interval95"])
        rows.append(_Row(_arrow(pair), (f"{signed(100 * pair['gain'])} ({low}, {high})",)))
    shown = _fitting(("first → second", "gain (95 %)"), rows)
    title = Text(
        f"\nThe runs share no question ({questions}), so the tests are not paired: first seeds, Newcombe's interval"
    )
    several = any(len(a["seeds"]) > 1 for a in comparison["arms"])
    return f"{_render([_arms(comparison, several, ())])}\n{_render([title, shown])}"


def _explain(tests: Sequence[Paired]) -> list[Text]:
    """The meaning of the short verdicts that a table has."""
    explanations = list[Text]()
    undecided = [t for t in tests if t.verdict == "too few to tell"]
    few = [t.detectable for t in undecided if t.detectable is not None]
    if len(few) < len(undecided):
        explanations.append(
            Text("Too few to tell: even if all of so few questions spoke for one arm, it could be chance.")
        )
    if few:
        least = f"{min(few):.1f}" if round(min(few), 1) == round(max(few), 1) else f"{min(few):.1f} to {max(few):.1f}"
        explanations.append(
            Text(f"Too few to tell: so many questions show gains of {least} points four times in five.")
        )
    if alike := [t for t in tests if t.verdict == "alike"]:
        explanations.append(
            Text(f"Alike: the whole interval is less than {alike[0].matters:g} points (statistics.matters).")
        )
    return explanations


def dropped_rows(results: Results) -> list[str]:
    """A line for each training that left rows out because they were longer than it takes."""
    return [
        f"{clean(arm)}, seed {one['seed']}: {one['rows_dropped']:,} of {one['rows_used'] + one['rows_dropped']:,} rows "
        "were longer than max_length and were left out of training"
        for arm, seeds in results.get("training", {}).items()
        for one in seeds
        if one["rows_dropped"]
    ]


class _Row(NamedTuple):
    """A row of a table, of which no name and no figure is broken."""

    name: Text
    figures: tuple[str | Text, ...] = ()
    below: tuple[str, ...] = ()
    """More about it, in lines of their own."""


def _fitting(heads: Sequence[str], rows: Sequence[_Row], padding: int = 1) -> RenderableType:
    """A table; if the page is narrower than that, each row's figures stand in a line below its name."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, padding))
    for head in heads:
        text = head in (heads[0], "verdict")
        shown.add_column(head, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for row in rows:
        shown.add_row(row.name, *row.figures)
        for text in row.below:
            shown.add_row(_below(text), *[""] * len(row.figures))
    width = page_width(WIDTH)
    console = Console(width=width, legacy_windows=False)
    if Measurement.get(console, console.options.update(max_width=10_000), shown).maximum <= width:
        return shown
    return _stacked(heads, rows)


def _stacked(heads: Sequence[str], rows: Sequence[_Row]) -> RenderableType:
    figures = [list(map(str, row.figures)) for row in rows if row.figures]
    widths = [max(map(len, column)) for column in zip(heads[1:], *figures, strict=True)]

    def line(cells: Sequence[str]) -> str:
        ends_in_text = heads[-1] == "verdict"
        cut = len(cells) - ends_in_text
        aligned = [cell.rjust(width) for cell, width in zip(cells[:cut], widths[:cut], strict=True)]
        return "   " + "  ".join([*aligned, *cells[cut:]])

    lines: list[RenderableType] = [Text(f"\n {heads[0]}\n{line(heads[1:])}\n {'─' * (page_width(WIDTH) - 2)}")]
    for row in rows:
        lines.append(Padding(row.name, (0, 0, 0, 1)))
        if row.figures:
            lines.append(Text(line([str(cell) for cell in row.figures])))
        lines += [Padding(Text(text, "dim"), (0, 0, 0, 3)) for text in row.below]
    return Group(*lines, Text(""))


def _arrow(pair: Mapping[str, Any]) -> Text:
    return Text(f"{clean(pair['a'])} → {clean(pair['b'])}")


def _arms(results: Results, several: bool, starred: Collection[str]) -> RenderableType:
    narrow = page_width(WIDTH) < WIDTH  # the tokens are left out, which the report has
    failed = any(arm.get("failed_calls") for arm in results["arms"])  # no answers, and not to be taken for wrong ones
    rest = [*(["mean ± sd"] if several else []), "unparsed", *(["failed"] if failed else [])]
    rest += [] if narrow else ["tokens in + out"]
    rows = list[_Row]()
    for family in families(results):
        rows.append(_Row(Text(family.title, "dim italic")))
        for arm in family.arms:
            low, high = arm["wilson95"]
            star = " *" if arm["name"] in starred else ""
            figures = [
                f"{arm['right']}/{arm['n']}",
                percent(arm["accuracy"]),
                f"{percent(low)}–{percent(high)}",
                *([_spread(arm)] if several else []),
                str(arm["unparsed"]),
                *([str(arm.get("failed_calls", 0))] if failed else []),
                *([] if narrow else [_tokens(arm)]),
            ]
            rows.append(_Row(Text(f"  {clean(arm['name'])}{star}"), tuple(figures)))
    return _fitting(("arm", "right", "%", "95 %", *rest), rows, 0 if narrow else 1)


def _means(mean: Mapping[str, Any]) -> RenderableType:
    rows = list[_Row]()
    for arm in mean["arms"]:
        low, high = arm["interval95"]
        rows.append(_Row(Text(clean(arm["name"])), (percent(arm["mean"]), f"{percent(low)}–{percent(high)}")))
    for pair in mean["paired"]:
        low, high = (signed(100 * end) for end in pair["interval95"])
        rows.append(_Row(_arrow(pair), (signed(100 * pair["mean"]), f"{low} to {high}")))
    return _fitting(("arm, or first → second", "mean, or gain", "95 %"), rows)


def _tokens(arm: Mapping[str, Any]) -> str:
    return f"{arm['prompt_tokens_per_problem']:.0f} + {arm['completion_tokens_per_problem']:.0f}"


def _pass_at_k(figures: Mapping[str, Any]) -> str:
    lines = [
        ", ".join(
            f"{name}{k} {percent(e['mean'])} ({percent(e['interval95'][0])}–{percent(e['interval95'][1])})"
            for k, e in figures[kind].items()
        )
        for kind, name in SEVERAL.items()
        if kind in figures
    ]
    what = f"unbiased, in %, with 95 % intervals, from {figures['drawn']} answers to each question:"
    return "\n  ".join([what, *lines])


def _spread(arm: Mapping[str, Any]) -> str:
    return "" if arm["sd"] is None else f"{100 * arm['mean']:.1f} ± {100 * arm['sd']:.1f}"


def _tests(tests: Sequence[Paired]) -> RenderableType:
    rows = list[_Row]()
    for test in tests:
        figures = (
            signed(test.gain) + ("" if test.low is None else f" ({signed(test.low)}, {signed(test.high or 0)})"),
            f"{test.a_only} / {test.b_only}",
            p_value(test.p),
            Text(test.verdict, "bold" if test.winner else "dim"),
        )
        below = list[str]()
        if test.a == "student":
            below.append(f"repaired {percent(test.repaired)} %, regressed {percent(test.regressed)} %")
        if test.seeds:
            below.append(f"by seed {', '.join(signed(gain) for _, gain, _ in test.seeds)}")
        rows.append(_Row(Text(f"{clean(test.a)} → {clean(test.b)}"), figures, tuple(below)))
    return _fitting(("first → second", "gain (95 %)", "1st / 2nd", "p", "verdict"), rows)


def _below(text: str) -> RenderableType:
    """More of the row above: set in, however many lines it takes."""
    return Padding(Text(text, "dim"), (0, 0, 0, 2))


def _render(parts: Sequence[RenderableType]) -> str:
    """Rich output as text: colours only if standard output is a terminal, and no blanks at the ends of lines."""
    terminal = sys.stdout.isatty()
    out = io.StringIO()
    console = Console(
        file=out,
        width=page_width(WIDTH),
        force_terminal=terminal,
        force_jupyter=False,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


__all__ = [
    "LEVEL",
    "Family",
    "Paired",
    "duration",
    "families",
    "final_arm",
    "further",
    "holm",
    "p_value",
    "paired_tests",
    "percent",
    "planned_tests",
    "runs_table",
    "signed",
    "strongest_without_debate",
    "table",
]
