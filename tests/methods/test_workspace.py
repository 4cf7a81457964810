"""Runs of one workspace: what one of them has paid for costs the others nothing, counted at the teachers' endpoint."""

from __future__ import annotations

import fcntl
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.methods.priced import TEACHERS, priced
from tests.methods.word_server import WordServer
from typer.testing import CliRunner, Result

from vivavoce.agents.journal import Journal
from vivavoce.agents.store import EarlierRuns
from vivavoce.cli import app
from vivavoce.config import check_recipe
from vivavoce.errors import DataError, RecipeError
from vivavoce.workspace import earlier_runs


@pytest.fixture
def server() -> Iterator[WordServer]:
    with WordServer(TEACHERS) as server:
        yield server


@pytest.fixture
def written(recipe: dict[str, Any], server: WordServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe in a folder of its own, which is the workspace and the current folder."""
    monkeypatch.chdir(tmp_path)
    values = priced(recipe, server, tmp_path, train=6, test=3)
    values |= {"name": "first", "arms": ["debate_reflect"], "test": {"max_new_tokens": 8, "committee": False}}
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    return tmp_path / "recipe.json"


def viva(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.exception or result.output
    return result


def costs(run: Path | str) -> dict[str, Any]:
    return json.loads(viva("costs", run, "--json").stdout)


def test_another_setting_of_training_in_a_new_folder_asks_no_teacher(
    written: Path, server: WordServer, tmp_path: Path
) -> None:
    assert "earlier run" not in viva("run", written).stderr
    paid, calls = costs("runs/first"), server.requests
    assert calls > 0
    said = viva("run", written, "--set", "dpo.beta=0.2", "--out", "other").stderr
    assert server.requests == calls, "no teacher is asked again, though the new folder lies beside `runs`"
    assert "runs/first has asked some of this" in said
    assert f"{calls} of {calls} teacher calls were paid by an earlier run (runs/first)" in said
    graphs = [(tmp_path / run / "graphs" / "train.jsonl").read_bytes() for run in ("runs/first", "other")]
    assert graphs[0] == graphs[1]

    free = costs("other")
    assert free["total"]["money"] == 0, "a run's ledger holds what it paid itself"
    assert free["lent"]["money"] == pytest.approx(paid["total"]["money"]), "and says what it was lent"
    assert "USD that earlier runs have paid" in (tmp_path / "other/report.html").read_text()
    plans = [json.loads(viva("plan", written, "--from", run, "--json").stdout) for run in ("runs/first", "other")]
    assert plans[0]["total"] == plans[1]["total"], "a plan by a run that was lent its calls foresees them all"

    shutil.rmtree(tmp_path / "runs")
    shutil.move(tmp_path / "other", tmp_path / "elsewhere" / "carried")
    for made in ("graphs", "evaluations", "results.json"):
        path = tmp_path / "elsewhere" / "carried" / made
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    viva("run", "elsewhere/carried")
    assert server.requests == calls, "the folder of a run is whole by itself"


def test_other_seeds_and_runs_alone_ask_for_themselves(written: Path, server: WordServer) -> None:
    viva("run", written)
    calls = server.requests
    viva("run", written, "--set", "seed=1", "--out", "runs/seed-1")
    assert server.requests >= 2 * calls - 5, "another seed draws other samples"
    again = {a.key for a in server.asked[:calls]} & {a.key for a in server.asked[calls:]}
    assert not again, "no sample of one seed is one of the other"

    before = server.requests
    said = viva("run", written, "--out", "runs/alone", "--alone").stderr
    assert server.requests == before + calls
    assert "earlier run" not in said
    manifest = json.loads(Path("runs/alone/manifest.json").read_text())
    assert manifest["alone"], "and a run that goes on stays alone"
    assert earlier_runs(Path("runs/alone"), check_recipe(yaml.safe_load(written.read_text()), written)) == []


def test_a_plan_says_how_many_calls_are_in_the_store_and_asks_nobody(written: Path, server: WordServer) -> None:
    assert json.loads(viva("plan", written, "--json").stdout)["in_store"] is None
    viva("run", written)
    calls = server.requests
    new = ("plan", written, "--out", "runs/second")
    found = json.loads(viva(*new, "--json").stdout)["in_store"]
    assert found["calls"] == found["looked_up"] == calls + 3, "the student's answers to the test questions too"
    assert found["runs"] == ["runs/first"]
    assert f"{calls + 3} of {calls + 3} calls about 6 questions" in viva(*new).stderr
    longer = json.loads(viva(*new, "--set", "debate.max_rounds=2", "--json").stdout)["in_store"]
    assert 0 < longer["calls"] <= longer["looked_up"]
    other = json.loads(viva(*new, "--set", "seed=7", "--json").stdout)["in_store"]
    assert other["calls"] < 4, "with another seed all teachers are asked anew"
    assert server.requests == calls


def test_caps_count_what_a_run_pays_itself(written: Path, server: WordServer) -> None:
    viva("run", written)
    calls = server.requests
    viva("run", written, "--out", "runs/capped", "--set", "budget.run.calls=30", "--set", "budget.question.calls=0")
    assert server.requests == calls


def test_an_endpoint_that_is_gone_is_not_asked_for_what_a_run_lends(written: Path, server: WordServer) -> None:
    viva("run", written)
    server.teachers.clear()
    server.listed.clear()
    viva("run", written, "--out", "runs/second")


def test_only_runs_with_an_agent_of_the_recipe_lend_and_the_oldest_comes_first(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
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


def test_a_run_that_cannot_lend_is_named_and_passed_over(tmp_path: Path) -> None:
    said: list[str] = []
    for name in ("old", "broken", "good"):
        (tmp_path / name).mkdir()
        Journal(tmp_path / name / "journal.sqlite").close()
    with sqlite3.connect(tmp_path / "old" / "journal.sqlite") as database:
        database.execute("PRAGMA user_version = 1")
    database.close()
    (tmp_path / "broken" / "journal.sqlite").write_bytes(b"no database " * 1000)
    runs = EarlierRuns([tmp_path / name for name in ("old", "broken", "good")], failed=said.append)
    assert runs.get("00") is None
    assert [text.split(" lends")[0] for text in said] == [str(tmp_path / "old"), str(tmp_path / "broken")]
    assert "brings it up to date" in said[0]

    runs._lenders[tmp_path / "good"].execute("PRAGMA query_only = 0")
    (tmp_path / "good" / "journal.sqlite").write_bytes(b"overwritten " * 1000)
    assert runs.get("00") is None
    assert "lends no further reply" in said[2]
    runs.close()
    with pytest.raises(DataError, match="cannot open the journal"):
        EarlierRuns([tmp_path / "broken"])


def test_a_run_is_either_alone_or_has_a_store(written: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(written), "--alone", "--store", "s.sqlite"])
    assert isinstance(result.exception, RecipeError)
    result = CliRunner().invoke(app, ["run", str(written), "--store", "s.sqlite", "--set", "scale={engine: ray}"])
    assert isinstance(result.exception, RecipeError)
    assert "machines of a cluster" in str(result.exception)
