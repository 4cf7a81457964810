"""Debate & Reflect from recipe to report: real student, real training, scripted teachers."""

from __future__ import annotations

import asyncio
import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from tests.methods.carry import carry_out

from vivavoce import plugins
from vivavoce.cli import main
from vivavoce.config import check_recipe, load_recipe
from vivavoce.data.training_rows import training_rows
from vivavoce.data.trees import preference_trees
from vivavoce.exams.examine import Judged
from vivavoce.graph import read_graphs
from vivavoce.methods.debate_reflect import Options, distill, plan
from vivavoce.methods.debating import DebateSession
from vivavoce.records import Example, Tree, from_json
from vivavoce.report import table, write_report
from vivavoce.report.answers import answers, as_csv
from vivavoce.run import open_run
from vivavoce.tasks import open_task

STUDENTS = [
    "student",
    "single:ada",
    "single:bob",
    "single:cyd",
    "multi_teacher",
    "debate_reflect_sft",
    "debate_reflect",
    "sft_continued",
]
COMMITTEE = [
    "teacher:ada",
    "teacher:bob",
    "teacher:cyd",
    "vote:majority",
    "vote:most_confident",
    "vote:confidence",
    "vote:debate",
]


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "run"


def test_the_whole_method_runs_to_a_report_and_a_second_time_for_nothing(recipe: dict[str, Any], where: Path) -> None:
    results, paid = carry_out(recipe, where)
    assert [a["name"] for a in results["arms"]] == STUDENTS + COMMITTEE
    assert all(a["n"] == 20 and a["wilson95"][0] <= a["accuracy"] <= a["wilson95"][1] for a in results["arms"])
    assert {a["name"]: len(a["seeds"]) for a in results["arms"]}["debate_reflect"] == 2
    assert all({"a", "b", "p"} <= p.keys() for p in results["paired"])
    assert paid > 300

    graphs = list(read_graphs(where / "graphs" / "train.jsonl.gz"))
    for g in graphs:
        g.check()
    votes = {a["name"]: a["right"] for a in results["arms"]}
    assert votes["vote:debate"] > max(votes[f"teacher:{t}"] for t in ("ada", "bob", "cyd")), (
        "the scripts learn by hearing"
    )

    second, paid_again = carry_out(recipe, where)
    assert paid_again == 0
    assert {**second, "wall_s": 0} == {**results, "wall_s": 0}

    (where / "results.json").write_text(json.dumps(results))
    assert "vote:debate" in write_report(where).read_text("utf-8")
    assert "debate_reflect_sft" in table(results)


def test_every_answer_to_a_test_question_is_a_row_that_needs_no_join(recipe: dict[str, Any], where: Path) -> None:
    made, results = check_recipe(recipe, Path("test.yaml")), json.loads((where / "results.json").read_text("utf-8"))
    problems = {p.id: p for p in open_task(made.task.name, made.task.options).problems("test")}
    rows = list(csv.DictReader(StringIO("".join(as_csv(answers(where))))))
    assert rows == [{k: v if isinstance(v, str) else cell(v) for k, v in row.items()} for row in answers(where)]
    for arm in results["arms"]:
        own_row = [row for row in rows if (row["test"], row["arm"]) == ("test", arm["name"])]
        assert {int(row["seed"]) for row in own_row} == {s["seed"] for s in arm["seeds"]}
        assert sum(row["correct"] == "True" for row in own_row) == sum(s["right"] for s in arm["seeds"]), arm["name"]
    for row in rows:
        asked = problems[row["problem"]]
        assert (row["question"], row["gold"], row["group"]) == (asked.question, asked.gold, asked.group)
        assert asked.question in json.loads(row["prompt"])[-1]["content"]
        assert row["text"] or row["status"] != "ok"
    assert {row["arm"] for row in rows} == {*STUDENTS, *COMMITTEE}
    (file,) = (where / "evaluations").glob("debate_reflect-1.jsonl")
    kept = file.read_text("utf-8")
    new = ("question", "gold", "arm", "seed", "prompt")
    old = [{k: v for k, v in json.loads(line).items() if k not in new} for line in kept.splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in old), "utf-8")
    assert all(
        (row["seed"], row["question"], row["gold"])
        == (1, problems[row["problem"]].question, problems[row["problem"]].gold)
        for row in answers(where)
        if (row["arm"], row["seed"]) == ("debate_reflect", 1)
    ), "files of an earlier version tell it by their names and the task"
    file.write_text(kept, "utf-8")


def cell(value: Any) -> str:
    """A value as CSV has it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else "" if value is None else str(value)


def test_trees_of_the_run_are_grown_by_its_own_rules(
    recipe: dict[str, Any], where: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_recipe(where / "recipe.yaml")
    graphs, seen = list(read_graphs(where / "graphs" / "train.jsonl.gz")), tmp_path / "trees.jsonl"

    def grown(*given: str) -> list[Tree]:
        monkeypatch.setattr("sys.argv", ["viva", "trees", str(where), "--out", str(seen), *given])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return training_rows(seen, Tree)

    async def by_the_run() -> list[Tree]:
        with open_run(where, loaded) as run:
            async with DebateSession(loaded, run, loaded.rules) as s:  # type: ignore[arg-type]
                return list(preference_trees(graphs, s.grower(loaded.trees)))  # type: ignore[attr-defined]

    assert grown() == asyncio.run(by_the_run())
    assert {len(t.chosen) * len(t.rejected) for t in grown("--set", "max_pairs=1")} == {1}


def test_t_dpo_and_the_control_start_from_the_sft_student_and_take_equal_updates(where: Path) -> None:
    results = {
        arm: json.loads((where / "checkpoints" / f"{arm}-1" / "train_result.json").read_text())
        for arm in ("debate_reflect_sft", "debate_reflect", "sft_continued")
    }
    assert results["debate_reflect"]["steps"] == results["sft_continued"]["steps"] == 3
    assert results["debate_reflect"]["first_loss"] == pytest.approx(0.693147, abs=2e-6)


def test_every_row_of_the_run_names_nodes_of_its_graphs(where: Path) -> None:
    known = {n.id for g in read_graphs(where / "graphs" / "train.jsonl.gz") for n in g.nodes}
    rows = [from_json(Example, x) for x in (where / "data" / "debate_reflect_sft.jsonl").read_text().splitlines()]
    assert rows
    assert all(set(r.source) <= known for r in rows)
    trees = [from_json(Tree, x) for x in (where / "data" / "trees-0.jsonl").read_text().splitlines()]
    assert trees
    assert all(c.source in known for t in trees for c in t.chosen)


def test_no_test_question_was_trained_on_and_none_of_its_prompts_held_a_debate(where: Path) -> None:
    trained = {
        json.loads(line)["problem"] for line in (where / "data" / "debate_reflect_sft.jsonl").read_text().splitlines()
    }
    tested = [from_json(Judged, x) for x in (where / "evaluations" / "student-0.jsonl").read_text().splitlines()]
    assert len(tested) == 20
    assert not trained & {j.problem for j in tested}


def test_changing_how_trees_are_grown_pays_for_no_debate(recipe: dict[str, Any], where: Path) -> None:
    changed = {
        **recipe,
        "trees": {"branch": "step", "pairing": "cross_product"},
        "dpo": {**recipe["dpo"], "objective": "listwise", "beta": 0.3},
    }
    asked: list[str] = []
    checked = check_recipe(changed, Path("test.yaml"))
    assert isinstance(checked, Options)
    with open_run(where, checked, update=True) as run:
        run.journal.on_call = lambda agent, cached, usage: asked.append(agent) if not cached else None
        asyncio.run(distill(checked, run))
    assert asked
    assert set(asked) == {"student"}, "only the retrained student sits its test again"


def test_the_plan_counts_what_the_run_then_asked(recipe: dict[str, Any], where: Path) -> None:
    checked = check_recipe(recipe, Path("test.yaml"))
    assert isinstance(checked, Options)
    planned = plan(checked)
    from vivavoce.agents.journal import Journal

    with Journal(where / "journal.sqlite", read_only=True) as journal:
        spent = {(c.stage, c.agent): c.calls for c in journal.costs()}
    for p in planned:
        if p.stage in ("debate:train", "debate:test"):
            assert p.calls.least <= spent[p.stage, p.agent] <= p.calls.most


def test_another_test_costs_its_questions_alone_and_no_committee_takes_it(recipe: dict[str, Any], where: Path) -> None:
    carry_out(recipe, where, update=True)
    changed = {**recipe, "also_test": {"mix": {"name": "schoolhouse", "test": 6, "kinds": ["mix"], "seed": 2}}}
    results, paid = carry_out(changed, where, update=True)
    also = results["also"]["mix"]
    assert [a["name"] for a in also["arms"]] == STUDENTS
    assert (also["task"], also["n"]) == ("schoolhouse", 6)
    assert ("student", "debate_reflect") in [(p["a"], p["b"]) for p in also["paired"]]
    models = sum(len(a["seeds"]) for a in also["arms"])
    assert 0 < paid <= models * 6
    planned = plan(check_recipe(changed, Path("test.yaml")))  # type: ignore[arg-type]
    assert {p.stage: p.calls.most for p in planned}["test:mix"] == models * 6


def test_every_method_has_what_the_command_line_needs() -> None:
    for name in plugins.names("methods"):
        module = plugins.load("methods", name, "test")
        assert callable(module.plan)
        assert module.Options.model_fields["method"]
