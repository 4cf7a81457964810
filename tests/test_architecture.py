"""Data flows one way: a module imports only from its own room and from rooms further up the list."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = [
    "records",
    "errors",
    "files",
    "plugins",
    "progress",
    "stats",
    "sandbox",
    "schoolhouse",
    "graph",
    "agents",
    "environments",
    "tasks",
    "debate",
    "protocols",
    "data",
    "config",
    "run",
    "train",
    "evaluate",
    "report",
    "methods",
    "bench",
    "cli",
]
SOURCE = Path(__file__).parent.parent / "src" / "vivavoce"
HEAVY = {
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "openai",
    "anthropic",
    "aiohttp",
    "httpx2",
    "gymnasium",
    "numpy",
    "tokenizers",
}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, inside functions too."""
    names = set()
    for found in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(found, ast.Import):
            names |= {alias.name for alias in found.names}
        elif isinstance(found, ast.ImportFrom) and found.module:
            names |= {found.module, *(f"{found.module}.{alias.name}" for alias in found.names)}
    return names


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    used = {name.split(".")[1] for name in imports(path) if name.startswith("vivavoce.")} & set(ROOMS)
    assert room in ROOMS, f"a new room: give {room} its place in the list"
    assert all(ROOMS.index(u) <= ROOMS.index(room) for u in used), f"{room} imports {used}"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_what_we_measure_against_is_no_part_of_what_we_are(path: Path) -> None:
    assert path.parent.name == "bench" or not any(name.split(".")[0] == "trl" for name in imports(path))


def test_no_file_is_called_utils() -> None:
    assert not {p.stem for p in SOURCE.rglob("*.py")} & {"utils", "util", "common", "helpers", "base", "misc"}


@pytest.mark.parametrize(
    "module",
    [
        "vivavoce",
        "vivavoce.cli",
        "vivavoce.methods.debate_reflect",
        "vivavoce.report",
        "vivavoce.agents.journal",
        "vivavoce.agents.scripted",
        "vivavoce.agents.hf_local",
        "vivavoce.tasks.jsonl",
        "vivavoce.train.settings",
        "vivavoce.schoolhouse",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    code = f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & HEAVY
