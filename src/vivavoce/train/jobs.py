"""Training jobs in processes of their own: several small models side by side, each with its own threads and memory.

A job is described by files and plain settings alone, so that a worker needs nothing of the parent. A killed job goes
on from its last checkpoint the next time.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivavoce.progress import bar
from vivavoce.records import Example, State, Tree, digest, from_json
from vivavoce.run import Run
from vivavoce.train.objective import OnPolicySettings
from vivavoce.train.settings import SFTSettings, TrainResult, TreeDPOSettings, TwoTaskSettings

Settings = SFTSettings | TreeDPOSettings | TwoTaskSettings | OnPolicySettings


@dataclass(frozen=True)
class Job:
    """One model to train: where it starts, on which rows, how, and under which name it is kept."""

    name: str
    start: Path
    """Folder of the model that training starts from."""
    started_from: str
    """Fingerprint of that model."""
    rows: Path
    """JSON lines of :class:`Example` (SFT, two-task), :class:`Tree` (T-DPO) or :class:`State` (on-policy)."""
    settings: Settings
    seed: int

    @property
    def depends(self) -> list[Any]:
        """What the trained model is a function of."""
        return [
            self.started_from,
            digest(self.rows.read_text("utf-8")),
            type(self.settings).__name__,
            self.settings.model_dump(mode="json"),
            self.seed,
        ]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the trained model, to start another job from."""
        return digest(self.depends)


def train_all(jobs: Sequence[Job], run: Run, parallel: int = 1) -> list[Path]:
    """Train what is not trained yet, at most ``parallel`` at once; the folders in the order of ``jobs``.

    With ``parallel`` 1 everything runs in this process. Raises what the first failing job raised; jobs that were done
    by then stay done.
    """
    waiting = [(job, folder) for job in jobs if (folder := run.folder(job.name, job.depends)) is not None]
    if parallel == 1 or len(waiting) == 1:
        for job, folder in waiting:
            train_here(job, folder)
            run.finished(job.name, job.depends)
    elif waiting:
        _train_in_processes(waiting, run, parallel)
    return [run.path / "checkpoints" / job.name for job in jobs]


def train_here(job: Job, folder: Path) -> TrainResult:
    """Train one job in this process, with a progress bar."""
    with _Bars() as bars:
        return train(job, folder, lambda step, total, logs: bars.show(job.name, step, total, logs))


def train(job: Job, folder: Path, progress: Any = None) -> TrainResult:
    """Train one job into ``folder``."""
    lines = job.rows.read_text("utf-8").splitlines()
    if isinstance(job.settings, SFTSettings):
        from vivavoce.train.sft import train_sft

        return train_sft(
            job.start, [from_json(Example, x) for x in lines], job.settings, folder, seed=job.seed, progress=progress
        )
    if isinstance(job.settings, TwoTaskSettings):
        from vivavoce.train.two_task import train_two_task

        return train_two_task(
            job.start, [from_json(Example, x) for x in lines], job.settings, folder, seed=job.seed, progress=progress
        )
    if isinstance(job.settings, OnPolicySettings):
        from vivavoce.train.on_policy import train_on_policy

        return train_on_policy(
            job.start, [from_json(State, x) for x in lines], job.settings, folder, seed=job.seed, progress=progress
        )
    from vivavoce.train.tree_dpo import train_tree_dpo

    return train_tree_dpo(
        job.start, [from_json(Tree, x) for x in lines], job.settings, folder, seed=job.seed, progress=progress
    )


def _train_in_processes(waiting: Sequence[tuple[Job, Path]], run: Run, parallel: int) -> None:
    context = multiprocessing.get_context("spawn")  # torch does not survive a fork
    said: Any = context.Queue()
    with (
        ProcessPoolExecutor(parallel, context, _open_worker, (said,)) as pool,
        bar("trained models", len(waiting)) as advance,
        _Bars() as bars,
    ):
        futures = {pool.submit(_work, job, folder): job for job, folder in waiting}
        open_ = set(futures)
        while open_:
            finished, open_ = wait(open_, timeout=0.3, return_when=FIRST_COMPLETED)
            while True:
                try:
                    bars.show(*said.get_nowait())
                except queue.Empty:
                    break
            for future in finished:
                try:
                    future.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
                job = futures[future]
                run.finished(job.name, job.depends)
                advance()


class _Bars(ExitStack):
    """A bar for each model in training, opened when its number of updates is known."""

    def __init__(self) -> None:
        super().__init__()
        self._at: dict[str, tuple[Any, int]] = {}

    def show(self, name: str, step: int, total: int, logs: dict[str, float]) -> None:
        advance, before = self._at.get(name) or (self.enter_context(bar(f"  {name}", total)), 0)
        advance(step - before, note=f"loss {logs['loss']:.4f}" if "loss" in logs else None)
        self._at[name] = advance, step


_said: Any = None


def _open_worker(said: Any) -> None:
    global _said
    _said = said
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A killed run must not leave models in training behind, which the next start would train a second time."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job, folder: Path) -> None:
    train(job, folder, lambda step, total, logs: _said.put((job.name, step, total, logs)))
