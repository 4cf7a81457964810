"""Commands that show a run to people: the viewer, and a talk with a student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def view(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run directories, or folders that hold some; default: runs.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port on this machine; default: the first that is free.")] = None,
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


def chat(
    student: Annotated[str, typer.Argument(help="Folder of a student, a run's folder, Hub id, or schoolhouse:NAME.")],
    system: Annotated[str | None, typer.Option(help="System text in place of the run's.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Send questions as you type them, without the run's prompt.")
    ] = False,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Forget the conversation after each question; /new does so once.")
    ] = False,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature; default: that of the run's tests, else 0.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of a reply.")] = None,
) -> None:
    """Talk with a student. Questions that are piped in are answered one a line.

    /new begins a new conversation, /quit or Ctrl-D ends.
    """
    import asyncio
    import sys

    from vivavoce.errors import AgentError
    from vivavoce.methods.chatting import Chat
    from vivavoce.progress import say
    from vivavoce.report.text import clean

    drawn = {"temperature": temperature, "max_new_tokens": max_new_tokens}
    talk = Chat(student, system=system, plain=plain, **drawn)
    typed = sys.stdin.isatty()
    asked_as = (
        "questions are sent as in its run's tests (--plain: as typed)"
        if talk.as_asked
        else "questions are sent as typed"
    )
    if typed:
        say(f"{asked_as}; /new begins a new conversation, /quit ends")

    async def go() -> None:
        try:
            while (text := await asyncio.to_thread(_line, typed)) is not None:
                if text == "/new":
                    talk.restart()
                    say("a new conversation begins")
                    continue
                if no_history:
                    talk.restart()
                try:
                    reply = await talk.ask(text)
                except AgentError as error:
                    say(f"no reply: {error}; /new begins a new conversation")
                    continue
                typer.echo(clean(reply.text))
                if reply.finish == "length":
                    say(f"(cut off after {reply.usage.completion:,} tokens; --max-new-tokens allows more)")
        finally:
            await talk.aclose()

    asyncio.run(go())


def _line(typed: bool) -> str | None:
    """The next line that holds something; None at the end."""
    import sys

    while True:
        if typed:
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line or line.strip() == "/quit":
            return None
        if line.strip():
            return line.strip()


__all__ = ["chat", "view"]
