"""Commands that show a run to people: the viewer, and a talk with a student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def view(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run directories, or folders of such; default runs.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port on this machine; default the first that is free.")] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the pages to this folder instead: they open from disk and any host.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
) -> None:
    """See runs in the browser, while they are at work and after: every debate, every answer, every prompt.

    Only this machine can reach the pages, and they can change nothing.
    """
    from vivavoce.progress import say

    paths = runs or [Path("runs")]
    if export is not None:
        from vivavoce.view.export import export_runs

        typer.echo(export_runs(paths, export))
        return
    from vivavoce.view.serving import serve

    serve(paths, port, not no_browser, say)


__all__ = ["view"]
