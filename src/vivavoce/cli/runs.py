"""Commands around a recipe's run: whether it can run, the run itself, what it cost, and what it came to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivavoce.cli.shared import HERE, AsJson, Overrides, RecipePath, RunPath, commands, recipe_of
from vivavoce.cli.tables import finding_lines, print_table, short, width
from vivavoce.errors import BudgetReached, DataError, RecipeError

if TYPE_CHECKING:
    from vivavoce.config import Recipe
    from vivavoce.run import Run


def run(
    context: typer.Context,
    recipe: RecipePath = HERE,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/NAME.")] = None,
    set_: Overrides = [],
    update: Annotated[
        bool, typer.Option(help="After a change of the recipe, redo what depends on it and keep the rest.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option(help="Ask again for calls that failed for good.")] = False,
    details: Annotated[bool, typer.Option("--details", help="At the end, print every arm and every test.")] = False,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Take replies from here, and not from the runs beside this one: the folder of an earlier run, or a "
            "file that several runs share."
        ),
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Take no replies from earlier runs: ask, and pay for, every call anew.")
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(help="Ask only part I/N of the questions, such as 2/8, and train nothing; then `viva merge`."),
    ] = None,
) -> None:
    """Run a recipe to its report. Started again, it goes on after the last completed call and pays for no call twice.
    `viva run runs/NAME` goes on with the recipe of that run. A call that a run beside this one has paid for is free.

    At a cap of the recipe's budget it stops with code 3; with the cap raised the same command goes on.
    """
    import asyncio

    from vivavoce import plugins
    from vivavoce.exams.table import accuracies
    from vivavoce.methods.devices import check_devices
    from vivavoce.methods.missing import missing
    from vivavoce.progress import awaited, say
    from vivavoce.report import table, write_report
    from vivavoce.report.costs import facts
    from vivavoce.report.ending import ending
    from vivavoce.report.sources import Sources
    from vivavoce.run import PartDone, open_run, share_in, share_of

    loaded = recipe_of(recipe, set_)
    share, path = share_of(part) if part else None, out or run_folder(recipe, loaded)
    begun = share_in(path)
    if share is None and path == recipe:  # the folder of a part goes on as that part
        share = begun
    if share is None:
        check_devices(loaded)
    elif out is None and share != begun:
        path = path.with_name(f"{path.name}-part-{share.number}-of-{share.of}")
    earlier = earlier_runs(path, loaded, store, alone, part=share is not None)
    how: dict[str, Any] = {"update": update, "retry_failed": retry_failed}
    with open_run(path, loaded, **how, store=store, earlier=earlier, share=share) as opened:
        if alone:
            opened.note(alone=True)
        if loaded.scale is not None and share is None:
            from vivavoce.scale.ray_parts import ask_elsewhere

            ask_elsewhere(opened, **how, earlier=earlier if store is None else [store])
        say(f"{loaded.method}: {loaded.name} in {path}")
        method = plugins.load("methods", loaded.method, "method")
        try:
            outcome = asyncio.run(method.distill(loaded, opened))
        except BudgetReached:
            stopped = missing(opened, method.plan)
            opened.note(stopped=stopped)
            _say_missing(stopped, loaded.currency, path)
            say_lent(opened)
            raise
        except PartDone:
            opened.note(stopped=None, part_done=True)
            say_lent(opened)
            say(f"part {share} is done, in {path}; when all parts are done: viva merge RUN PART…, then viva run")
            return
        _need_results(outcome, method, loaded.method)
        opened.note(stopped=None)
        outcome["costs"] = facts(opened.journal.costs(), loaded.model_dump(mode="json"), opened.journal.lent())
        outcome["training"] = Sources(path).trainings([arm["name"] for arm in outcome["arms"]])
        opened.write(path / "results.json", json.dumps(outcome, indent=2, ensure_ascii=False) + "\n")
        for step, figures in enumerate(accuracies(outcome)):
            opened.track("test", figures, step)
        with awaited("writing the report"):
            write_report(path)
        say_lent(opened)
    if details:
        typer.echo(table(outcome) + "\n")
    typer.echo(ending(path, commands(context), width()))


def earlier_runs(path: Path, recipe: Recipe, store: Path | None, alone: bool, part: bool) -> list[Path]:
    """The runs whose replies a run in ``path`` may take, if no store is named and it is not to be alone."""
    from vivavoce.workspace import earlier_runs

    if alone and store is not None:
        raise RecipeError("--alone takes no replies from a store", "--alone", "give either --store or --alone")
    if store is not None and not store.is_dir() and recipe.scale is not None and not part:
        what = "a file cannot be shared by the machines of a cluster"
        raise RecipeError(what, f"--store {store}", "name the folder of an earlier run, or leave it out")
    return [] if alone or store is not None else earlier_runs(path, recipe, part)


def say_lent(opened: Run) -> None:
    """Print how many calls earlier runs have paid for, of teachers and judges if they paid any of those."""
    from vivavoce.progress import say

    student, lent, costs = opened.recipe.student.name, opened.journal.lent(), opened.journal.costs()
    if not lent:
        return
    others = [one for one in lent if one.agent != student]
    paid = sum(cost.calls for cost in costs if cost.agent != student or not others)
    taken = sum(one.calls for one in others or lent)
    runs = ", ".join(opened.manifest.get("lenders", ())) or "the store"
    named = "teacher calls" if others else "calls"
    say(f"{taken:,} of {taken + paid:,} {named} were paid by an earlier run ({runs})")


def _need_results(outcome: Any, method: Any, file: str) -> None:
    """Raise RecipeError if a user's own method returned something else than results."""
    from vivavoce import plugins

    lacks = {"task", "n", "arms", "paired"} - (outcome.keys() if isinstance(outcome, dict) else set())
    if lacks and plugins.is_own(method.__name__):
        what = f"`distill` returned no results: {', '.join(sorted(lacks))} are missing"
        do = "return what `Session.results` gives, as methods/debate_reflect.py does"
        raise RecipeError(what, plugins.place_of(method.distill, file), do)


def merge(
    run_path: Annotated[Path, typer.Argument(help="Run directory that the parts go to, new or begun.")],
    parts: Annotated[list[Path], typer.Argument(help="Directories of all parts, made by `viva run --part I/N`.")],
) -> None:
    """Bring the parts of a run together. `viva run` with the recipe and that directory then goes on to the report; no
    call of a part is made again."""
    from contextlib import ExitStack

    from vivavoce.errors import RunBusy, RunConflict
    from vivavoce.merging import open_parts, recipe_of_part, take_over
    from vivavoce.progress import say
    from vivavoce.run import open_run

    loaded = recipe_of_part(parts[0])
    if run_path.resolve() in [part.resolve() for part in parts]:
        raise RunConflict("this is one of the parts", str(run_path), "name another directory first, for the whole run")
    with ExitStack() as stack:
        opened_parts = stack.enter_context(open_parts(loaded, parts))
        try:
            opened = stack.enter_context(open_run(run_path, loaded))
        except RunBusy:
            raise
        except RunConflict as error:  # its advice is for `viva run`
            do = "name another directory for the whole run: the parts stay as they are"
            raise RunConflict(f"the parts cannot go there: {error.what}", error.where, do) from error
        calls, there = take_over(opened, opened_parts), len(opened.journal)
    took = f"{calls:,} calls of {len(opened_parts)} parts are taken over" if calls else "the parts hold nothing new"
    say(f"{took}; {run_path} has {there:,} calls; now: viva run {run_path}")


def run_folder(recipe: Path, loaded: Recipe) -> Path:
    """The folder of a recipe's run: the one that was given for the recipe, else runs/NAME."""
    return recipe if (recipe / "recipe.yaml").is_file() else Path("runs") / loaded.name


def _say_missing(stopped: dict[str, Any], currency: str, path: Path) -> None:
    from vivavoce.agents.budget import money
    from vivavoce.progress import say

    def amounts(of: dict[str, Any]) -> str:
        paid = f"{money(of['money'])} {currency}, " if stopped["spent"]["money"] or stopped["left"]["money"] else ""
        return f"{paid}{of['calls']:,} calls, {short(of['tokens'])} tokens"

    say(f"stopped in {stopped['stage']}: {stopped['done']:,} of {stopped['of']:,} done; everything is kept in {path}")
    say(f"spent by now: {amounts(stopped['spent'])} in {stopped['seconds']:,.0f} s")
    say(f"still to come, by what was measured so far: about {amounts(stopped['left'])}")


def costs(run_path: RunPath, as_json: AsJson = False) -> None:
    """Show what a run has cost so far: calls, hits, failures, tokens, money and seconds, by stage and agent."""
    from vivavoce.progress import say
    from vivavoce.report.costs import facts, lent_text, lines, money, total, unfinished_calls
    from vivavoce.report.sources import Sources

    sources = Sources(run_path)
    spent, none = sources.costs()
    if none:
        raise DataError(none, str(run_path), "give the directory of a run that has started")
    lent = sources.lent()
    if as_json:
        ledger = {
            **facts(spent, sources.recipe, lent),
            "under_way": unfinished_calls(sources.under_way(), sources.recipe),
        }
        typer.echo(json.dumps(ledger, indent=2, ensure_ascii=False))
        return
    ledger = lines(spent, sources.recipe)
    rows = [
        (
            line.stage or "–",
            line.agent,
            *(f"{n:,}" for n in (line.calls, line.hits, line.failures)),
            *(f"{n:,}" for n in (line.prompt_tokens, line.cached_tokens, line.completion_tokens)),
            money(line.money),
            f"{line.seconds:,.1f}",
        )
        for line in [*ledger, total(ledger)]
    ]
    heads = ("calls", "hits", "failures", "prompt", "of it cached", "completion")
    currency = str(sources.recipe.get("currency", "money"))
    spare = ("of it cached", "hits", "failures", "seconds")
    print_table(("stage", "agent", *heads, currency, "seconds"), rows, spare)
    if lent:
        say(lent_text(lent, sources.recipe))
    cut = unfinished_calls(sources.under_way(), sources.recipe)
    if cut["calls"]:
        say(
            f"{cut['calls']:,} more calls are under way, or a kill cut them off: at most {cut['tokens']:,} tokens and "
            f"{money(cut['money'])} {currency}, which caps count as spent"
        )


def judges(run_path: RunPath, as_json: AsJson = False) -> None:
    """Show statistics of a run's judges: verdicts that could not be read, agreement with each other and with gold."""
    from vivavoce.agents.journal import Journal
    from vivavoce.config import load_recipe
    from vivavoce.exams.judging import judging

    recipe = load_recipe(run_path / "recipe.yaml")
    if recipe.judge is None:
        raise DataError("no judge grades in this run", str(run_path), "see docs/judges.md for recipes with judges")
    with Journal(run_path / "journal.sqlite", read_only=True) as journal:
        figures = judging(journal, recipe.judge.rules)
    if as_json:
        typer.echo(json.dumps(figures, indent=2, ensure_ascii=False))
        return

    def share(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f} %"

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    typer.echo(f"{figures['answers']:,} answers judged ({figures['form']}), {figures['unjudged']:,} without a verdict")
    rows = [
        (name, f"{one['verdicts']:,}", f"{one['unreadable']:,}", f"{one['failed']:,}", number(one["mean"]),
         share(one["right"]), share(one.get("same_in_both_orders")))
        for name, one in figures["judges"].items()
    ]  # fmt: skip
    print_table(("judge", "verdicts", "unreadable", "failed", "mean", "found right", "same in both orders"), rows)
    for of_what, part in (("", figures), ("of answers to test questions", figures.get("tests", {}))):
        pairs = [(one["a"], one["b"], one) for one in part.get("between", ())]
        pairs += [(name, "gold", one) for name, one in part.get("gold", {}).items()]
        if pairs:
            lines = [(a, b, f"{one['n']:,}", share(one["agree"]), number(one["kappa"])) for a, b, one in pairs]
            print_table((of_what, "with", "answers", "agree", "kappa"), lines)


def doctor(
    recipe: RecipePath = HERE,
    offline: Annotated[bool, typer.Option(help="Ask no model: nothing is spent.")] = False,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/NAME.")] = None,
    gpus: Annotated[
        str | None,
        typer.Option(help="Compute memory for another machine than this one, such as 8x80: 8 GPUs of 80 GiB."),
    ] = None,
    set_: Overrides = [],
    as_json: AsJson = False,
) -> None:
    """Examine what a run will rely on: keys, models, endpoints, prompts, context lengths, data, disk and memory.

    Ends with code 1 if something is wrong that would fail the run.
    """
    from dataclasses import asdict

    from vivavoce.methods.doctor import examine
    from vivavoce.methods.memory import Machine
    from vivavoce.progress import say

    findings = []
    loaded, machine = recipe_of(recipe, set_), Machine.of(gpus) if gpus else None
    for finding in examine(loaded, out or run_folder(recipe, loaded), offline, machine):
        findings.append(finding)
        if not as_json:
            typer.echo(finding_lines(finding))
    if as_json:
        typer.echo(json.dumps([asdict(f) for f in findings], indent=2, ensure_ascii=False))
    failed, warned = (sum(f.level == level for f in findings) for level in ("failed", "warning"))
    say(f"{failed} failed, {warned} to look at, {len(findings) - failed - warned} in order")
    if failed:
        raise typer.Exit(1)


def evaluate(
    model: Annotated[str, typer.Option(help="Model folder, or schoolhouse:NAME.")],
    recipe: RecipePath = HERE,
    out: Annotated[Path | None, typer.Option(help="Folder for the journal and the answers.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers drawn to each question; several give pass@k.")] = 1,
    set_: Overrides = [],
    as_json: AsJson = False,
) -> None:
    """Test a model on the test questions of a recipe, asked as the recipe's students are."""
    import asyncio

    from vivavoce.methods.single import evaluate_model
    from vivavoce.report import table

    loaded = recipe_of(recipe, set_)
    outcome = asyncio.run(evaluate_model(loaded, model, out or Path("runs") / f"{loaded.name}-evaluate", samples))
    typer.echo(json.dumps(outcome, indent=2) if as_json else table(outcome))


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories: the first, and those that are compared with it.")
    ],
    arm: Annotated[
        list[str], typer.Option(help="Only this arm (repeat the option for more); default: all that the runs share.")
    ] = [],
    as_json: AsJson = False,
) -> None:
    """Compare arms of different runs, paired on the questions that all of them were asked.

    A gain is what a later run has over the first. Says too in what the recipes differ.
    """
    import yaml

    from vivavoce.config import what_decides
    from vivavoce.exams.across import across, kept_tests
    from vivavoce.progress import say
    from vivavoce.report.comparison import runs_table
    from vivavoce.run import changed_keys

    if len(runs) < 2:
        raise DataError("there is nothing to compare a run with", str(runs[0]), "give two run directories or more")
    names = [path.resolve().name for path in runs]
    shown = names if len(set(names)) == len(names) else [str(path) for path in runs]
    if len(set(shown)) < len(shown):
        raise DataError("a run is given twice", ", ".join(shown), "give each once")
    kept = [kept_tests(path, name) for path, name in zip(runs, shown, strict=True)]
    comparison = across(kept, arm)
    recipes = [what_decides(yaml.safe_load((path / "recipe.yaml").read_text("utf-8"))) for path in runs]
    comparison["differ"] = {
        name: [key for key in changed_keys(recipes[0], recipe) if key != "name"]
        for name, recipe in zip(shown[1:], recipes[1:], strict=True)
    }
    if as_json:
        typer.echo(json.dumps(comparison, indent=2, ensure_ascii=False))
        return
    typer.echo(runs_table(comparison))
    for name, keys in comparison["differ"].items():
        say(
            f"{name} differs from {shown[0]} in {', '.join(keys[:12])}{', …' if len(keys) > 12 else ''}"
            if keys
            else f"{name} has the recipe of {shown[0]}"
        )


def results(
    run_path: RunPath,
    as_csv: Annotated[bool, typer.Option("--csv", help="Every answer to a test question, a row each, as CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the table of a run; or every answer to its test questions, with question, right answer, arm, seed, prompt
    and text: --csv, or --json for JSON lines."""
    from vivavoce.report import table
    from vivavoce.report.answers import answers
    from vivavoce.report.answers import as_csv as in_csv
    from vivavoce.report.sources import Sources

    if as_csv or as_json:
        rows = answers(run_path)
        lines = in_csv(rows) if as_csv else (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        empty = True
        for line in lines:
            empty = False
            typer.echo(line, nl=False)
        if empty:
            raise DataError("the run has answered no test questions yet", str(run_path), "`viva run` goes on with it")
        return
    rows = Sources(run_path).results
    if rows is None:
        raise DataError("the run has no results yet", str(run_path), "`viva run` goes on with it")
    typer.echo(table(rows))


def report(
    run_path: RunPath,
    details: Annotated[bool, typer.Option("--details", help="Print every arm and every test too.")] = False,
) -> None:
    """Write report.html of a run again."""
    from vivavoce.progress import awaited
    from vivavoce.report import table, write_report
    from vivavoce.report.sources import Sources

    with awaited("writing the report"):
        written = write_report(run_path)
    if details:
        if (results := Sources(run_path).results) is None:
            raise DataError(
                "this run has not come to its tests yet", str(run_path), "`viva run` with its folder goes on"
            )
        typer.echo(table(results) + "\n")
    typer.echo(written)


__all__ = [
    "compare",
    "costs",
    "doctor",
    "earlier_runs",
    "evaluate",
    "judges",
    "report",
    "results",
    "run",
    "run_folder",
    "say_lent",
]
