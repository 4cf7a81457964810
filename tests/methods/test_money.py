"""What a run costs: predicted before anything is sent, held to caps while it runs, told afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from tests.command import viva
from tests.methods.carry import carry_out
from tests.methods.priced import PRICE, TEACHERS, against, planned, priced, talks
from tests.methods.word_server import Teacher, WordServer, write_problems

from vivavoce import plugins
from vivavoce.agents import open_agent
from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.table import Member, Setting, hold_all
from vivavoce.config import check_recipe
from vivavoce.errors import BudgetReached, RecipeError, RunConflict
from vivavoce.graph import Graph, read_graphs
from vivavoce.methods.measured import measured_run
from vivavoce.protocols import debate_reflect
from vivavoce.records import Sampling
from vivavoce.report import write_report
from vivavoce.report.costs import facts
from vivavoce.run import open_run
from vivavoce.tasks import open_task


@pytest.fixture(scope="module")
def server() -> Iterator[WordServer]:
    with WordServer(TEACHERS) as server:
        yield server


@pytest.fixture
def values(recipe: dict[str, Any], server: WordServer, tmp_path: Path) -> dict[str, Any]:
    return priced(recipe, server, tmp_path)


def test_a_plan_without_data_is_within_a_fifth_of_what_an_endpoint_then_charges(
    values: dict[str, Any], server: WordServer, tmp_path: Path
) -> None:
    before, asked = list(server.spent), server.requests
    plan = planned(values)
    assert server.requests == asked, "a plan sends nothing"
    talked = talks(values, tmp_path / "run")
    total = talked["total"]
    assert total["calls"] == server.requests - asked
    assert [total["prompt_tokens"], total["completion_tokens"]] == [
        a - b for a, b in zip(server.spent, before, strict=True)
    ]
    assert total["money"] == pytest.approx((total["prompt_tokens"] * 2 + total["completion_tokens"] * 10) / 1e6)
    off = against(plan, talked)
    assert all(abs(share) < 0.2 for share in off.values()), off
    for p in plan:
        for line in (x for x in talked["lines"] if (x["stage"], x["agent"]) == (p.stage, p.agent)):
            assert p.calls.least <= line["calls"] <= p.calls.most
            assert p.completion_tokens.least <= line["completion_tokens"] <= p.completion_tokens.most


def test_a_plan_by_a_pilot_needs_no_expectations_and_the_run_pays_for_none_of_it_again(
    values: dict[str, Any], server: WordServer, tmp_path: Path
) -> None:
    for teacher in values["teachers"]:
        teacher |= {"expected_right": 0.99, "expected_tokens": 400}
    recipe = check_recipe(values, Path("t"))
    method, before = plugins.load("methods", recipe.method, "t"), server.requests
    with open_run(tmp_path / "run", recipe) as run:
        asyncio.run(method.pilot(recipe, run, 20))
    assert server.requests - before >= 20 * 3 * 3
    wild, plan = planned(values), planned(values, measured_run(tmp_path / "run"))
    talked = talks(values, tmp_path / "run")
    off = against(plan, talked)
    assert all(abs(share) < 0.2 for share in off.values()), off
    assert any(abs(share) > 0.5 for share in against(wild, talked).values()), "else the pilot told nothing new"
    served = sum(line["calls"] for line in talked["lines"] if line["agent"] in TEACHERS)
    assert served == server.requests - before, "what the pilot asked is not asked again"
    whole = against(planned(values, measured_run(tmp_path / "run")), talked)
    assert all(abs(share) < 0.02 for share in whole.values()), "a finished run is predicted as it was"


def test_a_run_stops_at_its_cap_with_all_kept_and_ends_the_same_when_it_is_raised(
    values: dict[str, Any], server: WordServer, tmp_path: Path
) -> None:
    # thirty questions that are through by half of the money vary by a tenth, and what is left of it by twice as much
    values["task"] = write_problems(tmp_path, train=180, test=20)
    values["in_flight"] = 16
    free = talks(values, tmp_path / "free")
    cost = free["total"]["money"]
    asked = server.requests
    values["budget"] = {"run": {"money": cost / 2}}
    with pytest.raises(BudgetReached, match="the cap of the run is reached"):
        talks(values, tmp_path / "run")
    first = server.requests - asked
    stopped = json.loads((tmp_path / "run" / "manifest.json").read_text())["stopped"]
    assert 0 < stopped["done"] < stopped["of"] == 180
    assert 0.4 * cost < stopped["spent"]["money"] <= cost / 2
    assert stopped["left"]["money"] == pytest.approx(cost - stopped["spent"]["money"], rel=0.25)
    with Journal(tmp_path / "run" / "journal.sqlite", read_only=True) as journal:
        assert len(journal) == first == stopped["spent"]["calls"], "everything that was paid is kept"
    with pytest.raises(BudgetReached):
        talks(values, tmp_path / "run")
    assert server.requests - asked - first <= 12, "some cheaper calls fit into what was left, and no more"
    values["budget"] = {"run": {"money": 2 * cost}, "question": {"calls": 100}}
    values["teachers"][0]["price"] = {**PRICE, "prompt": 2.0}
    talked = talks(values, tmp_path / "run")
    assert server.requests - asked == free["total"]["calls"] == talked["total"]["calls"], "nothing was asked twice"
    for name in ("train", "test"):
        same = Path("graphs") / f"{name}.jsonl.gz"
        assert (tmp_path / "run" / same).read_bytes() == (tmp_path / "free" / same).read_bytes()


def test_what_is_missing_goes_by_all_questions_not_by_those_that_ended_first(
    values: dict[str, Any], tmp_path: Path
) -> None:
    """Where all are in flight at once, those that are done at the cap are the ones on which all agreed at once."""
    cost = talks(values, tmp_path / "free")["total"]["money"]
    values["budget"] = {"run": {"money": cost / 2}}
    with pytest.raises(BudgetReached):
        talks(values, tmp_path / "run")
    stopped = json.loads((tmp_path / "run" / "manifest.json").read_text())["stopped"]
    assert 0 < stopped["done"] < 30
    assert stopped["left"]["money"] == pytest.approx(cost - stopped["spent"]["money"], rel=0.25)


def test_a_question_at_its_cap_ends_early_in_the_graph_and_goes_on_when_it_is_raised(
    values: dict[str, Any], server: WordServer, tmp_path: Path
) -> None:
    values["budget"] = {"question": {"calls": 4}}
    talks(values, tmp_path / "run")
    short = list(read_graphs(tmp_path / "run" / "graphs" / "train.jsonl.gz"))
    cut = [g for g in short if g.stopped == "budget"]
    assert 0 < len(cut) < 60
    for g in cut:
        g.check()
        absent = [n for n in g.nodes if n.status == "over_budget"]
        assert absent
        assert all(n.error == "budget: the question has reached its cap" and n.call is None for n in absent)
        assert len(g.nodes) - len(absent) == 4
        assert not g.failures(), "it is no failed call"
    bytes_before, asked = (tmp_path / "run" / "graphs" / "train.jsonl.gz").read_bytes(), server.requests
    talks(values, tmp_path / "run")
    assert (bytes_before, asked) == ((tmp_path / "run" / "graphs" / "train.jsonl.gz").read_bytes(), server.requests)
    assert "the question reached its cap" in write_report(tmp_path / "run").read_text("utf-8")

    values["budget"] = {}
    with Journal(tmp_path / "run" / "journal.sqlite", read_only=True) as journal:
        had = len(journal)
    talked = talks(values, tmp_path / "run")
    assert talked["total"]["calls"] == had + server.requests - asked
    assert all(g.stopped != "budget" for g in read_graphs(tmp_path / "run" / "graphs" / "train.jsonl.gz"))


def test_money_is_no_part_of_what_a_run_depends_on_but_the_rest_is(values: dict[str, Any], tmp_path: Path) -> None:
    with open_run(tmp_path / "run", check_recipe(values, Path("t"))):
        pass
    changed = {**values, "currency": "EUR", "budget": {"run": {"money": 3}}}
    changed["teachers"] = [
        {**t, "price": {"prompt": 1, "completion": 1}, "budget": {"calls": 9}, "expected_tokens": 9}
        for t in values["teachers"]
    ]
    with open_run(tmp_path / "run", check_recipe(changed, Path("t"))) as run:
        assert run.journal.ledger.agents["ada"].caps.calls == 9
        silent = Scripted("ada", lambda *_: "hi")  # a teacher that has answered nothing may be corrected
        asyncio.run(run.journal.call(silent, [{"role": "user", "content": "?"}], Sampling(), 0))
    warmer = {**values, "teachers": [{**values["teachers"][0], "temperature": 1}, *values["teachers"][1:]]}
    with (
        pytest.raises(RunConflict, match=r"teachers\.0\.temperature"),
        open_run(tmp_path / "run", check_recipe(warmer, Path("t"))),
    ):
        pass
    del values["teachers"][1]["price"]
    with pytest.raises(RecipeError, match="money is capped, but `bob` has no price"):
        check_recipe({**values, "budget": {"question": {"money": 1}}}, Path("t"))


def test_a_plan_of_peer_review_is_within_a_fifth_of_what_an_endpoint_then_charges(
    values: dict[str, Any], server: WordServer, tmp_path: Path
) -> None:
    quick = {k: v for k, v in values["sft"].items() if k != "rows_per_step"}
    values = {k: values[k] for k in ("name", "seeds", "task", "teachers", "student", "dpo", "test")} | {
        "method": "peer_review",
        "review": {"classes": ["wrong", "no_answer", "empty", "truncated"]},
        "two_task": {**quick, "rows_per_step": 8},
        "arms": ["reviewed"],
    }
    before, asked = list(server.spent), server.requests
    plan = planned(values)
    assert server.requests == asked, "a plan sends nothing"
    talked = talks(values, tmp_path / "run")
    paid = [line for line in talked["lines"] if line["agent"] in TEACHERS]
    assert sum(line["calls"] for line in paid) == server.requests - asked
    totals = [sum(line[k] for line in paid) for k in ("prompt_tokens", "completion_tokens")]
    assert totals == [a - b for a, b in zip(server.spent, before, strict=True)]
    off = against(plan, talked, "review:")
    assert all(abs(share) < 0.2 for share in off.values()), off
    for p in plan:
        for line in (x for x in talked["lines"] if (x["stage"], x["agent"]) == (p.stage, p.agent)):
            assert p.calls.least <= line["calls"] <= p.calls.most
            assert p.money.least <= line["money"] <= p.money.most


def test_debates_that_would_not_pay_are_skipped_by_rule_and_the_graph_says_so(
    values: dict[str, Any], tmp_path: Path
) -> None:
    values["debate"] = {"max_rounds": 2, "stop": "cap_only", "student": "never", "later_rounds": "if_drafts_disagree"}
    talked = talks(values, tmp_path / "run")
    graphs = list(read_graphs(tmp_path / "run" / "graphs" / "train.jsonl.gz"))
    for g in graphs:
        agreed = len({n.answer for n in g.stated(0)}) == 1
        assert (g.rounds, g.stopped) == ((1, "drafts_agree") if agreed else (2, "cap"))
    assert 0 < sum(g.stopped == "drafts_agree" for g in graphs) < 60
    plan = planned(values)
    assert {p.stage: p.calls.least for p in plan if p.agent == "ada"} == {"debate:train": 60, "debate:test": 20}
    off = against(plan, talked)
    assert all(abs(share) < 0.2 for share in off.values()), off
    with pytest.raises(RecipeError, match="needs a student"):
        check_recipe({**values, "debate": {**values["debate"], "later_rounds": "if_student_wrong"}}, Path("t"))


def test_what_the_student_knows_is_not_debated_where_the_recipe_says_so(values: dict[str, Any], tmp_path: Path) -> None:
    """The debate itself: of a run the student must be a local model, and none so small is right so often."""
    sam = Teacher(0.6, 20)
    values["student"] = {**values["student"], "max_new_tokens": 1000, "expected_right": 0.6, "expected_tokens": 25}
    values["student"]["samples"], values["test"]["committee"] = 2, False
    values["debate"] = {"max_rounds": 2, "stop": "cap_only", "student": "always"}
    always = planned(values)
    values["debate"]["later_rounds"] = "if_student_wrong"
    plan = planned(values)
    recipe = check_recipe(values, Path("t"))
    rules = recipe.rules
    assert isinstance(rules, debate_reflect.Options)
    with (
        WordServer({**TEACHERS, "student": sam}) as server,
        Journal(tmp_path / "journal.sqlite", ledger=recipe.ledger()) as journal,
    ):

        def member(name: str, role: Literal["teacher", "student"], samples: int) -> Member:
            options = {"model": name, "base_url": server.base_url, "api_key_env": None}
            return Member(open_agent(name, "openai_chat", options), role, Sampling(0.3, 1.0, 1000), samples)

        async def hold() -> list[Graph]:
            members = (*(member(name, "teacher", 1) for name in TEACHERS), member("student", "student", 2))
            task = open_task(recipe.task.name, recipe.task.options)
            setting = Setting(
                debate_reflect.run, members, rules, prompt_set("general"), task, journal, stage="debate:train"
            )
            graphs = list(await hold_all(task.problems("train"), setting, in_flight=40))
            for m in members:
                await m.agent.aclose()
            return graphs

        graphs = asyncio.run(hold())
        figures = facts(journal.costs(), recipe.model_dump(mode="json"))
        assert figures["total"]["calls"] == server.requests
    for g in graphs:
        right = all(n.correct for n in g.answers(0, ["student"]))
        assert (g.rounds, g.stopped) == ((1, "student_right") if right else (2, "cap"))
    assert 0 < sum(g.stopped == "student_right" for g in graphs) < 60
    teachers = {"lines": [line for line in figures["lines"] if line["agent"] in TEACHERS]}
    off = against([p for p in plan if p.agent in TEACHERS and p.stage == "debate:train"], teachers)
    assert all(abs(share) < 0.2 for share in off.values()), off
    assert sum(p.money.expected for p in plan) < 0.9 * sum(p.money.expected for p in always)


def test_on_the_schoolhouse_a_plan_by_a_finished_run_is_what_another_seed_then_takes(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe |= {"seeds": [0]}
    carry_out(recipe, tmp_path / "first")
    plan = planned({**recipe, "seed": 5}, measured_run(tmp_path / "first"))
    carry_out({**recipe, "seed": 5}, tmp_path / "second")
    with Journal(tmp_path / "second" / "journal.sqlite", read_only=True) as journal:
        figures = facts(journal.costs(), recipe)
    kinds = ("calls", "prompt_tokens", "completion_tokens")
    off = {k: sum(getattr(p, k).expected for p in plan) / figures["total"][k] - 1 for k in kinds}
    assert all(abs(share) < 0.2 for share in off.values()), off


def test_the_command_line_stops_with_code_3_says_what_is_missing_and_tells_costs(
    values: dict[str, Any], server: WordServer, tmp_path: Path
) -> None:
    values["in_flight"] = 8
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    before, asked = list(server.spent), server.requests
    done = viva("run", "recipe.yaml", "--out", "run", "--set", "budget.run.calls=100", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "the cap of the run is reached: 100 calls of 100 calls spent" in done.stderr
    assert "of 60 done; everything is kept in run" in done.stderr
    assert "still to come, by what was measured so far: about" in done.stderr
    assert "Traceback" not in done.stderr
    content = json.loads(viva("costs", "run", "--json", cwd=tmp_path).stdout)
    total = content["total"]
    assert total["calls"] == server.requests - asked == 100
    totals = [total["prompt_tokens"], total["completion_tokens"]]
    assert totals == [a - b for a, b in zip(server.spent, before, strict=True)], "the server's own count"
    assert {line["agent"] for line in content["lines"]} == set(TEACHERS)
    assert "of it cached" in viva("costs", "run", cwd=tmp_path).stdout
    page = write_report(tmp_path / "run").read_text("utf-8")
    assert '<h2 id="ledger">' in page
    assert "<th>USD</th>" in page
    assert f"<td>{total['money']:.4f}</td>" in page
    assert "The run may spend 100 calls at most." in page
    assert content["under_way"] == {"calls": 0, "tokens": 0, "money": 0}, "nothing was cut off"
    plan = json.loads(viva("plan", "recipe.yaml", "--from", "run", "--json", cwd=tmp_path).stdout)
    assert plan["total"]["money"]["expected"] > content["total"]["money"]
    assert {line["stage"] for line in plan["lines"] if line["measured"]} == {"debate:train"}
    stderr = " ".join(viva("plan", "recipe.yaml", "--from", "run", cwd=tmp_path).stderr.split())
    assert "of debate:train: by what was measured in run, plus or minus two standard errors" in stderr
    assert "of test, debate:test: by the length of replies there" in stderr
    assert "time: about" in stderr
    assert "not known for test" in stderr


def test_a_plan_by_a_run_that_hardly_began_does_not_claim_to_be_measured(
    values: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert viva("run", "recipe.yaml", "--out", "run", "--set", "budget.run.calls=6", cwd=tmp_path).returncode == 3
    stderr = " ".join(viva("plan", "recipe.yaml", "--from", "run", cwd=tmp_path).stderr.split())
    assert "in run too few questions were finished to be used" in stderr
    assert "standard errors" not in stderr


def test_a_plan_tells_what_debating_only_where_it_pays_spares(values: dict[str, Any], tmp_path: Path) -> None:
    values["debate"] = {"max_rounds": 2, "stop": "cap_only", "student": "never"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    rule = "debate.later_rounds=if_drafts_disagree"
    always = json.loads(viva("plan", "recipe.yaml", "--json", cwd=tmp_path).stdout)["total"]
    less = json.loads(viva("plan", "recipe.yaml", "--set", rule, "--json", cwd=tmp_path).stdout)["total"]
    stderr = viva("plan", "recipe.yaml", "--set", rule, cwd=tmp_path).stderr
    spared = {k: always[k]["expected"] - less[k]["expected"] for k in ("calls", "money")}
    assert spared["calls"] > 40
    assert f"saves about {spared['calls']:,.0f} calls and {spared['money']:.4f} USD" in " ".join(stderr.split())
