"""Killed with SIGKILL anywhere and started again, a run repeats no completed call and ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

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
        s.rows("sft", examples(graphs, recipe.examples, s.everyone, s.rules, s.prompts, s.task))
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


def start(recipe: Path, run: Path, log: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(recipe), str(run)],
        env={**os.environ, "VIVA_TEST_LOG": str(log)},
    )


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
        while len(lines(log)) < kill_at and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.wait()
        with Journal(killed / "journal.sqlite", read_only=True) as journal:
            completed = {digest([c.messages, c.seed]) for c in journal}
        asked = len(lines(log))
        assert 0 < len(completed) < total
        resumed = start(written, killed, log)
        while len(lines(log)) < asked + 5 and resumed.poll() is None:
            time.sleep(0.01)
        resumed.kill()
        resumed.wait()
        assert not completed & set(lines(log)[asked:]), "a call that was completed was asked again"

    assert start(written, killed, log).wait(300) == 0
    for name in ("graphs/train.jsonl", "data/sft.jsonl", "data/trees.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
        assert (whole / name).stat().st_size > 0
    assert len(lines(log)) <= total + 4 * 8 * 3, "only calls in flight at a kill are asked again"
