"""OPAD, by the shipped recipe: a student acts, teachers debate what it came to, it learns; all of it real and small."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from vivavoce.agents.call_text import read_calls
from vivavoce.agents.journal import Journal
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Wording
from vivavoce.config import load_recipe
from vivavoce.data.hints import right_hint
from vivavoce.data.states import Supervised
from vivavoce.data.steps import visited_states
from vivavoce.environments.environment import Episode
from vivavoce.errors import RecipeError
from vivavoce.files import file_name
from vivavoce.graph import Graph, read_graphs
from vivavoce.methods import opad
from vivavoce.methods.acting import ActingSession
from vivavoce.methods.opad_arms import StepArm
from vivavoce.protocols import act_debate
from vivavoce.records import Problem, State, from_json
from vivavoce.report.answers import answers
from vivavoce.run import open_run
from vivavoce.schoolhouse import weights
from vivavoce.tasks import open_task
from vivavoce.tasks.limits import sample

RECIPE = Path(__file__).parents[2] / "recipes" / "schoolhouse" / "opad.yaml"
SMALL = ["seeds=[0]", "parallel=1", "task.train=60", "task.test=8", "episodes=12", "iterations=2", "opd.max_steps=2"]
ARMS = (
    "arms=[mt_opd, debate_opd, trajectory_debate, gold_states, 'debate_opd@over_steps=mean,steps=2', "
    "'mixed@learn_from=calls', gold]"
)

BUILT = weights("halls/ada").is_dir()
pytestmark = pytest.mark.skipif(not BUILT, reason="the models are not built: see schoolhouse/README.md")


def recipe(*changes: str) -> opad.Options:
    made = load_recipe(RECIPE, [*SMALL, "opd.states_per_step=4", "test.draws=2", ARMS, *changes])
    assert isinstance(made, opad.Options)
    return made


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    where, made = tmp_path_factory.mktemp("opad") / "run", recipe()
    with open_run(where, made) as run:
        return where, asyncio.run(opad.distill(made, run))


def rows(where: Path, name: str) -> list[State]:
    return [
        from_json(State, line) for line in (where / "data" / f"{file_name(name)}.jsonl").read_text("utf-8").splitlines()
    ]


def episodes(where: Path, stage: str) -> list[Episode]:
    files = (where / "episodes").glob(f"{stage}*.jsonl")
    return [from_json(Episode, line) for path in files for line in path.read_text("utf-8").splitlines()]


def test_the_whole_method_runs_and_a_second_time_for_nothing(ran: tuple[Path, dict[str, Any]]) -> None:
    where, results = ran
    names = [arm["name"] for arm in results["arms"]]
    assert names[:3] == ["student", "mt_opd", "debate_opd"]
    assert all(arm["n"] == 8 and not arm["failed_calls"] for arm in results["arms"])
    assert all(sum(n for _, n in steps["wrong_by_step"]) > 0 for steps in results["steps"].values())
    assert results["gradient_norms"]["debate_opd"]["mean"] > 0
    for arm in results["arms"]:
        trials = arm["pass_at_k"]
        assert trials["drawn"] == 2, "every student plays each test episode twice more"
        assert trials["all"]["2"]["mean"] <= trials["all"]["1"]["mean"] <= trials["k"]["2"]["mean"]
    assert all(results["teacher_tokens"][name]["scoring"] > 0 for name in results["teacher_tokens"])
    assert results["teacher_tokens"]["debate_opd"]["debate"] > 0 == results["teacher_tokens"]["mt_opd"]["debate"]
    with Journal(where / "journal.sqlite", read_only=True) as journal:
        before = sum(c.calls for c in journal.costs())
    made = recipe()
    with open_run(where, made) as run:
        results_again = asyncio.run(opad.distill(made, run))
    with Journal(where / "journal.sqlite", read_only=True) as journal:
        assert sum(c.calls for c in journal.costs()) == before
    assert {**results_again, "wall_s": 0} == {**results, "wall_s": 0}
    rows_of_answers = list(answers(where))
    assert {(row["arm"], row["seed"]) for row in rows_of_answers} == {(name, 0) for name in names}
    assert all(row["prompt"] and row["question"] and row["text"] for row in rows_of_answers)


def test_a_state_is_what_the_student_had_and_no_teacher_sees_more_than_the_debate(ran: tuple[Path, Any]) -> None:
    where, _ = ran
    played = episodes(where, "iteration-0")
    states = {str(e.before(m)): e.steps[m].action.text for e in played for m in range(len(e.steps))}
    graphs = {g.problem.id: g for g in read_graphs(where / "graphs" / "states-0.jsonl.gz")}
    for row in rows(where, "debate_opd.0-0"):
        assert str(row.prompt) in states, "the state is one that the student came to"
        assert states[str(row.prompt)] in [c.text for c in row.recorded], "it learns from what it did there"
        texts = {n.text for n in graphs[row.problem].nodes}
        for view in row.views:
            assert view.messages[:-1] == row.prompt[:-1]
            seen, shown = row.prompt[-1]["content"], view.messages[-1]["content"]
            assert shown.startswith(seen)
            lines = [line for line in shown.removeprefix(seen).split("\nme: ") for line in line.split("\np1: ")]
            lines = [line for whole in lines for line in whole.split("\np2: ") if line]
            assert len(lines) == 3, "one line of each teacher"
            assert set(lines) <= texts
    for row in rows(where, "mt_opd.0-0"):
        assert all(view.messages == row.prompt for view in row.views)


def test_gold_is_the_best_action_as_if_all_had_done_it_and_no_student_reads_it(ran: tuple[Path, Any]) -> None:
    where, _ = ran
    best = {
        str(e.before(m)): read_calls(e.steps[m].best[0])
        for e in episodes(where, "iteration-0")
        for m in range(len(e.steps))
    }
    states = rows(where, "gold.0-0")
    debated = {row.problem: row for row in rows(where, "debate_opd.0-0")}
    assert states
    for row in states:
        assert (row.prompt, row.recorded) == (debated[row.problem].prompt, debated[row.problem].recorded)
        for view in row.views:
            shown = view.messages[-1]["content"].removeprefix(row.prompt[-1]["content"])
            calls = read_calls(shown)
            assert len(calls) == 3, "one line of each teacher"
            assert all([call] == best[str(row.prompt)] for call in calls)


def test_gold_that_nobody_knows_is_told_before_anything_is_trained() -> None:
    graph = Graph(Problem("p", "what next?", "", "", ({"role": "user", "content": "what next?"},)), ())
    task = open_task("schoolhouse_halls", {"train": 1, "test": 1})
    wording = Wording(act_debate.Options(), prompt_set("general"), task)
    assert right_hint(graph, wording) is None
    session = object.__new__(ActingSession)
    with pytest.raises(RecipeError, match="does not say what is right"):
        session._enough("gold", Supervised(dropped=5), 5, recipe().opd, StepArm(context="gold"))


def test_a_state_is_debated_once_for_all_arms(ran: tuple[Path, dict[str, Any]]) -> None:
    where, results = ran
    for i in (0, 1):
        ids = [g.problem.id for g in read_graphs(where / "graphs" / f"states-{i}.jsonl.gz")]
        assert len(ids) == len(set(ids)) == results["iterations"][i]["states"]
    assert results["iterations"][0]["visited"] > results["iterations"][0]["states"], "arms share what they came to"


def test_a_debate_at_the_start_serves_every_step_and_gold_states_are_the_references(ran: tuple[Path, Any]) -> None:
    where, _ = ran
    starts = {e.before(0)[-1]["content"] for e in episodes(where, "iteration-0")}
    graphs = {g.problem.id: g for g in read_graphs(where / "graphs" / "states-0.jsonl.gz")}
    opening = {n.text for g in graphs.values() if g.problem.question in starts for n in g.nodes}
    for row in rows(where, "trajectory_debate.0-0"):
        notes = row.views[0].messages[-1]["content"].removeprefix(row.prompt[-1]["content"]).strip()
        assert any(text in notes for text in opening)
    own = rows(where, "gold_states.0-0")
    assert all(len(row.recorded) == 1 for row in own), "there the student was asked once what it would do"
    done = {str(row.prompt[:at]): row.prompt[at]["content"] for row in own for at in range(2, len(row.prompt), 2)}
    known = [(row.recorded[0].text, done[str(row.prompt)]) for row in own if str(row.prompt) in done]
    assert any(notes != best for notes, best in known), "which is not what the reference did"
    assert any(notes == best for notes, best in known)


def test_part_of_the_episodes_may_be_references_and_calls_alone_may_count(ran: tuple[Path, Any]) -> None:
    where, _ = ran
    mixed = rows(where, "mixed@learn_from=calls.0-0")
    given = {str(row.prompt) for row in rows(where, "gold_states.0-0")}
    own = {str(row.prompt) for row in rows(where, "debate_opd.0-0")}
    assert all(str(row.prompt) in given | own for row in mixed)
    assert {True, False} == {str(row.prompt) in own for row in mixed}
    done = json.loads(
        (where / "checkpoints" / f"{file_name('mixed@learn_from=calls.0')}-0" / "train_result.json").read_text()
    )
    assert 0 < done["details"]["learnt_tokens"] < done["details"]["answer_tokens"]


def test_steps_of_an_episode_may_count_as_one(ran: tuple[Path, Any]) -> None:
    where, _ = ran
    total = sum(row.weight for row in rows(where, "debate_opd@over_steps=mean,steps=2.0-0"))
    assert total == pytest.approx(12)
    whole = sum(row.weight for row in rows(where, "debate_opd.0-0"))
    assert whole == sum(len(e.steps) for e in {e.task: e for e in episodes(where, "iteration-0")}.values())


def test_the_first_error_is_the_first_action_that_was_not_best(ran: tuple[Path, Any]) -> None:
    where, _ = ran
    played = episodes(where, "iteration-0")
    states = visited_states(played, {}, StepArm(steps="first_error"), 0)
    assert 0 < len(states) <= len(played)
    blind = [Episode(**{f: getattr(played[0], f) for f in ("environment", "task", "seed", "agent", "prompt")})]
    assert visited_states(blind, {}, StepArm(steps="first_error"), 0) == []


def test_the_plan_bounds_what_a_run_asks_for(ran: tuple[Path, Any]) -> None:
    where, _ = ran
    planned = opad.plan(recipe())
    with Journal(where / "journal.sqlite", read_only=True) as journal:
        spent = sum(c.calls for c in journal.costs())
    assert sum(p.calls.least for p in planned) <= spent <= sum(p.calls.most for p in planned)
    assert all(p.completion_tokens.most > 0 for p in planned)


def test_a_pilot_plays_a_few_episodes_and_debates_what_they_came_to(tmp_path: Path) -> None:
    made = recipe()
    with open_run(tmp_path / "run", made) as run:
        asyncio.run(opad.pilot(made, run, 3))
    played = episodes(tmp_path / "run", "pilot")
    graphs = list(read_graphs(tmp_path / "run" / "graphs" / "states-pilot.jsonl.gz"))
    train = open_task(made.task.name, made.task.options).problems("train")
    assert [e.task for e in played] == [p.id for p in sample(train, 3, made.seed)], "of every group its share"
    assert [e.task for e in played] != [p.id for p in train[:3]]
    assert len(graphs) == len({str(e.before(m)) for e in played for m in range(len(e.steps))})


def test_debates_may_know_the_students_action_or_the_best_one_and_the_student_learns_from_neither_text(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "told"
    shutil.copytree(prompt_set("schoolhouse_halls").folder, folder)
    act = (folder / "act.md").read_text("utf-8")
    (folder / "act.md").write_text(act + "{% if gold is not none %}[told {{ gold }}]\n{% endif %}\n", "utf-8")
    few = ["iterations=1", "episodes=2", "test.draws=0", "task.test=2", "opd.max_steps=1"]
    made = recipe(*few, f"debate.prompts={folder}", "arms=[debate_opd, sees_action, sees_gold]")
    where = tmp_path / "run"
    with open_run(where, made) as run:
        asyncio.run(opad.distill(made, run))
    debates = {
        stage: {g.problem.id: g for g in read_graphs(where / "graphs" / f"states-0{stage}.jsonl.gz")}
        for stage in ("", "-seen", "-gold")
    }
    best = {str(e.before(m)): e.steps[m].best[0] for e in episodes(where, "iteration-0") for m in range(len(e.steps))}
    for row in rows(where, "sees_action.0-0"):
        graph = debates["-seen"][row.problem]
        (did,) = graph.stated(0, ["student"])
        assert {c.text for c in row.recorded} == {did.text}
        assert len(graph.answers()) == 1 + 2 * 3
        assert all(did.text in graph.messages_of(n)[-1]["content"] for n in graph.answers() if n.agent != "student")
        assert not any(n.saw_gold for n in graph.nodes)
    halls = open_task(made.task.name, made.task.options)
    for g in debates["-gold"].values():
        known = halls.worked(g.problem)  # type: ignore[attr-defined]
        assert read_calls(known) == read_calls(best[str(g.problem.history)])
        assert all(n.saw_gold and f"[told {known}]" in g.messages_of(n)[-1]["content"] for n in g.nodes)
    assert not any("[told" in str(g.messages_of(n)) for g in debates[""].values() for n in g.nodes)
    own = {str(row.prompt): [c.text for c in row.recorded] for row in rows(where, "debate_opd.0-0")}
    for row in (*rows(where, "sees_action.0-0"), *rows(where, "sees_gold.0-0")):
        assert {c.text for c in row.recorded} <= set(own[str(row.prompt)]), "it learns from what it did"
        assert "[told" not in str(row)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("sees_action@act_again=true", "does not go with act_again"),
        ("sees_action@debate_at=start", "does not go with debate_at"),
        ("debate_opd@prior.zoe=2", "`zoe` does not score"),
        ("debate_opd@shown_to=[zoe]", "`zoe` does not score"),
        ("debate_opd@debaters=[zoe]", "`zoe` does not debate"),
    ],
)
def test_arms_that_cannot_be_are_refused_with_the_recipe(arm: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(f'arms=["{arm}"]')


def test_a_task_of_questions_is_refused_with_what_to_do(tmp_path: Path) -> None:
    values = json.loads(json.dumps({"name": "schoolhouse", "train": 4, "test": 4}))
    made = recipe().model_copy(update={"task": type(recipe().task).model_validate(values)})
    with open_run(tmp_path / "run", made) as run, pytest.raises(RecipeError, match="no environment"):
        asyncio.run(opad.distill(made, run))
