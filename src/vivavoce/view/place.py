"""The folder of a run's index: the run's own or, if nothing may be written there, the user's cache."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from vivavoce.records import digest

NAME = "view.sqlite"


def index_file(run: Path) -> Path:
    """The file of a run's index."""
    if os.access(run, os.W_OK):
        return run / NAME
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache if os.access(cache, os.W_OK) else Path(tempfile.gettempdir())
    return folder / "vivavoce" / "view" / f"{digest(str(run.resolve()))[:16]}.sqlite"


__all__ = ["NAME", "index_file"]
