"""docs/own-method.md: its blocks, copied into a folder, are a method that plans, runs and explains its keys."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.command import viva

from vivavoce.schoolhouse import weights

PAGE = Path(__file__).parent.parent / "docs" / "own-method.md"
pytestmark = pytest.mark.skipif(
    not weights("ada").is_dir(), reason="the models are not built: see schoolhouse/README.md"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The blocks of the page, each under the name above it."""
    for name, block in re.findall(
        r"^`([\w/.]+)`\n\n```\w+\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(block, "utf-8")
    return tmp_path


def test_the_method_of_the_page_runs_to_a_report(folder: Path) -> None:
    done = viva("plan", "worth_it.yaml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["trainings"]["lines"]) == 2
    done = viva("run", "worth_it.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    run = folder / "runs" / "worth_it"
    content = json.loads((run / "results.json").read_text())
    assert [arm["name"] for arm in content["arms"]] == ["student", "drafts", "after"]
    assert {(p["a"], p["b"]) for p in content["paired"]} >= {("student", "drafts"), ("drafts", "after")}
    assert (run / "report.html").is_file()
    shown = viva("keys", "methods/worth_it.py", cwd=folder)
    assert "sft: section" in shown.stdout, shown.stderr


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("def plan(", "def plans(", "defines no function `plan`"),
        ("class Options(Recipe)", "class Options", "no pydantic model `Options`"),
        ("async def distill", "def distill", "'async with' outside async function"),
        ("s.task.problems", "s.task.problemz", "problemz"),
        ("from vivavoce.config import Recipe", "from vivavoce.confg import Recipe", "cannot be imported"),
    ],
)
def test_mistakes_in_a_method_are_told_with_its_file_and_no_traceback(
    folder: Path, old: str, new: str, says: str
) -> None:
    file = folder / "methods" / "worth_it.py"
    file.write_text(file.read_text().replace(old, new), "utf-8")
    done = viva("run", "worth_it.yaml", cwd=folder)
    assert done.returncode == 2
    assert says in done.stderr
    assert "worth_it.py" in done.stderr
    assert "Traceback" not in done.stderr
