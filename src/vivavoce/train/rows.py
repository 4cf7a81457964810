"""Checks of rows that every training makes before it begins, and the names of rows in errors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from vivavoce.data.training_rows import check_weights
from vivavoce.errors import DataError
from vivavoce.records import Example, Interaction, State, Tree

logger = logging.getLogger(__name__)


def row_name(row: Example | Tree | State | Interaction, number: int, source: Path | None) -> str:
    """The name in errors of ``row``, which is the ``number``-th (from 0) of the file ``source``.

    >>> row_name(Example("gsm8k-7", (), "42", ()), 2, Path("data/sft.jsonl"))
    'row 3 of data/sft.jsonl (problem gsm8k-7)'
    """
    what = f"tree {row.id} of problem {row.problem}" if isinstance(row, Tree) else f"problem {row.problem}"
    return f"row {number + 1}{f' of {source}' if source else ''} ({what})"


def check_rows(rows: Sequence[Example | Tree | State | Interaction], source: Path | None) -> None:
    """Raise DataError, which names the row, if the weight of one is negative, infinite or not a number."""
    for number, row in enumerate(rows):
        check_weights(row, row_name(row, number, source))


def check_fit(used: int, counted: int, things: str, longest: int, out: Path) -> int:
    """The number of ``counted`` things (rows, or groups of rows) that were left out because a row is longer than
    ``longest`` tokens; it is logged.

    Raises DataError, which names ``out``, if none is left to train on.
    """
    dropped = counted - used
    if dropped:
        limit = f"{longest:,} tokens, by max_length or the model's context"
        logger.warning("left out %s of %s %s, longer than %s", f"{dropped:,}", f"{counted:,}", things, limit)
    if not used:
        raise DataError(f"all {dropped} {things} are longer than {longest} tokens", str(out), "raise max_length")
    return dropped


__all__ = ["check_fit", "check_rows", "row_name"]
