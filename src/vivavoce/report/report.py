"""The page: one HTML file that needs nothing else, made of what a run directory holds by now.

No script runs in it and nothing is loaded: a policy in its head forbids both, so that even a text which slipped
through the escaping could do nothing. What models wrote enters through Jinja's autoescape and :func:`clean` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vivavoce.report import comparison
from vivavoce.report.browser import show
from vivavoce.report.charts import HIGH, WIDE, Axis, panels
from vivavoce.report.costs import caps, cut_off, lines, money, total
from vivavoce.report.debates import BINS, SHOWN, Debated
from vivavoce.report.sources import Sources
from vivavoce.report.text import clean
from vivavoce.report.transcript import why_ended
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
}


def write_report(run_path: Path) -> Path:
    """Write ``report.html`` of a run, whole or not at all; of an unfinished one, what there is to tell by now.

    Raises DataError where ``run_path`` is no run directory, or where one of its files cannot be read.
    """
    page = _PAGE.get_template("report.html.j2").render(view(Sources(run_path)))
    out = run_path / "report.html"
    part = out.with_name(out.name + ".part")
    part.write_text(page, "utf-8")
    part.replace(out)
    return out


def view(sources: Sources) -> dict[str, Any]:
    """Everything that the template shows."""
    parts = sources.parts or {"": sources}
    training = {
        name: Debated(part.graphs("train"), SHOWN // len(parts) or 1, part.task) for name, part in parts.items()
    }
    testing = {name: Debated(part.graphs("test"), 0, part.task) for name, part in parts.items()}
    debated = {
        f"Stage {name}: on the {which} questions" if name else f"On the {which} questions": found[name]
        for name in parts
        for which, found in (("training", training), ("test", testing))
    }
    costs, no_costs = sources.costs()
    made = {
        "name": sources.name,
        "recipe": sources.recipe,
        "recipe_text": sources.recipe_text,
        "manifest": sources.manifest,
        "student": sources.student,
        "version": __version__,
        "seeds": sources.recipe.get("seeds", []),
        "compared": _compared(sources),
        "panels": panels(sources.curves()),
        "left_out": comparison.left_out(sources.results or {}),
        "wide": WIDE,
        "high": HIGH,
        "debated": {where: d for where, d in debated.items() if d.graphs},
        "of_training": sum(d.graphs for d in training.values()),
        "why_ended": why_ended,
        "bins": [f"{100 * i // BINS}–{100 * (i + 1) // BINS} %" for i in range(BINS)],
        "debates": [show(t, sources.task) for d in training.values() for t in d.telling],
        "costs": lines(costs, sources.recipe),
        "costs_total": total(lines(costs, sources.recipe)),
        "currency": sources.recipe.get("currency", "USD"),
        "no_costs": no_costs,
        "caps": caps(sources.recipe),
        "cut_off": cut_off(sources.under_way(), sources.recipe),
    }
    return {**made, "sections": _sections(made)}


def _sections(made: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Anchor and title of the parts that the page will have."""
    compared, debated = made["compared"] or {}, made["debated"]
    parts = [
        ("comparison", "Comparison", compared),
        ("seeds", "Training seeds", compared),
        ("tests", "Paired tests", compared.get("tests")),
        ("groups", "By group", len(compared.get("groups", ())) > 1),
        ("steps", "Errors by step", compared.get("steps")),
        ("further", "Other tests", compared.get("further")),
        ("tokens", "Tokens", compared),
        ("training", "Training curves", made["panels"]),
        ("debated", "What the debate did", debated),
        ("calibration", "Confidence", any(d.calibration for d in debated.values())),
        ("browser", "Debates to read", made["debates"]),
        ("ledger", "Cost ledger", True),
        ("provenance", "Provenance", True),
    ]
    return [(anchor, title) for anchor, title, there in parts if there]


def _compared(sources: Sources) -> dict[str, Any] | None:
    """What there is to say about the results, or None where there are none yet."""
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
        "planned": comparison.planned(results),
        "untested": results.get("untested", []),
        "axis": Axis(arms.values()),
        "before": arms.get("student"),
        "after": arms[final] if final else None,
        "further": [
            (name, other, {test.b: test for test in comparison.paired_tests(other)})
            for name, other in comparison.further(results).items()
        ],
        "of_final": [t for t in tests if t.b == final],
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
        "most_tokens": max(arm["tokens_per_problem"] for arm in arms.values()) or 1,
    }


__all__ = ["view", "write_report"]
