"""The recipes of Debate & Reflect's tables: planned and examined with their own models, without weights or network."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.methods.carry import carry_out

from vivavoce.config import load_recipe
from vivavoce.methods.debate_reflect import Options, plan, trainings
from vivavoce.methods.doctor import examine

pytestmark = pytest.mark.usefixtures("short_rehearsal")
RECIPES = Path(__file__).parents[2] / "recipes" / "debate_reflect"
SHARES = {"computer_science": 0.5, "physics": 0.75, "biology": 2 / 3}
TABLE_1 = ["student", "single:gpt", "single:claude", "single:gemini", "magdi", "debate_reflect_sft", "debate_reflect"]


@pytest.fixture
def options(request: pytest.FixtureRequest, official: Path) -> Options:
    name = request.param
    if name == "math":
        pytest.importorskip("math_verify")
        data = [f"task.train_path={official / 'math' / 'train.jsonl.gz'}"]
        data += [f"task.test_path={official / 'math' / 'math500_first_half.jsonl'}"]
        data += ["task.test=math500", "task.overlap=leave_out"]
    else:
        data = [f"task.path={official / 'mmlu_pro'}"]
    made = load_recipe(RECIPES / f"{name}.yaml", data)
    assert isinstance(made, Options)
    return made


EVERY = pytest.mark.parametrize("options", [p.stem for p in sorted(RECIPES.glob("*.yaml"))], indirect=True)


def test_each_of_the_papers_four_tasks_has_a_recipe() -> None:
    assert {p.stem for p in RECIPES.glob("*.yaml")} == {"math", *(f"mmlu_pro_{subject}" for subject in SHARES)}


@EVERY
def test_it_is_planned_with_what_it_costs_and_trains_without_weights(options: Options) -> None:
    assert options.students[: len(TABLE_1)] == TABLE_1
    assert "rpo" in options.students
    lines = plan(options)
    asked = {(p.stage, p.agent): p for p in lines}
    assert asked["debate:train", "claude"].money.expected > 0
    assert asked["debate:train", "student"].calls.least > 0
    assert {line.kind for line in trainings(options)} == {"SFT", "T-DPO", "MAGDi"}


@EVERY
def test_its_debates_and_training_are_the_papers(options: Options) -> None:
    assert (options.debate.max_rounds, options.debate.stop, options.debate.roles) == (4, "consensus", "oracle")
    assert [t.temperature for t in options.teachers] == [0.3] * 3
    assert options.student.samples == 5
    sft, dpo, trees = options.sft, options.dpo, options.trees
    assert (sft.learning_rate, sft.epochs, dpo.learning_rate, dpo.epochs, dpo.beta) == (2e-4, 2, 5e-6, 3, 0.1)
    assert sft.lora is not None
    assert (sft.lora.r, sft.lora.alpha, trees.branch, trees.pairing) == (16, 32, "answer", "cross_product")
    assert (options.test.temperature, options.test.top_p, options.test.max_new_tokens) == (0.3, 0.9, 700)
    if options.task.name == "mmlu_pro":
        (subject,) = options.task.options["subjects"]
        assert options.task.options["train_share"] == pytest.approx(SHARES[subject.replace(" ", "_")], abs=1e-6)


@EVERY
def test_the_doctor_finds_nothing_wrong_with_it_but_what_is_not_here(
    options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(key, "a key")
    failed = [f for f in examine(options, tmp_path / "run", offline=True) if f.level == "failed"]
    assert all("student" in f.what or "weights" in f.said or "not here" in f.said for f in failed), failed


@EVERY
def test_its_twins_on_the_schoolhouse_have_its_arms(options: Options) -> None:
    twins = [load_recipe(RECIPES.parent / "schoolhouse" / f"{name}.yaml") for name in ("table1", "ablations")]
    assert set(TABLE_1[4:]) | {"rpo", "sft_continued"} <= set(twins[0].students)
    assert {arm.partition(":")[0] for arm in options.students} <= {
        arm.partition(":")[0] for twin in twins for arm in twin.students
    }


@pytest.mark.slow
def test_a_twin_runs_to_its_results(tmp_path: Path) -> None:
    few = ["seeds=[0]", "task.train=40", "task.test=8", "sft.max_steps=2", "dpo.max_steps=2", "magdi.max_steps=2"]
    recipe = load_recipe(RECIPES.parent / "schoolhouse" / "table1.yaml", [*few, "parallel=1"])
    results, _ = carry_out(recipe.model_dump(mode="json"), tmp_path)
    assert {"single:ada", "magdi", "debate_reflect_sft", "debate_reflect", "rpo", "sft_continued"} <= {
        arm["name"] for arm in results["arms"]
    }
