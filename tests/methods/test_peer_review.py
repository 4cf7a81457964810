"""Peer review from recipe to results: real student, real training, scripted teachers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.methods.carry import carry_out

from vivavoce.config import check_recipe
from vivavoce.errors import RecipeError
from vivavoce.graph import read_graphs
from vivavoce.methods.peer_review import plan
from vivavoce.report import table, write_report

ARMS = ["single", "unreviewed", "reviewed", "checked", "checked_and_reviewed", "random", "rationale_only"]


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture
def values(recipe: dict[str, Any]) -> dict[str, Any]:
    """The tests' recipe of a debate, as a recipe of peer review."""
    quick = {k: v for k, v in recipe["sft"].items() if k != "rows_per_step"}
    kept = {k: recipe[k] for k in ("name", "seeds", "task", "teachers", "student", "dpo", "test")}
    return {
        **kept,
        "method": "peer_review",
        "student": {**recipe["student"], "samples": 1, "max_new_tokens": 40},
        "review": {"prompts": "schoolhouse", "gold_shown": False, "classes": ["wrong", "no_answer", "truncated"]},
        "arms": ARMS,
        "two_task": {**quick, "rows_per_step": 8, "learning_rate": 1e-3},
        "test": {"max_new_tokens": 40, "committee": False},
    }


def test_the_whole_method_runs_and_a_second_time_for_nothing(values: dict[str, Any], where: Path) -> None:
    found, paid = carry_out(values, where)
    names = [a["name"] for a in found["arms"]]
    assert names[0] == "student"
    assert set(names) >= {"single:ada", "single:bob", "single:cyd", *ARMS[1:]}
    graphs = list(read_graphs(where / "graphs" / "train.jsonl"))
    for g in graphs:
        g.check()
        mistaken = any(n.kind == "review" for n in g.nodes)
        assert sum(n.kind == "review" for n in g.nodes) == (6 if mistaken else 0)
    assert found["exam"]["questions"] == 30
    assert 0 < found["exam"]["mistakes"] <= 30
    planned = plan(check_recipe(values, Path("t")))  # type: ignore[arg-type]
    assert sum(p.least for p in planned) <= paid <= sum(p.most for p in planned)
    again, paid_again = carry_out(values, where)
    assert paid_again == 0
    assert {k: v for k, v in again.items() if k != "wall_s"} == {k: v for k, v in found.items() if k != "wall_s"}
    (where / "results.json").write_text(json.dumps(found))
    assert "checked_and_reviewed" in table(found)
    assert "checked_and_reviewed" in write_report(where).read_text()


def test_changing_what_is_accepted_and_how_it_is_weighed_asks_no_teacher(values: dict[str, Any], where: Path) -> None:
    changed = {**values, "accept": {"threshold": 2.0, "aggregate": "median"}, "arms": ["reviewed", "score_weighted"]}
    changed["two_task"] = {**values["two_task"], "alpha": 0.8, "pairing": "paired-resampled"}
    tests = 2 * 2 * 20  # the new students sit the test
    _, paid = carry_out(changed, where, update=True)
    assert paid <= tests


def test_a_second_exam_asks_teachers_only_about_new_mistakes(values: dict[str, Any], where: Path) -> None:
    recipe = {**values, "arms": ["refreshed"], "seeds": [0]}
    found, _ = carry_out(recipe, where, update=True)
    assert [a["name"] for a in found["arms"]] == ["student", "refreshed"]
    first, second = (list(read_graphs(where / "graphs" / f"{s}.jsonl")) for s in ("train", "refreshed.2-0"))
    known = {n.call for g in first for n in g.nodes if n.kind in ("rationale", "review")}
    asked = {g.problem.id for g in first if any(n.kind == "review" for n in g.nodes)}
    later = [n for g in second if g.problem.id in asked for n in g.nodes if n.kind in ("rationale", "review")]
    assert later
    assert all(n.call in known for n in later), "what does not depend on the student was asked once"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": ["revewed"]}, "unknown arm `revewed`"),
        ({"review": {"authors": ["eve"]}}, "names `eve`, who is no teacher"),
    ],
)
def test_mistakes_in_a_recipe_are_named(values: dict[str, Any], change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_recipe({**values, **change}, Path("test.yaml"))


def test_one_teacher_without_peers_is_refused_unless_nothing_is_reviewed(values: dict[str, Any]) -> None:
    alone = {**values, "teachers": values["teachers"][:1]}
    with pytest.raises(RecipeError, match="has no peer"):
        check_recipe(alone, Path("test.yaml"))
    check_recipe({**alone, "arms": ["single", "checked"]}, Path("test.yaml"))
    check_recipe({**alone, "review": {"scope": "self"}}, Path("test.yaml"))
