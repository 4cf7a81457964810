"""OpenMP's threads do not spin for long while they wait: other processes want the cores too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import multiprocessing, os
import vivavoce.train.jobs
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(os.getenv, ("GOMP_SPINCOUNT",)))
"""


def output(program: Path, **env: str) -> str:
    kept = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    return subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=True, env={**kept, **env}
    ).stdout.strip()


@pytest.mark.parametrize(
    ("given", "threads"), [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5")], ids=["ours", "the user's"]
)
def test_how_long_threads_spin_is_set_before_torch_is_loaded(
    tmp_path: Path, given: dict[str, str], threads: str
) -> None:
    program = tmp_path / "a.py"
    program.write_text("import sys, vivavoce, os; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])")
    assert output(program, **given) == f"False {threads}"


def test_processes_that_train_inherit_it(tmp_path: Path) -> None:
    program = tmp_path / "a.py"
    program.write_text(WORKER)
    assert output(program) == "1000"
