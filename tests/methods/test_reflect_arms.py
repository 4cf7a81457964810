"""Arms of Debate & Reflect: trained if somebody asked for them, starting from one another, compared as planned."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.methods.carry import carry_out
from tests.methods.conftest import plain_recipe

from vivavoce.committee.prompting import prompt_set
from vivavoce.config import check_recipe, load_recipe
from vivavoce.errors import RecipeError
from vivavoce.files import file_name
from vivavoce.graph import read_graphs
from vivavoce.methods.debate_reflect import Options, plan
from vivavoce.methods.reflect_arms import ReflectArm, needed_arms
from vivavoce.report import write_report

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
    assert list(needed_arms(["debate_reflect"], {}, TEACHERS)) == ["debate_reflect_sft", "debate_reflect"]
    assert list(needed_arms(["sft_continued"], {}, TEACHERS)) == [
        "debate_reflect_sft",
        "debate_reflect",
        "sft_continued",
    ]
    arms = {"mine": ReflectArm(learn="trees", start="single:bob@sft.max_steps=2")}
    assert list(needed_arms(["mine"], arms, TEACHERS)) == ["single:bob@sft.max_steps=2", "mine"]


def test_only_arms_that_somebody_asked_for_are_trained_and_those_that_they_start_from_are_not_compared(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe |= {"seeds": [0], "test": {"max_new_tokens": 40, "committee": False}}
    recipe["arms"] = ["debate_reflect", "debate_reflect@dpo.beta=0.5,dpo.max_steps=1"]
    results, _ = carry_out(recipe, tmp_path)
    names = ["student", *recipe["arms"]]
    assert [a["name"] for a in results["arms"]] == names
    trained = {p.name.rpartition("-")[0] for p in (tmp_path / "checkpoints").iterdir()}
    assert trained == {file_name(arm) for arm in ("debate_reflect_sft", *recipe["arms"])}
    steps = [json.loads((tmp_path / "checkpoints" / f"{file_name(arm)}-0" / "train_result.json").read_text())["steps"]
             for arm in recipe["arms"]]  # fmt: skip
    assert steps == [3, 1]
    facts = {a["name"]: a for a in results["arms"]}
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
    results, _ = carry_out(recipe, tmp_path)
    assert [a["name"] for a in results["arms"]] == ["student", "multi_teacher"]
    stderr = capsys.readouterr().err
    assert "because there are no trees of right and wrong answers: debate_reflect" in stderr
    assert ["student", "debate_reflect"] in results["untested"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": ["debate"]}, "unknown arm `debate`"),
        (
            {"arms": ["mine"], "own_arms": {"mine": {"start": "single"}}},
            "cannot start from `single`: name one of these: single",
        ),
        ({"arms": ["a"], "own_arms": {"a": {"start": "b"}, "b": {"start": "a"}}}, "starts from itself: a → b → a"),
        ({"arms": ["mine"], "own_arms": {"mine": {"teachers": ["eve"]}}}, "`mine` names `eve`, which is not a teacher"),
        ({"arms": ["debate_reflect@dpo.bta=1"]}, "dpo: unknown key `bta`, did you mean `beta`"),
        ({"arms": ["debate_reflect@updates_of=sft_continued"]}, "T-DPO has dpo.max_steps"),
        ({"arms": ["magdi@seconds_of=debate_reflect"]}, "MAGDi has magdi.max_steps"),
        (
            {"arms": ["sft_continued@updates_of=multi_teacher"]},
            "as long as `multi_teacher`, which is not an arm of T-DPO",
        ),
        ({"arms": ["mine"], "own_arms": {"mine": {"seconds_of": "debate_reflect"}}}, "seconds_of needs a start"),
        ({"arms": ["no_notes@debate.feedback_from=nobody"]}, "arm `no_notes@.*`, debate: `feedback_from`"),
        ({"arms": ["rounds:5"]}, "unknown arm `rounds:5`"),
        ({"looks": {"arms": ["debate"]}}, "looks: no student is called `debate`"),
        ({"looks": {"arms": ["student"], "modes": ["gold"]}}, "looks.modes"),
        ({"test": {"draws": 4, "draws_temperature": 0}}, "draws_temperature"),
        ({"test": {"draws": 4, "best_by": ["judge"]}}, "the recipe has no judge"),
    ],
)
def test_mistakes_are_named_before_anything_is_spent(
    recipe: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        checked({**recipe, **change})


def test_every_arm_can_be_paired_with_every_other_and_p_is_corrected_for_all(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe |= {"seeds": [0], "arms": ["single:ada", "single:bob", "multi_teacher"]}
    usual, _ = carry_out(recipe, tmp_path)
    asked = ["single:bob", "teacher:cyd"]
    results, paid = carry_out({**recipe, "pairs": [asked, ["student", "multi_teacher"]]}, tmp_path, update=True)
    assert paid == 0
    before, after = ([[p["a"], p["b"]] for p in r["paired"]] for r in (usual, results))
    assert after == [*before, asked], "what the method pairs anyway is not tested twice"
    whole, _ = carry_out({**recipe, "pairs": "all"}, tmp_path, update=True)
    n = len(whole["arms"])
    assert len(whole["paired"]) == n * (n - 1) // 2 == len({frozenset((p["a"], p["b"])) for p in whole["paired"]})


def test_a_pair_of_an_arm_that_there_is_not_is_told_with_its_line(recipe: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    lines = json.dumps({**recipe, "arms": ["multi_teacher"]})[:-1] + ',\n"pairs": [\n["student", "multi_teacher"],\n'
    path.write_text(lines + '["student", "multi_techer"]]}')
    with pytest.raises(RecipeError, match="no arm is called `multi_techer`, did you mean `multi_teacher`") as error:
        load_recipe(path)
    assert error.value.where == f"{path}:4"


# --- arms that have debates of their own, other objectives, second looks, several draws


@pytest.fixture
def noted(recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A recipe whose prompts print every note, for teachers who answer otherwise if they see one."""
    prompts = tmp_path / "prompts"
    shutil.copytree(prompt_set("schoolhouse").folder, prompts)
    (prompts / "debate.md").write_text(
        "--- system\ndebate\n--- user\n{{ question }}\n{% for s in statements %}\n{{ s.text }}\n"
        "{% if s.reflection %}\n~ {{ s.reflection }}\n{% endif %}\n"
        "{% for critic, text in s.critiques %}\n> {{ text }}\n{% endfor %}\n{% endfor %}\n"
    )
    return {**recipe, "debate": {**recipe["debate"], "prompts": str(prompts)}}


def test_patterns_stand_for_one_arm_of_each_round_and_share_and_need_their_own_sft(recipe: dict[str, Any]) -> None:
    problems = checked({**recipe, "arms": ["rounds", "debates", "teachers_only"]})
    assert list(problems.wanted) == [
        "rounds:1", "rounds:2", "debates:10%", "debates:30%", "debates:60%", "debates:100%", "teachers_only",
    ]  # fmt: skip
    assert "rounds_sft:2" in problems.needed
    assert problems.wanted["rounds:2"].teacher is None
    assert list(problems.held) == ["train", "train:rounds_sft:1", "train:teachers_only_sft"], (
        "equal debates are held once"
    )


def test_debates_without_notes_are_held_beside_the_others_and_first_answers_are_paid_once(
    noted: dict[str, Any], tmp_path: Path
) -> None:
    recipe = noted
    recipe |= {"seeds": [0], "test": {"max_new_tokens": 40, "committee": False}}
    _, paid = carry_out({**recipe, "arms": ["debate_reflect"]}, tmp_path / "usual")
    recipe["arms"] = ["debate_reflect", "no_reflection", "no_feedback", "no_notes"]
    results, paid_all = carry_out(recipe, tmp_path / "all")
    assert [a["name"] for a in results["arms"]] == ["student", *recipe["arms"]]
    graphs = {p.name: list(read_graphs(p)) for p in (tmp_path / "all" / "graphs").iterdir()}
    assert len(graphs) == 4

    def kinds(name: str) -> set[str]:
        return {n.kind for file, subset in graphs.items() if name in file for g in subset for n in g.nodes}

    assert kinds("train.jsonl") == {"answer", "critique", "reflection"}
    silent = {frozenset(n.kind for g in subset for n in g.nodes) for subset in graphs.values()}
    assert silent == {
        frozenset({"answer"}),
        frozenset({"answer", "critique"}),
        frozenset({"answer", "reflection"}),
        frozenset({"answer", "critique", "reflection"}),
    }
    drafts = [[[n.id for n in g.answers(0)] for g in subset] for subset in graphs.values()]
    assert drafts[0] == drafts[1] == drafts[2] == drafts[3], "the same drafts, drawn once"
    lines = {p.stage: p.calls for p in plan(checked(recipe))}
    assert sum(k.startswith("debate:train") for k in lines) == 4
    assert paid_all > paid > 0


def test_what_notes_change_is_told_from_the_same_turns_without_them(
    noted: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = noted
    recipe |= {"seeds": [0], "test": {"max_new_tokens": 40, "committee": False}}
    results, _ = carry_out({**recipe, "arms": ["debate_reflect_sft", "no_notes_sft"]}, tmp_path)
    details = results["notes"]
    assert f"of the {details['turns']} answers that read them" in capsys.readouterr().err
    full, bare = (
        {(g.problem.id, n.agent): n for g in read_graphs(p) for n in g.answers(1)}
        for p in sorted((tmp_path / "graphs").iterdir(), key=lambda p: len(p.name))
    )
    both = [k for k in full if k in bare]
    assert 0 < details["turns"] <= len(both)
    changed = sum(full[k].answer != bare[k].answer for k in both)
    assert round(details["answers_changed"] * details["turns"]) == changed > 0
    assert details["interval95"][0] <= details["answers_changed"] <= details["interval95"][1]
    assert {"right", "right_without", "gain", "p"} <= details.keys()
    without, _ = carry_out({**recipe, "arms": ["debate_reflect_sft"]}, tmp_path / "other")
    assert without["notes"] is None


OBJECTIVES = {
    "magdi": "stands", "magdi_answers": "stands", "magdi_detached": "stands", "rpo": "chosen",
    "answer_trees": "chosen", "answer_trees_no_context": "chosen", "t_dpo_only": "chosen",
}  # fmt: skip
"""Arms, with a key of their rows."""


@pytest.fixture(scope="module")
def trained(student: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that trains a student by every objective, and its results."""
    where, recipe = tmp_path_factory.mktemp("objectives"), plain_recipe(student)
    recipe |= {"seeds": [0], "arms": list(OBJECTIVES), "test": {"max_new_tokens": 40, "committee": False}}
    recipe |= {"debate": {**recipe["debate"], "student": "always"}}
    recipe["magdi"] = {**recipe["sft"], "graphs_per_step": 4, "hidden": 8}
    del recipe["magdi"]["rows_per_step"]
    return where, carry_out(recipe, where)[0]


@pytest.mark.parametrize("arm", OBJECTIVES)
def test_every_objective_trains_a_student_from_the_debates(trained: tuple[Path, dict[str, Any]], arm: str) -> None:
    where, results = trained
    assert [a["name"] for a in results["arms"]] == ["student", *OBJECTIVES]
    assert not results["untested"]
    done = json.loads((where / "checkpoints" / f"{arm}-0" / "train_result.json").read_text())
    assert done["steps"] == 3
    files = [where / "data" / f"{name}.jsonl" for name in (arm, f"{arm}.trees-0", "trees-0")]
    rows = [json.loads(line) for line in next(p for p in files if p.exists()).read_text().splitlines()]
    assert rows
    assert all(OBJECTIVES[arm] in row for row in rows)
    if arm.startswith("answer_trees"):
        later = [row for row in rows if row["round"] == 1]
        assert later
        read = [len(row["prompt"][-1]["content"].splitlines()) > 1 for row in later]
        assert all(read) if arm == "answer_trees" else not any(read)
        by_problem = Counter(row["problem"] for row in rows)
        assert all(row["weight"] == pytest.approx(1 / by_problem[row["problem"]]) for row in rows)
    if arm == "magdi":
        assert {len(row["stands"]) for row in rows} <= {3, 6}
        assert all(len(row["edges"]) == 9 for row in rows if len(row["stands"]) == 6)


def test_sft_goes_on_for_as_many_seconds_as_t_dpo_took(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe |= {"seeds": [0], "arms": ["sft_continued_seconds"], "test": {"max_new_tokens": 40, "committee": False}}
    results, _ = carry_out(recipe, tmp_path)
    assert [a["name"] for a in results["arms"]] == ["student", "sft_continued_seconds"]
    done = {
        arm: json.loads((tmp_path / "checkpoints" / f"{arm}-0" / "train_result.json").read_text())
        for arm in ("debate_reflect_sft", "debate_reflect", "sft_continued_seconds")
    }
    pace = done["debate_reflect_sft"]["steps"] / done["debate_reflect_sft"]["seconds"]
    assert done["sft_continued_seconds"]["steps"] == max(1, round(done["debate_reflect"]["seconds"] * pace))


def test_a_second_look_is_an_arm_that_pays_for_all_its_calls(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe |= {"seeds": [0], "arms": ["multi_teacher"], "test": {"max_new_tokens": 40, "committee": False}}
    recipe["looks"] = {"arms": ["multi_teacher"]}
    results, _ = carry_out(recipe, tmp_path)
    arms = {a["name"]: a for a in results["arms"]}
    modes = [f"multi_teacher+{mode}" for mode in ("reflection", "feedback", "both")]
    assert list(arms) == ["student", "multi_teacher", *modes]
    alone = arms["multi_teacher"]["tokens_per_problem"]
    cost = [arms[name]["tokens_per_problem"] for name in modes]
    assert alone < cost[0] < cost[2]
    assert cost[1] < cost[2]
    assert ["multi_teacher", "multi_teacher+both"] in [[p["a"], p["b"]] for p in results["paired"]]
    assert arms["multi_teacher+both"]["material"] == "drafts"
    g = next(read_graphs(tmp_path / "graphs" / f"{file_name('multi_teacher+both-0')}.jsonl.gz"))
    assert [n.kind for n in g.nodes] == ["answer", "reflection", "critique", "critique", "critique", "answer"]
    assert not any(n.saw_gold for n in g.nodes)
    planned = {p.stage: 0.0 for p in plan(checked(recipe))}
    for p in plan(checked(recipe)):
        planned[p.stage] += p.calls.most
    assert planned["look:multi_teacher+both"] == 6 * 20
    second, paid = carry_out(recipe, tmp_path)
    assert paid == 0
    assert second["arms"] == results["arms"]


def test_several_draws_give_every_student_pass_at_k(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe |= {"arms": ["multi_teacher"], "test": {"max_new_tokens": 40, "committee": False, "draws": 3}}
    recipe["test"]["best_by"] = ["probability"]
    with pytest.raises(RecipeError, match="best of 0 answers"):
        carry_out({**recipe, "test": {**recipe["test"], "draws": 0}}, tmp_path / "none")
    results, _ = carry_out(recipe, tmp_path)
    for arm in results["arms"]:
        assert arm["pass_at_k"]["drawn"] == 3
        assert list(arm["pass_at_k"]["k"]) == ["1", "2", "3"]
        assert arm["pass_at_k"]["all"]["1"]["mean"] == pytest.approx(arm["pass_at_k"]["k"]["1"]["mean"])
        assert set(arm["pass_at_k"]["vote"]) == set(arm["pass_at_k"]["likeliest"]) == {"1", "2", "3"}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert "Several answers" in write_report(tmp_path).read_text("utf-8")
    lines = {p.stage: p.calls.most for p in plan(checked(recipe))}
    assert lines["draws"] == 2 * 3 * 20
    _, paid = carry_out(recipe, tmp_path)
    assert paid == 0


def test_a_vote_of_drafts_goes_by_the_same_weights_as_the_vote_after_the_debate(recipe: dict[str, Any]) -> None:
    assert "vote:probability" not in checked(recipe).compared, "no teacher gives probabilities"
    teachers = [{**t, "logprobs": True} for t in recipe["teachers"]]
    assert checked({**recipe, "teachers": teachers}).compared[-2:] == ["vote:probability", "vote:debate"]
