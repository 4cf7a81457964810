"""Numbers for people: tables, and ranges in a few digits."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from vivavoce.committee.rehearsal import Span
    from vivavoce.methods.doctor import Finding


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]], spare: Sequence[str] = ()) -> None:
    """A table on standard output, no wider than the terminal.

    Numbers are never broken: if they do not fit, columns of ``spare`` are left out, the first ones first, and named
    below the table. If that is not enough, ranges in brackets stand below their numbers.
    """
    from rich.console import Console
    from rich.measure import Measurement

    # A terminal has the width that it has; what goes into a file need not be squeezed.
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    console, out = Console(file=sys.stdout, width=None if known else 160), list[str]()
    table, unbound = _table(head, rows, out), console.options.update(max_width=10_000)

    def too_wide() -> bool:
        return Measurement.get(console, unbound, table).maximum > console.width

    while spare and too_wide():
        out, spare = [*out, spare[0]], spare[1:]
        table = _table(head, rows, out)
    if too_wide():
        below = [tuple(one.replace(" (", "\n(") for one in row) for row in rows]
        table = _table(head, below, out, "\n")
    console.print(table)
    if out:
        console.print(f"not shown at this width: {', '.join(out)}")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], out: Sequence[str], between: str = " ") -> Table:
    """The table without the columns ``out``; ``between`` stands between the words of a head."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    kept = [i for i, name in enumerate(head) if name not in out]
    for i in kept:
        number = bool(rows) and all(_NUMBER.fullmatch(row[i]) for row in rows)
        title = head[i].replace(" ", between)
        shown.add_column(title, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(row[i]) for i in kept))
    return shown


_NUMBER = re.compile(r"[\d,.\s–()kM-]*")


def hung(text: str, indent: int = 0) -> str:
    """The text in lines no wider than the terminal, the later ones set in by ``indent`` more than the first.

    What goes into a file or to another program stays one line.
    """
    if not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        return text
    first = " " * (len(text) - len(text.lstrip()))
    wide = shutil.get_terminal_size((80, 24)).columns
    wrapping = textwrap.TextWrapper(
        wide,
        initial_indent=first,
        subsequent_indent=first + " " * indent,
        break_on_hyphens=False,
        break_long_words=False,  # paths and commands are copied
    )
    return wrapping.fill(text.strip()) or text


def finding_lines(finding: Finding) -> str:
    """A finding of the doctor's, and below it what to do."""
    line = hung(f"{finding.level:7} {finding.what}: {finding.said}", 8)
    return line + (f"\n{hung(' ' * 8 + finding.do)}" if finding.do else "")


def width() -> int:
    """Columns for text: those of the terminal, 80 elsewhere and 100 at most."""
    return min(100, max(40, shutil.get_terminal_size((80, 24)).columns))


def with_range(span: Span, kind: str) -> str:
    """The expected value, and in brackets least and most if they differ. ``kind``: money, calls, or tokens."""
    from vivavoce.agents.budget import money

    words = {"money": money, "calls": lambda n: f"{n:,.0f}" if n < 1e6 else short(n)}.get(kind, short)
    least, usual, most = map(words, (span.least, span.expected, span.most))
    return usual if least == most else f"{usual} ({least}–{most})"


def short(n: float) -> str:
    """Three or four digits: ``950``, ``12.3k``, ``4.56M``."""
    return f"{n:,.0f}" if n < 1e4 else f"{n / 1e3:.1f}k" if n < 1e6 else f"{n / 1e6:,.2f}M"


def cell(value: float | None) -> str:
    """The number with three decimals; a dash if there is no value."""
    return "–" if value is None else f"{value:.3f}"


__all__ = ["cell", "finding_lines", "hung", "print_table", "short", "width", "with_range"]
