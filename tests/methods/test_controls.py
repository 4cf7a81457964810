"""The controls of debate-conditioned distillation, from recipe to results: scripted debaters, real tiny scorers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.methods.carry import carry_out
from tests.serving import save_tiny_model

from vivavoce.agents.journal import Journal
from vivavoce.config import check_recipe
from vivavoce.errors import RecipeError
from vivavoce.graph import read_graphs
from vivavoce.methods.debate_opd import Options, plan, trainings
from vivavoce.records import Example, State, Tree, from_json
from vivavoce.report import write_report
from vivavoce.tasks import open_task
from vivavoce.train.settings import read_curve

ARMS = [
    "debate_opd",
    "mt_opd",
    "mt_opd_tokens",
    "gold",
    "gold_answer",
    "wrong",
    "wrong_answer",
    "fixed_negative",
    "fixed_sign",
    "informative",
    "who_disagree",
    "who_doubt",
    "untrained_start",
    "cold_start",
    "maca",
    "consensus_pairs",
]
VOTES = ["self_consistency:ada", "self_consistency:bob", "self_consistency:cyd", "self_consistency", "vote:debate"]
UPDATES = 4


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a scorer."""
    return save_tiny_model(tmp_path_factory.mktemp("scorer"), context=512, initializer_range=0.1)


@pytest.fixture
def values(recipe: dict[str, Any], local: Path) -> dict[str, Any]:
    """A recipe whose student learns enough before it to give answers that can be read."""
    quick = {"max_steps": UPDATES, "lora": None, "threads": 1, "max_length": 400, "log_steps": 1, "learning_rate": 1e-3}
    scorers = [{"name": n, "model": str(local), "dtype": "float32"} for n in ("ada", "bob")]
    student = {"name": "student", "model": "schoolhouse:student", "dtype": "float32", "max_new_tokens": 52}
    return {
        **{k: recipe[k] for k in ("name", "teachers")},
        "seeds": [0],
        "task": {"name": "schoolhouse", "train": 24, "test": 10},
        "student": {**student, "temperature": 1.0, "threads": 1},
        "method": "debate_opd",
        "debate": {"prompts": "schoolhouse", "reads": "last_round"},
        "scorers": scorers,
        "warm": {"questions": 10, "sft": {**quick, "rows_per_step": 8}},
        "opd": {**quick, "states_per_step": 4, "max_new_tokens": 40, "temperature": 1.0, "top_p": 1.0},
        "sft": {**quick, "rows_per_step": 8},
        "dpo": quick,
        "arms": ARMS,
        "test": {"max_new_tokens": 40, "self_consistency": True},
    }


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture
def results(values: dict[str, Any], where: Path) -> dict[str, Any]:
    return carry_out(values, where)[0]


def rows(where: Path, name: str, kind: Any = State) -> list[Any]:
    return [from_json(kind, line) for line in (where / "data" / f"{name}.jsonl").read_text("utf-8").splitlines()]


def details(where: Path, name: str) -> dict[str, Any]:
    content = json.loads((where / "checkpoints" / f"{name}-0" / "train_result.json").read_text("utf-8"))
    return {**content["details"], "steps": content["steps"]}


def test_every_control_is_trained_tested_and_compared(results: dict[str, Any], where: Path) -> None:
    names = [a["name"] for a in results["arms"]]
    assert [n for n in names if n in ARMS] == ARMS
    assert [n for n in names if n in VOTES] == VOTES
    asked = {(p["a"], p["b"]) for p in results["paired"]}
    assert {(arm, "debate_opd") for arm in ARMS[1:]} <= asked
    assert {(vote, "vote:debate") for vote in VOTES[:-1]} <= asked
    (where / "results.json").write_text(json.dumps(results))
    page = write_report(where).read_text("utf-8")
    assert all(name in page for name in (*ARMS, *VOTES))


def test_a_run_that_is_done_asks_for_nothing_again(
    values: dict[str, Any], results: dict[str, Any], where: Path
) -> None:
    second, paid = carry_out(values, where)
    assert paid == 0
    assert {**second, "wall_s": 0} == {**results, "wall_s": 0}


def test_each_control_changes_what_it_should_and_nothing_else(results: dict[str, Any], where: Path) -> None:
    plain = rows(where, "debate_opd")
    for name in ("gold", "gold_answer", "wrong", "wrong_answer", "fixed_sign", "informative", "untrained_start"):
        assert [row.prompt for row in rows(where, name)] == [row.prompt for row in plain], "the same states"
    for name in ("fixed_sign", "informative", "untrained_start", "cold_start"):
        assert rows(where, name) == plain, "the same debate is shown, and weighs the same"
    views = {name: rows(where, name)[0].views[0].messages[-1]["content"] for name in ("gold", "wrong", "wrong_answer")}
    assert len(set(views.values())) == 3
    assert all(not row.views for row in rows(where, "fixed_negative"))
    details_of = {name: details(where, name) for name in (*ARMS, "cold_start.cold")}
    assert [details_of[name]["steps"] for name in ("cold_start.cold", "cold_start")] == [UPDATES // 2] * 2
    equal = [name for name in ARMS if name not in ("cold_start", "mt_opd_tokens")]
    assert {details_of[name]["steps"] for name in equal} == {UPDATES}, "equal updates"
    assert details_of["fixed_negative"]["teacher_tokens"] == 0
    assert details_of["informative"]["learnt_tokens"] < 0.2 * details_of["informative"]["answer_tokens"]
    assert details_of["debate_opd"]["learnt_tokens"] == details_of["debate_opd"]["answer_tokens"]
    starts = {a["name"]: a["start"] for a in results["arms"]}
    assert (starts["debate_opd"], starts["untrained_start"], starts["cold_start"]) == ("student", None, None)


def test_distillation_without_a_debate_may_take_as_many_tokens_as_the_debate(
    results: dict[str, Any], where: Path
) -> None:
    spent = results["teacher_tokens"]
    graphs = list(read_graphs(where / "graphs" / "states.jsonl.gz"))
    debate = sum(n.usage.prompt + n.usage.completion for g in graphs for n in g.nodes)
    assert spent["debate_opd"]["debate"] == debate > 0
    assert spent["mt_opd"]["debate"] == spent["mt_opd_tokens"]["debate"] == 0
    whole = {name: one["debate"] + one["scoring"] for name, one in spent.items()}
    assert whole["mt_opd"] < 0.5 * whole["debate_opd"]
    each = whole["mt_opd"] / UPDATES
    assert abs(whole["mt_opd_tokens"] - whole["debate_opd"]) < 2 * each
    assert spent["mt_opd_tokens"]["updates"] > UPDATES


def test_a_debate_in_which_fewer_speak_again_costs_fewer_tokens_and_the_curve_shows_it(
    results: dict[str, Any], where: Path
) -> None:
    spent = {name: one["debate"] for name, one in results["teacher_tokens"].items()}
    assert 0 < spent["who_disagree"] < spent["debate_opd"]
    assert 0 < spent["who_doubt"] < spent["debate_opd"]
    for speaking in ("who_disagree", "who_doubt"):
        graphs = list(read_graphs(where / "graphs" / f"states-{speaking}.jsonl.gz"))
        assert {n.agent for g in graphs for n in g.answers(0)} == {"ada", "bob", "cyd"}
        later = [n for g in graphs for n in g.answers(1) if n.call is not None]
        if speaking == "who_doubt":
            firsts = {(n.problem, n.agent): n for g in graphs for n in g.answers(0)}
            stated = [firsts[n.problem, n.agent].confidence for n in later]
            assert all(c is None or c < 0.8 for c in stated)
        assert sum(n.usage.prompt + n.usage.completion for g in graphs for n in g.nodes) == spent[speaking]
    with Journal(where / "journal.sqlite", read_only=True) as journal:
        asked = {cost.stage: cost.calls for cost in journal.costs()}
    assert asked.get("debate:states-who_disagree", 0) == 0, "what they say was said in the whole debate"
    curve = results["gain_by_tokens"]
    assert [point["tokens"] for point in curve] == sorted(point["tokens"] for point in curve)
    by_arm = {point["arm"]: point for point in curve}
    assert set(by_arm) == set(results["teacher_tokens"])
    arms = {a["name"]: a["mean"] for a in results["arms"]}
    assert by_arm["who_doubt"]["gain"] == pytest.approx(arms["who_doubt"] - arms["student"], abs=1e-6)
    assert "Gain and teachers" in (where / "report.html").read_text("utf-8")


def test_pairs_come_from_the_students_own_answers_and_the_committees_majority(
    results: dict[str, Any], where: Path
) -> None:
    graphs = {g.problem.id: g for g in read_graphs(where / "graphs" / "states.jsonl.gz")}
    majority, consensus = rows(where, "maca-0", Tree), rows(where, "consensus_pairs-0", Tree)
    assert majority
    assert consensus

    def ends(text: str) -> str:
        return text.rpartition("ans=")[2][:1]

    for tree in (*majority, *consensus):
        last = [n.answer for n in graphs[tree.problem].stated(1)]
        most = max(last, key=last.count)
        if last.count(most) > 1:
            assert {ends(c.text) for c in tree.chosen} == {most}
            assert most not in {ends(c.text) for c in tree.rejected}
        node_ids = {n.id for n in graphs[tree.problem].nodes}
        assert not node_ids & {c.source for c in tree.rejected}, "rejected is what the student said itself"
        assert bool(node_ids & {c.source for c in tree.chosen}) == (tree in consensus)
        assert all("conf=" not in c.text for c in (*tree.chosen, *tree.rejected))


def test_votes_without_a_debate_cost_as_many_tokens_as_the_vote_after_it(results: dict[str, Any], where: Path) -> None:
    tokens = {a["name"]: a["tokens_per_problem"] for a in results["arms"] if a["name"] in VOTES}
    for name in VOTES[:-1]:
        assert abs(tokens[name] - tokens["vote:debate"]) < 0.35 * tokens["vote:debate"], tokens
    with Journal(where / "journal.sqlite", read_only=True) as journal:
        asked = {cost.stage: cost.calls for cost in journal.costs()}
    assert asked["again:again-ada"] > 2 * 10
    assert results["best_single"] is None


def test_another_debate_seed_is_another_debate_for_the_same_students(values: dict[str, Any], tmp_path: Path) -> None:
    """The scripted teachers say the same whatever the seed, so that all else is found to be the same."""
    values |= {"arms": ["debate_opd"], "task": {"name": "schoolhouse", "train": 6, "test": 2}, "warm": None}
    values |= {"value": False, "test": {"max_new_tokens": 8, "committee": False}}
    values["opd"] = {**values["opd"], "max_steps": 1}
    _, first = carry_out(values, tmp_path)
    _, second = carry_out({**values, "debate_seed": 7}, tmp_path, update=True)
    assert first == 6 * 6 + 2 * 2
    assert second == 6 * 6, "the debates alone are drawn anew"
    assert carry_out({**values, "debate_seed": 0}, tmp_path, update=True)[1] == 0, "0 is the recipe's own seed"


def test_the_student_of_late_may_score_itself_and_gold_or_shares_of_teachers_be_imitated(
    values: dict[str, Any], tmp_path: Path
) -> None:
    values |= {"arms": ["self_scored", "self_ema", "sft_gold", "mt_seqkd_7_3"], "warm": None, "value": False}
    values |= {"task": {"name": "schoolhouse", "train": 40, "test": 2}, "teachers": values["teachers"][:2]}
    values["test"] = {"max_new_tokens": 8, "committee": False}
    values["opd"] = {**values["opd"], "max_steps": 3, "ema_decay": 0.0, "learning_rate": 1e-2}
    results, _ = carry_out(values, tmp_path)
    assert rows(tmp_path, "self_ema") == rows(tmp_path, "self_scored"), "the same states and views"
    same = [read_curve(tmp_path / "checkpoints" / f"{name}-0" / "loss.jsonl") for name in ("self_scored", "self_ema")]
    assert same[0][0]["loss"] == same[1][0]["loss"], "before the first update it is the same student"
    assert same[0][2]["loss"] != same[1][2]["loss"], "one scorer moves with the student"
    gold = rows(tmp_path, "sft_gold", Example)
    task = open_task("schoolhouse", {"train": 40, "test": 2})
    assert [row.completion for row in gold] == [task.worked(p) for p in task.problems("train")]  # type: ignore[attr-defined]
    agents = {n.id: n.agent for g in read_graphs(tmp_path / "graphs" / "states.jsonl.gz") for n in g.nodes}
    shares = [agents[row.source[0]] for row in rows(tmp_path, "mt_seqkd_7_3", Example)]
    assert len(shares) == 40
    assert 20 <= shares.count("ada") <= 36  # 28 expected; three standard deviations
    assert {a["name"]: a["material"] for a in results["arms"]}["sft_gold"] == "gold"


def test_the_plan_counts_the_controls_too(values: dict[str, Any], results: dict[str, Any], where: Path) -> None:
    made = check_recipe(values, Path("test.yaml"))
    assert isinstance(made, Options)
    planned = {(p.stage, p.agent): p.calls for p in plan(made)}
    with Journal(where / "journal.sqlite", read_only=True) as journal:
        for cost in journal.costs():
            span = planned[cost.stage, cost.agent]
            assert cost.calls <= span.most, cost.stage
            assert span.least <= cost.calls + cost.hits, "equal models are asked once"
    trained = {line.arm: (line.models, line.updates) for line in trainings(made)}
    assert trained["cold_start.cold"] == trained["cold_start"] == (1, UPDATES // 2)
    assert trained["maca"] == (1, UPDATES)
    assert trained["mt_opd_tokens"] == (1, None)


def test_arms_that_go_by_another_one_are_checked_before_anything_is_spent(values: dict[str, Any]) -> None:
    def refused(*arms: str, **more: Any) -> str:
        with pytest.raises(RecipeError) as error:
            check_recipe({**values, "arms": list(arms), **more}, Path("test.yaml"))
        return str(error.value)

    assert "shares the questions among 2 teachers, not 3" in refused("mt_seqkd_7_3")
    assert "`zoe` does not score" in refused("x", own_arms={"x": {"prior": {"zoe": 2.0}}})
    assert "`zoe` does not score" in refused("x", own_arms={"x": {"route": {"sum": ["zoe"]}}})
    assert "a prior cannot be negative" in refused("x", own_arms={"x": {"prior": {"ada": -1.0}}})
    assert "takes as many tokens as `debate_opd`, which is not among the arms" in refused("mt_opd_tokens")
    own = {"own_arms": {"more": {"tokens_of": "sft_debate"}}}
    assert "name an on-policy one" in refused("more", "sft_debate", **own)
    assert "itself goes by another arm" in refused(
        "debate_opd", "mt_opd_tokens", "more", own_arms={"more": {"tokens_of": "mt_opd_tokens"}}
    )
