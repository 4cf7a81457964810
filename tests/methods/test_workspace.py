"""Runs of one workspace: what one of them has paid for costs the others nothing, counted at the teachers' endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from tests.methods.conftest import plain_recipe
from tests.methods.priced import TEACHERS, priced
from tests.methods.word_server import Teacher, WordServer
from typer.testing import CliRunner, Result

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.agents.store import EarlierRuns
from vivavoce.cli import app
from vivavoce.config import check_recipe, load_recipe
from vivavoce.errors import DataError, RecipeError
from vivavoce.records import Reply, Sampling, Usage
from vivavoce.workspace import earlier_runs


class Workspace(NamedTuple):
    """A folder with a recipe and its run in ``runs/first``, which has made ``calls`` calls at the teachers' server."""

    recipe: Path
    server: WordServer
    calls: int


@pytest.fixture(scope="module")
def first(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """The workspace of this file. Tests leave its first run as it is."""
    folder = tmp_path_factory.mktemp("workspace")
    with WordServer({name: Teacher(0.7, 5) for name in TEACHERS}) as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        values = priced(plain_recipe(student), server, folder, train=6, test=3)
        values |= {"name": "first", "arms": ["debate_reflect"], "test": {"max_new_tokens": 8, "committee": False}}
        (folder / "recipe.json").write_text(json.dumps(values))
        assert "earlier run" not in viva("run", folder / "recipe.json").stderr
        assert server.requests > 6
        yield Workspace(folder / "recipe.json", server, server.requests)


@pytest.fixture
def new(first: Workspace) -> Iterator[Workspace]:
    """The same, with the server's calls counted from now on; what a test adds to the folder is taken away."""
    first.server.requests, there = 0, set(first.recipe.parent.glob("**"))
    first.server.asked.clear()
    yield first
    for folder in set(first.recipe.parent.glob("**")) - there:
        shutil.rmtree(folder, ignore_errors=True)


def viva(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.exception or result.output
    return result


def costs(run: Path | str) -> dict[str, Any]:
    return json.loads(viva("costs", run, "--json").stdout)


ASK = ("--part", "1/1")
"""Ask what is asked before training, and train nothing."""


def test_another_setting_of_training_in_a_new_folder_asks_no_teacher(new: Workspace, tmp_path: Path) -> None:
    calls, folder = new.calls, new.recipe.parent
    output = viva("run", new.recipe, "--set", "dpo.beta=0.2", "--out", "other").stderr
    assert new.server.requests == 0, "no teacher is asked again, though the new folder lies beside `runs`"
    assert "runs/first has paid for some of these calls" in output
    assert f"{calls} of {calls} teacher calls were paid by an earlier run (runs/first)" in output
    graphs = [(folder / run / "graphs" / "train.jsonl.gz").read_bytes() for run in ("runs/first", "other")]
    assert graphs[0] == graphs[1]

    paid, free = costs("runs/first"), costs("other")
    assert paid["total"]["money"] > free["total"]["money"] == 0, "a run's ledger holds what it paid itself"
    assert free["lent"]["money"] == pytest.approx(paid["total"]["money"]), "and says what it was lent"
    assert "USD that earlier runs have paid" in (folder / "other" / "report.html").read_text()
    plans = [json.loads(viva("plan", new.recipe, "--from", run, "--json").stdout) for run in ("runs/first", "other")]
    assert plans[0]["total"] == plans[1]["total"], "a plan by a run that was lent its calls foresees them all"

    carried = tmp_path / "carried"
    shutil.move(folder / "other", carried)
    shutil.rmtree(carried / "graphs")
    (carried / "results.json").unlink()
    viva("run", carried)
    assert new.server.requests == 0, "the folder of a run is whole by itself"
    assert (carried / "graphs" / "train.jsonl.gz").read_bytes() == graphs[0]


def test_another_seed_asks_for_samples_of_its_own(new: Workspace) -> None:
    viva("run", new.recipe, "--out", "runs/alone", "--alone", *ASK)
    before = {call.key for call in new.server.asked}
    assert len(before) == new.calls, "a run alone asks all calls anew"
    viva("run", new.recipe, "--set", "seed=1", "--out", "runs/seed-1", *ASK)
    assert not before & {call.key for call in new.server.asked[new.calls :]}, "no sample of one seed is one of another"
    assert costs("runs/seed-1")["lent"]["calls"] == 0


def test_a_run_that_was_begun_alone_stays_alone(new: Workspace) -> None:
    output = viva("run", new.recipe, "--out", "runs/alone", "--alone", *ASK).stderr
    assert new.server.requests == new.calls
    assert "earlier run" not in output
    assert earlier_runs(Path("runs/alone"), load_recipe(new.recipe)) == []
    assert earlier_runs(Path("runs/other"), load_recipe(new.recipe)) == [Path("runs/first"), Path("runs/alone")]


def test_a_plan_says_how_many_calls_are_in_the_store_and_asks_nobody(new: Workspace) -> None:
    words, calls = ("plan", new.recipe, "--out", "runs/second"), new.calls + 3
    output = " ".join(viva(*words).stderr.split())
    assert f"{calls} of {calls} calls about 6 questions, of those made before training, are in runs/first" in output
    other = json.loads(viva(*words, "--set", "seed=7", "--json").stdout)["in_store"]
    assert other["calls"] < 4, "with another seed all teachers are asked anew"
    assert json.loads(viva("plan", new.recipe, "--out", "elsewhere/new", "--json").stdout)["in_store"] is None
    assert new.server.requests == 0


def test_caps_count_what_a_run_pays_itself(new: Workspace) -> None:
    caps = ("--set", "budget.run.calls=0", "--set", "budget.question.calls=0")
    viva("run", new.recipe, "--out", "runs/capped", *caps, *ASK)
    assert new.server.requests == 0


def test_an_endpoint_that_is_gone_is_not_asked_for_what_a_run_lends(
    new: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new.server, "teachers", {})
    monkeypatch.setattr(new.server, "listed", [])
    viva("run", new.recipe, "--out", "runs/second", *ASK)
    assert costs("runs/second")["lent"]["calls"] == new.calls + 3, "the student's answers to test questions too"


def test_only_runs_with_an_agent_of_the_recipe_lend_and_the_oldest_comes_first(tmp_path: Path) -> None:
    recipe = plain_recipe(tmp_path / "student")
    made = check_recipe(recipe, Path("t"))

    def run(name: str, started: str, **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        values = check_recipe({**recipe, **changes}, Path("t")).model_dump(mode="json")
        (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
        (folder / "manifest.json").write_text(json.dumps({"started": started}))
        Journal(folder / "journal.sqlite").close()
        return folder

    late, early = run("runs/a", "2026-02"), run("b", "2026-01")
    other = {"name": "x", "backend": "openai_chat", "model": "x", "base_url": "http://127.0.0.1:1/v1"}
    run("runs/c", "2026-01", teachers=[other], student={**recipe["student"], "model": "schoolhouse:student"})
    (run("runs/d", "2026-01") / "recipe.yaml").write_text("{not yaml")
    assert earlier_runs(tmp_path / "runs" / "new", made) == [early, late]
    assert earlier_runs(tmp_path / "new", made) == [early, late]
    assert earlier_runs(late, made) == [early], "a run does not borrow from itself"
    assert earlier_runs(tmp_path / "elsewhere" / "runs" / "new", made) == []

    (early / "manifest.json").write_text(json.dumps({"started": "2026-01", "part": [1, 2]}))
    assert earlier_runs(tmp_path / "new", made, part=True) == [late], "parts hold different questions"
    with (late / "run.lock").open("w") as lock:
        lock.write("another machine")
        lock.flush()
        assert late in earlier_runs(tmp_path / "new", made)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert late not in earlier_runs(tmp_path / "new", made), "its journal is not read while it is written there"


def test_a_run_lends_what_it_writes_while_others_read_and_each_call_is_paid_once(tmp_path: Path) -> None:
    """Runs of processes that ask the same calls side by side: those that began later find what is written already."""
    asked: list[int] = []
    agent = Scripted("ada", lambda _, __, seed: asked.append(seed) or Reply(f"{seed}", usage=Usage(10, 5)))

    async def side_by_side() -> list[str]:
        runs, output = [tmp_path / name for name in "abc"], list[str]()
        with contextlib.ExitStack() as open_runs:
            journals = []
            for i, run in enumerate(runs):
                run.mkdir()
                lenders = open_runs.enter_context(contextlib.closing(EarlierRuns(runs[:i])))
                journals.append(open_runs.enter_context(Journal(run / "journal.sqlite", store=lenders)))
            for seed in range(20):
                for journal in journals:
                    answered = await journal.call(agent, [{"role": "user", "content": "?"}], Sampling(), seed)
                    assert answered.reply is not None
                    output.append(answered.reply.text)
            assert [sum(c.calls for c in journal.costs()) for journal in journals] == [20, 0, 0]
            assert [sum(one.calls for one in journal.lent()) for journal in journals] == [0, 20, 20]
        return output

    assert asyncio.run(side_by_side()) == [str(seed) for seed in range(20) for _ in "abc"]
    assert asked == list(range(20))


def test_a_run_that_cannot_lend_is_named_and_passed_over(tmp_path: Path) -> None:
    output: list[str] = []
    for name in ("old", "broken", "good"):
        (tmp_path / name).mkdir()
        Journal(tmp_path / name / "journal.sqlite").close()
    with sqlite3.connect(tmp_path / "old" / "journal.sqlite") as database:
        database.execute("PRAGMA user_version = 1")
    database.close()
    (tmp_path / "broken" / "journal.sqlite").write_bytes(b"no database " * 1000)
    runs = EarlierRuns([tmp_path / name for name in ("old", "broken", "good")], failed=output.append)
    assert runs.get("00") is None
    assert [text.split(" lends")[0] for text in output] == [str(tmp_path / "old"), str(tmp_path / "broken")]
    assert "updates it" in output[0]

    runs._lenders[tmp_path / "good"].execute("PRAGMA query_only = 0")
    (tmp_path / "good" / "journal.sqlite").write_bytes(b"overwritten " * 1000)
    assert runs.get("00") is None
    assert "lends no further reply" in output[2]
    runs.close()
    with pytest.raises(DataError, match="cannot open the journal"):
        EarlierRuns([tmp_path / "broken"])


def test_a_run_is_either_alone_or_has_a_store(tmp_path: Path) -> None:
    written = tmp_path / "recipe.json"
    written.write_text(json.dumps(plain_recipe(tmp_path / "student")))
    result = CliRunner().invoke(app, ["run", str(written), "--alone", "--store", "s.sqlite"])
    assert isinstance(result.exception, RecipeError)
    result = CliRunner().invoke(app, ["run", str(written), "--store", "s.sqlite", "--set", "scale={engine: ray}"])
    assert isinstance(result.exception, RecipeError)
    assert "machines of a cluster" in str(result.exception)
