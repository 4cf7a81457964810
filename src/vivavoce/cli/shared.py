"""Arguments that several commands share, and the objects that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivavoce.errors import DataError

if TYPE_CHECKING:
    from vivavoce.config import Recipe
    from vivavoce.tasks import Task

# Plain help: the decorated one takes longer to import than everything else together.
PLAIN: Any = {"no_args_is_help": True, "rich_markup_mode": None}

RecipePath = Annotated[
    Path, typer.Argument(help="Recipe file, the name of one that `viva list recipes` shows, or a run's folder.")
]
HERE = Path("recipe.yaml")
"""The recipe of the folder that one is in, if none is named: `viva init` writes it."""
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set dpo.beta=0.2")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
RunPath = Annotated[Path, typer.Argument(help="Run directory.")]


def recipe_of(recipe: Path, overrides: list[str]) -> Recipe:
    """A recipe by file or name, with ``--set``. Raises RecipeError if it is none."""
    from vivavoce.config import load_recipe
    from vivavoce.finding import find_recipe

    return load_recipe(find_recipe(recipe), overrides)


def task_of(named: str) -> Task:
    """A task by its name, or by a recipe that has it. Raises RecipeError if there is none."""
    from vivavoce.tasks import open_task

    if Path(named).suffix not in (".yaml", ".yml"):
        return open_task(named, {})
    spec = recipe_of(Path(named), []).task
    return open_task(spec.name, spec.options)


def recipe_of_run(path: Path) -> Recipe | None:
    """The recipe of the run in a folder; None if there is none, as of a file."""
    from vivavoce.config import load_recipe

    return load_recipe(path / "recipe.yaml") if (path / "recipe.yaml").is_file() else None


def commands(context: typer.Context) -> set[str]:
    """Names of the commands that there are."""
    root: Any = context.find_root().command
    return set(root.commands)


def graphs_in(path: Path) -> Path:
    """The file of graphs; of a run, that of its training questions. Raises DataError if there is none."""
    from vivavoce.graph import graph_file

    file = graph_file(path, "train") if path.is_dir() else path
    if not file.is_file():
        raise DataError("there are no graphs", str(file), "give a run directory or a file of graphs")
    return file


__all__ = [
    "HERE",
    "PLAIN",
    "AsJson",
    "Overrides",
    "RecipePath",
    "RunPath",
    "commands",
    "graphs_in",
    "recipe_of",
    "recipe_of_run",
    "task_of",
]
