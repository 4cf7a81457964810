"""Arms of Debate & Reflect: trained if somebody asked for them, starting from one another, compared as planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.methods.carry import carry_out

from vivavoce.config import check_recipe, load_recipe
from vivavoce.errors import RecipeError
from vivavoce.files import file_name
from vivavoce.methods.debate_reflect import Options, plan
from vivavoce.methods.reflect_arms import ReflectArm, needed

TEACHERS = ["ada", "bob", "cyd"]
ALL = [
    "single:ada", "single:bob", "single:cyd", "multi_teacher", "multi_teacher_vote", "debate_reflect_sft",
    "debate_reflect", "sft_continued",
]  # fmt: skip


def checked(values: dict[str, Any]) -> Options:
    made = check_recipe(values, Path("test.yaml"))
    assert isinstance(made, Options)
    return made


def test_a_recipe_that_names_no_arm_has_the_method_and_every_baseline(recipe: dict[str, Any]) -> None:
    assert list(checked({**recipe, "examples": {"take": "right_winner"}}).wanted) == ALL
    without_choice = [name for name in ALL if name != "multi_teacher_vote"]
    assert list(checked(recipe).wanted) == without_choice, "of all right answers there is none to choose"


def test_what_an_arm_starts_from_is_trained_before_it_and_nothing_else_is() -> None:
    assert list(needed(["debate_reflect"], {}, TEACHERS)) == ["debate_reflect_sft", "debate_reflect"]
    assert list(needed(["sft_continued"], {}, TEACHERS)) == ["debate_reflect_sft", "debate_reflect", "sft_continued"]
    mine = {"mine": ReflectArm(learn="trees", start="single:bob@sft.max_steps=2")}
    assert list(needed(["mine"], mine, TEACHERS)) == ["single:bob@sft.max_steps=2", "mine"]


def test_only_arms_that_somebody_asked_for_are_trained_and_those_that_they_start_from_are_not_compared(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe |= {"seeds": [0], "test": {"max_new_tokens": 40, "committee": False}}
    recipe["arms"] = ["debate_reflect", "debate_reflect@dpo.beta=0.5,dpo.max_steps=1"]
    found, _ = carry_out(recipe, tmp_path)
    names = ["student", *recipe["arms"]]
    assert [a["name"] for a in found["arms"]] == names
    trained = {p.name.rpartition("-")[0] for p in (tmp_path / "checkpoints").iterdir()}
    assert trained == {file_name(arm) for arm in ("debate_reflect_sft", *recipe["arms"])}
    steps = [json.loads((tmp_path / "checkpoints" / f"{file_name(arm)}-0" / "train_result.json").read_text())["steps"]
             for arm in recipe["arms"]]  # fmt: skip
    assert steps == [3, 1]
    facts = {a["name"]: a for a in found["arms"]}
    assert facts["debate_reflect"]["start"] == "debate_reflect_sft"
    changed = facts["debate_reflect@dpo.beta=0.5,dpo.max_steps=1"]
    assert (changed["base"], changed["changes"]) == ("debate_reflect", "dpo.beta=0.5,dpo.max_steps=1")
    assert {p.stage: p.calls.most for p in plan(checked(recipe))}["test"] == 3 * 20


def test_an_arm_without_trees_is_left_out_and_the_others_keep_their_results(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe |= {"seeds": [0], "test": {"max_new_tokens": 40, "committee": False}}
    recipe |= {"trees": {**recipe["trees"], "pairing": "transition_only", "rounds": [0]}}
    recipe["arms"] = ["multi_teacher", "debate_reflect", "sft_continued"]
    found, _ = carry_out(recipe, tmp_path)
    assert [a["name"] for a in found["arms"]] == ["student", "multi_teacher"]
    said = capsys.readouterr().err
    assert "for want of trees of right and wrong answers: debate_reflect" in said
    assert ["student", "debate_reflect"] in found["untested"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": ["debate"]}, "unknown arm `debate`"),
        (
            {"arms": ["mine"], "own_arms": {"mine": {"start": "single"}}},
            "cannot start from `single`: name one of single",
        ),
        ({"arms": ["a"], "own_arms": {"a": {"start": "b"}, "b": {"start": "a"}}}, "starts from itself: a → b → a"),
        ({"arms": ["mine"], "own_arms": {"mine": {"teachers": ["eve"]}}}, "`mine` names `eve`, who is no teacher"),
        ({"arms": ["debate_reflect@dpo.bta=1"]}, "dpo: unknown key `bta`, did you mean `beta`"),
        ({"arms": ["debate_reflect@updates_of=sft_continued"]}, "T-DPO has dpo.max_steps"),
    ],
)
def test_mistakes_are_named_before_anything_is_spent(recipe: dict[str, Any], change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        checked({**recipe, **change})


def test_every_arm_can_be_paired_with_every_other_and_p_is_corrected_for_all(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe |= {"seeds": [0], "arms": ["single:ada", "single:bob", "multi_teacher"]}
    usual, _ = carry_out(recipe, tmp_path)
    asked = ["single:bob", "teacher:cyd"]
    found, paid = carry_out({**recipe, "pairs": [asked, ["student", "multi_teacher"]]}, tmp_path, update=True)
    assert paid == 0
    before, after = ([[p["a"], p["b"]] for p in r["paired"]] for r in (usual, found))
    assert after == [*before, asked], "what the method pairs anyway is not tested twice"
    whole, _ = carry_out({**recipe, "pairs": "all"}, tmp_path, update=True)
    n = len(whole["arms"])
    assert len(whole["paired"]) == n * (n - 1) // 2 == len({frozenset((p["a"], p["b"])) for p in whole["paired"]})


def test_a_pair_of_an_arm_that_there_is_not_is_told_with_its_line(recipe: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    lines = json.dumps({**recipe, "arms": ["multi_teacher"]})[:-1] + ',\n"pairs": [\n["student", "multi_teacher"],\n'
    path.write_text(lines + '["student", "multi_techer"]]}')
    with pytest.raises(RecipeError, match="no arm is called `multi_techer`, did you mean `multi_teacher`") as told:
        load_recipe(path)
    assert told.value.where == f"{path}:4"
