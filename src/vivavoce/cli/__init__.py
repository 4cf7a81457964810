"""The command ``viva``: parse, call, print. Results go to standard output, talk to standard error."""

from __future__ import annotations

from typing import Annotated

import typer

from vivavoce import __version__
from vivavoce.cli import benchmarks, material, runs, training
from vivavoce.cli.shared import PLAIN
from vivavoce.errors import UserError

app = typer.Typer(
    name="viva",
    **PLAIN,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="A committee of large language models debates, criticises and reviews; your small model learns from it.",
)
for command in (runs.run, runs.plan, runs.costs, runs.doctor, runs.evaluate, material.export, runs.report):
    app.command()(command)
app.command("list")(material.list_)
app.command("check-tasks")(material.check_tasks_command)
app.command()(material.trees)
app.add_typer(material.graph_app, name="graph")
app.add_typer(material.debate_app, name="debate")
app.add_typer(training.app, name="train")
app.add_typer(benchmarks.app, name="bench")
app.add_typer(material.import_app, name="import")
app.add_typer(material.review_app, name="review")


def main() -> None:
    """Entry point: errors that the user can mend are told in three lines and end with code 2, a cap with code 3."""
    try:
        app()
    except UserError as e:
        typer.echo(f"error: {e}", err=True)
        raise SystemExit(e.exit_code) from None
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            typer.echo("stopped. What was done is kept: the same command goes on from here.", err=True)
        raise


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


__all__ = ["app", "main"]
