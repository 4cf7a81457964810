"""The page: one HTML file that needs nothing else, made of what a run directory holds by now.

Its overview needs no script. Its browser of questions runs one, which is in the page; a policy in its head lets no
other run and nothing be loaded, so that even a text which slipped through the escaping could do nothing. What models
wrote enters through Jinja's autoescape and :func:`clean`, or as JSON that becomes text nodes.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vivavoce.graph import Stored, graph_files, stored_graphs
from vivavoce.records import storable
from vivavoce.report import comparison
from vivavoce.report.arms_told import what_it_is
from vivavoce.report.assets import content_policy, report_script, style
from vivavoce.report.charts import HIGH, WIDE, Axis, Scatter, panels
from vivavoce.report.costs import caps, lent_text, lines, money, total, unfinished_calls
from vivavoce.report.debates import BINS, Debated
from vivavoce.report.differences import differences
from vivavoce.report.embedded import browser_data
from vivavoce.report.headline import best_other, headline, rival_name
from vivavoce.report.reviews import reviews_of
from vivavoce.report.sources import Sources
from vivavoce.report.story import story
from vivavoce.report.text import clean
from vivavoce.report.transcript import mark, why_ended
from vivavoce.version import __version__

_PAGE = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: clean(value) if type(value) is str else value,
)
_PAGE.filters |= {
    "percent": comparison.percent,
    "p_value": comparison.p_value,
    "signed": comparison.signed,
    "duration": comparison.duration,
    "money": money,
    "cut": lambda text, most=600: text if len(text) <= most else f"{text[:most]} …",
}


def write_report(run_path: Path) -> Path:
    """Write ``report.html`` of a run, whole or not at all; of an unfinished one, everything so far.

    Raises DataError if ``run_path`` is no run directory, or if one of its files cannot be read.
    """
    sources = Sources(run_path)
    debated = Debates().of(sources)
    held, script = browser_data(sources, debated), report_script()
    page = _PAGE.get_template("report.html.j2").render(
        _view(sources, debated),
        style=Markup(style("page.css", "view.css")),
        script=Markup(script),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {content_policy(script)}",
        held=None if held is None else Markup(_in_script(held)),
        of_all=_of_all(held) if held else "",
    )
    out = run_path / "report.html"
    part = out.with_name(out.name + ".part")
    part.write_text(page, "utf-8")
    part.replace(out)
    return out


def overview(sources: Sources, debates: Debates, whole: bool = True) -> str:
    """The overview of a run as a piece of HTML, without its browser of questions: what the viewer shows. Not
    ``whole``: without what the debates did, which takes long to read the first time."""
    debated = debates.of(sources) if whole else {}
    return _PAGE.get_template("overview.html.j2").render(_view(sources, debated))


class Debates:
    """The debates of a run, which are read again only if their file has changed. Safe for several threads."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, Stored, Debated]] = {}
        self._reading = threading.Lock()

    def of(self, sources: Sources) -> dict[str, tuple[Stored, Debated]]:
        """The debates of every stage that has held some, by their sets."""
        with self._reading:
            by_stage = {}
            for of, file, part in _graph_files(sources):
                known = self._known.get(file)
                if known is None or known[0] != file.stat().st_mtime_ns:
                    made, graphs = file.stat().st_mtime_ns, stored_graphs(file)
                    known = self._known[file] = made, graphs, Debated(graphs, part.task)
                by_stage[of] = known[1:]
            return by_stage

    def ready(self, sources: Sources) -> bool:
        """Whether all of them have been read."""
        files = [file for _, file, _ in _graph_files(sources)]
        return all(file in self._known and self._known[file][0] == file.stat().st_mtime_ns for file in files)


def _graph_files(sources: Sources) -> Iterator[tuple[str, Path, Sources]]:
    """Set, file and run, or stage of a chain, of all debates."""
    for name, part in (sources.parts or {"": sources}).items():
        for of, file in graph_files(part.path).items():
            yield "test" if of == "test" else f"{name}/{of}" if name else of, file, part


_UNSEEN = re.compile("[<\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def _in_script(held: Any) -> str:
    """JSON that stands inside a script element: no text in it can end the element, or turn the source around it."""
    text = storable(json.dumps(held, ensure_ascii=False, separators=(",", ":")))
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _of_all(held: Mapping[str, Any]) -> str:
    """The number of questions of each set in the page, in words."""
    of = held["about"]["of"]
    parts = [f"{one['n']:,} of {of[one['key']]:,} of {one['key']}" for one in held["about"]["sets"]]
    whole = all(one["n"] == of[one["key"]] for one in held["about"]["sets"])
    return "All are here." if whole else f"A sample that tells the story: {', '.join(parts)}."


_NAMES = {"train": "on the training questions", "test": "on the test questions", "states": "on the student's states"}


def _where(of: str) -> str:
    """The title of a set of debates."""
    stage, slash, own = of.rpartition("/")
    title = _NAMES.get(own, f"stage {own}")
    return f"Stage {stage}: {title}" if slash else title[0].upper() + title[1:]


def _view(sources: Sources, debated: Mapping[str, tuple[Stored, Debated]]) -> dict[str, Any]:
    """Everything that the templates show."""
    costs, no_costs = sources.costs()
    ending = headline(sources)
    compared = _comparison(sources)
    over = ["student", *([compared["best_other"]] if compared and compared["best_other"] else [])]
    made = {
        "name": sources.name,
        "recipe": sources.recipe,
        "recipe_text": sources.recipe_text,
        "manifest": sources.manifest,
        "student": sources.student,
        "version": __version__,
        "seeds": sources.recipe.get("seeds", []),
        "headline": ending,
        "path": None if ending.student is None else told_path(ending.student),
        "story": story(sources),
        "mark": mark,
        "compared": compared,
        "differences": differences(sources, over),
        "spread_of_costs": Scatter(compared["arms"]) if compared else None,
        "spread_of_teaching": Scatter((compared or {"taught": ()})["taught"], "teacher_tokens"),
        "panels": panels(sources.curves()),
        "left_out": comparison.dropped_rows(sources.results or {}),
        "wide": WIDE,
        "high": HIGH,
        "debated": {_where(of): d for of, (_, d) in debated.items() if d.graphs},
        "why_ended": why_ended,
        "bins": [f"{100 * i // BINS}–{100 * (i + 1) // BINS} %" for i in range(BINS)],
        "reviews": reviews_of(sources),
        "judging": _judging(sources.results or {}),
        "costs": lines(costs, sources.recipe),
        "costs_total": total(lines(costs, sources.recipe)),
        "currency": sources.recipe.get("currency", "USD"),
        "no_costs": no_costs,
        "caps": caps(sources.recipe),
        "cut_off": unfinished_calls(sources.under_way(), sources.recipe),
        "lent": lent_text(lent, sources.recipe) if (lent := sources.lent()) else "",
    }
    return {**made, "sections": _sections(made)}


def _judging(results: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The figures of the judges, with a title for each set of answers; none if no model judged."""
    figures = results.get("judging") or {}
    parts = [("Of answers to test questions", figures.get("tests")), ("Of all answers", figures)]
    return [(title, of) for title, of in parts if of]


def _sections(made: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Anchor and title of the parts that the page will have."""
    compared, debated = made["compared"] or {}, made["debated"]
    parts = [
        ("story", "Before and after", made["story"]),
        ("comparison", "Comparison", compared),
        ("differences", "Differences", made["differences"]),
        ("seeds", "Training seeds", compared),
        ("tests", "Paired tests", compared.get("tests")),
        ("groups", "By group", len(compared.get("groups", ())) > 1),
        ("steps", "Errors by step", compared.get("steps")),
        ("further", "Other tests", compared.get("further")),
        ("tokens", "Accuracy and cost", compared),
        ("several", "Several answers", compared.get("several")),
        ("teaching", "Gain and teachers' tokens", compared.get("taught")),
        ("training", "Training curves", made["panels"]),
        ("debated", "What the debate did", debated),
        ("calibration", "Confidence", any(d.calibration for d in debated.values())),
        ("reviews", "Reviews", made["reviews"]),
        ("judges", "Judges", made["judging"]),
        ("ledger", "Cost ledger", True),
        ("provenance", "Provenance", True),
    ]
    return [(anchor, title) for anchor, title, there in parts if there]


def _comparison(sources: Sources) -> dict[str, Any] | None:
    """The comparison for the page, or None if there are no results yet."""
    results = sources.results
    if results is None:
        return None
    tests = comparison.paired_tests(results)
    arms: Mapping[str, Mapping[str, Any]] = {arm["name"]: arm for arm in results["arms"]}
    strongest = comparison.strongest_without_debate(results)
    final = comparison.final_arm(results, sources.recipe.get("method"))
    return {
        "task": results["task"],
        "n": results["n"],
        "wall_s": results.get("wall_s"),
        "arms": list(arms.values()),
        "families": comparison.families(results),
        "strongest": strongest,
        "tests": tests,
        "planned": comparison.planned_tests(results),
        "untested": results.get("untested", []),
        "axis": Axis(arms.values()),
        "before": arms.get("student"),
        "after": arms[final] if final else None,
        "further": [
            (name, other, {test.b: test for test in comparison.paired_tests(other)})
            for name, other in comparison.further(results).items()
        ],
        "of_final": [t for t in tests if t.b == final],
        "best_other": other.a if (other := best_other([t for t in tests if t.b == final], arms)) else None,
        "rival": rival_name(arms[other.a]) if other else "",
        "descriptions": {name: what_it_is(arm) for name, arm in arms.items()},
        "level": comparison.LEVEL,
        "of_debate": [t for t in tests if t.b != final and arms[t.b].get("family") == "debate" and t.a in strongest],
        "groups": {g: c["n"] for g, c in results["arms"][0]["groups"].items()},
        "steps": results.get("steps", {}),
        "gradient_norms": results.get("gradient_norms", {}),
        "spread": {
            name: {s["seed"]: s["accuracy"] for s in arm["seeds"]}
            for name, arm in arms.items()
            if len(arm["seeds"]) > 1
        },
        "seeds": list(dict.fromkeys(s["seed"] for arm in arms.values() for s in arm["seeds"])),
        "several": {name: arm["pass_at_k"] for name, arm in arms.items() if "pass_at_k" in arm},
        "several_kinds": comparison.SEVERAL,
        "curve": results.get("gain_by_tokens", []),
        "taught": [{**arms[p["arm"]], "teacher_tokens": p["tokens"]} for p in results.get("gain_by_tokens", [])],
        "most_tokens": max(arm["tokens_per_problem"] for arm in arms.values()) or 1,
    }


def told_path(path: Path) -> str:
    """A path as the user would type it from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path.resolve())


__all__ = ["Debates", "overview", "told_path", "write_report"]
