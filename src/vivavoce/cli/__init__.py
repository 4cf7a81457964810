"""The command ``viva``: parse, call, print. Results go to standard output, talk to standard error."""

from __future__ import annotations

import errno
import sqlite3
import traceback
from typing import Annotated

import typer

from vivavoce.cli import authoring, benchmarks, looking, material, planning, publishing, runs, training
from vivavoce.cli.shared import PLAIN
from vivavoce.errors import AgentError, AgentUnusable, DataError, UserError, the_one
from vivavoce.version import __version__

app = typer.Typer(
    name="viva",
    **PLAIN,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Large language models debate, criticise and review each other's answers; your small model learns from them.",
)
for command in (
    runs.run,
    runs.merge,
    planning.plan,
    runs.costs,
    runs.judges,
    runs.doctor,
    runs.evaluate,
    runs.compare,
    material.export,
    publishing.publish,
    runs.report,
):
    app.command()(command)
app.command()(runs.results)
for command in (looking.view, looking.chat):
    app.command()(command)
app.command("list")(authoring.list_)
for command in (authoring.init, authoring.keys, authoring.prompt):
    app.command()(command)
app.command("check-tasks")(material.check_tasks_command)
app.command()(material.trees)
app.add_typer(material.graph_app, name="graph")
app.add_typer(material.debate_app, name="debate")
app.add_typer(training.app, name="train")
app.add_typer(benchmarks.app, name="bench")
app.add_typer(material.import_app, name="import")
app.add_typer(material.review_app, name="review")


def main() -> None:
    """Entry point: errors that the user can mend are told in three lines and end with code 2, a cap with code 3.

    So are errors in the user's own tasks, backends, methods and prompts, with file and line, and files that cannot be
    written. ``--traceback`` shows how each came about.
    """
    try:
        app()
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            typer.echo("stopped. All completed work is kept: give the same command to go on.", err=True)
        raise
    except Exception as e:  # noqa: BLE001 - the last place at which an error can be told
        error = the_one(e)
        user_error = _user_error(error)
        if user_error is None:
            raise error from None
        if _shown["traceback"]:
            traceback.print_exception(error)
        typer.echo(f"error: {user_error}", err=True)
        raise SystemExit(user_error.exit_code) from None


def _user_error(error: BaseException) -> UserError | None:
    """The error as the user is told of it; None if it is a fault of vivavoce, of which a traceback tells more."""
    if isinstance(error, UserError):
        return error
    from vivavoce.plugins import own_error

    if (own := own_error(error)) is not None:
        return own
    if isinstance(error, AgentError):  # of a call that a training cannot do without
        do = error.do or "mend what it says"
        return AgentUnusable(f"a model call failed: {error}", "", f"{do}; the same command then goes on from here")
    if isinstance(error, OSError) and (error.filename or error.errno in _FULL):
        do = (
            "free disk space, or choose another folder"
            if error.errno in _FULL
            else "check the path and its permissions"
        )
        return DataError(error.strerror or str(error), str(error.filename or ""), do)
    if isinstance(error, sqlite3.OperationalError):
        return DataError(f"a file of the run cannot be used: {error}", "", "free disk space, or check the permissions")
    if type(error) is sqlite3.DatabaseError:
        return DataError(
            f"a file of the run is damaged: {error}", "", "bring it back from a copy, or choose another folder"
        )
    return None


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


_shown = {"traceback": False}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _traceback(wanted: bool) -> None:
    _shown["traceback"] = wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option("--traceback", callback=_traceback, help="Show where in the code an error was raised."),
    ] = False,
) -> None:
    pass


__all__ = ["app", "main"]
