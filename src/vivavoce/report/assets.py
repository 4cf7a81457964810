"""Scripts and styles of pages, which need no build: the viewer serves them, a report holds them."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("dom.js", "data.js", "letters.js", "table.js", "question.js", "charts.js", "pages.js", "start.js")
_OF_A_REPORT = ("dom.js", "data.js", "letters.js", "table.js", "question.js", "pages.js", "embedded.js")


def style(*names: str) -> str:
    """The style sheets, one after the other."""
    return "\n".join((STATIC / name).read_text("utf-8") for name in names)


def report_script() -> str:
    """All that a report runs, as one script."""
    return "\n".join((STATIC / name).read_text("utf-8") for name in _OF_A_REPORT)


def content_policy(script: str) -> str:
    """A content policy that lets this script run, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


__all__ = ["SCRIPTS", "STATIC", "content_policy", "report_script", "style"]
