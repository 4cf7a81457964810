"""How commands show numbers: tables for people, and ranges in a few digits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vivavoce.debate.plan import Span


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table on standard output."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(*head)
    for row in rows:
        shown.add_row(*row)
    # A terminal has the width that it has; what goes into a file need not be squeezed.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(shown)


def spanned(span: Span, kind: str) -> str:
    """As expected, and in brackets at least and at most where they differ. ``kind``: money, calls, or tokens."""
    from vivavoce.agents.budget import money

    words = {"money": money, "calls": lambda n: f"{n:,.0f}"}.get(kind, short)
    least, usual, most = map(words, (span.least, span.expected, span.most))
    return usual if least == most else f"{usual} ({least} to {most})"


def short(n: float) -> str:
    """Three or four digits: ``950``, ``12.3k``, ``4.56M``."""
    return f"{n:,.0f}" if n < 1e4 else f"{n / 1e3:.1f}k" if n < 1e6 else f"{n / 1e6:,.2f}M"


def cell(value: float | None) -> str:
    """Three decimals; a dash where there is no value."""
    return "–" if value is None else f"{value:.3f}"


__all__ = ["cell", "print_table", "short", "spanned"]
