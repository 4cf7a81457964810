"""Training in processes of its own: they serve stage after stage, and nothing outlives the run."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.methods.conftest import TEACHERS
from tests.train.students import messages

from vivavoce.config import check_recipe
from vivavoce.errors import DataError
from vivavoce.records import Example, to_json
from vivavoce.run import Run, open_run
from vivavoce.train.gate import Gate
from vivavoce.train.jobs import Job, Workers
from vivavoce.train.settings import SFTSettings

RECIPE = {
    "method": "debate_reflect",
    "name": "test",
    "task": {"name": "schoolhouse"},
    "teachers": [{"name": "ada", "backend": "scripted", "function": f"{TEACHERS}:ada"}],
}
PARENT = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from vivavoce.train.jobs import _context, _open_worker

if __name__ == "__main__":
    context = _context()
    with ProcessPoolExecutor(1, context, _open_worker, (context.Queue(), dict(os.environ))) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


def test_workers_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert alive(worker)
        parent.kill()
    deadline = time.monotonic() + 30
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


def jobs(student: Path, folder: Path, stage: str, question: str = "12 + 30?", steps: int = 1) -> list[Job]:
    rows = folder / f"{stage}.jsonl"
    example = Example("a", messages(question), "forty-two", ("n1",))
    rows.write_text(to_json(example) + "\n")
    how = SFTSettings(lora=None, device="cpu", max_steps=steps, max_length=64, threads=1)
    return [Job(f"{stage}-{seed}", student, "start", rows, how, seed) for seed in (0, 1)]


@pytest.fixture
def run(student: Path, tmp_path: Path) -> Iterator[Run]:
    recipe = check_recipe({**RECIPE, "student": {"name": "student", "model": str(student)}}, tmp_path / "recipe.yaml")
    with open_run(tmp_path / "run", recipe) as opened:
        yield opened


def test_workers_serve_the_next_stage_too_and_end_with_the_session(student: Path, tmp_path: Path, run: Run) -> None:
    async def stages() -> None:
        with Workers(run, Gate(2)) as workers:
            assert not multiprocessing.active_children(), "none before there is something to train"
            first = await workers.train(jobs(student, tmp_path, "first"))
            served = {child.pid for child in multiprocessing.active_children()}
            second = await workers.train(jobs(student, tmp_path, "second"))
            assert {child.pid for child in multiprocessing.active_children()} == served
            assert len(served) == 2
            assert all((folder / "train_result.json").is_file() for folder in first + second)
            with pytest.raises(DataError, match="longer than 64"):
                await workers.train(jobs(student, tmp_path, "third", "so long " * 60))
        assert not multiprocessing.active_children()
        with Workers(run, Gate(2)) as workers:
            assert await workers.train(jobs(student, tmp_path, "first")) == first
            assert not multiprocessing.active_children(), "nothing is opened for what is kept"

    asyncio.run(stages())
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("parallel", [1, 2])
def test_several_may_ask_at_once(parallel: int, student: Path, tmp_path: Path, run: Run) -> None:
    async def both() -> list[list[Path]]:
        with Workers(run, Gate(parallel)) as workers:
            stages = ("first", "second", "third")
            return await asyncio.gather(*(workers.train(jobs(student, tmp_path, stage)) for stage in stages))

    folders = [folder for stage in asyncio.run(both()) for folder in stage]
    names = [folder.name for folder in folders]
    assert names == ["first-0", "first-1", "second-0", "second-1", "third-0", "third-1"]
    assert all((folder / "train_result.json").is_file() for folder in folders)
    assert set(run.manifest["stages"]) == {f"checkpoints/{name}" for name in names}


def test_a_failing_job_fails_alone(student: Path, tmp_path: Path, run: Run) -> None:
    async def both() -> None:
        with Workers(run, Gate(2)) as workers:
            good = asyncio.create_task(workers.train(jobs(student, tmp_path, "good")))
            with pytest.raises(DataError, match="longer than 64"):
                await workers.train(jobs(student, tmp_path, "bad", "so long " * 60))
            assert all((folder / "train_result.json").is_file() for folder in await good)

    asyncio.run(both())
    assert set(run.manifest["stages"]) == {"checkpoints/good-0", "checkpoints/good-1"}


def test_a_training_in_this_process_stops_when_its_run_is(student: Path, tmp_path: Path, run: Run) -> None:
    async def stopped() -> None:
        with Workers(run, Gate(1)) as workers:
            training = asyncio.create_task(workers.train(jobs(student, tmp_path, "long", steps=5_000)))
            curve = run.path / "checkpoints" / "long-0" / "loss.jsonl"
            while not curve.exists() or not curve.read_text():
                await asyncio.sleep(0.05)
            training.cancel()
            with pytest.raises(asyncio.CancelledError):
                await training

    asyncio.run(stopped())  # which waits for its threads
    assert "checkpoints/long-0" not in run.manifest.get("stages", {})


def test_what_is_imported_before_processes_are_forked_starts_no_thread_and_asks_no_device() -> None:
    code = (
        "import threading, torch; from vivavoce.train import imported; "
        "assert threading.active_count() == 1; assert not torch.cuda.is_initialized(); import sys; "
        "assert {'peft', 'accelerate', 'transformers.modeling_utils'} <= set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_workers_see_the_environment_of_the_run_as_it_is_now(
    student: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def of_workers() -> list[str | None]:
        seen = []
        for value in ("first", "second"):
            monkeypatch.setenv("VIVA_TEST", value)
            with Workers(run, Gate(2)) as workers:
                seen.append(workers._open_pool().submit(os.getenv, "VIVA_TEST").result())
        return seen

    assert asyncio.run(of_workers()) == ["first", "second"]
