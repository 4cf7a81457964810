"""The end of a run on the terminal: what came of it in three lines, where the student is, and what to do with it."""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from pathlib import Path

from vivavoce.report.headline import headline
from vivavoce.report.report import told_path
from vivavoce.report.sources import Sources
from vivavoce.report.text import clean

_WIDTH = 80


def ending(run: Path, commands: Collection[str], width: int = _WIDTH) -> str:
    """What is printed at the end; ``commands`` are those that the command line has. Lines are of ``width`` at most,
    but paths are never broken."""
    found, where = headline(Sources(run)), told_path(run)
    said = [found.sentence, found.against, found.certain, *(text for _, text in found.banners)]
    lines = [line for text in said if text for line in _wrapped(clean(text), width)]
    steps = [("look", f"viva view {where}"), ("report", f"{where}/report.html")]
    if found.student is not None:
        student = told_path(found.student)
        steps = [("your student", student), ("try", f"viva chat {student}"), *steps]
    steps.append(("all tests", f"viva report {where} --details"))
    steps.append(("its rows", f"viva export {where} --as messages --out rows.jsonl"))
    if "publish" in commands:
        steps.append(("publish", f"viva publish {where}"))
    wide = max(len(what) for what, _ in steps) + 2
    return "\n".join([*lines, "", *(f"{what:<{wide}}{do}" for what, do in steps)])


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


__all__ = ["ending"]
