"""README: its recipe passes `viva doctor` and `viva plan`, its Python runs, its words are in the glossary."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.command import ran
from typer.testing import CliRunner

from vivavoce.cli import app
from vivavoce.schoolhouse import weights

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```(yaml|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as README's reader has it: questions, the recipe, a key in the environment."""
    rows = [{"question": f"A row has {n} trees. How many have {n} rows?", "answer": str(n * n)} for n in range(2, 42)]
    (tmp_path / "questions.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    (tmp_path / "recipe.yaml").write_text(BLOCKS["yaml"], "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return tmp_path


@pytest.mark.parametrize("command", [["doctor", "--offline"], ["plan"]])
def test_the_recipe_of_the_page_is_accepted(folder: Path, command: list[str]) -> None:
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "warning price" not in done.output


def test_the_recipe_is_fifteen_lines_or_a_few_more_and_the_python_ten() -> None:
    assert len(BLOCKS["yaml"].splitlines()) <= 17
    assert len([line for line in BLOCKS["python"].splitlines() if line]) <= 10


@pytest.mark.skipif(not weights("ada").is_dir(), reason="the models are not built: see schoolhouse/README.md")
def test_the_python_of_the_page_runs_with_tiny_models_in_the_place_of_its_own(folder: Path) -> None:
    code = BLOCKS["python"]
    for old, new in {
        'vv.task("jsonl", path="questions.jsonl", train_share=0.8, seed=0, grader="number")': (
            'vv.task("jsonl", path="questions.jsonl", train_share=0.8, seed=0, grader="number");'
            'task = vv.task("schoolhouse", train=12, test=8)'
        ),
        '"gpt-4o-mini", backend="openai_chat", preset="openai"': '"schoolhouse:ada", max_new_tokens=64',
        '"qwen3", backend="openai_chat", preset="ollama"': '"schoolhouse:bob", max_new_tokens=64',
        'vv.agent("student", "Qwen/Qwen3-0.6B")': 'vv.agent("student", "schoolhouse:student", max_new_tokens=64)',
        "vv.examples(graphs))": "vv.examples(graphs), lora=None, max_steps=2)",
        "vv.trees(graphs))": "vv.trees(graphs), lora=None, max_steps=2)",
        "Qwen/Qwen3-0.6B": "schoolhouse:student",
        "task)": "task, max_new_tokens=64)",
    }.items():
        assert old in code, old
        code = code.replace(old, new)
    done = ran("-c", code, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "before -> after: gain" in done.stdout


def test_every_arm_that_the_page_names_is_in_the_glossary() -> None:
    arms = set(re.findall(r"`(\w+_continued|single:\w+|multi_teacher\w*|debate_reflect\w*)`", README))
    glossary = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    assert arms
    assert not [arm for arm in arms if f"`{arm}`" not in glossary]
