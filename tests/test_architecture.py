"""Data flows one way: a module imports only from its own room and from rooms further up the list."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import deque
from collections.abc import Collection
from pathlib import Path

import pytest

ROOMS = [
    "version",
    "records",
    "errors",
    "complaints",
    "files",
    "plugins",
    "progress",
    "stats",
    "line_process",
    "sandbox",
    "schoolhouse",
    "graph",
    "agents",
    "environments",
    "tasks",
    "committee",
    "protocols",
    "data",
    "trackers",
    "mistakes",
    "finding",
    "config",
    "run",
    "workspace",
    "merging",
    "train",
    "exams",
    "report",
    "publish",
    "view",
    "methods",
    "scale",
    "authoring",
    "library",
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
    "starlette",
    "uvicorn",
}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
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


def test_the_package_needs_nothing_that_lies_beside_it() -> None:
    beside = {"tests", "schoolhouse"}
    for path in SOURCE.rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & beside, path


def modules(source: Path) -> dict[str, Path]:
    """Dotted names of the modules of a package, and their files."""
    by_module = {".".join([source.name, *p.relative_to(source).with_suffix("").parts]): p for p in source.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in by_module.items()}


def used_modules(path: Path, known: Collection[str]) -> set[str]:
    """Modules that a file imports anywhere, inside functions too; ``from a import b`` is ``a.b`` if that is one."""
    used = set[str]()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write imports in full"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            used |= {name if name in known else str(node.module) for name in whole}
    return used & set(known)


def circles(source: Path) -> list[str]:
    """A shortest circle of imports through each module that is in one, told as ``a -> b -> a``; each circle once."""
    known = modules(source)
    uses = {name: sorted(used_modules(path, known) - {name}) for name, path in known.items()}
    by_pair = dict[frozenset[str], str]()
    for start in sorted(uses):
        ways, seen = deque[tuple[str, ...]]([(start,)]), set[str]()
        while ways:
            way = ways.popleft()
            if start in uses[way[-1]]:
                by_pair.setdefault(frozenset(way), " -> ".join((*way, start)))
                break
            ways.extend((*way, after) for after in uses[way[-1]] if after not in seen)
            seen.update(uses[way[-1]])
    return list(by_pair.values())


def test_no_two_modules_import_each_other_even_around_others() -> None:
    assert not (circles_found := circles(SOURCE)), "\n".join(circles_found)


def test_a_circle_is_found_inside_functions_and_around_others(tmp_path: Path) -> None:
    package = tmp_path / "house"
    package.mkdir()
    files = {
        "__init__": "",
        "a": "from house import b",
        "b": "import house.c",
        "c": "def late():\n    from house.a import x",
        "d": "from house import a, e",
        "e": "from pathlib import Path",
    }
    for name, text in files.items():
        (package / f"{name}.py").write_text(text, "utf-8")
    assert circles(package) == ["house.a -> house.b -> house.c -> house.a"]
    (package / "__init__.py").write_text("from house import d", "utf-8")
    (package / "e.py").write_text("from house import unknown", "utf-8")
    assert "house -> house.d -> house.e -> house" in circles(package)


def test_no_file_is_called_utils() -> None:
    assert not {p.stem for p in SOURCE.rglob("*.py")} & {"utils", "util", "common", "helpers", "base", "misc"}


@pytest.mark.parametrize(
    "module",
    [
        "vivavoce",
        "vivavoce.cli",
        "vivavoce.methods.debate_reflect",
        "vivavoce.report",
        "vivavoce.view.index",
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
