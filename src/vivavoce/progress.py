"""Progress on standard error: bars with counts and time left in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[..., None]
"""``advance(n=1, note="")``: n more are done; the note stands beside the bar."""

console = Console(stderr=True, highlight=False)
_QUIET_S = 10.0
_SLOW_S = 1.0
_open: list[Progress] = []
_last_line_s = -_QUIET_S
"""When the last line of talk was."""


@contextmanager
def bar(title: str, total: int) -> Iterator[Advance]:
    """A progress bar for ``total`` things. Bars that are open at once share one display."""
    if not console.is_terminal:
        yield _lines(title, total)
        return
    if not _open:
        _open.append(
            Progress(
                TextColumn("{task.description:<31}"),  # lines that have moved up stay in columns
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("[dim]{task.fields[note]}"),
                console=console,
            )
        )
        _open[0].start()
    shown = _open[0]
    task = shown.add_task(title, total=total, note="")

    def advance(n: int = 1, note: str | None = None) -> None:
        fields: dict[str, Any] = {} if note is None else {"note": note}
        shown.update(task, advance=n, **fields)

    try:
        yield advance
    finally:
        shown.stop_task(task)
        if len(shown.tasks) > 1:  # what is done moves up, out of the display, which has room for what is under way
            console.print(shown.make_tasks_table([one for one in shown.tasks if one.id == task]))
            shown.remove_task(task)
        else:
            shown.stop()
            _open.clear()


def _lines(title: str, total: int) -> Advance:
    begun = last = time.monotonic()
    done, latest = 0, ""

    def advance(n: int = 1, note: str | None = None) -> None:
        nonlocal done, last, latest
        done, latest = done + n, latest if note is None else note
        now = time.monotonic()
        if now - last >= _QUIET_S or done == total:
            last = now
            left_s = (now - begun) / max(1, done) * (total - done)
            known = done < total and done > 0.05 * total  # what comes first in a batch says nothing of the rest
            say(
                f"{title}: {done}/{total}, {now - begun:.0f} s"
                + (f", {left_s:.0f} s left" if known else "")
                + (f" ({latest})" if latest else "")
            )

    return advance


def say(text: str) -> None:
    """A line of talk: on standard error, so that standard output holds results alone."""
    global _last_line_s
    _last_line_s = time.monotonic()
    if console.is_terminal:
        console.print(text)
    else:
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def say_seldom(text: str) -> None:
    """A line of talk as :func:`say` has it, unless there was one in the last ten seconds."""
    if time.monotonic() - _last_line_s >= _QUIET_S:
        say(text)


def page_width(most: int = 100) -> int:
    """Columns for tables and texts on standard output: those of the terminal, or as COLUMNS says, from 60 to ``most``;
    ``most`` if it is a file or another program, which nothing need be squeezed for.
    """
    if not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        return most
    return max(60, min(most, shutil.get_terminal_size((most, 24)).columns))


@contextmanager
def awaited(what: str) -> Iterator[None]:
    """Tell the user that ``what`` is being done, if it takes more than a second."""
    timer = threading.Timer(_SLOW_S, say, (f"{what} …",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
