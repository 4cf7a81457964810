"""Commands on what was recorded: bring it in, look at it, judge it, and write it in other forms."""

from __future__ import annotations

import json
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vivavoce.cli.shared import PLAIN, AsJson, Overrides, RecipePath, graphs_in, recipe_of, recipe_of_run, task_of
from vivavoce.cli.tables import cell, print_table
from vivavoce.errors import DataError

if TYPE_CHECKING:
    from vivavoce.records import Problem

graph_app = typer.Typer(**PLAIN, help="Show what the agents said.")
import_app = typer.Typer(**PLAIN, help="Turn recorded material into graphs.")
review_app = typer.Typer(**PLAIN, help="Show reviews, and the texts that they accept.")
debate_app = typer.Typer(**PLAIN, help="Hold debates, and measure what they are worth.")


class Rows(StrEnum):
    """The forms and rows of `viva export`."""

    messages = "messages"
    prompt_completion = "prompt-completion"
    preferences = "preferences"
    kto = "kto"
    trees = "trees"
    llama_factory = "llama-factory"
    ms_swift = "ms-swift"
    verl = "verl"
    openai = "openai"


class AttemptsForm(StrEnum):
    """Forms that `viva import attempts` reads."""

    documented = "documented"
    gsm8k = "gsm8k"


@graph_app.command("show")
def graph_show(
    path: Annotated[Path, typer.Argument(help="Run directory, or a file of graphs.")],
    problem: Annotated[
        str | None, typer.Argument(help="Id of a problem; default: the first in which an agent changed its answer.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one debate: the text of each agent, and the agents that changed their mind."""
    from vivavoce.graph import read_graphs
    from vivavoce.report.sources import Sources
    from vivavoce.report.transcript import transcript

    graphs = read_graphs(graphs_in(path))
    if problem is None:
        kept = list(graphs)
        if not kept:
            raise DataError("there is no graph", str(path), "run the debate first")
        shown = next((g for g in kept if any(t in ("WR", "RW") for *_, t in g.transitions())), kept[0])
    else:
        shown = next((g for g in graphs if g.problem.id == problem), None)
        if shown is None:
            raise DataError(
                f"no problem `{problem}`",
                str(path),
                "`viva view RUN` lists the ids; so does `zcat` of graphs/*.jsonl.gz",
            )
    typer.echo(shown.to_json() if as_json else transcript(shown, Sources(path).task if path.is_dir() else None))


def export(
    source: Annotated[Path, typer.Argument(help="Run directory, or a file of rows or trees.")],
    rows: Annotated[Rows, typer.Option("--as", help="Form of the rows.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    arm: Annotated[
        str, typer.Option(help="Which data set of the run: an arm, or a file in data/ without .jsonl.")
    ] = "",
    whole: Annotated[
        bool, typer.Option("--whole", help="Expand trees of single steps to whole answers, from the run's graphs.")
    ] = False,
) -> None:
    """Write rows in a form that another trainer reads as it is: TRL (messages, prompt-completion, preferences, kto),
    LLaMA-Factory, ms-swift, verl, OpenAI's fine-tuning; or whole trees."""
    from vivavoce.data.export import form_rows, takes, whole_answers, write_form
    from vivavoce.data.training_rows import training_rows
    from vivavoce.records import Example, Tree

    file = source if source.is_file() else _rows_of(source, arm) if arm else _usual_rows(source, rows)
    kind = Tree if _holds_trees(file) else Example
    if not takes(rows.value, kind):
        has = "trees" if kind is Tree else "answers to learn"
        do = "give another --arm, or --as preferences" if kind is Tree else "give an --arm with trees, or --as messages"
        raise DataError(f"the file holds {has}, which the form {rows.value} does not take", str(file), do)
    rows_read: list[Example] | list[Tree] = training_rows(file, Tree) if kind is Tree else training_rows(file, Example)
    problems = {}
    if source.is_dir() and (whole or rows is Rows.verl):
        texts, problems = _texts_of(source)
        rows_read = list(whole_answers(training_rows(file, Tree), texts)) if whole and kind is Tree else rows_read
    elif whole:
        raise DataError(
            "a file alone does not hold whole answers", str(source), "give the run that it is of, and --arm"
        )
    n, files = write_form(out, rows.value, form_rows(rows.value, rows_read, problems), kind)
    of = "" if source.is_file() else f" of {file.stem}"
    typer.echo(f"{n:,} rows{of} in {', '.join(map(str, files))}", err=True)


def _usual_rows(run: Path, form: Rows) -> Path:
    """The rows of a run that a form takes if no arm is named: those of the run's own method, else the first."""
    from vivavoce.data.export import takes
    from vivavoce.files import json_lines, json_object, object_in
    from vivavoce.records import Example, Tree

    fits = list[Path]()
    for file in sorted((run / "data").glob("*.jsonl")):
        first = next(json_lines(file), None)
        row = json_object(first[1], str(file)) if first else {}
        kind = Tree if "chosen" in row else Example if "completion" in row else None
        if kind is not None and takes(form.value, kind):
            fits.append(file)
    results = run / "results.json"
    main = object_in(results, "check whether it was edited").get("main") if results.is_file() else None
    wanted = "trees-0", "debate_reflect_sft", main
    if not fits:
        what = f"the run has no rows that the form {form.value} takes"
        raise DataError(what, str(run / "data"), "give another --as, or check whether the run had anything to learn")
    return next((file for name in wanted for file in fits if file.stem == name), fits[0])


def _rows_of(run: Path, name: str) -> Path:
    """A file of rows of a run, by the name of an arm or of the file."""
    from vivavoce.files import file_name

    for file in (run / "data" / f"{file_name(name)}.jsonl", run / "data" / f"{name}.jsonl"):
        if file.is_file():
            return file
    known = ", ".join(sorted(p.stem for p in (run / "data").glob("*.jsonl")))
    raise DataError(f"the run has no rows `{name}`", str(run), f"--arm takes one of: {known or 'none yet'}")


def _holds_trees(file: Path) -> bool:
    """Whether a file holds trees or pairs, by its first row."""
    from vivavoce.files import json_lines, json_object

    first = next(json_lines(file), None)
    return first is not None and "chosen" in json_object(first[1], f"{file}, row {first[0]}")


def _texts_of(run: Path) -> tuple[dict[str, str], dict[str, Problem]]:
    """The answers of a run by their nodes, as a student is taught to write them, and its questions by id."""
    from vivavoce.committee.prompting import prompt_set
    from vivavoce.graph import graph_files, read_graphs

    recipe = recipe_of_run(run)
    taught = prompt_set(recipe.rules.prompts).lesson_of if recipe else str
    texts: dict[str, str] = {}
    problems: dict[str, Problem] = {}
    for file in graph_files(run).values():
        for graph in read_graphs(file):
            problems[graph.problem.id] = graph.problem
            texts |= {node.id: taught(node.text) for node in graph.nodes}
    return texts, problems


def check_tasks_command(
    data: Annotated[Path, typer.Option(help="Folder of official data: gsm8k/, math/, mmlu/, …")] = Path("data"),
    task: Annotated[
        list[str],
        typer.Option(help="Only this task (repeat the option for more); default: all that have official files."),
    ] = [],
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
            + (f"{c.unknown:6,} without a known answer  " if c.unknown else "")
            + (f"({', '.join(c.files)})" if c.files else "")
        )
        for mark, lines in (("off", c.off), ("odd", c.odd)):
            for one in lines:
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
    form: Annotated[AttemptsForm, typer.Option(help="Names of the file's fields.")] = AttemptsForm.documented,
) -> None:
    """Turn recorded right and wrong answers to questions into graphs."""
    from vivavoce.data.recorded import graphs_of
    from vivavoce.graph import write_graphs
    from vivavoce.records import Node
    from vivavoce.tasks.attempts import GSM8K_SOLUTIONS, Fields, read_attempts

    fields = GSM8K_SOLUTIONS if form is AttemptsForm.gsm8k else Fields()
    judge = task_of(task)
    contradicted = list[Node]()
    made = list(graphs_of(read_attempts(source, fields, judge.name), judge, contradicted))
    write_graphs(out, made)
    right = sum(bool(n.correct) for g in made for n in g.nodes)
    typer.echo(f"{len(made)} graphs, {sum(len(g.nodes) for g in made)} answers ({right} right) in {out}", err=True)
    if contradicted:
        one, say = contradicted[0], "1 flag says" if len(contradicted) == 1 else f"{len(contradicted)} flags say"
        typer.echo(f"{say} otherwise than the grader, as of {one.agent} on {one.problem}: look before use", err=True)


@import_app.command("fair")
def import_fair(
    path: Annotated[list[Path], typer.Argument(help="Folder of one released data set, or its three JSON files.")],
    out: Annotated[Path | None, typer.Option(help="File of graphs to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn the released files of peer review (FAIR, arXiv:2410.03663) into graphs, and say what is odd about them."""
    from dataclasses import asdict

    from vivavoce.data.fair import read_fair, summary, summary_text
    from vivavoce.graph import write_graphs

    graphs = read_fair(path)
    counts = summary(graphs)
    if out is not None:
        write_graphs(out, graphs)
        typer.echo(f"{len(graphs)} graphs in {out}", err=True)
    typer.echo(json.dumps(asdict(counts), indent=2, ensure_ascii=False) if as_json else summary_text(counts))


@debate_app.command("value")
def debate_value(
    recipe: RecipePath,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/NAME.")] = None,
    set_: Overrides = [],
    as_json: AsJson = False,
) -> None:
    """Measure whether a debate would teach more than its teachers alone, before anything is trained on it.

    How likely verified answers are to each scorer without and with the debate, who changed their mind, and whether
    stated confidence means anything. The debate is held in the run directory, so that a run pays nothing for it again.
    """
    import asyncio

    from vivavoce.methods import debate_opd
    from vivavoce.run import open_run
    from vivavoce.workspace import earlier_runs

    loaded = recipe_of(recipe, set_)
    if not isinstance(loaded, debate_opd.Options):
        raise DataError(f"a recipe of {loaded.method} has no scorers", str(recipe), "give a recipe of debate_opd")
    path = out or Path("runs") / loaded.name
    with open_run(path, loaded, earlier=earlier_runs(path, loaded)) as opened:
        figures = asyncio.run(debate_opd.value(loaded, opened))
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    likely = [
        (name, str(v["answers"]), cell(v["nll_plain"]), cell(v["nll_debate"]), cell(v["likelier"]))
        for name, v in figures["likelihood"].items()
    ]
    print_table(("scorer", "verified answers", "-log p alone", "after the debate", "share made likelier"), likely)
    changed = [(r, *(str(v[k]) for k in ("WR", "RW", "WW", "RR"))) for r, v in figures["flips"].items()]
    print_table(("round", "wrong to right", "right to wrong", "stayed wrong", "stayed right"), changed)
    cells = [
        (r, *(cell(v[k]) for k in ("stated", "auroc", "calibration_error"))) for r, v in figures["confidence"].items()
    ]
    print_table(("round", "stated", "AUROC", "calibration error"), cells)


@review_app.command("sweep")
def review_sweep(
    path: Annotated[Path, typer.Argument(help="Run directory, or a file of graphs.")], as_json: AsJson = False
) -> None:
    """Show the rationales that other rules of acceptance would keep, and statistics of the reviewers; no model is
    asked.

    For a run, the threshold is its own, and the verdicts are by its own rules.
    """
    from dataclasses import asdict

    from vivavoce.data.acceptance import RELEASED
    from vivavoce.data.calibration import calibrate
    from vivavoce.data.sweep import sweep, sweep_text
    from vivavoce.graph import read_graphs

    graphs, recipe = list(read_graphs(graphs_in(path))), recipe_of_run(path)
    if not any(n.kind == "review" for g in graphs for n in g.nodes):
        raise DataError("there is no review in the graphs", str(path), "give a run of peer review")
    rules, seed = getattr(recipe, "accept", RELEASED), recipe.seed if recipe is not None else 0
    rows, calibration = sweep(graphs, threshold=rules.threshold), calibrate(graphs, rules, seed)
    if as_json:
        shown = {"rules": [asdict(row) for row in rows], "calibration": asdict(calibration)}
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        typer.echo(sweep_text(rows, calibration))


def trees(
    graphs: Annotated[Path, typer.Argument(help="Run directory, or a file of graphs.")],
    out: Annotated[Path, typer.Option(help="File of trees to write.")],
    task: Annotated[
        str, typer.Option(help="Task that gives answer format and steps: its name, or a recipe; default: the run's.")
    ] = "",
    prompts: Annotated[str, typer.Option(help="Prompt set of the debate; default: the run's, or general.")] = "",
    student: Annotated[str, typer.Option(help="Name of the student in the graphs; default: the run's.")] = "",
    set_: Overrides = [],
) -> None:
    """Grow preference trees from graphs; keys of a recipe's `trees:` by --set, a run's own being their defaults."""
    from vivavoce.committee.prompting import prompt_set
    from vivavoce.committee.wording import Talk, Wording
    from vivavoce.config import checked_overrides
    from vivavoce.data.export import tree_rows, write_rows
    from vivavoce.data.rules import TreeRules
    from vivavoce.data.trees import Grower, preference_trees
    from vivavoce.graph import read_graphs
    from vivavoce.methods.regrowing import run_grower
    from vivavoce.progress import say

    recipe, kept = recipe_of_run(graphs), read_graphs(graphs_in(graphs))
    judge = task_of(task) if task else None
    if recipe is not None:
        tree_grower = run_grower(recipe, graphs, judge, prompts, student, set_)
        if getattr(getattr(recipe, "attempts", None), "samples", 0):
            say("the graphs do not hold the student's later attempts; trees with them are in data/trees-SEED.jsonl")
    elif judge is None:
        raise DataError("a file of graphs does not name its task", str(graphs), "give --task NAME")
    else:
        own, options = student or "student", Talk(prompts=prompts or "general")
        # No model is at hand to count its tokens: four characters stand for one if a context has to fit a budget.
        wording = Wording(options, prompt_set(options.prompts), judge, lambda text: len(text) // 4)
        tree_grower = Grower(checked_overrides(TreeRules, set_), wording, own, (own,))
    typer.echo(f"{write_rows(out, tree_rows(preference_trees(kept, tree_grower)))} trees in {out}", err=True)


__all__ = ["check_tasks_command", "debate_app", "export", "graph_app", "import_app", "review_app", "trees"]
