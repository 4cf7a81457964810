"""What takes more tokens than there are is told before anything is spent, with keys and values."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.methods.word_server import write_problems

from vivavoce import plugins
from vivavoce.config import check_recipe
from vivavoce.errors import DataError, RecipeError
from vivavoce.methods.budgets import questions_and_prompts, require
from vivavoce.methods.doctor import examine
from vivavoce.records import Problem
from vivavoce.run import open_run
from vivavoce.train.objective import OnPolicySettings

pytestmark = pytest.mark.usefixtures("short_rehearsal")
LONG = 1000
"""More than the tests' student takes, which has 512 positions."""


def changed(values: dict[str, Any], change: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A recipe with some keys of its sections changed."""
    return {**values, **{section: {**values[section], **keys} for section, keys in change.items()}}


def on_policy(values: dict[str, Any], student: Path) -> dict[str, Any]:
    """The same committee, and a local scorer, on the student's own answers."""
    kept = {k: values[k] for k in ("name", "task", "student", "test")}
    quick = {"max_steps": 2, "lora": None, "max_length": 400, "max_new_tokens": 8, "states_per_step": 4}
    scorer = {"name": "dan", "model": str(student), "max_new_tokens": 8}
    return {
        **kept,
        "method": "debate_opd",
        "teachers": [*values["teachers"], scorer],
        "debate": {"prompts": "schoolhouse", "max_rounds": 2},
        "opd": quick,
        "sft": {"max_length": 400},
        "arms": ["mt_opd"],
    }


def refused(values: dict[str, Any], where: Path) -> str:
    """What a run says that is refused; it has asked nobody."""
    recipe = check_recipe(values, Path("t"))
    with open_run(where, recipe) as run:
        with pytest.raises((RecipeError, DataError)) as error:
            asyncio.run(plugins.load("methods", recipe.method, "method").distill(recipe, run))
        assert not run.journal.costs()
    failed = [f for f in examine(recipe, where, offline=True) if f.level == "failed"]
    assert failed, "the doctor finds what the run refuses"
    assert all(f.said in error.value.what for f in failed), failed
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"student": {"max_new_tokens": LONG}}, ["student takes 512", "student.max_new_tokens is 1,000"]),
        ({"test": {"max_new_tokens": LONG}}, ["student takes 512", "test.max_new_tokens is 1,000"]),
        ({"sft": {"max_length": 8}}, ["sft.max_length is 8", "raise sft.max_length"]),
        ({"dpo": {"max_length": 8}}, ["dpo.max_length is 8"]),
        ({"task": {"test": 0}}, ["0 test questions"]),
        ({"task": {"train": 0}}, ["0 train questions", "is a limit 0"]),
    ],
)
def test_a_debate_whose_budgets_do_not_fit_is_refused_before_anybody_is_asked(
    recipe: dict[str, Any], tmp_path: Path, change: dict[str, Any], named: list[str]
) -> None:
    message = refused(changed(recipe, change), tmp_path)
    assert all(name in message for name in named), message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"opd": {"max_new_tokens": 380}}, ["opd.max_length is 400", "opd.max_new_tokens is 380", "30 of 30"]),
        (
            {"opd": {"max_new_tokens": 500, "max_length": 4000}},
            ["student takes 512", "opd.max_new_tokens is 500", "scorer dan takes 512"],
        ),
        ({"opd": {"on_policy": 0.0, "max_length": 8}}, ["opd.max_length is 8"]),
    ],
)
def test_an_on_policy_training_that_would_train_nothing_is_refused_before_its_debates(
    recipe: dict[str, Any], student: Path, tmp_path: Path, change: dict[str, Any], named: list[str]
) -> None:
    message = refused(changed(on_policy(recipe, student), change), tmp_path)
    assert all(name in message for name in named), message


def test_a_recipe_without_a_section_for_training_has_defaults_that_train_or_is_refused_at_once(
    recipe: dict[str, Any], student: Path, tmp_path: Path
) -> None:
    assert OnPolicySettings().max_length >= 2 * OnPolicySettings().max_new_tokens
    values = on_policy(recipe, student)
    del values["opd"]
    assert "opd.max_new_tokens is 4,096" in refused(values, tmp_path), "the student has 512 positions"


def test_answers_that_leave_no_prompt_any_room_are_a_mistake_of_the_recipe(
    recipe: dict[str, Any], student: Path
) -> None:
    values = changed(on_policy(recipe, student), {"opd": {"max_new_tokens": 400}})
    with pytest.raises(RecipeError, match="max_new_tokens is 400 and max_length 400"):
        check_recipe(values, Path("t"))


def first_is_long(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The recipe with 40 questions, the first of which takes more tokens than its student."""
    values = {**values, "task": write_problems(folder, 40, 20)}
    file = Path(values["task"]["train_path"])
    lines = file.read_text("utf-8").splitlines()
    first = json.loads(lines[0])
    file.write_text("\n".join([json.dumps({**first, "question": first["question"] * 60}), *lines[1:]]), "utf-8")
    return values


def test_a_few_long_questions_are_said_and_do_not_stop_a_run(recipe: dict[str, Any], tmp_path: Path) -> None:
    values = first_is_long(recipe, tmp_path)
    own = [f for f in examine(check_recipe(values, Path("t")), tmp_path, offline=True) if f.what == "context student"]
    assert [f.level for f in own] == ["warning"]
    assert "1 of 40 questions have up to" in own[0].said


def test_a_part_counts_its_own_questions_and_is_not_refused_for_a_few_of_all(
    recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = check_recipe(first_is_long(recipe, tmp_path), Path("t"))
    train, tests, plain = questions_and_prompts(checked)
    counted: list[Problem] = []
    require(checked, train, tests, lambda problem: counted.append(problem) or plain(problem), train[1::2])
    assert not {p.id for p in train[::2]} & {p.id for p in counted}
    assert "questions" not in capsys.readouterr().err
    require(checked, train, tests, plain, train[:1])
    assert "1 of 40 questions" in capsys.readouterr().err, "all of this part are too long, but few of the run"


def test_a_transcript_that_no_model_takes_is_said(recipe: dict[str, Any], tmp_path: Path) -> None:
    values = changed(recipe, {"debate": {"context_tokens": 600}})
    reports = examine(check_recipe(values, Path("t")), tmp_path, offline=True)
    (finding,) = [f for f in reports if f.what == "debate.context_tokens"]
    assert finding.level == "warning"
    assert "debate.context_tokens is 600" in finding.said
    assert "student takes 512" in finding.said


def test_a_chain_is_refused_before_its_first_stage_if_a_later_one_would_train_nothing(
    recipe: dict[str, Any], student: Path, tmp_path: Path
) -> None:
    last = {k: v for k, v in on_policy(recipe, student).items() if k in ("method", "debate", "opd", "sft", "arms")}
    first = {k: recipe[k] for k in ("method", "debate", "sft", "attempts", "trees", "dpo")}
    shared = {k: recipe[k] for k in ("name", "seeds", "task", "student", "test")}
    values = {
        **shared,
        "method": "chain",
        "teachers": on_policy(recipe, student)["teachers"],
        "stages": [first, {**last, "start": "debate_reflect", "opd": {**last["opd"], "max_new_tokens": 380}}],
    }
    assert "opd.max_new_tokens is 380" in refused(values, tmp_path)
