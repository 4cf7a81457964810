"""Runs on a Ray cluster: the parts come out as one process would have asked them, though a node dies half-way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.methods.conftest import recipe as recipe
from tests.methods.conftest import student as student

from vivavoce.agents.budget import Caps
from vivavoce.config import check_recipe, what_decides
from vivavoce.errors import MissingDependency, RecipeError, RunConflict
from vivavoce.scale.ray_parts import _connect, ask_in_parts

ROOT = Path(__file__).parents[2]


def test_parts_share_the_caps_of_their_run_and_each_has_all_of_its_time() -> None:
    caps = Caps(money=8, tokens=1000, calls=10, seconds=60)
    assert caps.share(1) == caps
    assert caps.share(4) == Caps(money=2, tokens=250, calls=2, seconds=60)
    assert not Caps().share(4)


def test_where_a_run_is_asked_does_not_decide_what_comes_of_it(recipe: dict[str, Any]) -> None:
    plain, spread = (
        what_decides(check_recipe({**recipe, **more}, Path("t")).model_dump(mode="json"))
        for more in ({}, {"scale": {"engine": "ray", "parts": 3}})
    )
    assert plain == spread
    with pytest.raises(RecipeError, match=r"scale\.engine"):
        check_recipe({**recipe, "scale": {"engine": "spark"}}, Path("t"))


def test_without_ray_the_extra_is_named(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    made = check_recipe({**recipe, "scale": {"engine": "ray"}}, Path("t"))
    with pytest.raises(MissingDependency, match="needs the package ray"):
        ask_in_parts(made, tmp_path / "run")


def ran(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.real
def test_a_run_on_ray_comes_out_as_the_whole_and_a_part_asks_nothing_twice(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    recipe |= {"seeds": [0], "attempts": {"samples": 0}, "arms": ["debate_reflect"]}
    recipe["debate"]["student"] = "never"
    recipe["test"]["committee"] = False
    made = {}
    for name, more in {"whole": {}, "spread": {"scale": {"engine": "ray", "parts": 2}}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({**recipe, **more}))
        log, out = tmp_path / f"{name}.log", tmp_path / name
        for _ in range(2):  # the second command finds all done
            command = ("-m", "vivavoce.cli", "run", tmp_path / f"{name}.json", "--out", out, "--alone")
            ran(*command, VIVA_TEST_LOG=str(log))
        results = json.loads((out / "results.json").read_text())
        made[name] = (
            (out / "graphs" / "train.jsonl.gz").read_bytes(),
            results["arms"],
            sorted(log.read_text().split()),
        )
    assert made["whole"] == made["spread"]
    log, out = tmp_path / "lent.log", tmp_path / "lent"
    command = ("-m", "vivavoce.cli", "run", tmp_path / "spread.json", "--set", "dpo.beta=0.2", "--out", out)
    output = ran(*command, VIVA_TEST_LOG=str(log)).stderr
    assert not log.exists(), "parts on the cluster take what the runs beside theirs have paid for"
    assert "teacher calls were paid by an earlier run" in output


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.59.0"), "install the same versions"),
        (RuntimeError("something else"), "cannot reach the Ray cluster: something else"),
        (ConnectionError("nobody there"), "cannot reach the Ray cluster: nobody there"),
    ],
    ids=["another version", "an error of Ray's", "nobody there"],
)
def test_a_cluster_that_cannot_be_used_is_told_with_what_to_do(error: Exception, message: str) -> None:
    def init(**_: Any) -> None:
        raise error

    with pytest.raises(RunConflict, match=message):
        _connect(SimpleNamespace(init=init), "10.0.0.1:6379")


@pytest.mark.real
@pytest.mark.parametrize(
    "how", [(), ("--back",), ("--worker",)], ids=["a node stays away", "a node comes back", "a worker is killed"]
)
def test_a_node_or_worker_that_dies_half_way_loses_no_completed_call(how: tuple[str, ...]) -> None:
    pytest.importorskip("ray")
    output = ran(ROOT / "benchmarks" / "ray_two_nodes.py", "--questions", "60", "--parts", "4", "--no-speed", *how)
    content = json.loads(output.stdout.splitlines()[-1])
    assert content["calls_repeated"] == 0
    assert content["graphs_equal"]
    assert content["calls_asked"] >= content["calls"] > 200
