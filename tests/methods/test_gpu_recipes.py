"""The recipes for real models, dry-run: the very files, on random models of the same architecture and official data."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.shut_in import needs_sandbox
from tests.tiny_qwen3 import save_tiny_qwen3

from vivavoce.agents.journal import Journal
from vivavoce.config import load_recipe
from vivavoce.environments.environment import Episode
from vivavoce.errors import BudgetReached, RecipeError
from vivavoce.files import file_name
from vivavoce.graph import read_graphs
from vivavoce.methods import debate_opd, opad
from vivavoce.methods.doctor import Finding, examine
from vivavoce.methods.memory import Machine
from vivavoce.records import State, from_json
from vivavoce.report import write_report
from vivavoce.run import open_run
from vivavoce.tasks import open_task

RECIPES = Path(__file__).parents[2] / "recipes" / "gpu"
WHO = ("teachers.0", "teachers.1", "student")
TURNS = {"categories": ["miss_func"], "train_limit": 1, "test_limit": 1}


@pytest.fixture(scope="module")
def models(tau2: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Tiny models in place of the recipes' own: two teachers that differ in depth and weights, a student."""
    folder = tmp_path_factory.mktemp("qwen3")
    problems = open_task("tau2", {"path": tau2}).problems("train")[:8]
    if (bfcl := tau2.parent / "bfcl").is_dir():
        problems += open_task("bfcl_multi_turn", {"path": bfcl, **TURNS}).problems("train")
    texts = [message["content"] for problem in problems for message in problem.history]
    for seed, (name, layers) in enumerate((("student", 2), ("large", 3), ("small", 3))):
        save_tiny_qwen3(folder / name, texts, layers=layers, seed=seed)
    own = [f"{agent}.model={folder / name}" for agent, name in zip(WHO, ("large", "small", "student"), strict=True)]
    short = [f"{agent}.max_new_tokens=32" for agent in (*WHO, "opd", "test")]
    quick = ["opd.states_per_step=2", "opd.max_steps=1", "opd.threads=1", "opd.save_steps=null", "opd.bf16=false"]
    return [*own, *short, *quick, *(f"{agent}.dtype=float32" for agent in WHO)]


def customers(tau2: Path, models: list[str], *changes: str) -> opad.Options:
    user = next(change.replace("student.model", "user.model") for change in models if "student.model" in change)
    few = ["task.limit_takes=first", "task.train_limit=3", "task.test_limit=2", "task.turns=3"]
    few += ["episodes=2", "iterations=2"]
    arms = "arms=[debate_opd, gold_states]"
    own = [user, "user.dtype=float32", "user.max_new_tokens=32", f"task.path={tau2}", arms, *few, *changes]
    made = load_recipe(RECIPES / "opad_tau2_qwen3.yaml", [*models, *own])
    assert isinstance(made, opad.Options)
    return made


@pytest.fixture(scope="module")
def served(tau2: Path, models: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    where, made = tmp_path_factory.mktemp("served") / "run", customers(tau2, models)
    with open_run(where, made) as run:
        return where, asyncio.run(opad.distill(made, run))


def episodes(where: Path, stage: str) -> list[Episode]:
    files = (where / "episodes").glob(f"{stage}*.jsonl")
    return [from_json(Episode, line) for path in files for line in path.read_text("utf-8").splitlines()]


def rows(where: Path, name: str) -> list[State]:
    return [
        from_json(State, line) for line in (where / "data" / f"{file_name(name)}.jsonl").read_text("utf-8").splitlines()
    ]


def test_customers_are_served_debated_learnt_from_and_reported(served: tuple[Path, dict[str, Any]]) -> None:
    where, answers = served
    assert answers["task"] == "tau2_retail"
    assert [arm["name"] for arm in answers["arms"]] == ["student", "debate_opd", "gold_states"]
    assert all((arm["n"], arm["failed_calls"], arm["ungradable"]) == (2, 0, 0) for arm in answers["arms"])
    assert answers["gradient_norms"]["debate_opd"]["mean"] > 0
    graphs = list(read_graphs(where / "graphs" / "states-0.jsonl.gz"))
    assert graphs
    assert all(len(g.stated(r)) == 2 for g in graphs for r in (0, 1)), "two teachers, two rounds"
    (where / "results.json").write_text(json.dumps(answers), "utf-8")
    write_report(where)
    assert "tau2_retail" in (where / "report.html").read_text("utf-8")


def test_what_is_learnt_from_is_what_the_student_said_to_the_customer_and_its_tools(served: tuple[Path, Any]) -> None:
    where, _ = served
    states = {
        str(e.before(m)): e.steps[m].action.text for e in episodes(where, "iteration-0") for m in range(len(e.steps))
    }
    own = rows(where, "debate_opd.0-0")
    assert own
    for row in own:
        assert states[str(row.prompt)] == row.recorded[0].text
        assert "# Retail agent policy" in row.prompt[0]["content"]
        assert '"name": "cancel_pending_order"' in row.prompt[0]["content"], "tools are told in words"
        assert all(view.messages[:-1] == row.prompt[:-1] for view in row.views)
    gold = rows(where, "gold_states.0-0")
    assert any(m["content"].startswith("<tool_call>") for row in gold for m in row.prompt), "a reference's call"


def test_the_customer_is_a_model_whose_calls_are_in_the_journal_the_plan_and_the_budget(
    tau2: Path, models: list[str], served: tuple[Path, Any], tmp_path: Path
) -> None:
    where, _ = served
    with Journal(where / "journal.sqlite", read_only=True) as journal:
        spent = {(c.stage.partition(":")[0], c.agent): c.calls for c in journal.costs()}
    planned = {(p.stage.partition(":")[0], p.agent): p.calls for p in opad.plan(customers(tau2, models))}
    debates = [("debate", "large"), ("debate", "small")]
    assert sorted(planned) == [("act", "student"), *debates, ("user", "customer")]
    assert spent["user", "customer"] > 0
    assert all(spent[key] <= planned[key].most for key in (("act", "student"), ("user", "customer")))
    made = customers(tau2, models, "user.budget.calls=2", "in_flight=1")
    with open_run(tmp_path / "run", made) as run, pytest.raises(BudgetReached):
        asyncio.run(opad.distill(made, run))


def test_a_run_that_is_done_asks_for_nothing_again(
    tau2: Path, models: list[str], served: tuple[Path, dict[str, Any]]
) -> None:
    where, answers = served
    with Journal(where / "journal.sqlite", read_only=True) as journal:
        before = sum(c.calls for c in journal.costs())
    made = customers(tau2, models)
    with open_run(where, made) as run:
        second = asyncio.run(opad.distill(made, run))
    with Journal(where / "journal.sqlite", read_only=True) as journal:
        assert sum(c.calls for c in journal.costs()) == before
    assert {**second, "wall_s": 0} == {**answers, "wall_s": 0}


@pytest.mark.usefixtures("short_rehearsal")
def test_lengths_are_examined_before_anything_is_asked(tau2: Path, models: list[str], tmp_path: Path) -> None:
    def findings(*changes: str) -> dict[str, tuple[str, str]]:
        reports = examine(customers(tau2, models, *changes), tmp_path / "run", offline=True)
        return {f.what: (f.level, f.said) for f in reports}

    good = findings()
    assert good["context large"][0] == good["opd.max_length"][0] == "ok"
    assert good["tokenizer large"] == ("ok", "equal to the student's")
    assert "4 students" in good["disk"][1], "of two arms after each of two iterations"
    assert findings("opd.max_length=1000")["opd.max_length"][0] == "warning"
    assert findings("teachers.0.max_new_tokens=40000")["context large"][0] == "failed"


def test_a_plan_needs_neither_weights_nor_network(tau2: Path) -> None:
    made = load_recipe(RECIPES / "opad_tau2_qwen3.yaml", [f"task.path={tau2}"])
    assert isinstance(made, opad.Options)
    planned = {(p.stage, p.agent): p for p in opad.plan(made)}
    act, user = planned["act", "student"], planned["user", "customer"]
    played = 4 * 74 * 2 + 20 * (1 + 2)
    assert act.calls.least == played
    assert act.calls.most == played * 30
    assert 6 < act.calls.expected / played < 12, "as the reference episodes"
    assert 5000 * act.calls.expected < act.prompt_tokens.expected < 10000 * act.calls.expected, (
        "policy and tools alone: 4,500"
    )
    assert user.calls.expected < act.calls.expected


def test_who_plays_a_customer_needs_a_name_of_its_own_and_a_task_with_one(
    tau2: Path, models: list[str], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="both called `student`"):
        customers(tau2, models, "user.name=student")
    with pytest.raises(RecipeError, match=r"unknown key `user\.modle`"):
        customers(tau2, models, "user.modle=x")
    with pytest.raises(RecipeError, match="`customer` has no price"):
        customers(tau2, models, "user={name: customer, backend: openai_chat, model: x}", "budget.run.money=1")
    halls = customers(tau2, models, "task={name: schoolhouse_halls, train: 2, test: 2}", "arms=[debate_opd]")
    with open_run(tmp_path / "run", halls) as run, pytest.raises(RecipeError, match="has no part to play"):
        asyncio.run(opad.distill(halls, run))


def test_conversations_of_several_turns_are_played_debated_and_learnt_from(
    tau2: Path, bfcl: Path, models: list[str], tmp_path: Path
) -> None:
    task = json.dumps({"name": "bfcl_multi_turn", "path": str(bfcl), "turns": 2, **TURNS})
    made = customers(tau2, models, f"task={task}", "user=null", "iterations=1")
    with open_run(tmp_path / "run", made) as run:
        results = asyncio.run(opad.distill(made, run))
    assert [(arm["name"], arm["n"]) for arm in results["arms"]] == [
        ("student", 1),
        ("debate_opd", 1),
        ("gold_states", 1),
    ]
    assert "steps" not in results or not results["steps"], "it shows one way, and does not know what is best"
    own, gold = rows(tmp_path / "run", "debate_opd.0-0"), rows(tmp_path / "run", "gold_states.0-0")
    assert own
    assert all("<tools>" in row.prompt[0]["content"] for row in own)
    assert any("<tool_response>" in message["content"] for row in gold for message in row.prompt)


@needs_sandbox
def test_programs_are_debated_learnt_from_and_run(official: Path, models: list[str], tmp_path: Path) -> None:
    data = [
        f"task.train_path={official / 'mbpp' / 'train.jsonl'}",
        f"task.test_path={next((official / 'mbpp').glob('test*.jsonl'))}",
        f"also_test.humaneval.test_path={next((official / 'humaneval').glob('HumanEval*.jsonl'))}",
        "also_test.humaneval.test_limit=2",
    ]
    few = ["task.train_limit=6", "task.test_limit=4"]
    made = load_recipe(RECIPES / "code_opd_qwen3.yaml", [*models, *data, *few])
    assert isinstance(made, debate_opd.Options)
    with open_run(tmp_path / "run", made) as run:
        results = asyncio.run(debate_opd.distill(made, run))
    assert [(arm["name"], arm["n"]) for arm in results["arms"]] == [("student", 4), ("mt_opd", 4), ("debate_opd", 4)]
    assert all(arm["n"] == 2 for arm in results["also"]["humaneval"]["arms"])
    done = json.loads((tmp_path / "run" / "checkpoints" / "debate_opd-0" / "train_result.json").read_text("utf-8"))
    assert done["details"]["scored_tokens"] > 0


# --- the paper's sizes, on eight GPUs

EIGHT = RECIPES / "opad_tau2_8gpus.yaml"


def test_the_papers_sizes_are_planned_and_reckoned_for_eight_gpus_without_weights(tau2: Path, tmp_path: Path) -> None:
    made = load_recipe(EIGHT, [f"task.path={tau2}"])
    assert isinstance(made, opad.Options)
    assert sum(p.calls.expected for p in opad.plan(made)) > 10_000

    def findings(gpus: str, *changes: str) -> list[Finding]:
        changed = load_recipe(EIGHT, [f"task.path={tau2}", *changes])
        return list(examine(changed, tmp_path / "run", offline=True, machine=Machine.of(gpus)))

    reply = findings("8x80")
    assert not [f for f in reply if f.level == "failed"]
    memory = [f for f in reply if f.what == "memory"]
    assert len(memory) == 5, "four engines that play and debate, each on its GPU, and the training"
    assert {f.level for f in memory} == {"ok"}
    (training,) = [f for f in memory if f.said.startswith("training")]
    assert "on each of 8 GPUs" in training.said
    assert all(f"scorer {name}" in training.said for name in ("large", "small"))
    assert "sizes by their names: large, small, student, customer" in training.said
    (small,) = [f for f in findings("8x16") if f.said.startswith("training")]
    assert small.level == "warning"
    (whole,) = [f for f in findings("8x80", "train.fsdp=false") if f.said.startswith("training")]
    assert whole.level == "warning", "16 bytes for each of 4e9 weights, and the teachers whole beside them"
    (alone,) = [f for f in findings("4x80") if f.what == "train"]
    assert "8 processes train a student, each on a GPU of its own, and 4 are visible" in alone.said


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_the_papers_sizes_are_dry_run_with_several_processes(
    processes: int, tau2: Path, models: list[str], tmp_path: Path
) -> None:
    """All of it as in the recipe, on tiny models of a CPU: the engines' models answer in this process."""
    few = ["task.limit_takes=first", "task.train_limit=3", "task.test_limit=2", "task.turns=3", "episodes=3"]
    user = next(change.replace("student.model", "user.model") for change in models if "student.model" in change)
    here = [f"{agent}.serve=null" for agent in (*WHO, "user")]
    own = [user, "user.dtype=float32", "user.max_new_tokens=32", f"task.path={tau2}", "iterations=1"]
    kept = [change for change in models if not change.startswith(("opd.states_per_step", "opd.bf16", "opd.save"))]
    changes = [*kept, *own, *few, *here, "arms=[debate_opd]", "opd.states_per_step=4", "opd.save_steps=1"]
    sizes = {}
    for name, more in (("one", "train={}"), ("several", f"train.processes={processes}")):
        made = load_recipe(EIGHT, [*changes, more])
        assert isinstance(made, opad.Options)
        assert made.opd.bf16
        assert made.opd.gradient_checkpointing
        assert made.opd.lora is None
        with open_run(tmp_path / name, made) as run:
            sizes[name] = asyncio.run(opad.distill(made, run))
        curve = (tmp_path / name / "checkpoints" / "debate_opd.0-0" / "loss.jsonl").read_text().splitlines()
        sizes[name] = [json.loads(line) for line in curve]
    for one, several in zip(sizes["one"], sizes["several"], strict=True):
        assert several["loss"] == pytest.approx(one["loss"], rel=0.05), "in bfloat16"
