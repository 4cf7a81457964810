"""The command ``viva``: parse, call, print. Results go to standard output, talk to standard error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivavoce import __version__
from vivavoce.errors import BudgetReached, DataError, MissingDependency, RecipeError, UserError

if TYPE_CHECKING:
    from vivavoce.config import Recipe
    from vivavoce.debate.plan import Planned, Span
    from vivavoce.tasks import Task

# Plain help: the decorated one takes longer to import than everything else together.
_PLAIN: Any = {"no_args_is_help": True, "rich_markup_mode": None}
app = typer.Typer(
    name="viva",
    **_PLAIN,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="A committee of large language models debates, criticises and reviews; your small model learns from it.",
)
graph_app = typer.Typer(**_PLAIN, help="Look at what was said.")
train_app = typer.Typer(**_PLAIN, help="Train a model on rows or trees that were exported.")
bench_app = typer.Typer(**_PLAIN, help="Measure, side by side with what people use today.")
import_app = typer.Typer(**_PLAIN, help="Bring recorded material into a graph.")
review_app = typer.Typer(**_PLAIN, help="Look at reviews, and at what they accept.")
debate_app = typer.Typer(**_PLAIN, help="Hold a debate, and see what it is worth.")
app.add_typer(graph_app, name="graph")
app.add_typer(debate_app, name="debate")
app.add_typer(train_app, name="train")
app.add_typer(bench_app, name="bench")
app.add_typer(import_app, name="import")
app.add_typer(review_app, name="review")

RecipePath = Annotated[Path, typer.Argument(help="Recipe file, or the name of one that `viva list recipes` shows.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set dpo.beta=0.2")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
RunPath = Annotated[Path, typer.Argument(help="Run directory.")]


class Listed(StrEnum):
    """What `viva list` knows."""

    tasks = "tasks"
    agents = "agents"
    methods = "methods"
    recipes = "recipes"
    prompts = "prompts"


class Rows(StrEnum):
    """What `viva export` writes."""

    messages = "messages"
    prompt_completion = "prompt-completion"
    preferences = "preferences"
    trees = "trees"


class AttemptsForm(StrEnum):
    """Forms that `viva import attempts` reads."""

    documented = "documented"
    gsm8k = "gsm8k"


def main() -> None:
    """Entry point: errors that the user can mend are told in three lines and end with code 2, a cap with code 3."""
    try:
        app()
    except UserError as e:
        typer.echo(f"error: {e}", err=True)
        raise SystemExit(e.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("stopped. What was done is kept: the same command goes on from here.", err=True)
        raise SystemExit(130) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    recipe: RecipePath,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    set_: Overrides = [],
    update: Annotated[bool, typer.Option(help="The recipe changed: redo what depends on it, keep the rest.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Ask again for calls that failed for good.")] = False,
) -> None:
    """Run a recipe to its report. Started again, it goes on where it stopped and pays for no call twice.

    At a cap of the recipe's budget it stops with code 3; with the cap raised the same command goes on.
    """
    import asyncio

    from vivavoce import plugins
    from vivavoce.methods.missing import missing
    from vivavoce.progress import say
    from vivavoce.report import table, write_report
    from vivavoce.report.costs import facts
    from vivavoce.run import open_run

    loaded = _load(recipe, set_)
    path = out or Path("runs") / loaded.name
    with open_run(path, loaded, update=update, retry_failed=retry_failed) as opened:
        say(f"{loaded.method}: {loaded.name} in {path}")
        method = plugins.load("methods", loaded.method, "method")
        try:
            found = asyncio.run(method.distill(loaded, opened))
        except BudgetReached:
            stopped = missing(opened, method.plan)
            opened.note(stopped=stopped)
            _say_missing(stopped, loaded.currency, path)
            raise
        opened.note(stopped=None)
        found["costs"] = facts(opened.journal.costs(), loaded.model_dump(mode="json"))
        opened.write(path / "results.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        write_report(path)
    typer.echo(table(found))
    say(f"report: {path / 'report.html'}")


def _say_missing(stopped: dict[str, Any], currency: str, path: Path) -> None:
    from vivavoce.agents.budget import money
    from vivavoce.progress import say

    def amounts(of: dict[str, Any]) -> str:
        paid = f"{money(of['money'])} {currency}, " if stopped["spent"]["money"] or stopped["left"]["money"] else ""
        return f"{paid}{of['calls']:,} calls, {_short(of['tokens'])} tokens"

    say(f"stopped in {stopped['stage']}: {stopped['done']:,} of {stopped['of']:,} done; everything is kept in {path}")
    say(f"spent by now: {amounts(stopped['spent'])} in {stopped['seconds']:,.0f} s")
    say(f"still to come, by what was measured so far: about {amounts(stopped['left'])}")


@app.command()
def plan(
    recipe: RecipePath,
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="Go by what was measured in this run directory: an earlier run's, say."),
    ] = None,
    pilot: Annotated[
        int, typer.Option(min=0, help="First ask so many questions, which is paid for, and go by that.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Run directory of the pilot; default runs/NAME.")] = None,
    set_: Overrides = [],
    as_json: AsJson = False,
) -> None:
    """Predict calls, tokens and cost of a recipe, with a range; nothing is spent, unless by --pilot."""
    from dataclasses import asdict
    from functools import reduce
    from operator import add

    from vivavoce import plugins
    from vivavoce.methods.measured import measured_run
    from vivavoce.progress import say

    loaded = _load(recipe, set_)
    method = plugins.load("methods", loaded.method, "method")
    if pilot:
        from_ = out or Path("runs") / loaded.name
        _pilot(loaded, method, pilot, from_)
    planned = method.plan(loaded, measured_run(from_) if from_ else None)
    kinds = ("calls", "prompt_tokens", "completion_tokens", "money")
    total = {kind: reduce(add, (getattr(p, kind) for p in planned)) for kind in kinds}
    if as_json:
        shown = {kind: asdict(span) for kind, span in total.items()}
        told = {"currency": loaded.currency, "lines": [asdict(p) for p in planned], "total": shown}
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    priced = [a.name for a in loaded.agents if a.price]
    shown_kinds = kinds if priced else kinds[:3]
    rows = [(p.stage, p.agent, *(_span(getattr(p, kind), kind) for kind in shown_kinds)) for p in planned]
    rows.append(("all", "", *(_span(total[kind], kind) for kind in shown_kinds)))
    heads = ("calls", "prompt tokens", "completion tokens", loaded.currency)
    _print_table(("stage", "agent", *heads[: len(shown_kinds)]), rows)
    if from_:
        _say_measured(planned, from_)
    else:
        say(
            "expected (least to most): by expected_tokens and expected_right of the agents; the range is all that the "
            "rules allow. --pilot 20 asks 20 questions first and comes closer"
        )
    if not from_:
        _say_saved(loaded, set_, recipe, total)
    if unpriced := [a.name for a in loaded.agents if not a.price and a.backend not in ("hf_local", "scripted")]:
        say(f"no price is known of {', '.join(unpriced)}: what they cost is not in the sum")


def _say_measured(planned: list[Planned], run: Path) -> None:
    """Which lines of a plan go by an earlier run, and which could not, for too few of its questions were finished."""
    from vivavoce.progress import say

    known = dict.fromkeys(p.stage for p in planned if p.measured)
    other = dict.fromkeys(p.stage for p in planned if p.stage not in known)
    rules = "by the length of replies there as far as any came, and the range is all that the rules allow"
    if known:
        say(
            f"expected (least to most) of {', '.join(known)}: by what was measured in {run}, give or take two standard "
            "errors"
        )
        if other:
            say(f"of {', '.join(other)}: {rules}")
    else:
        say(f"expected (least to most): {rules}; in {run} too few questions were finished to go by")


def _say_saved(loaded: Recipe, set_: list[str], path: Path, total: dict[str, Any]) -> None:
    """What a recipe that debates only where it pays spares."""
    from vivavoce import plugins
    from vivavoce.agents.budget import money
    from vivavoce.progress import say

    where = {"if_drafts_disagree": "drafts disagree", "if_student_wrong": "the student is wrong"}
    rule = getattr(loaded.rules, "later_rounds", "always")
    if rule == "always":
        return
    held = plugins.load("methods", loaded.method, "method").plan(_load(path, [*set_, "debate.later_rounds=always"]))
    calls = sum(p.calls.expected for p in held) - total["calls"].expected
    paid = sum(p.money.expected for p in held) - total["money"].expected
    said = f" and {money(max(0.0, paid))} {loaded.currency}" if total["money"].expected else ""
    say(f"debates go past round 0 only where {where[rule]}, which spares about {max(0.0, calls):,.0f} calls{said}")


def _pilot(recipe: Recipe, method: Any, questions: int, out: Path) -> None:
    import asyncio

    from vivavoce.agents.budget import money
    from vivavoce.progress import say
    from vivavoce.run import open_run

    with open_run(out, recipe) as opened:
        say(f"pilot: {questions} questions are asked, and paid for, in {out}; a run there will not pay for them again")
        before = opened.journal.ledger.run.money
        asyncio.run(method.pilot(recipe, opened, questions))
        say(f"the pilot cost {money(opened.journal.ledger.run.money - before)} {recipe.currency}")


@app.command()
def costs(run_path: RunPath, as_json: AsJson = False) -> None:
    """What a run has cost by now: calls, hits, failures, tokens, money and seconds, by stage and agent."""
    from vivavoce.progress import say
    from vivavoce.report.costs import cut_off, facts, lines, money, total
    from vivavoce.report.sources import Sources

    sources = Sources(run_path)
    found, none = sources.costs()
    if none:
        raise DataError(none, str(run_path), "give the directory of a run that has started")
    if as_json:
        told = {**facts(found, sources.recipe), "under_way": cut_off(sources.under_way(), sources.recipe)}
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    told = lines(found, sources.recipe)
    rows = [
        (
            line.stage or "–",
            line.agent,
            *(f"{n:,}" for n in (line.calls, line.hits, line.failures)),
            *(f"{n:,}" for n in (line.prompt_tokens, line.cached_tokens, line.completion_tokens)),
            money(line.money),
            f"{line.seconds:,.1f}",
        )
        for line in [*told, total(told)]
    ]
    heads = ("calls", "hits", "failures", "prompt", "of it cached", "completion")
    currency = str(sources.recipe.get("currency", "money"))
    _print_table(("stage", "agent", *heads, currency, "seconds"), rows)
    cut = cut_off(sources.under_way(), sources.recipe)
    if cut["calls"]:
        say(
            f"{cut['calls']:,} more calls are under way, or a kill cut them off: at most {cut['tokens']:,} tokens and "
            f"{money(cut['money'])} {currency}, which caps count as spent"
        )


@app.command()
def doctor(
    recipe: RecipePath,
    offline: Annotated[bool, typer.Option(help="Ask no model: nothing is spent.")] = False,
    out: Annotated[Path | None, typer.Option(help="Run directory that is meant; default runs/NAME.")] = None,
    set_: Overrides = [],
    as_json: AsJson = False,
) -> None:
    """Examine what a run will rely on: keys, models, endpoints, prompts, context lengths, data, disk and memory.

    Ends with code 1 where something is wrong that would fail the run.
    """
    from dataclasses import asdict

    from vivavoce.methods.doctor import examine
    from vivavoce.progress import say

    found = []
    for finding in examine(_load(recipe, set_), out, offline):
        found.append(finding)
        if not as_json:
            typer.echo(
                f"{finding.level:7} {finding.what}: {finding.said}" + (f"\n{'':8}{finding.do}" if finding.do else "")
            )
    if as_json:
        typer.echo(json.dumps([asdict(f) for f in found], indent=2, ensure_ascii=False))
    failed, warned = (sum(f.level == level for f in found) for level in ("failed", "warning"))
    say(f"{failed} failed, {warned} to look at, {len(found) - failed - warned} in order")
    if failed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    recipe: RecipePath,
    model: Annotated[str, typer.Option(help="Model folder, or schoolhouse:NAME.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the journal and the answers.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers drawn to each question; several give pass@k.")] = 1,
    set_: Overrides = [],
    as_json: AsJson = False,
) -> None:
    """Test a model on the test questions of a recipe, asked as the recipe's students are."""
    import asyncio

    from vivavoce.evaluate.single import evaluate_model
    from vivavoce.report import table

    loaded = _load(recipe, set_)
    found = asyncio.run(evaluate_model(loaded, model, out or Path("runs") / f"{loaded.name}-evaluate", samples))
    typer.echo(json.dumps(found, indent=2) if as_json else table(found))


@graph_app.command("show")
def graph_show(
    path: Annotated[Path, typer.Argument(help="Run directory, or a file of graphs.")],
    problem: Annotated[
        str | None, typer.Argument(help="Id of a problem; default: the first that changed somebody's mind.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one debate: who said what, and who changed their mind."""
    from vivavoce.graph import read_graphs
    from vivavoce.report.transcript import transcript

    graphs = read_graphs(_graphs(path))
    if problem is None:
        kept = list(graphs)
        if not kept:
            raise DataError("there is no graph", str(path), "was the debate run?")
        shown = next((g for g in kept if any(t in ("WR", "RW") for *_, t in g.transitions())), kept[0])
    else:
        shown = next((g for g in graphs if g.problem.id == problem), None)
        if shown is None:
            raise DataError(f"no problem `{problem}`", str(path), "the ids stand in graphs/*.jsonl")
    typer.echo(shown.to_json() if as_json else transcript(shown))


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="Run directory.")],
    rows: Annotated[Rows, typer.Option("--as", help="Form of the rows.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    arm: Annotated[str, typer.Option(help="Which data set of the run: a file in data/ without .jsonl.")] = "",
) -> None:
    """Write a run's rows in a form that TRL (LLaMA-Factory, ms-swift) reads as it is."""
    from vivavoce.data.export import preference_rows, sft_rows, tree_rows, write_rows
    from vivavoce.records import Example, Tree, from_json

    supervised = rows in (Rows.messages, Rows.prompt_completion)
    name = arm or ("debate_reflect_sft" if supervised else "trees-0")
    file = source / "data" / f"{name}.jsonl"
    if not file.is_file():
        known = ", ".join(sorted(p.stem for p in (source / "data").glob("*.jsonl")))
        raise DataError(f"the run has no rows `{name}`", str(source), f"--arm takes one of: {known or 'none yet'}")
    lines = file.read_text("utf-8").splitlines()
    if supervised:
        made = sft_rows((from_json(Example, x) for x in lines), "messages" if rows is Rows.messages else rows.value)
    else:
        trees = (from_json(Tree, x) for x in lines)
        made = preference_rows(trees) if rows is Rows.preferences else tree_rows(trees)
    typer.echo(f"{write_rows(out, made)} rows in {out}", err=True)


@app.command()
def report(run_path: RunPath) -> None:
    """Write report.html of a run again."""
    from vivavoce.report import write_report

    typer.echo(write_report(run_path))


@app.command("list")
def list_(what: Annotated[Listed, typer.Argument()]) -> None:
    """List tasks, agents (backends), methods, recipes or prompt sets."""
    from vivavoce import plugins
    from vivavoce.config import recipes

    if what is Listed.recipes:
        for name in recipes():
            typer.echo(name)
    elif what is Listed.prompts:
        for path in sorted((Path(__file__).parent / "debate" / "prompts").iterdir()):
            typer.echo(path.name)
    else:
        for name in plugins.names(what.value):
            typer.echo(name)


@app.command("check-tasks")
def check_tasks_command(
    data: Annotated[Path, typer.Option(help="Folder of official data: gsm8k/, math/, mmlu/, …")],
    task: Annotated[list[str], typer.Option(help="This task alone (can be given again); default: all.")] = [],
    as_json: AsJson = False,
) -> None:
    """Grade official data: every gold answer must be accepted, every wrong one beside it rejected."""
    from dataclasses import asdict

    from vivavoce.tasks.bfcl_turns_checking import NAMES, check_bfcl_turns
    from vivavoce.tasks.checking import check_tasks
    from vivavoce.tasks.tau2_checking import DOMAINS, check_tau2

    off, made = 0, []
    desks = [name for name in task if name in {domain.name for domain in DOMAINS}]
    talks = [name for name in task if name in NAMES]
    others = [name for name in task if name not in (*desks, *talks)]
    parts = [(check_tasks, others), (check_tau2, desks), (check_bfcl_turns, talks)]
    for c in chain.from_iterable(check(data, named) for check, named in parts if named or not task):
        off += len(c.off)
        made.append(asdict(c))
        if as_json:
            continue
        typer.echo(
            f"{c.task:14} {c.rows:6,} rows  {c.accepted:6,} gold accepted  {c.rejected:6,} wrong rejected  "
            + (f"{c.apart:6,} wrong ones counted apart  " if c.apart else "")
            + (f"{c.solutions_accepted:6,} of {c.solutions:,} solutions accepted  " if c.solutions else "")
            + f"({', '.join(c.files)})"
        )
        for mark, said in (("off", c.off), ("odd", c.odd)):
            for one in said:
                typer.echo(f"  {mark}: {one}", err=mark == "odd")
    if as_json:
        typer.echo(json.dumps(made, indent=2, ensure_ascii=False))
    if off:
        raise typer.Exit(1)


@import_app.command("attempts")
def import_attempts(
    source: Annotated[Path, typer.Argument(help="JSON lines of questions and attempts; see docs/formats.md.")],
    task: Annotated[str, typer.Option(help="Task whose grader reads the answers: its name, or a recipe that has it.")],
    out: Annotated[Path, typer.Option(help="File of graphs to write.")],
    form: Annotated[AttemptsForm, typer.Option(help="How the file names things.")] = AttemptsForm.documented,
) -> None:
    """Turn recorded right and wrong answers to questions into graphs."""
    from vivavoce.data.recorded import graphs_of
    from vivavoce.graph import write_graphs
    from vivavoce.tasks.attempts import GSM8K_SOLUTIONS, Fields, read_attempts

    fields = GSM8K_SOLUTIONS if form is AttemptsForm.gsm8k else Fields()
    judge = _task(task)
    made = list(graphs_of(read_attempts(source, fields, judge.name), judge))
    write_graphs(out, made)
    right = sum(bool(n.correct) for g in made for n in g.nodes)
    typer.echo(f"{len(made)} graphs, {sum(len(g.nodes) for g in made)} answers ({right} right) in {out}", err=True)


@import_app.command("fair")
def import_fair(
    path: Annotated[list[Path], typer.Argument(help="Folder of one released data set, or its three JSON files.")],
    out: Annotated[Path | None, typer.Option(help="File of graphs to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn the released files of peer review (FAIR, arXiv:2410.03663) into graphs, and say what is odd about them."""
    from dataclasses import asdict

    from vivavoce.data.fair import read_fair, summary, told
    from vivavoce.graph import write_graphs

    graphs = read_fair(path)
    found = summary(graphs)
    if out is not None:
        write_graphs(out, graphs)
        typer.echo(f"{len(graphs)} graphs in {out}", err=True)
    typer.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False) if as_json else told(found))


@debate_app.command("value")
def debate_value(
    recipe: RecipePath,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    set_: Overrides = [],
    as_json: AsJson = False,
) -> None:
    """Whether a debate would teach more than its teachers alone, before anything is trained on it.

    How likely verified answers are to each scorer without and with the debate, who changed their mind, and whether
    stated confidence means anything. The debate is held in the run directory, so that a run pays nothing for it again.
    """
    import asyncio

    from vivavoce.methods import debate_opd
    from vivavoce.run import open_run

    loaded = _load(recipe, set_)
    if not isinstance(loaded, debate_opd.Options):
        raise DataError(f"a recipe of {loaded.method} has no scorers", str(recipe), "give a recipe of debate_opd")
    with open_run(out or Path("runs") / loaded.name, loaded) as opened:
        found = asyncio.run(debate_opd.value(loaded, opened))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    likely = [
        (name, str(v["answers"]), _cell(v["nll_plain"]), _cell(v["nll_debate"]), _cell(v["likelier"]))
        for name, v in found["likelihood"].items()
    ]
    _print_table(("scorer", "verified answers", "-log p alone", "after the debate", "share made likelier"), likely)
    changed = [(r, *(str(v[k]) for k in ("WR", "RW", "WW", "RR"))) for r, v in found["flips"].items()]
    _print_table(("round", "wrong to right", "right to wrong", "stayed wrong", "stayed right"), changed)
    said = [
        (r, *(_cell(v[k]) for k in ("stated", "auroc", "calibration_error"))) for r, v in found["confidence"].items()
    ]
    _print_table(("round", "stated", "AUROC", "calibration error"), said)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


@review_app.command("sweep")
def review_sweep(
    path: Annotated[Path, typer.Argument(help="Run directory, or a file of graphs.")], as_json: AsJson = False
) -> None:
    """What other rules of acceptance would keep, and how the reviewers judge; no model is asked."""
    from dataclasses import asdict

    from vivavoce.data.calibration import calibrate
    from vivavoce.data.sweep import sweep, told
    from vivavoce.graph import read_graphs

    graphs = list(read_graphs(_graphs(path)))
    if not any(n.kind == "review" for g in graphs for n in g.nodes):
        raise DataError("there is no review in the graphs", str(path), "give a run of peer review")
    rows, found = sweep(graphs), calibrate(graphs)
    if as_json:
        shown = {"rules": [asdict(row) for row in rows], "calibration": asdict(found)}
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        typer.echo(told(rows, found))


@app.command()
def trees(
    graphs: Annotated[Path, typer.Argument(help="Run directory, or a file of graphs.")],
    task: Annotated[
        str, typer.Option(help="Task, for its answer format and steps: its name, or a recipe that has it.")
    ],
    out: Annotated[Path, typer.Option(help="File of trees to write.")],
    prompts: Annotated[str, typer.Option(help="Prompt set of the debate.")] = "general",
    student: Annotated[str, typer.Option(help="Name of the student in the graphs.")] = "student",
    set_: Overrides = [],
) -> None:
    """Grow preference trees from graphs; keys of a recipe's `trees:` by --set."""
    from vivavoce.config import checked_overrides
    from vivavoce.data.export import tree_rows, write_rows
    from vivavoce.data.rules import TreeRules
    from vivavoce.data.trees import Grower, preference_trees
    from vivavoce.debate.prompting import prompt_set
    from vivavoce.debate.rules import DebateRules
    from vivavoce.graph import read_graphs

    kept = list(read_graphs(_graphs(graphs)))
    speakers = tuple(dict.fromkeys(name for g in kept for name in g.agents))
    # No model is at hand to count its tokens: four characters stand for one where a context has to fit a budget.
    grower = Grower(
        checked_overrides(TreeRules, set_),
        DebateRules(prompts=prompts),
        prompt_set(prompts),
        _task(task),
        student,
        speakers,
        (student,),
        lambda text: len(text) // 4,
    )
    typer.echo(f"{write_rows(out, tree_rows(preference_trees(kept, grower)))} trees in {out}", err=True)


@train_app.command("sft")
def train_sft_command(
    data: Annotated[Path, typer.Argument(help="Rows, as a run keeps them in data/.")],
    model: Annotated[str, typer.Option(help="Model folder, Hub id, or schoolhouse:NAME.")],
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")],
    seed: int = 0,
    set_: Overrides = [],
) -> None:
    """Supervised fine-tuning (keys of `sft:` by --set)."""
    from vivavoce.train.settings import SFTSettings

    _train(data, model, out, seed, set_, SFTSettings)


@train_app.command("tree-dpo")
def train_tree_dpo_command(
    data: Annotated[Path, typer.Argument(help="Trees, as a run keeps them in data/.")],
    model: Annotated[str, typer.Option(help="Model folder, Hub id, or schoolhouse:NAME.")],
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")],
    seed: int = 0,
    set_: Overrides = [],
) -> None:
    """T-DPO on preference trees (keys of `dpo:` by --set)."""
    from vivavoce.train.settings import TreeDPOSettings

    _train(data, model, out, seed, set_, TreeDPOSettings)


@train_app.command("two-task")
def train_two_task_command(
    data: Annotated[Path, typer.Argument(help="Rows of both streams, as a run of peer_review keeps them in data/.")],
    model: Annotated[str, typer.Option(help="Model folder, Hub id, or schoolhouse:NAME.")],
    out: Annotated[Path, typer.Option(help="Folder of the trained model.")],
    seed: int = 0,
    set_: Overrides = [],
) -> None:
    """Joint training on feedback and rationales (keys of `two_task:` by --set)."""
    from vivavoce.train.settings import TwoTaskSettings

    _train(data, model, out, seed, set_, TwoTaskSettings)


def _train(data: Path, model: str, out: Path, seed: int, overrides: list[str], kind: Any) -> None:
    from vivavoce.agents.weights import folder
    from vivavoce.config import checked_overrides
    from vivavoce.train.jobs import Job, train_here

    if not data.is_file():
        raise DataError("no such file of rows", str(data), "see data/ in a run, or `viva trees`")
    job = Job(out.name, folder(model), model, data, checked_overrides(kind, overrides), seed)
    done = train_here(job, out)
    typer.echo(
        f"loss {done.first_loss:.4f} -> {done.last_loss:.4f} in {done.steps} updates, {done.seconds:.0f} s; "
        f"model in {done.path}"
    )


@bench_app.command("tree-dpo")
def bench_tree_dpo(
    shape: Annotated[list[str], typer.Option(help="RIGHTxWRONG answers of a tree.")] = ["2x2"],
    context: Annotated[int, typer.Option(help="Tokens of the context.")] = 1000,
    answers: Annotated[int, typer.Option(help="Tokens of an answer.")] = 256,
    hidden: Annotated[int, typer.Option(help="Width of the random model.")] = 512,
    layers: Annotated[int, typer.Option(help="Layers of the random model.")] = 2,
    vocabulary: Annotated[int, typer.Option(help="Tokens that it knows.")] = 4096,
    trees: Annotated[int, typer.Option(help="Trees of the update.")] = 1,
    as_json: AsJson = False,
) -> None:
    """The packed T-DPO step against TRL's DPOTrainer, on the same weights and pairs."""
    sizes = [re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", one) for one in shape]
    if not all(sizes):
        raise RecipeError("a shape is RIGHTxWRONG", f"--shape {' '.join(shape)}", "say --shape 2x2")
    with _peer("trl"):
        from vivavoce.bench.models import Size
        from vivavoce.bench.tree_dpo import Shape, run

    shapes = [Shape(int(s[1]), int(s[2]), context, answers) for s in sizes if s]
    found = [run(s, Size.narrow(hidden, layers, vocabulary), trees=trees) for s in shapes]
    typer.echo(json.dumps([one.summary() for one in found], indent=2) if as_json else "\n".join(map(str, found)))


@bench_app.command("sft")
def bench_sft(as_json: AsJson = False) -> None:
    """The packed SFT step against TRL's SFTTrainer: answers that share their question, and unrelated rows."""
    with _peer("trl"):
        from vivavoce.bench.sft import run

    found = run()
    typer.echo(json.dumps([one.summary() for one in found], indent=2) if as_json else "\n".join(map(str, found)))


@bench_app.command("on-policy")
def bench_on_policy(
    states: Annotated[int, typer.Option(help="States of the step.")] = 8,
    answers: Annotated[int, typer.Option(help="Tokens of an answer.")] = 128,
    vocabulary: Annotated[int, typer.Option(help="Tokens of the vocabulary.")] = 32768,
    transcript: Annotated[int, typer.Option(help="Tokens of the transcript that answers are scored under.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """The on-policy step against TRL's DistillationTrainer, scoring under a shared transcript, and whole epochs."""
    with _peer("trl"):
        from vivavoce.bench.models import Size
        from vivavoce.bench.on_policy import Shape, run, whole

    shape = Shape(states=states, answer=answers, transcript=transcript)
    found = [*run(shape, Size.narrow(256, 4, vocabulary)), whole(rollouts=1), whole(rollouts=4)]
    typer.echo(json.dumps([one.summary() for one in found], indent=2) if as_json else "\n".join(map(str, found)))


@bench_app.command("generate")
def bench_generate(
    debates: Annotated[int, typer.Option(help="Debates in flight at once.")] = 256,
    rounds: Annotated[int, typer.Option(help="Rounds of each.")] = 3,
    answer: Annotated[int, typer.Option(help="Tokens of an answer, median.")] = 48,
    hidden: Annotated[int, typer.Option(help="Width of the random model.")] = 128,
    layers: Annotated[int, typer.Option(help="Layers of the random model.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Local generation for many debates at once against `generate` in padded batches, on the same weights."""
    from vivavoce.bench.generate import Shape, run
    from vivavoce.bench.models import Size

    found = run(Shape(debates=debates, rounds=rounds, answer=answer), Size.narrow(hidden, layers, 4096))
    typer.echo(json.dumps(found.summary(), indent=2) if as_json else str(found))


@bench_app.command("scaling")
def bench_scaling(
    repeats: Annotated[int, typer.Option(min=1, help="Passes of each side.")] = 3, as_json: AsJson = False
) -> None:
    """How cost grows with the tree's width, context, lengths, vocabulary and number of teachers; TRL beside."""
    with _peer("trl"):
        from vivavoce.bench.scaling import HEAD, run

    found = list(run(repeats))
    if as_json:
        typer.echo(json.dumps([point.summary() for point in found], indent=2))
    else:
        _print_table(HEAD, [point.cells for point in found])


@bench_app.command("gpu")
def bench_gpu(
    repeats: Annotated[int, typer.Option(min=1, help="Passes of each side.")] = 5, as_json: AsJson = False
) -> None:
    """The same comparisons on a GPU: bfloat16, random weights of Qwen3-0.6B's dimensions; skipped without one."""
    with _peer("trl"):
        from vivavoce.bench.gpu import available, run

    if not available():
        typer.echo("[]" if as_json else "skipped: torch sees no CUDA device here")
        return
    found = []
    for one in run(repeats):
        found.append(one.summary())
        if not as_json:
            typer.echo(str(one))
    if as_json:
        typer.echo(json.dumps(found, indent=2))


@bench_app.command("debate")
def bench_debate(
    questions: Annotated[int, typer.Option(min=1, help="Questions to debate.")] = 500,
    in_flight: Annotated[int, typer.Option(min=1, help="Debates at once.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="Answer rounds.")] = 3,
    teachers: Annotated[int, typer.Option(min=1, help="Who debates.")] = 4,
    as_json: AsJson = False,
) -> None:
    """The debate engine's own time and memory, with scripted agents that answer at once."""
    from dataclasses import asdict

    from vivavoce.bench.debate import measure

    found = measure(questions, in_flight, rounds, teachers)
    typer.echo(json.dumps(asdict(found), indent=2) if as_json else found)


@bench_app.command("engine")
def bench_engine(
    distilabel: Annotated[
        Path | None, typer.Option(help="Python of an environment with distilabel[openai], to measure beside ours.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each kind; the median counts.")] = 3,
    questions: Annotated[int, typer.Option(min=0, help="Debated for the memory; 0 leaves that out.")] = 2000,
    as_json: AsJson = False,
) -> None:
    """The engine against a server on loopback: rate against the ideal, own cost, memory; the openai package beside."""
    from vivavoce.bench.debate import Measured
    from vivavoce.bench.engine import run, told

    found = run(distilabel, repeats, questions)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    head = ("what", "engine", "calls", "s", "of ideal", "calls/s", "retries", "CPU ms/call", "peak MiB")
    _print_table(head, told(found))
    if questions:
        typer.echo(Measured(**found["memory"]))


@bench_app.command("sandbox")
def bench_sandbox(
    hostile: Annotated[int, typer.Option(min=1, help="Hostile programs, each kind in turn.")] = 1000,
    ordinary: Annotated[int, typer.Option(min=1, help="Ordinary programs, for the speed.")] = 400,
    as_json: AsJson = False,
) -> None:
    """The sandbox against hostile programs: none may escape or outlive its limit; and programs a second."""
    from dataclasses import asdict

    from vivavoce.bench.sandbox import run

    found = run(hostile, ordinary)
    typer.echo(json.dumps(asdict(found), indent=2) if as_json else found)
    if found.escaped or found.outlived or found.passed:
        raise typer.Exit(1)


@contextmanager
def _peer(package: str) -> Iterator[None]:
    """Around the import of a benchmark that measures against ``package``, which nothing else here needs."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        what = f"this benchmark measures against {package}, which is not installed"
        raise MissingDependency(what, "viva bench", 'pip install "vivavoce[bench]"') from error


def _load(recipe: Path, overrides: list[str]) -> Recipe:
    from vivavoce.config import find_recipe, load_recipe

    return load_recipe(find_recipe(recipe), overrides)


def _task(named: str) -> Task:
    from vivavoce.tasks import open_task

    if Path(named).suffix not in (".yaml", ".yml"):
        return open_task(named, {})
    spec = _load(Path(named), []).task
    return open_task(spec.name, spec.options)


def _graphs(path: Path) -> Path:
    file = path / "graphs" / "train.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise DataError("there are no graphs", str(file), "give a run directory or a file of graphs")
    return file


def _span(span: Span, kind: str) -> str:
    """As expected, and in brackets at least and at most where they differ."""
    from vivavoce.agents.budget import money

    words = {"money": money, "calls": lambda n: f"{n:,.0f}"}.get(kind, _short)
    least, usual, most = map(words, (span.least, span.expected, span.most))
    return usual if least == most else f"{usual} ({least} to {most})"


def _short(n: float) -> str:
    """Three or four digits: ``950``, ``12.3k``, ``4.56M``."""
    return f"{n:,.0f}" if n < 1e4 else f"{n / 1e3:.1f}k" if n < 1e6 else f"{n / 1e6:,.2f}M"


def _print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(*head)
    for row in rows:
        shown.add_row(*row)
    # A terminal has the width that it has; what goes into a file need not be squeezed.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(shown)


if __name__ == "__main__":
    main()
