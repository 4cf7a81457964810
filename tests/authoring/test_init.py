"""From an empty folder to a report: a file of questions, two endpoints, a student, and no Python."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.command import viva
from tests.methods.word_server import Teacher, WordServer, write_problems

from vivavoce.authoring.questions import reading
from vivavoce.authoring.scaffold import agent, first_recipe
from vivavoce.config import load_recipe
from vivavoce.errors import DataError, RecipeError
from vivavoce.methods.doctor import examine
from vivavoce.schoolhouse import weights

SHORT = ("--set", "student.max_new_tokens=24", "--set", "test.max_new_tokens=24")


def questions(folder: Path, n: int = 30) -> Path:
    """``n`` word problems in one file of JSON lines."""
    write_problems(folder, n, 0)
    (folder / "test.jsonl").unlink()
    return (folder / "train.jsonl").rename(folder / "questions.jsonl")


@pytest.mark.skipif(not weights("student").is_dir(), reason="the models are not built: see schoolhouse/README.md")
def test_three_commands_lead_from_an_empty_folder_to_a_report(tmp_path: Path) -> None:
    file = questions(tmp_path)
    with WordServer({"ada": Teacher(0.8, 8), "bob": Teacher(0.5, 8)}) as server:
        teachers = [part for name in ("ada", "bob") for part in ("--teacher", f"{name}@{server.base_url}")]
        done = viva("init", "--questions", file.name, *teachers, "--student", "schoolhouse:student", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert {p.name for p in tmp_path.iterdir()} == {"questions.jsonl", "recipe.yaml", "recipe.schema.json"}
        done = viva("doctor", cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        assert "failed " not in done.stdout
        few = ["--set", "sft.max_steps=2", "--set", "dpo.max_steps=2", "--set", "arms=[debate_reflect]"]
        done = viva("run", *few, *SHORT, "--set", "test.committee=false", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "questions"
    assert (run / "report.html").stat().st_size > 10_000
    assert [arm["name"] for arm in json.loads((run / "results.json").read_text())["arms"]] == [
        "student",
        "debate_reflect",
    ]


def test_the_first_recipe_is_in_step_with_what_it_is_checked_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jsonschema

    from vivavoce.authoring.schema import recipe_schema

    monkeypatch.chdir(tmp_path)
    read = {"name": "jsonl", **reading(questions(tmp_path))}
    checks = jsonschema.Draft7Validator(recipe_schema())
    for method in ("debate_reflect", "peer_review", "debate_opd"):
        teachers = ["ada=schoolhouse:ada", "schoolhouse:bob"]
        made = first_recipe(read, teachers, "schoolhouse:student", method, "mine")
        Path("recipe.yaml").write_text(made.text, "utf-8")
        assert not list(checks.iter_errors(yaml.safe_load(made.text)))
        recipe = load_recipe(Path("recipe.yaml"))
        assert [a.name for a in recipe.agents] == ["ada", "bob", "student"]
        failed = [f for f in examine(recipe, offline=True) if f.level == "failed"]
        assert not failed, method


# --- how a file is read


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the form that the name of a file tells."""
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as f:
            table = csv.DictWriter(f, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("name", ["q.jsonl", "q.json", "q.csv", "q.jsonl.gz"])
def test_questions_are_read_from_the_files_that_people_have(tmp_path: Path, name: str) -> None:
    rows = [{"Problem": f"What is {i} + {i}?", "Solution": f"{2 * i}", "topic": "ab"[i % 2]} for i in range(9)]
    settings = reading(write(tmp_path / name, rows))
    wanted = {"question_field": "Problem", "answer_field": "Solution", "group_field": "topic", "grader": "number"}
    assert {key: settings[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("answers", "more", "expected"),
    [
        (["1,200", "$3.50", "-7"], {}, {"grader": "number"}),
        (["2 legs and 2 more.\n#### 4", "#### 1,000", "#### -2"], {}, {"grader": "number"}),
        (["Yes", "no", "true"], {}, {"grader": "yes_no"}),
        (["Oslo", "Lima", "The Hague"], {}, {"grader": "text"}),
        ([r"\frac{1}{2}", "x^2", r"\pi"], {}, {"grader": "math"}),
        (["A", "C", "B"], {"choices": ["red", "green", "blue"]}, {"grader": "choice", "choices_field": "choices"}),
        (["red", "blue", "red"], {"options": ["red", "green", "blue"]}, {"grader": "choice", "answer_is": "text"}),
        ([0, 2, 1], {"options": ["red", "green", "blue"]}, {"grader": "choice", "answer_is": "index"}),
    ],
)
def test_the_grader_is_told_by_the_look_of_the_answers(
    tmp_path: Path, answers: list[Any], more: dict[str, Any], expected: dict[str, str]
) -> None:
    if expected["grader"] == "math":
        pytest.importorskip("math_verify")
    rows = [{"question": f"Question {i}?", "answer": a, **more} for i, a in enumerate(answers)]
    assert reading(write(tmp_path / "q.jsonl", rows)).items() >= expected.items()


def test_what_cannot_be_told_is_asked_for_by_its_option(tmp_path: Path) -> None:
    file = write(tmp_path / "q.csv", [{"was": "2 + 2?", "ist": "4"}, {"was": "2 + 3?", "ist": "5"}])
    with pytest.raises(DataError, match="which column is the question") as error:
        reading(file)
    assert "was, ist" in error.value.what
    assert "--question-field" in error.value.do
    assert reading(file, question_field="was", answer_field="ist")["grader"] == "number"
    bad = write(tmp_path / "b.jsonl", [{"question": "2 + 2?", "answer": "4"}, {"question": "3 + 3?", "answer": ""}])
    with pytest.raises(DataError, match="is empty") as error:
        reading(bad)
    assert "row 2" in error.value.where


# --- how agents are written


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("m@http://127.0.0.1:8000", {"name": "m", "base_url": "http://127.0.0.1:8000/v1", "api_key_env": None}),
        ("m@https://api.x.ai/v1/chat/completions", {"base_url": "https://api.x.ai/v1", "api_key_env": "TEACHER_KEY"}),
        ("big=org/m:free@https://openrouter.ai/api/v1/", {"name": "big", "model": "org/m:free"}),
        ("openai:gpt-4o-mini", {"name": "gpt-4o-mini", "preset": "openai"}),
        ("ollama:qwen3:8b", {"name": "qwen3-8b", "model": "qwen3:8b", "preset": "ollama"}),
        ("anthropic:claude-x", {"backend": "anthropic_messages", "model": "claude-x"}),
        ("Qwen/Qwen3-0.6B", {"name": "Qwen3-0.6B", "model": "Qwen/Qwen3-0.6B"}),
        ("schoolhouse:ada", {"name": "ada", "model": "schoolhouse:ada"}),
        ("scripted:my.py:reply", {"name": "reply", "backend": "scripted", "function": "my.py:reply"}),
    ],
)
def test_an_agent_is_written_in_a_few_words(words: str, expected: dict[str, Any]) -> None:
    assert agent(words).items() >= expected.items()


@pytest.mark.parametrize("words", ["gpt-4o", "@http://x/v1", "", "openai:"])
def test_what_names_no_agent_is_refused_with_the_forms(words: str) -> None:
    with pytest.raises(RecipeError) as error:
        agent(words)
    assert "MODEL@URL" in error.value.do


def test_a_student_whose_weights_are_elsewhere_is_refused(tmp_path: Path) -> None:
    read = {"name": "schoolhouse"}
    with pytest.raises(RecipeError, match="cannot be trained"):
        first_recipe(read, ["schoolhouse:ada"], "openai:gpt-4o-mini", "debate_reflect", "x")


def test_mistakes_of_the_first_minute_are_told_with_what_to_do(tmp_path: Path) -> None:
    file = questions(tmp_path)
    student = ("--student", "schoolhouse:student")
    for arguments, says in (
        (("run",), "`viva init` writes one"),
        (("doctor",), "`viva init` writes one"),
        (("init",), "`--questions` is missing"),
        (("init", "--questions", "none.jsonl", "--teacher", "schoolhouse:ada", *student), "No such file"),
        (("init", "--questions", file.name, *student), "`--teacher` is missing"),
        (("init", "--questions", file.name, "--teacher", "gpt-4o", *student), "MODEL@URL"),
        (("init", "--questions", file.name, "--teacher", "schoolhouse:ada", "--method", "debat"), "did you mean"),
        (("init", "--task", "gsm9k", "--teacher", "schoolhouse:ada", *student), "did you mean `gsm8k`"),
    ):
        done = viva(*arguments, cwd=tmp_path)
        assert (done.returncode, says in done.stderr) == (2, True), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"questions.jsonl"}, "nothing is written where something is wrong"
    (tmp_path / "recipe.yaml").write_text("mine", "utf-8")
    done = viva("init", "--questions", file.name, "--teacher", "schoolhouse:ada", *student, cwd=tmp_path)
    assert "--force" in done.stderr
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
