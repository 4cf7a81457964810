"""Debate-conditioned distillation from recipe to report: scripted debaters, real tiny scorers, a real student."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.methods.carry import carry_out
from tests.serving import save_tiny_model
from tests.train.students import metaspace
from tests.vllm_server import VLLMServer
from transformers import AutoTokenizer

from vivavoce.agents.journal import Journal
from vivavoce.committee.prompting import prompt_set
from vivavoce.config import check_recipe
from vivavoce.errors import RecipeError
from vivavoce.graph import read_graphs
from vivavoce.methods.debate_opd import Options, plan
from vivavoce.records import Example, State, from_json
from vivavoce.report import table, write_report
from vivavoce.train.tokens import context_ids

ARMS = ["opd", "mt_opd", "mt_max", "mt_confidence", "drafts_opd", "debate_opd", "sft_debate", "sft_debate_seconds"]


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a scorer."""
    return save_tiny_model(tmp_path_factory.mktemp("scorer"), context=512, initializer_range=0.1)


@pytest.fixture
def values(recipe: dict[str, Any], local: Path) -> dict[str, Any]:
    """The tests' recipe of a debate, as a recipe of distillation: two of the three debaters also score."""
    quick = {k: v for k, v in recipe["sft"].items() if k != "rows_per_step"}
    scorers = [{"name": n, "model": str(local), "dtype": "float32"} for n in ("ada", "bob")]
    return {
        **{k: recipe[k] for k in ("name", "seeds", "task", "teachers", "student")},
        "method": "debate_opd",
        "debate": {"prompts": "schoolhouse", "reads": "last_round"},
        "scorers": scorers,
        "warm": {"questions": 10, "sft": recipe["sft"]},
        "opd": {**quick, "states_per_step": 4, "max_new_tokens": 12, "learning_rate": 1e-3},
        "sft": recipe["sft"],
        "arms": ARMS,
        "test": {"max_new_tokens": 20, "committee": False},
    }


def test_the_whole_method_runs_to_a_report_and_a_second_time_for_nothing(values: dict[str, Any], where: Path) -> None:
    results, paid = carry_out(values, where)
    names = [a["name"] for a in results["arms"]]
    assert names[:2] == ["untrained", "student"]
    assert set(names[2:]) == {"opd:ada", "opd:bob", *ARMS[1:]}
    assert results["best_single"] in ("opd:ada", "opd:bob")
    worth = results["debate_value"]
    assert {"ada", "bob"} == set(worth["likelihood"])
    assert sum(worth["flips"]["1"].values()) == 3 * 30
    assert worth["confidence"]["0"]["auroc"] > 0.8
    second, nothing = carry_out(values, where)
    assert (paid > 0, nothing) == (True, 0)
    assert {**second, "wall_s": 0} == {**results, "wall_s": 0}
    (where / "results.json").write_text(json.dumps(results))
    page = write_report(where).read_text("utf-8")
    assert all(name in page for name in ("debate_opd", "mt_max", "opd:ada"))
    assert "debate_opd" in table(results)


def test_one_debate_serves_every_arm_seed_and_objective(values: dict[str, Any], where: Path) -> None:
    carry_out(values, where)
    values["arms"] = ["debate_opd", "debate_opd@tau=0.1", "reverse_kl", "shuffled", "gold", "log_ratio"]
    values["seeds"] = [0]
    changed = {**values, "opd": {**values["opd"], "max_steps": 2, "objective": {"beta": 0.3}}}
    results, paid = carry_out(changed, where, update=True)
    asked = 20 * len([a for a in results["arms"] if a["name"] not in ("untrained", "student")])
    assert paid <= asked, "only tests of new students are asked for; the debate is not held again"
    assert "debate_opd@tau=0.1" in [a["name"] for a in results["arms"]]


def test_no_prompt_of_a_student_holds_anything_of_a_debate_or_of_gold(values: dict[str, Any], where: Path) -> None:
    carry_out(values, where, update=True)
    rows = [from_json(State, line) for line in (where / "data" / "debate_opd.jsonl").read_text().splitlines()]
    assert len(rows) == 30
    for state in rows:
        (system, user) = state.prompt
        assert system["content"] == "solve"
        assert "\n" not in user["content"]
        assert all(v.messages[1]["content"].startswith(user["content"] + "\n") for v in state.views)
        assert sum(v.weight for v in state.views) == pytest.approx(1)
    for line in (where / "data" / "sft_debate.jsonl").read_text().splitlines():
        assert "conf=" not in from_json(Example, line).completion
    assert not any(n.saw_gold for g in read_graphs(where / "graphs" / "states.jsonl.gz") for n in g.nodes)


def test_a_smaller_committee_debates_for_itself_and_pays_no_first_turn_again(
    values: dict[str, Any], tmp_path: Path
) -> None:
    values |= {"seeds": [0], "arms": ["self_debate"], "warm": None, "value": False}
    values["opd"]["max_steps"] = 1
    values["task"] = {"name": "schoolhouse", "train": 8, "test": 4}
    results, _ = carry_out(values, tmp_path)
    assert [a["name"] for a in results["arms"]] == ["student", "self_debate:ada", "self_debate:bob"]
    with Journal(tmp_path / "journal.sqlite", read_only=True) as journal:
        paid = {cost.stage: cost.calls for cost in journal.costs() if cost.agent == "ada"}
    assert (paid["debate:states"], paid["debate:states-ada"]) == (2 * 8, 8), "the first turn is not paid again"


def test_an_action_aware_debate_reads_the_students_answer_and_trains_on_it(
    values: dict[str, Any], tmp_path: Path
) -> None:
    values |= {"seeds": [0], "arms": ["sees_action"], "warm": None, "value": False}
    values["task"] = {"name": "schoolhouse", "train": 8, "test": 4}
    values["opd"]["min_coverage"] = 0.2  # an untaught student may say nothing at all
    results, _ = carry_out(values, tmp_path)
    assert [a["name"] for a in results["arms"]] == ["student", "sees_action"]
    rows = [from_json(State, x) for x in (tmp_path / "data" / "sees_action-0.jsonl").read_text().splitlines()]
    graphs = {g.problem.id: g for g in read_graphs(tmp_path / "graphs" / "states-seen-0.jsonl.gz")}
    for state in rows:
        (answer,) = graphs[state.problem].stated(0, ["student"])
        assert [c.source for c in state.recorded] == ([answer.id] if answer.text.strip() else [])
        assert graphs[state.problem].rounds == 2
    spoken = [(graphs[n.problem], n) for g in graphs.values() for n in g.answers() if n.agent != "student"]
    own = {g.problem.id: g.stated(0, ["student"])[0].id for g in graphs.values()}
    assert all(own[g.problem.id] in n.parents for g, n in spoken), "from the first turn on"


def test_a_debate_that_was_told_the_right_answer_reaches_the_student_through_its_scorers_alone(
    values: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "told"
    shutil.copytree(prompt_set("schoolhouse").folder, folder)
    discuss = (folder / "discuss.md").read_text("utf-8")
    (folder / "discuss.md").write_text(discuss + "{% if gold is not none %}\n[told {{ gold }}]\n{% endif %}\n", "utf-8")
    values |= {"seeds": [0], "arms": ["debate_opd", "sees_gold", "sft_debate"], "warm": None, "value": False}
    values["task"] = {"name": "schoolhouse", "train": 8, "test": 4}
    with pytest.raises(RecipeError, match="does not print the right answer"):
        carry_out(values, tmp_path / "refused")
    assert not list((tmp_path / "refused" / "graphs").glob("*")), "nothing was asked"
    values["debate"]["prompts"] = str(folder)
    values["opd"] |= {"max_steps": 2, "on_policy": 0.5}
    results, _ = carry_out(values, tmp_path / "run")
    assert {a["name"]: a["material"] for a in results["arms"]}["sees_gold"] == "gold"
    kept = tmp_path / "run" / "graphs"
    debates = {stage: list(read_graphs(kept / f"{stage}.jsonl.gz")) for stage in ("states", "states-gold")}
    for stage, graphs in debates.items():
        assert {n.saw_gold for g in graphs for n in g.nodes} == {stage == "states-gold"}
        assert all(("[told" in g.messages_of(n)[-1]["content"]) == n.saw_gold for g in graphs for n in g.nodes)
    texts = {n.text for g in debates["states-gold"] for n in g.nodes}
    files = [tmp_path / "run" / "data" / f"{name}.jsonl" for name in ("debate_opd", "sees_gold")]
    blind_rows, told_rows = ([from_json(State, x) for x in file.read_text("utf-8").splitlines()] for file in files)
    for blind, row in zip(blind_rows, told_rows, strict=True):
        assert row.prompt == blind.prompt
        assert blind.recorded
        assert not row.recorded, "what a teacher wrote who had been told is no example"
        assert "[told" not in str(row)
        assert all(any(text in v.messages[-1]["content"] for text in texts) for v in row.views)
    assert "[told" not in (tmp_path / "run" / "data" / "sft_debate.jsonl").read_text("utf-8")


def test_right_answers_that_nobody_knows_are_missed_before_anything_is_asked(
    values: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "q.jsonl").write_text('{"messages": [{"role": "user", "content": "Write a poem."}]}\n' * 1)
    exam = {"name": "schoolhouse", "train": 1, "test": 2}
    values |= {"task": {"name": "prompts", "path": str(tmp_path / "q.jsonl"), "exam": exam}, "value": False}
    values |= {"debate": {"protocol": "act_debate"}, "warm": None, "arms": ["debate_opd", "gold"]}
    with pytest.raises(RecipeError, match="arm `gold` needs right answers"):
        carry_out(values, tmp_path / "run")
    assert not list((tmp_path / "run" / "graphs").glob("*"))


def test_the_plan_counts_what_a_run_asks_for(values: dict[str, Any], tmp_path: Path) -> None:
    values |= {"seeds": [0], "arms": ["debate_opd", "self_debate"], "value": False}
    recipe = check_recipe(values, Path("test.yaml"))
    assert isinstance(recipe, Options)
    planned = plan(recipe)
    _, paid = carry_out(values, tmp_path)
    assert sum(p.calls.least for p in planned) <= paid <= sum(p.calls.most for p in planned)


def test_the_students_sit_other_tests_too(values: dict[str, Any], tmp_path: Path) -> None:
    values |= {"seeds": [0], "arms": ["mt_opd"], "value": False}
    values["also_test"] = {"mix": {"name": "schoolhouse", "test": 6, "kinds": ["mix"], "seed": 2}}
    recipe = check_recipe(values, Path("test.yaml"))
    assert isinstance(recipe, Options)
    results, paid = carry_out(values, tmp_path)
    also = results["also"]["mix"]
    assert [(a["name"], a["n"]) for a in also["arms"]] == [("untrained", 6), ("student", 6), ("mt_opd", 6)]
    assert [(p["a"], p["b"]) for p in also["paired"]] == [(p["a"], p["b"]) for p in results["paired"]]
    assert {p.stage: p.calls.most for p in plan(recipe)}["test:mix"] == 3 * 6
    assert paid <= sum(p.calls.most for p in plan(recipe))


def test_bad_arms_and_scorers_are_found_before_anything_is_spent(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unknown arm `debate`"):
        check_recipe({**values, "arms": ["debate"]}, Path("test.yaml"))
    with pytest.raises(RecipeError, match="takes as long as `debate_opd`"):
        check_recipe({**values, "arms": ["sft_debate_seconds"]}, Path("test.yaml"))
    with pytest.raises(RecipeError, match="gives no distributions"):
        carry_out({**values, "scorers": [values["teachers"][0]]}, tmp_path)
    with pytest.raises(RecipeError, match="stop"):
        check_recipe({**values, "debate": {**values["debate"], "stop": "all_correct"}}, Path("test.yaml"))


def test_a_teacher_behind_a_server_scores_what_the_student_says_under_the_debate(
    values: dict[str, Any], local: Path, tmp_path: Path
) -> None:
    """Recipe to results: one scorer on a server, one here; the served one hears the student's own tokens, each once."""
    with VLLMServer(local) as server:
        far = {"backend": "vllm", "model": "m", "tokenizer": str(local), "base_url": server.base_url}
        one, two = values["scorers"]
        scorers = [{"name": one["name"], **far, "top_logprobs": 8}, two]
        results, _ = carry_out({**values, "scorers": scorers, "arms": ["debate_opd"]}, tmp_path)
    assert [a["name"] for a in results["arms"]][-1] == "debate_opd"
    answers = 0
    for seed in values["seeds"]:
        folder = tmp_path / "checkpoints" / f"debate_opd-{seed}"
        steps = [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]
        assert all(step["divergence/ada"] > 0 and 0 <= step["agreement/ada"] <= 1 for step in steps)
        answers += json.loads((folder / "train_result.json").read_text())["details"]["answers"]
    rows = [line for file in (tmp_path / "data").glob("debate_opd*") for line in file.read_text().splitlines()]
    words = AutoTokenizer.from_pretrained(local)
    debates = [context_ids(words, from_json(State, row).views[0].messages, "ada", {}) for row in rows]
    scored = [r["prompt"] for r in server.requests if "prompt_logprobs" in r]
    under = [prompt for prompt in scored if any(prompt[: len(context)] == context for context in debates)]
    assert len(under) >= answers > 0
    assert {r["prompt_logprobs"] for r in server.requests if "prompt" in r and "prompt_logprobs" in r} == {8}


def test_a_server_with_another_tokenizer_than_the_recipe_says_is_found_before_training(
    values: dict[str, Any], local: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    metaspace().save_pretrained(other)
    with VLLMServer(local, tokenizer=other) as server:
        far = {"backend": "vllm", "model": "m", "tokenizer": str(local), "base_url": server.base_url}
        scorers = [{"name": "ada", **far}]
        with pytest.raises(RecipeError, match="another tokenizer"):
            carry_out({**values, "scorers": scorers, "arms": ["debate_opd"]}, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("debate_opd*/loss.jsonl"))
