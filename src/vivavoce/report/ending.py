"""The end of a run on the terminal: its outcome in three lines, the student's folder, and the next commands."""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from pathlib import Path

from vivavoce.files import file_name
from vivavoce.report.headline import headline
from vivavoce.report.report import told_path
from vivavoce.report.sources import Sources
from vivavoce.report.text import clean

_WIDTH = 80


def ending(run: Path, commands: Collection[str], width: int = _WIDTH) -> str:
    """The text that is printed at the end; ``commands`` are those that the command line has. Lines are of ``width``
    at most, but paths are never broken.
    """
    outcome, where = headline(Sources(run)), told_path(run)
    sentences = [outcome.sentence, outcome.against, outcome.certain, *(text for _, text in outcome.banners)]
    lines = [line for text in sentences if text for line in _wrap(clean(text), width)]
    steps = [("look", f"viva view {where}"), ("report", f"{where}/report.html")]
    if outcome.student is not None:
        student = told_path(outcome.student)
        steps = [("your student", student), ("try", f"viva chat {student}"), *steps]
    steps.append(("all tests", f"viva report {where} --details"))
    if (arm := _rows(run, outcome.arm)) is not None:
        steps.append(("its rows", f"viva export {where} --as messages --arm {arm} --out rows.jsonl"))
    if "publish" in commands and outcome.student is not None:
        steps.append(("publish", f"viva publish {where} --to USER/NAME --dry-run"))
    wide = max(len(what) for what, _ in steps) + 2
    return "\n".join([*lines, "", *(f"{what:<{wide}}{do}" for what, do in steps)])


def _rows(run: Path, main: str) -> str | None:
    """The arm whose rows of answers can be exported: the run's own, else the first; None if there is none."""
    files = sorted((run / "data").glob("*.jsonl"))
    own = run / "data" / f"{file_name(main)}.jsonl"
    for file in [own, *files] if own in files else files:
        with file.open("rb") as lines:
            if b'"completion":' in lines.readline():
                return main if file == own else file.name.removesuffix(".jsonl")
    return None


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


__all__ = ["ending"]
