"""Progress on standard error: bars with counts and time left in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
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
_open: list[Progress] = []


@contextmanager
def bar(title: str, total: int) -> Iterator[Advance]:
    """A progress bar for ``total`` things. Bars that are open at once share one display."""
    if not console.is_terminal:
        yield _lines(title, total)
        return
    if not _open:
        _open.append(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
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
        if all(
            one.stop_time is not None for one in shown.tasks
        ):  # whichever ends last: those of several students overlap
            shown.stop()
            _open.clear()


def _lines(title: str, total: int) -> Advance:
    begun = last = time.monotonic()
    done = 0

    def advance(n: int = 1, note: str | None = None) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= _QUIET_S or done == total:
            last = now
            left = (now - begun) / max(1, done) * (total - done)
            known = done < total and done > 0.05 * total  # what comes first in a batch says nothing of the rest
            say(
                f"{title}: {done}/{total}, {now - begun:.0f} s"
                + (f", {left:.0f} s left" if known else "")
                + (f" ({note})" if note else "")
            )

    return advance


def say(text: str) -> None:
    """A line of talk: on standard error, so that standard output holds results alone."""
    if console.is_terminal:
        console.print(text)
    else:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
