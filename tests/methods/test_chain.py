"""A chain from recipe to report: peer review, then trees, then on-policy; a real student, scripted teachers."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.methods.carry import carry_out
from tests.serving import save_tiny_model

from vivavoce.agents.journal import Journal
from vivavoce.config import check_recipe, load_recipe
from vivavoce.errors import RecipeError
from vivavoce.methods import chain
from vivavoce.methods.measured import measured_run
from vivavoce.methods.trainings import total_of
from vivavoce.report import table, write_report
from vivavoce.report.answers import answers
from vivavoce.run import open_run

SHIPPED = Path(__file__).parents[2] / "recipes" / "schoolhouse" / "chain.yaml"
ARMS = ["student", "review.unreviewed", "trees.t_dpo", "opd.mt_opd"]


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a scorer."""
    return save_tiny_model(tmp_path_factory.mktemp("scorer"), context=512, initializer_range=0.1)


@pytest.fixture
def values(recipe: dict[str, Any], local: Path) -> dict[str, Any]:
    quick = {k: v for k, v in recipe["sft"].items() if k != "rows_per_step"} | {"max_steps": 1}
    return {
        **{k: recipe[k] for k in ("name", "teachers", "student")},
        "method": "chain",
        "seeds": [0, 1],
        "task": {"name": "schoolhouse", "train": 12, "test": 6},
        "test": {"max_new_tokens": 12, "committee": False},
        "stages": [
            {
                "name": "review",
                "method": "peer_review",
                "review": {
                    "prompts": "schoolhouse",
                    "gold_shown": False,
                    "classes": ["wrong", "no_answer", "truncated"],
                },
                "arms": ["unreviewed"],
                "two_task": {**quick, "rows_per_step": 4, "learning_rate": 1e-3},
            },
            {
                "name": "trees",
                "method": "debate_reflect",
                "start": "unreviewed",
                "debate": recipe["debate"],
                "trees": recipe["trees"],
                "own_arms": {"t_dpo": {"learn": "trees"}},
                "arms": ["t_dpo"],
                "dpo": {**quick, "trees_per_step": 4, "learning_rate": 1e-3},
            },
            {
                "name": "opd",
                "method": "debate_opd",
                "start": "t_dpo",
                "debate": {"prompts": "schoolhouse", "reads": "last_round"},
                "scorers": [{"name": "ada", "model": str(local), "dtype": "float32"}],
                "opd": {**quick, "states_per_step": 4, "max_new_tokens": 12, "learning_rate": 1e-3},
                "arms": ["mt_opd"],
                "value": False,
            },
        ],
        "pairs": [["student", "opd.mt_opd"]],
    }


def models(where: Path) -> dict[str, bytes]:
    return {str(p.relative_to(where)): p.read_bytes() for p in sorted(where.rglob("checkpoints/*/model.safetensors"))}


def stopped_in(where: Path, made: chain.Options, stage: str) -> None:
    """Run the chain until calls of a stage come back, and stop there as Ctrl-C does."""
    asked: list[str] = []

    def stop(agent: str, cached: bool, usage: object) -> None:
        asked.extend([agent] if (where / "stages" / stage).is_dir() else [])
        if len(asked) == 9:
            raise KeyboardInterrupt

    with open_run(where, made) as run:
        run.journal.on_call = stop
        asyncio.run(chain.distill(made, run))


def test_every_stage_starts_from_the_one_before_and_the_whole_is_one_run_that_resumes(
    values: dict[str, Any], tmp_path: Path
) -> None:
    made = check_recipe(values, Path("test.yaml"))
    assert isinstance(made, chain.Options)
    where = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        stopped_in(where, made, "trees")
    begun = models(where)
    assert [name.split("/")[1] for name in begun] == ["review", "review"]

    results, paid = carry_out(values, where)
    names = [arm["name"] for arm in results["arms"]]
    assert names == ARMS
    whole, all_calls = carry_out(values, tmp_path / "whole")
    assert 0 < paid < all_calls
    assert {**whole, "wall_s": 0} == {**results, "wall_s": 0}
    assert models(where) == models(tmp_path / "whole")

    facts = {arm["name"]: arm for arm in results["arms"]}
    assert [(facts[n]["stage"], facts[n]["method"], facts[n]["start"]) for n in ARMS[1:]] == [
        ("review", "peer_review", None),
        ("trees", "debate_reflect", "review.unreviewed"),
        ("opd", "debate_opd", "trees.t_dpo"),
    ]
    pairs = {(p["a"], p["b"]) for p in results["paired"]}
    assert {*pairwise(ARMS), ("student", "opd.mt_opd")} <= pairs
    first, later = (
        json.loads((where / "stages" / stage / "checkpoints" / f"{arm}-1" / "train_result.json").read_text())
        for stage, arm in (("trees", "t_dpo"), ("opd", "mt_opd"))
    )
    assert first["first_loss"] == pytest.approx(0.693147, abs=2e-6), "the reference of T-DPO is its start"
    assert later["steps"] == 1

    second, nothing = carry_out(values, where)
    assert (nothing, {**second, "wall_s": 0}) == (0, {**results, "wall_s": 0})

    rights = {name: sum(bool(row["correct"]) for row in answers(where) if row["arm"] == name) for name in ARMS}
    assert rights == {arm["name"]: sum(s["right"] for s in arm["seeds"]) for arm in results["arms"]}

    with Journal(where / "journal.sqlite", read_only=True) as journal:
        stages = {cost.stage.partition("/")[0] for cost in journal.costs()}
    assert stages == {"review", "trees", "opd"}
    planned = chain.plan(made)
    assert sum(p.calls.least for p in planned) <= all_calls <= sum(p.calls.most for p in planned)
    assert total_of(chain.trainings(made)).models == len(begun) + 4
    timed = total_of(chain.trainings(made, measured_run(where)))
    assert timed.updates == 6
    assert timed.seconds is not None
    assert timed.seconds > 0

    (where / "results.json").write_text(json.dumps(results))
    page = write_report(where).read_text("utf-8")
    assert all(arm in page and arm in table(results) for arm in ARMS)
    assert "Stage trees: on the training questions" in page


def where_of(values: dict[str, Any], tmp_path: Path, key: str) -> tuple[str, int]:
    """What is said of a recipe, and on how many-th line from the first one that holds ``key``."""
    path = tmp_path / "chain.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    lines = path.read_text().splitlines()
    line = int(error.value.where.rpartition(":")[2])
    assert key in lines[line - 1], (lines[line - 1], str(error.value))
    return error.value.what, line


@pytest.mark.parametrize(
    ("stage", "change", "key", "message"),
    [
        (1, {"start": "reviewed"}, "start: reviewed", "trains an arm `reviewed`: review trains unreviewed"),
        (2, {"start": "unreviewed"}, "start: unreviewed", "no stage before `opd` trains an arm `unreviewed`"),
        (1, {"seeds": [3]}, "seeds", "`seeds` is the same in all stages"),
        (1, {"method": "debate_reflct"}, "method: debate_reflct", "unknown method `debate_reflct`"),
        (1, {"dpo": {"bta": 1}}, "bta", "unknown key `dpo.bta`, did you mean `beta`"),
        (2, {"arms": ["debate_reflect"]}, "debate_reflect", "unknown arm `debate_reflect`"),
        (2, {"name": "trees"}, "name: trees", "two stages are called `trees`"),
    ],
)
def test_what_is_wrong_with_a_stage_is_told_with_its_line_before_anything_is_spent(
    values: dict[str, Any], tmp_path: Path, stage: int, change: dict[str, Any], key: str, message: str
) -> None:
    values["stages"][stage] = {**values["stages"][stage], **change}
    what, _ = where_of(values, tmp_path, key)
    assert message in what


def test_a_stage_may_start_from_any_arm_before_it_by_its_whole_name_or_from_the_untaught_student(
    values: dict[str, Any],
) -> None:
    values["stages"][2]["start"] = "review.unreviewed"
    made = check_recipe(values, Path("test.yaml"))
    assert isinstance(made, chain.Options)
    assert made.starts() == ["student", "review.unreviewed", "review.unreviewed"]
    values["stages"][2]["start"] = "student"
    second = check_recipe(values, Path("test.yaml"))
    assert isinstance(second, chain.Options)
    assert second.starts()[2] == "student"


def test_the_shipped_chain_is_a_peer_review_then_trees_then_on_policy_over_one_set_of_questions() -> None:
    made = load_recipe(SHIPPED)
    assert isinstance(made, chain.Options)
    assert [part.method for part in made.parts.values()] == ["peer_review", "debate_reflect", "debate_opd"]
    assert len({json.dumps(part.task.model_dump()) for part in made.parts.values()}) == 1
    assert made.starts() == ["student", "review.checked_and_reviewed", "trees.t_dpo"]
    stages = {line.stage for line in chain.plan(made)}
    assert {"review/review:train", "trees/debate:train", "on_policy/debate:states"} <= stages
