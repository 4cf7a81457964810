"""Hooks of the documentation's site: README.md is its first page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def on_files(files: Any, config: Any) -> Any:
    """Put the README before the other pages, its links to docs/ as they are there."""
    from mkdocs.structure.files import File

    text = re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text("utf-8"))
    files.append(File.generated(config, "index.md", content=text))
    return files
