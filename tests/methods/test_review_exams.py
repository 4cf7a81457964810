"""Arms of peer review beyond one exam and one volume, in one run: refreshed exams, equal volumes, worked examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.methods.carry import carry_out
from tests.methods.test_peer_review import rows_of, values  # noqa: F401

from vivavoce.config import check_recipe
from vivavoce.errors import RecipeError
from vivavoce.files import file_name
from vivavoce.graph import read_graphs
from vivavoce.methods.peer_review import plan, trainings

ARMS = [
    "unreviewed",
    "checked_and_reviewed@accept.min_valid=all",
    "unreviewed@volume=smallest",
    "checked_and_reviewed@accept.min_valid=all,volume=spend",
    "unreviewed@volume=3",
    "each_epoch",
    "until_no_gain@until=0.99",
    "few_shot@shots=2,accept={take: all}",
]


@pytest.fixture
def recipe_of_many(values: dict[str, Any]) -> dict[str, Any]:  # noqa: F811
    recipe = {**values, "seeds": [0], "arms": ARMS, "task": {"name": "schoolhouse", "train": 12, "test": 5}}
    recipe["student"] = {**values["student"], "model": "schoolhouse:student"}
    recipe["two_task"] = {**values["two_task"], "max_steps": 6, "learning_rate": 4e-3}
    return recipe


def test_exams_go_on_stop_and_are_told_and_volumes_are_equal(recipe_of_many: dict[str, Any], tmp_path: Path) -> None:
    results, paid = carry_out(recipe_of_many, tmp_path)
    names = [arm["name"] for arm in results["arms"]]
    assert set(names) == {"student", *ARMS}

    done = {p.parent.name: json.loads(p.read_text("utf-8")) for p in tmp_path.glob("checkpoints/*/train_result.json")}
    steps = {name: result["steps"] for name, result in done.items()}
    assert [steps[n] for n in ("each_epoch-0", "each_epoch.2-0", "each_epoch.3-0")] == [2, 2, 2], "of 6 in all"
    assert not any(name.startswith(file_name("until_no_gain@until=0.99.2")) for name in steps), "it stopped"
    first_losses = [done[n]["first_loss"] for n in ("each_epoch-0", "each_epoch.2-0", "each_epoch.3-0")]
    assert first_losses[1] < 0.95 * first_losses[0], f"the student that sat the exam goes on {first_losses}"
    details = results["exams"]
    assert [(e["exam"], e["seed"]) for e in details["each_epoch"]] == [(2, 0), (3, 0)]
    assert [e["exam"] for e in details["until_no_gain@until=0.99"]] == [2]
    first = list(read_graphs(tmp_path / "graphs" / "train.jsonl.gz"))
    wrong = sum(any(n.kind == "critique" for n in g.nodes) for g in first)
    second = details["each_epoch"][0]
    assert second["fixed"] + second["still_wrong"] <= wrong
    assert second["mistakes"] >= second["still_wrong"] + second["regressed"]
    lines = [json.loads(x) for x in (tmp_path / "data/history/each_epoch.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 12
    assert {len(line["exams"]) for line in lines} == {3}
    assert sum(line["exams"][0] == "W" for line in lines) == wrong
    assert sum(line["exams"][:2] == "WR" for line in lines) == second["fixed"]

    many = {arm: len(rows_of(tmp_path, arm, "answer")) for arm in ARMS}
    assert many["unreviewed@volume=smallest"] == many[ARMS[1]] < many["unreviewed"]
    assert many["unreviewed@volume=3"] == 3
    assert len(rows_of(tmp_path, "unreviewed@volume=3", "feedback")) == len(rows_of(tmp_path, "unreviewed", "feedback"))
    assert many[ARMS[3]] <= many[ARMS[1]]
    spent = {r.problem for r in rows_of(tmp_path, ARMS[3])}
    assert spent < {r.problem for r in rows_of(tmp_path, ARMS[1])}, "reviews cost, so that fewer questions are left"

    answered = (tmp_path / "evaluations" / f"{file_name(ARMS[-1])}-0.jsonl").read_text("utf-8").splitlines()
    plain = (tmp_path / "evaluations" / "student-0.jsonl").read_text("utf-8").splitlines()
    prompts = [sum(json.loads(x)["usage"]["prompt"] for x in of) for of in (answered, plain)]
    assert len(answered) == 5
    assert prompts[0] > 2 * prompts[1], "two questions with their answers stand before each"
    planned = plan(check_recipe(recipe_of_many, Path("t")))  # type: ignore[arg-type]
    assert sum(p.calls.least for p in planned) <= paid <= sum(p.calls.most for p in planned)
    assert ARMS[-1] not in {t.arm for t in trainings(check_recipe(recipe_of_many, Path("t")))}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("unreviewed@spread=true", "spread needs training: continue"),
        ("few_shot@exams=2", "nothing is trained"),
        ("unreviewed@volume=0", "one rationale at least"),
    ],
)
def test_arms_that_contradict_themselves_are_refused(values: dict[str, Any], arm: str, message: str) -> None:  # noqa: F811
    with pytest.raises(RecipeError, match=message):
        check_recipe({**values, "arms": [arm]}, Path("test.yaml"))
