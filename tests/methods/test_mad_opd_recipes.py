"""MAD-OPD's six configurations, for code and for agents: planned and examined with their models, no weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.methods.carry import carry_out

from vivavoce.config import load_recipe
from vivavoce.methods.debate_opd import Options, plan, trainings
from vivavoce.methods.doctor import examine

pytestmark = pytest.mark.usefixtures("short_rehearsal")
RECIPES = Path(__file__).parents[2] / "recipes" / "mad_opd"
STUDENTS = {
    "14b_8b_to_1.7b": "Qwen/Qwen3-1.7B",
    "14b_8b_to_4b": "Qwen/Qwen3-4B",
    "32b_30b_to_4b": "Qwen/Qwen3-4B",
    "32b_30b_to_8b": "Qwen/Qwen3-8B",
    "32b_30b_to_14b": "Qwen/Qwen3-14B",
    "27b_9b_to_4b": "Qwen/Qwen3.5-4B",
}
EVERY = pytest.mark.parametrize("name", sorted(p.name.removesuffix(".yaml") for p in RECIPES.glob("*.yaml")))


def opened(name: str, folder: Path) -> Options:
    rows = [
        {"domain": "code", "conversations": [{"from": "human", "value": f"Write {i}."}, {"from": "gpt", "value": "x"}]}
        for i in range(3)
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    exam = "{name: schoolhouse, train: 0, test: 5}"
    made = load_recipe(RECIPES / f"{name}.yaml", [f"task.path={folder / 'prompts.jsonl'}", f"task.exam={exam}"])
    assert isinstance(made, Options)
    return made


def test_every_configuration_has_a_recipe_for_code_and_one_for_agents() -> None:
    names = {p.name.removesuffix(".yaml") for p in RECIPES.glob("*.yaml")}
    assert names == {f"{domain}_{name}" for domain in ("code", "agents") for name in STUDENTS}


@EVERY
def test_it_has_the_papers_models_and_settings_and_is_planned_without_weights(name: str, tmp_path: Path) -> None:
    made = opened(name, tmp_path)
    domain, _, config = name.partition("_")
    assert made.student.options["model"] == STUDENTS[config]
    assert len(made.scoring_agents) == len(made.teachers) == 2
    opd = made.opd
    assert (opd.learning_rate, opd.states_per_step, opd.epochs, opd.lora) == (1e-5, 128, 1, None)
    assert opd.objective.divergence == ("reverse_kl" if domain == "code" else "jsd")
    assert opd.max_new_tokens == (16384 if domain == "code" else 4096)
    assert list(made.wanted) == ["mt_seqkd_7_3", "opd:large", "mt_opd", "debate_opd"]
    asked = {(p.stage, p.agent): p.calls for p in plan(made)}
    assert asked["debate:states", "large"].most == 2 * 3
    assert {line.kind for line in trainings(made)} == {"SFT", "on-policy"}


@EVERY
def test_the_doctor_finds_nothing_wrong_with_it_but_what_is_not_here(name: str, tmp_path: Path) -> None:
    reports = examine(opened(name, tmp_path), tmp_path / "run", offline=True)
    failed = [f for f in reports if f.level == "failed"]
    away = ("weights", "not here", "no such", "reach")
    assert all(f.what.startswith(("student", "large", "small")) or any(w in f.said for w in away) for f in failed), (
        failed
    )


TWINS = pytest.mark.parametrize("domain", ["code", "agents"])


@TWINS
def test_a_twin_has_the_arms_the_rounds_and_the_divergence_of_its_recipes(domain: str, tmp_path: Path) -> None:
    twin = load_recipe(RECIPES.parent / "schoolhouse" / f"mad_opd_{domain}.yaml")
    assert isinstance(twin, Options)
    for path in sorted(RECIPES.glob(f"{domain}_*.yaml")):
        paper = opened(path.name.removesuffix(".yaml"), tmp_path)
        assert (twin.arms, twin.seeds, twin.value) == (paper.arms, paper.seeds, paper.value)
        assert (twin.debate.max_rounds, len(twin.teachers)) == (paper.debate.max_rounds, len(paper.teachers))
        assert twin.opd.objective == paper.opd.objective
        assert (twin.test.draws, twin.test.best_by) == (paper.test.draws, paper.test.best_by)
    assert twin.debate.prompts == {"code": "schoolhouse_code", "agents": "schoolhouse_halls"}[domain]


@pytest.mark.slow
@TWINS
def test_a_twin_runs_to_its_results(domain: str, tmp_path: Path) -> None:
    few = ["task.train=12", "task.test=6", "opd.max_steps=2", "opd.states_per_step=6", "parallel=1"]
    few += ["test.draws=2"] if domain == "code" else []
    recipe = load_recipe(RECIPES.parent / "schoolhouse" / f"mad_opd_{domain}.yaml", few)
    results, _ = carry_out(recipe.model_dump(mode="json"), tmp_path)
    arms = {arm["name"]: arm for arm in results["arms"]}
    assert list(arms) == ["student", "mt_seqkd_7_3", "opd:large", "mt_opd", "debate_opd"]
    assert all(arm["n"] == 6 for arm in arms.values())
    if domain == "code":
        assert set(arms["debate_opd"]["pass_at_k"]) == {"drawn", "k", "all", "vote", "likeliest"}
