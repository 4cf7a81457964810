"""Open questions from recipe to report: debates, data and tests by judges; planned, resumed and billed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.serving import save_tiny_model
from typer.testing import CliRunner

from vivavoce.agents.journal import Journal
from vivavoce.cli import app
from vivavoce.config import load_recipe
from vivavoce.errors import RecipeError
from vivavoce.graph import stored_graphs
from vivavoce.methods import debate_reflect
from vivavoce.report import write_report
from vivavoce.run import Run, open_run

PEOPLE = Path(__file__).parent / "people.py"


def person(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "backend": "scripted", "function": f"{PEOPLE}:{name}", "max_new_tokens": 40, **more}


@pytest.fixture
def values(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    student = save_tiny_model(tmp_path_factory.mktemp("student"), context=768)
    rows = [{"question": f"What does plant {n} need?"} for n in range(10)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    quick = {"max_steps": 1, "lora": None, "threads": 1, "max_length": 768}
    return {
        "method": "debate_reflect",
        "task": {"name": "jsonl", "path": str(tmp_path / "q.jsonl"), "train_share": 0.6, "seed": 0, "grader": "judge"},
        "judge": {"agents": [person("strict"), person("mumbling")], "rubric": "It names water."},
        "teachers": [person("wise"), person("rash")],
        "student": {"name": "student", "model": str(student), "dtype": "float32", "max_new_tokens": 8},
        "debate": {"max_rounds": 2, "stop": "cap_only", "word_limit": 30},
        "arms": ["debate_reflect_sft"],
        "sft": quick,
        "test": {"max_new_tokens": 8},
    }


def begun(tmp_path: Path, values: dict[str, Any]) -> Any:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values), "utf-8")
    return load_recipe(tmp_path / "recipe.yaml")


def finished(run: Run, recipe: Any) -> dict[str, Any]:
    results = asyncio.run(debate_reflect.distill(recipe, run))
    run.write(run.path / "results.json", json.dumps(results))
    return results


def test_open_questions_go_from_a_recipe_to_a_comparison(tmp_path: Path, values: dict[str, Any]) -> None:
    recipe = begun(tmp_path, values)
    planned = {(p.stage, p.agent): p.calls for p in debate_reflect.plan(recipe)}
    with open_run(tmp_path / "run", recipe) as run:
        results = finished(run, recipe)
    with Journal(tmp_path / "run" / "journal.sqlite", read_only=True) as journal:
        costs = {(c.stage, c.agent): c for c in journal.costs()}
    # judged: what wise says is taught, what rash says only if it names water
    graphs = stored_graphs(tmp_path / "run" / "graphs" / "train.jsonl.gz")
    answers = [n for g in graphs for n in g.nodes if n.kind == "answer"]
    assert {n.correct for n in answers if n.agent == "wise"} <= {True, None}
    assert all(("water" in n.text) == n.correct for n in answers if n.correct is not None)
    rows = [json.loads(line) for line in (tmp_path / "run/data/debate_reflect_sft.jsonl").read_text().splitlines()]
    assert rows
    assert all("water" in row["completion"] for row in rows)
    # planned: no stage of a judge is missing, and no call beyond the most
    for key, cost in costs.items():
        assert cost.calls <= planned[key].most, key
    of_judges = {stage for stage, agent in planned if agent == "strict"}
    assert of_judges == {"judge:debate:train", "judge:debate:test", "judge:test"}
    # the untaught student never ends, and what was cut costs no verdict
    assert {stage for stage, agent in costs if agent == "strict"} == of_judges - {"judge:test"}
    done = CliRunner().invoke(app, ["judges", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "strict" in done.stdout
    # measured
    assert results["judging"]["judges"]["strict"]["unreadable"] == 0
    assert results["judging"]["answers"] > 10
    of_tests = results["judging"]["tests"]
    assert 0 < of_tests["answers"] < results["judging"]["answers"]
    write_report(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert f"Of answers to test questions: {of_tests['answers']} answers" in page
    assert f"Of all answers: {results['judging']['answers']} answers" in page
    assert '<a href="#judges">' in page
    # finished: nothing is asked again, and the results are the same
    with open_run(tmp_path / "run", recipe) as run:
        results_again = finished(run, recipe)
        assert {(c.stage, c.agent): c.calls for c in run.journal.costs()} == {k: c.calls for k, c in costs.items()}
    assert results_again["judging"] == results["judging"]
    assert results_again["arms"] == results["arms"]


def test_a_vote_of_teachers_is_right_if_the_answer_it_takes_is(tmp_path: Path, values: dict[str, Any]) -> None:
    values["judge"]["agents"] = [person("strict")]
    recipe = begun(tmp_path, values)
    with open_run(tmp_path / "run", recipe) as run:
        arms = {arm["name"]: arm for arm in finished(run, recipe)["arms"]}
    assert arms["teacher:wise"]["right"] == arms["teacher:wise"]["n"] == 4
    assert arms["teacher:wise"]["right"] > arms["teacher:rash"]["right"]


def test_a_changed_rubric_judges_again_and_asks_no_teacher_again(tmp_path: Path, values: dict[str, Any]) -> None:
    values["judge"]["agents"], counts = [person("strict")], []
    for rubric in ("It names water.", "It is short."):
        recipe = begun(tmp_path, values | {"judge": {**values["judge"], "rubric": rubric}})
        with open_run(tmp_path / "run", recipe, update=bool(counts)) as run:
            finished(run, recipe)
            costs = run.journal.costs()
            counts.append([sum(c.calls for c in costs if (c.agent == "strict") is judge) for judge in (True, False)])
    (verdicts, others), (verdicts_then, others_then) = counts
    assert verdicts_then > verdicts
    assert others_then == others


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judge": None}, "name them as `judge"),
        ({"judge": {"agents": [person("wise")]}}, "are both called `wise`"),
        ({"judge": {"agents": [person("strict")], "decides": False}}, "with decides: true"),
        ({"judge": {"agents": [person("strict")], "right_from": 11}}, "right_from must lie above 1"),
        ({"judge": {"agents": []}}, "must not be empty"),
        ({"judge": {"agents": [person("strict")], "rubrik": "x"}}, "did you mean `rubric`"),
    ],
)
def test_a_mistake_is_told_before_anything_is_asked(
    tmp_path: Path, values: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as error:
        begun(tmp_path, {k: v for k, v in (values | change).items() if v is not None})
    assert message in str(error.value)
    assert "recipe.yaml:" in error.value.where


def test_a_cap_holds_for_judges_too(tmp_path: Path, values: dict[str, Any]) -> None:
    values["judge"]["agents"] = [person("strict", budget={"calls": 5})]
    recipe = begun(tmp_path, values)
    with open_run(tmp_path / "run", recipe) as run:
        with pytest.raises(Exception, match="strict"):
            finished(run, recipe)
        assert sum(c.calls for c in run.journal.costs() if c.agent == "strict") == 5


@pytest.mark.parametrize("form", ["pointwise", "pairwise"])
def test_judges_of_every_form_are_held_against_right_answers_in_the_report(
    form: str, tmp_path: Path, values: dict[str, Any]
) -> None:
    rows = [{"question": f"What does plant {n} need?", "answer": "water"} for n in range(10)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    names = ("fair", "first") if form == "pairwise" else ("strict", "kind")
    judge = {"agents": [person(name) for name in names], "rubric": "It names water.", "form": form, "decides": False}
    task = {**values["task"], "grader": "text"}
    recipe = begun(tmp_path, {**values, "task": task, "judge": judge, "teachers": [person("wise"), person("short")]})
    with open_run(tmp_path / "run", recipe) as run:
        judging = finished(run, recipe)["judging"]
    assert set(judging["tests"]["gold"]) == {*names, "all together"}
    assert judging["tests"]["gold"][names[0]]["n"] > 0
    assert ("same_in_both_orders" in judging["judges"][names[0]]) == (form == "pairwise")
    write_report(tmp_path / "run")
    assert "right called wrong" in (tmp_path / "run" / "report.html").read_text("utf-8")
