"""The command that plans a recipe's run: what it will ask, cost and train, and how long that takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivavoce.cli.runs import earlier_runs, run_folder, say_lent
from vivavoce.cli.shared import HERE, AsJson, Overrides, RecipePath, recipe_of
from vivavoce.cli.tables import print_table, with_range

if TYPE_CHECKING:
    from vivavoce.committee.rehearsal import Planned
    from vivavoce.config import Recipe
    from vivavoce.methods.foreseeing import InStore
    from vivavoce.methods.measured import Measured
    from vivavoce.methods.trainings import Training


def plan(
    recipe: RecipePath = HERE,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Base the plan on what was measured in this run directory, for example an earlier run's."
        ),
    ] = None,
    pilot: Annotated[
        int,
        typer.Option(
            min=0,
            help="First ask this many questions, drawn by seed and group, and base the plan on them; their calls "
            "are paid for.",
        ),
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Run directory of the pilot; default: runs/NAME.")] = None,
    set_: Overrides = [],
    as_json: AsJson = False,
) -> None:
    """Predict calls, tokens and cost of a recipe, with a range; nothing is spent, unless by --pilot."""
    from dataclasses import asdict
    from functools import reduce
    from operator import add

    from vivavoce import plugins
    from vivavoce.agents.unsent import unsent
    from vivavoce.methods.measured import measured_run
    from vivavoce.methods.trainings import total_of
    from vivavoce.progress import awaited, say

    loaded = recipe_of(recipe, set_)
    method = plugins.load("methods", loaded.method, "method")
    if pilot:
        from_ = out or run_folder(recipe, loaded)
        plugins.need_function(method, "pilot", "async def pilot(recipe, run, questions)", loaded.method)
        _pilot(loaded, method, pilot, from_)
    with awaited("rehearsing the questions"):
        measured = measured_run(from_) if from_ else None
        planned, trained = method.plan(loaded, measured), _trainings(method, loaded, measured)
    stored = _in_store(loaded, method, out or run_folder(recipe, loaded))
    kinds = ("calls", "prompt_tokens", "completion_tokens", "money")
    total = {kind: reduce(add, (getattr(p, kind) for p in planned)) for kind in kinds}
    not_sent = {
        a.name: dropped for a in loaded.agents if (dropped := unsent(a.name, a.backend, a.options, a.sampling()))
    }
    if as_json:
        shown = {kind: asdict(span) for kind, span in total.items()}
        facts = {"currency": loaded.currency, "lines": [asdict(p) for p in planned], "total": shown}
        facts["in_store"] = asdict(stored) if stored else None
        facts["not_sent"] = {name: [one.field for one in dropped] for name, dropped in not_sent.items()}
        facts["prompts"] = _prompts(loaded)
        facts["trainings"] = {"lines": [asdict(t) for t in trained], "total": asdict(total_of(trained))}
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    priced = [a.name for a in loaded.agents if a.price]
    shown_kinds = kinds if priced else kinds[:3]
    rows = [(p.stage, p.agent, *(with_range(getattr(p, kind), kind) for kind in shown_kinds)) for p in planned]
    rows.append(("all", "", *(with_range(total[kind], kind) for kind in shown_kinds)))
    heads = ("calls", "prompt tokens", "completion tokens", loaded.currency)
    print_table(("stage", "agent", *heads[: len(shown_kinds)]), rows)
    _show_trainings(trained, from_)
    if measured is not None:
        _say_time(planned, trained, measured)
    if from_:
        _say_measured(planned, from_)
    else:
        say(
            "expected (least to most): by expected_tokens and expected_right of the agents; the range is all that the "
            "rules allow. --pilot 20 asks 20 questions first, predicts more exactly, and includes the time"
        )
    _say_prompts(loaded)
    if not from_:
        _say_saved(loaded, set_, recipe, total)
    if stored and stored.calls:
        about = f"{stored.calls:,} of {stored.looked_up:,} calls about {stored.questions:,} questions"
        say(f"{about}, of those made before training, are in {', '.join(stored.runs)}: they cost nothing")
    for name, dropped in not_sent.items():
        for one in dropped:
            say(f"{name}: {one.message}" + (f" ({one.do})" if one.do else ""))
    if unpriced := [a.name for a in loaded.agents if not a.price and a.backend not in ("hf_local", "scripted")]:
        say(f"no price is given for {', '.join(unpriced)}: the sum leaves out what they cost")


def _prompts(loaded: Recipe) -> dict[str, str]:
    """The prompt set of a recipe; of a chain, that of each stage by its name."""
    return {stage: part.rules.prompts for stage, part in (loaded.parts or {"": loaded}).items()}


def _say_prompts(loaded: Recipe) -> None:
    """The prompt sets, and whether they are those that the task has without a key of the recipe."""
    from vivavoce.committee.prompting import prompts_of
    from vivavoce.progress import say

    for stage, part in (loaded.parts or {"": loaded}).items():
        own = prompts_of(part.task.name, part.task.options, part.rules.templates)
        usual = f"that of {part.task.name}" if part.rules.prompts == own else f"that of {part.task.name} is {own}"
        say(f"prompts{stage and ' of ' + stage}: the set {part.rules.prompts} ({usual})")


_LOOKED_UP = 200
"""The training questions about which a plan looks for calls that were paid before."""


def _in_store(recipe: Recipe, method: Any, path: Path) -> InStore | None:
    """What earlier runs, and a run that was begun in ``path``, have paid for already; None if there are none."""
    from vivavoce.errors import UserError
    from vivavoce.methods.foreseeing import in_store
    from vivavoce.progress import awaited, say
    from vivavoce.tasks import open_task
    from vivavoce.workspace import earlier_runs

    runs = [path] if (path / "journal.sqlite").is_file() else []
    runs += earlier_runs(path, recipe)
    if not runs or not hasattr(method, "pilot"):
        return None
    try:
        with awaited("looking up what earlier runs have paid for"):
            questions = len(recipe.questions(open_task(recipe.task.name, recipe.task.options)))
            return in_store(recipe, method, runs, min(questions, _LOOKED_UP))
    except UserError as error:
        say(f"the calls that earlier runs have paid for were not counted: {error.what}")
        return None


def _trainings(method: Any, loaded: Recipe, measured: Any) -> list[Training]:
    """The trainings of a run; none if a user's own method does not list them."""
    return method.trainings(loaded, measured) if hasattr(method, "trainings") else []


def _show_trainings(trained: list[Training], run: Path | None) -> None:
    """The models that a run will train, their updates, and how long that takes."""
    from vivavoce.methods.trainings import total_of
    from vivavoce.progress import say
    from vivavoce.report.comparison import duration

    def cells(line: Training) -> tuple[str, ...]:
        updates = "by its rows" if line.updates is None else f"{line.updates:,}"
        return (f"{line.models:,}", updates, "–" if line.seconds is None else duration(line.seconds))

    if not trained:
        return
    rows = [(line.arm, line.kind, *cells(line)) for line in trained]
    models, updates, seconds = cells(total_of(trained))
    rows.append(("all", "", models, updates if updates == "by its rows" else f"{updates} in all", seconds))
    print_table(("arm", "trained by", "models", "updates of each", "time"), rows)
    if total_of(trained).seconds is None:
        where = f"in {run} too few updates were measured" if run else "--from RUN uses the time of updates in that run"
        say(f"the time of some trainings is not known: {where}")


def _say_time(planned: list[Planned], trained: list[Training], measured: Measured) -> None:
    """Print how long a run will take, by the times of an earlier run."""
    from vivavoce.methods.trainings import total_of
    from vivavoce.progress import say
    from vivavoce.report.comparison import duration

    calls: dict[str, float] = {}
    for line in planned:
        calls[line.stage] = calls.get(line.stage, 0.0) + line.calls.expected
    times = {stage: measured.seconds(stage, n) for stage, n in calls.items()}
    training = total_of(trained).seconds if trained else 0.0
    known = {stage: s for stage, s in times.items() if s is not None} | ({"training": training} if training else {})
    unknown = [stage for stage, s in times.items() if s is None] + (["training"] if training is None else [])
    if known:
        by_stage = ", ".join(f"{stage} {duration(s)}" for stage, s in known.items())
        rest = f"; not known for {', '.join(unknown)}" if unknown else ""
        say(f"time: about {duration(sum(known.values()))} if nothing runs side by side ({by_stage}){rest}")


def _say_measured(planned: list[Planned], run: Path) -> None:
    """Print which lines of a plan go by an earlier run, and which do not because it finished too few questions."""
    from vivavoce.progress import say

    known = dict.fromkeys(p.stage for p in planned if p.measured)
    other = dict.fromkeys(p.stage for p in planned if p.stage not in known)
    rules = "by the length of replies there, if there were any; the range is all that the rules allow"
    if known:
        say(
            f"expected (least to most) of {', '.join(known)}: by what was measured in {run}, plus or minus "
            "two standard errors"
        )
        if other:
            say(f"of {', '.join(other)}: {rules}")
    else:
        say(f"expected (least to most): {rules}; in {run} too few questions were finished to be used")


def _say_saved(loaded: Recipe, set_: list[str], path: Path, total: dict[str, Any]) -> None:
    """Print the calls that a recipe spares by debating only if it pays."""
    from vivavoce import plugins
    from vivavoce.agents.budget import money
    from vivavoce.progress import say

    condition = {"if_drafts_disagree": "drafts disagree", "if_student_wrong": "the student is wrong"}
    rule = getattr(loaded.rules, "later_rounds", "always")
    if rule == "always" or loaded.parts:
        return
    held = plugins.load("methods", loaded.method, "method").plan(recipe_of(path, [*set_, "debate.later_rounds=always"]))
    calls = sum(p.calls.expected for p in held) - total["calls"].expected
    paid = sum(p.money.expected for p in held) - total["money"].expected
    and_money = f" and {money(max(0.0, paid))} {loaded.currency}" if total["money"].expected else ""
    say(f"debates go past round 0 only if {condition[rule]}, which saves about {max(0.0, calls):,.0f} calls{and_money}")


def _pilot(recipe: Recipe, method: Any, questions: int, out: Path) -> None:
    import asyncio

    from vivavoce.agents.budget import money
    from vivavoce.progress import say
    from vivavoce.run import open_run

    with open_run(out, recipe, earlier=earlier_runs(out, recipe, None, alone=False, part=False)) as opened:
        say(f"pilot: {questions} questions are asked, and paid for, in {out}; a run there will not pay for them again")
        before = opened.journal.ledger.run.money
        asyncio.run(method.pilot(recipe, opened, questions))
        say(f"the pilot cost {money(opened.journal.ledger.run.money - before)} {recipe.currency}")
        say_lent(opened)


__all__ = ["plan"]
