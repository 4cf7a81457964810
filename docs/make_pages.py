"""Write what is read off the code: docs/cli.md, docs/recipe.md, the schema of recipes, the table of recipes.

With --check, write nothing, and fail if one of them is out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
RECIPES = DOCS.parent / "recipes"
HEAD = "# The command line\n\nMade from `--help` by `make docs`; do not edit.\n"


def commands() -> list[str]:
    """Every command, in the order of `viva --help`: ``run``, ``graph show``."""
    import typer

    from vivavoce.cli import app

    def below(group: Any, *path: str) -> list[str]:
        inner = getattr(group, "commands", None)
        return [" ".join(path)] if inner is None else [c for k, v in inner.items() for c in below(v, *path, k)]

    return below(typer.main.get_command(app))


def command_line() -> str:
    """docs/cli.md."""
    shown = ["", *commands()]
    return HEAD + "".join(f"\n## viva {c}\n\n```\n{help_of(c)}\n```\n".replace("viva \n", "viva\n") for c in shown)


def help_of(command: str) -> str:
    """``viva COMMAND --help`` as it looks in 100 columns."""
    from typer.testing import CliRunner

    from vivavoce.cli import app

    # TERM=dumb and a fixed width, so that every machine writes the same page
    plain = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
    shown = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="viva", env=plain, catch_exceptions=False)
    return "\n".join(line.rstrip() for line in shown.stdout.strip().splitlines())


def table_of_recipes() -> str:
    """recipes/README.md with its table made from what every recipe says of itself in its first comment."""
    from vivavoce.authoring.listing import header_of

    rows = ["| recipe | what it does | needs | takes |", "| --- | --- | --- | --- |"]
    for path in sorted(RECIPES.rglob("*.yaml"), key=lambda p: (p.parent.name != "schoolhouse", p.as_posix())):
        name = path.relative_to(RECIPES).with_suffix("").as_posix()
        rows.append(f"| `{name}` | {' | '.join(header_of(path))} |")
    text = (RECIPES / "README.md").read_text("utf-8")
    return re.sub(r"(?m)(^\|.*\n)+", lambda _: "\n".join(rows) + "\n", text, count=1)


def pages() -> dict[Path, str]:
    """Every file that is made, and what it must hold."""
    from vivavoce.authoring.page import page
    from vivavoce.authoring.schema import schema_text

    return {
        DOCS / "cli.md": command_line(),
        DOCS / "recipe.md": page(),
        RECIPES / "recipe.schema.json": schema_text(),
        RECIPES / "README.md": table_of_recipes(),
    }


def main() -> int:
    """Write the pages, or compare them."""
    stale = 0
    for path, text in pages().items():
        if path.exists() and path.read_text("utf-8") == text:
            continue
        if "--check" in sys.argv:
            sys.stderr.write(f"{path.relative_to(DOCS.parent)} is out of date: run make docs\n")
            stale = 1
        else:
            path.write_text(text, "utf-8")
    return stale


if __name__ == "__main__":
    raise SystemExit(main())
