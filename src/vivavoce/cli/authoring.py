"""Commands for those who write recipes: keys, a first recipe, what there is to name, prompts before paying."""

from __future__ import annotations

import json
import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vivavoce.cli.shared import HERE, AsJson, Overrides, RecipePath, recipe_of
from vivavoce.cli.tables import finding_lines, hung


class Room(StrEnum):
    """The rooms that `viva list` knows."""

    tasks = "tasks"
    agents = "agents"
    methods = "methods"
    protocols = "protocols"
    recipes = "recipes"
    prompts = "prompts"


def list_(
    what: Annotated[Room | None, typer.Argument(help="What to list; default: everything.")] = None,
    as_json: AsJson = False,
) -> None:
    """List tasks, agents (backends), methods, protocols, recipes or prompt sets, with what each needs."""
    from vivavoce.authoring.listing import entries_of, listing_lines

    by_room = {room.value: entries_of(room.value) for room in ([what] if what else Room)}
    if as_json:
        plain = {room: [one._asdict() for one in entries] for room, entries in by_room.items()}
        typer.echo(json.dumps(plain[what.value] if what else plain, indent=2, ensure_ascii=False))
        return
    for room, entries in by_room.items():
        if what is None:
            typer.echo(f"{room.upper()}\n")
        for line in listing_lines(entries):
            typer.echo(hung(line))
        if what is None:
            typer.echo("")


def keys(
    section: Annotated[
        str,
        typer.Argument(
            help="Section (sft, opd.objective), method, protocol, backend, task, .py file, or key; default: all."
        ),
    ] = "",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes, for editors.")] = False,
) -> None:
    """Explain the keys of a recipe: what each takes, its default, what it does."""
    from vivavoce.authoring.keys import find
    from vivavoce.authoring.page import overview, section_text
    from vivavoce.authoring.schema import schema_text

    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    if schema:
        typer.echo(schema_text(), nl=False)
    elif section:
        typer.echo("\n\n".join(section_text(*one, width) for one in find(section)))
    else:
        for path, of, about in overview():
            typer.echo(hung(f"{path}  ({of})", 4) + "\n" + hung(f"    {about}"))
        hint = "`viva keys SECTION` explains one; methods, protocols, agents and tasks too: see `viva list`"
        typer.echo("\n" + hung(hint))


def prompt(
    recipe: RecipePath = HERE,
    question: Annotated[str, typer.Option(help="Id or number of a question; default: the first.")] = "",
    agent: Annotated[str, typer.Option(help="Show only the prompts of this agent.")] = "",
    split: Annotated[str, typer.Option(help="Split of the question: train or test.")] = "train",
    set_: Overrides = [],
    as_json: AsJson = False,
) -> None:
    """Show the prompts of one question as agents will read them; no model is asked. What others will have said stands
    as ⟨answer of NAME⟩."""
    from dataclasses import asdict

    from vivavoce.authoring.prompts import prompt_lines, prompts
    from vivavoce.errors import DataError

    prompts_shown = list(prompts(recipe_of(recipe, set_), question, agent, split))
    if not prompts_shown:
        raise DataError(f"`{agent}` gets no prompt about this question", str(recipe), "check the agent's name")
    typer.echo(
        json.dumps([asdict(one) for one in prompts_shown], indent=2, ensure_ascii=False)
        if as_json
        else "\n".join(prompt_lines(iter(prompts_shown)))
    )


def init(
    questions: Annotated[
        Path | None, typer.Option(help="Your questions: JSON lines, JSON, CSV or Parquet, with right answers.")
    ] = None,
    teacher: Annotated[
        list[str],
        typer.Option(
            help="MODEL@URL, PRESET:MODEL, anthropic:MODEL, or a local model; once for each. NAME=… names it."
        ),
    ] = [],
    student: Annotated[str, typer.Option(help="Model folder or Hub id of the model that learns.")] = "",
    method: Annotated[str, typer.Option(help="debate_reflect, peer_review or debate_opd.")] = "debate_reflect",
    test_questions: Annotated[
        Path | None, typer.Option(help="Questions to test on; default: 30 % of yours are kept for it.")
    ] = None,
    task: Annotated[str, typer.Option(help="A known task in place of questions: see `viva list tasks`.")] = "",
    key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key of the endpoints; default: TEACHER_KEY.")
    ] = None,
    question_field: Annotated[str, typer.Option(help="Column of the question, if it cannot be guessed.")] = "",
    answer_field: Annotated[str, typer.Option(help="Column of the right answer.")] = "",
    choices_field: Annotated[str, typer.Option(help="Column with a list of choices.")] = "",
    group_field: Annotated[str, typer.Option(help="Column with a subject or kind, for tables.")] = "",
    grader: Annotated[str, typer.Option(help="How answers are compared; default: what fits the form of yours.")] = "",
    name: Annotated[str, typer.Option(help="Name of the run; default: that of the questions.")] = "",
    out: Annotated[Path, typer.Option(help="Recipe to write.")] = Path("recipe.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing recipe.")] = False,
) -> None:
    """Write a first recipe for your questions, teachers and student, and look whether it can run; no model is asked.

    In a terminal it asks for what is not given.
    """
    import re

    from vivavoce import plugins
    from vivavoce.authoring.questions import reading
    from vivavoce.authoring.scaffold import SCHEMA, first_recipe, methods
    from vivavoce.authoring.schema import schema_text
    from vivavoce.errors import RecipeError
    from vivavoce.progress import say

    if out.exists() and not force:
        raise RecipeError("the file exists already", str(out), "give --force to overwrite it, or another --out")
    if method not in methods():
        known = methods()
        raise RecipeError(f"unknown method `{method}`{plugins.near(method, known)}", "--method", ", ".join(known))
    if questions is None and not task:
        questions = Path(_ask("--questions", "File with your questions and their right answers"))
    teachers = teacher or [one.strip() for one in _ask("--teacher", _TEACHERS).split(",")]
    student = student or _ask("--student", "Model that learns: a folder or Hub id")
    fields = {"question_field": question_field, "answer_field": answer_field, "choices_field": choices_field}
    given_fields = {
        key: value for key, value in {**fields, "group_field": group_field, "grader": grader}.items() if value
    }
    task_section = (
        {"name": task} if questions is None else {"name": "jsonl", **reading(questions, test_questions, **given_fields)}
    )
    called = name or re.sub(r"[^\w.-]+", "-", questions.name.partition(".")[0] if questions else task).strip("-.")
    made = first_recipe(task_section, teachers, student, method, called or "run", key_env)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(made.text, "utf-8")
    (out.parent / SCHEMA).write_text(schema_text(), "utf-8")
    options = ", ".join(f"{key} {value}" for key, value in task_section.items() if key not in ("name", "path", "seed"))
    say(f"{out}: {method}; task {task_section['name']}{': ' + options if options else ''}")
    for note in made.notes:
        say(note)
    _examine(out)


_TEACHERS = "Teachers, with commas between them: MODEL@URL, PRESET:MODEL, anthropic:MODEL, or local models"


def _ask(option: str, question: str) -> str:
    """The user's input; an error that names the option if there is no terminal."""
    import sys

    from vivavoce.errors import RecipeError

    if not sys.stdin.isatty():
        raise RecipeError(
            f"`{option}` is missing", "viva init", "give it, or start the command in a terminal, in which it asks"
        )
    return typer.prompt(question, err=True)


def _examine(recipe: Path) -> None:
    """Say what the doctor finds wrong, or worth a look, without asking a model."""
    from vivavoce.methods.doctor import examine
    from vivavoce.progress import say

    findings = [f for f in examine(recipe_of(recipe, []), offline=True) if f.level != "ok"]
    for one in findings:
        typer.echo(finding_lines(one), err=True)
    wrong = sum(one.level == "failed" for one in findings)
    say(
        "next: viva doctor, which asks your endpoints too"
        if not wrong
        else f"{wrong} to correct before the recipe can run"
    )


__all__ = ["init", "keys", "list_", "prompt"]
