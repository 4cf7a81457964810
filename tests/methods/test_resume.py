"""Killed with SIGKILL anywhere and started again, a run repeats no completed call and ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from tests.command import Program, python

from vivavoce.agents.journal import Journal
from vivavoce.records import digest

DRIVER = """
import asyncio, json, sys
from pathlib import Path
from vivavoce.config import check_recipe
from vivavoce.data.examples import examples
from vivavoce.data.trees import preference_trees
from vivavoce.methods.debating import DebateSession
from vivavoce.run import open_run

async def main(recipe, run):
    async with DebateSession(recipe, run, recipe.debate) as s:
        graphs = await s.debate(s.task.problems("train"))
        s.rows("sft", examples(graphs, recipe.examples, s.everyone, s.wording))
        s.rows("trees", preference_trees(graphs, s.grower(recipe.trees)))

recipe = check_recipe(json.loads(Path(sys.argv[1]).read_text()), Path("recipe.json"))
with open_run(Path(sys.argv[2]), recipe) as run:
    asyncio.run(main(recipe, run))
"""


@pytest.fixture
def written(recipe: dict[str, Any], tmp_path: Path) -> Path:
    recipe["debate"]["student"] = "never"  # its model would only slow the kills down
    recipe["task"]["train"] = 40
    recipe["in_flight"] = 8
    for teacher in recipe["teachers"]:
        teacher["latency_s"] = 0.01
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))
    return path


def start(recipe: Path, run: Path, log: Path, driver: str = DRIVER) -> Program:
    return python("-c", driver, recipe, run, env={**os.environ, "VIVA_TEST_LOG": str(log)})


def kill_at_call(process: Program, log: Path, calls: int) -> None:
    """SIGKILL once so many calls have been asked, or at the end of a run that asks for fewer."""
    while len(lines(log)) < calls and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_killed_anywhere_a_run_repeats_no_completed_call_and_ends_with_the_same_bytes(
    written: Path, tmp_path: Path
) -> None:
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    assert start(written, whole, tmp_path / "whole.log").wait(300) == 0
    total = len(lines(tmp_path / "whole.log"))
    assert total > 120

    rng = random.Random(5)
    for kill_at in sorted(rng.sample(range(10, total - 20), 2)):
        process = start(written, killed, log)
        kill_at_call(process, log, kill_at)
        with Journal(killed / "journal.sqlite", read_only=True) as journal:
            completed = {digest([c.messages, c.seed]) for c in journal}
        asked = len(lines(log))
        assert 0 < len(completed) < total
        resumed = start(written, killed, log)
        kill_at_call(resumed, log, asked + 5)
        assert not completed & set(lines(log)[asked:]), "a call that was completed was asked again"

    assert start(written, killed, log).wait(300) == 0
    for name in ("graphs/train.jsonl.gz", "data/sft.jsonl", "data/trees.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
        assert (whole / name).stat().st_size > 0
    assert len(lines(log)) <= total + 4 * 8 * 3, "only calls in flight at a kill are asked again"


REVIEW_DRIVER = """
import asyncio, sys
from pathlib import Path
from tests.methods.teachers import ada, bob, cyd
from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.table import Member, Setting, hold_all
from vivavoce.protocols import peer_review
from vivavoce.graph import write_graphs
from vivavoce.records import Sampling
from vivavoce.tasks import open_task

run = Path(sys.argv[2])
run.mkdir(exist_ok=True)
agents = [Member(Scripted(n, f, identity=n, latency_s=0.01), "teacher", Sampling()) for n, f in
          (("ada", ada), ("bob", bob), ("cyd", cyd))]
student = Member(Scripted("student", bob, identity="student", latency_s=0.01), "student", Sampling())
task = open_task("schoolhouse", {"train": 60})
options = peer_review.Options(prompts="schoolhouse", gold_shown=False)
with Journal(run / "journal.sqlite") as journal:
    members = (student, *agents)
    setting = Setting(peer_review.run, members, options, prompt_set("schoolhouse"), task, journal, stage="review")
    graphs = asyncio.run(hold_all(task.problems("train"), setting, 8))
write_graphs(run / "graphs.jsonl", graphs)
"""


def test_a_review_killed_at_any_call_repeats_no_completed_one_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    nothing, whole, killed, log = Path("-"), tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    assert start(nothing, whole, tmp_path / "whole.log", REVIEW_DRIVER).wait(300) == 0
    total = len(lines(tmp_path / "whole.log"))
    assert total > 200
    for kill_at in (20, total // 3, 2 * total // 3):
        process = start(nothing, killed, log, REVIEW_DRIVER)
        kill_at_call(process, log, kill_at)
    with Journal(killed / "journal.sqlite", read_only=True) as journal:
        completed = {digest([c.messages, c.seed]) for c in journal}
    asked = len(lines(log))
    assert 0 < len(completed) < total
    assert start(nothing, killed, log, REVIEW_DRIVER).wait(300) == 0
    assert (killed / "graphs.jsonl").read_bytes() == (whole / "graphs.jsonl").read_bytes()
    with (
        Journal(killed / "journal.sqlite", read_only=True) as journal,
        Journal(whole / "journal.sqlite", read_only=True) as unkilled,
    ):
        assert len(journal) == len(unkilled)
        assert len(lines(log)) - asked <= len(unkilled) - len(completed) < total
