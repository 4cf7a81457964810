"""Write docs/cli.md from the command line's own help; with --check, fail where it is out of date."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "cli.md"
HEAD = "# The command line\n\nMade from `--help` by `make docs`; do not edit.\n"
COMMANDS = [
    "",
    "run",
    "plan",
    "doctor",
    "costs",
    "evaluate",
    "compare",
    "view",
    "graph show",
    "debate value",
    "trees",
    "train sft",
    "train tree-dpo",
    "train two-task",
    "train magdi",
    "train on-policy",
    "train merge",
    "export",
    "report",
    "list",
    "check-tasks",
    "import attempts",
    "import fair",
    "review sweep",
    "bench debate",
    "bench engine",
    "bench generate",
    "bench sft",
    "bench tree-dpo",
    "bench on-policy",
    "bench scaling",
    "bench gpu",
    "bench sandbox",
]


def page() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n## viva {c}\n\n```\n{help_of(c)}\n```\n".replace("viva \n", "viva\n") for c in COMMANDS)


def help_of(command: str) -> str:
    """``viva COMMAND --help`` as it looks in 100 columns."""
    # TERM=dumb and a fixed width, so that every machine writes the same page
    shown = subprocess.run(
        [sys.executable, "-m", "vivavoce.cli", *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "_TYPER_FORCE_DISABLE_TERMINAL": "1"},
    )
    return "\n".join(line.rstrip() for line in shown.stdout.strip().splitlines()).replace(
        "python -m vivavoce.cli", "viva"
    )


def main() -> int:
    """Write the page, or compare it."""
    made = page()
    if "--check" not in sys.argv:
        PAGE.write_text(made, "utf-8")
    elif not PAGE.exists() or PAGE.read_text("utf-8") != made:
        sys.stderr.write("docs/cli.md is out of date: run make docs\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
