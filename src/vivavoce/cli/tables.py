"""Numbers for people: tables, and ranges in a few digits."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from vivavoce.committee.rehearsal import Span
    from vivavoce.methods.doctor import Finding


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]], spare: Sequence[str] = ()) -> None:
    """A table on standard output, no wider than the terminal.

    Numbers are never broken: if they do not fit, columns of ``spare`` are left out, the first ones first, and named
    below the table. If that is not enough, ranges in brackets stand below their numbers. If names would still be
    broken, those of the first column are headings, each above its rows.
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
    if not too_wide():
        console.print(table)
    else:
        below = [tuple(one.replace(" (", "\n(") for one in row) for row in rows]
        table = _table(head, below, out, "\n")
        least = Measurement.get(console, unbound, table).minimum
        if too_wide() and (len({row[0] for row in rows}) < len(rows) or least > console.width):
            _print_under_headings(console, head, below, out)
        else:
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
        number = _is_number(rows, i)
        title = head[i].replace(" ", between)
        shown.add_column(title, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(row[i]) for i in kept))
    return shown


def _print_under_headings(
    console: Console, head: tuple[str, ...], rows: list[tuple[str, ...]], out: Sequence[str]
) -> None:
    """Print the rows, those with one name in the first column under that name, in columns of equal width.

    A row without a second name, such as a sum, has the first one in its place.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    kept = [i for i, name in enumerate(head) if i and name not in out]
    titles = {i: head[i].replace(" ", "\n") for i in kept}
    rows = [row if row[1] else ("", row[0], *row[2:]) for row in rows]
    widths = {
        i: max(len(line) for cell in (titles[i], *(r[i] for r in rows)) for line in cell.split("\n")) for i in kept
    }
    between = 2 * len(kept) + 1  # a blank before each column, and what its border takes
    widths[1] = max(4, min(widths[1], console.width - sum(widths.values()) + widths[1] - between))

    def print_part(lines: Sequence[tuple[str, ...]], headed: bool) -> None:
        shown = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_header=headed)
        for i in kept:
            justify = "right" if i > 1 and _is_number(rows, i) else "left"
            shown.add_column(titles[i], justify=justify, width=widths[i], overflow="fold")
        for row in lines:
            shown.add_row(*(Text(row[i]) for i in kept))
        with console.capture() as printed:
            console.print(shown)
        full = [line for line in printed.get().splitlines() if line.strip()]  # the box has blank lines around it
        sys.stdout.write("".join(f"{line}\n" for line in full))

    print_part([], True)
    for name, group in groupby(rows, lambda row: row[0]):
        if name:
            console.print(Text(f" {name}", "bold"))
        print_part(list(group), False)


def _is_number(rows: list[tuple[str, ...]], column: int) -> bool:
    return bool(rows) and all(_NUMBER.fullmatch(row[column]) for row in rows)


_NUMBER = re.compile(r"[\d,.\s–−+×%()kM-]*")


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
