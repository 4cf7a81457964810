"""Training jobs in processes of their own: several small models side by side, each with its own threads and memory.

A job is described by files and plain settings alone, so that a worker needs nothing of the parent. A killed job goes
on from its last checkpoint the next time.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vivavoce.data.training_rows import training_rows
from vivavoce.progress import bar
from vivavoce.records import Example, Interaction, State, Tree, digest
from vivavoce.run import Run
from vivavoce.train.gate import Gate, together
from vivavoce.train.launch import Launch
from vivavoce.train.objective import OnPolicyOptions, OnPolicySettings
from vivavoce.train.settings import MAGDiSettings, SFTSettings, TrainResult, TreeDPOSettings, TwoTaskSettings

Track = Callable[[str, Mapping[str, Any], int], None]
"""Takes the figures of one update: series, figures by name, step."""
Settings = SFTSettings | TreeDPOSettings | TwoTaskSettings | MAGDiSettings | OnPolicySettings


_KINDS: dict[type, str] = {
    SFTSettings: "SFT",
    TreeDPOSettings: "T-DPO",
    TwoTaskSettings: "two tasks",
    MAGDiSettings: "MAGDi",
    OnPolicyOptions: "on-policy",
}


def kind_of(settings: Settings | OnPolicyOptions) -> str:
    """The kind of training of the settings: ``SFT``, ``T-DPO``, ``two tasks``, ``MAGDi`` or ``on-policy``."""
    return next(word for kind, word in _KINDS.items() if isinstance(settings, kind))


@dataclass(frozen=True)
class Job:
    """One model to train: its start, rows and settings, and the name under which it is kept."""

    name: str
    start: Path
    """Folder of the model that training starts from."""
    started_from: str
    """Fingerprint of that model."""
    rows: Path
    """JSON lines of :class:`Example` (SFT, two-task), :class:`Tree` (T-DPO), :class:`Interaction` (MAGDi) or
    :class:`State` (on-policy)."""
    settings: Settings
    seed: int

    @property
    def depends(self) -> list[Any]:
        """The dependencies of the trained model."""
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


Around = Callable[[Job], AbstractAsyncContextManager[None]]
"""A context that has to be open while a job is trained, for example the engine that serves its student."""


@asynccontextmanager
async def _nothing(job: Job) -> AsyncIterator[None]:
    yield


class Workers:
    """Trains jobs in processes of its own. Use it as a context manager, which ends them.

    It may be asked for several at once; ``gate`` says how many models are trained at the same time, over all jobs and
    everything else that waits there. The processes are opened for the first jobs and serve the later ones, because
    imports take each of them seconds. On a GPU they end with their jobs, because idle ones would hold memory that
    debates need.

    With ``launch`` each student is trained by processes of its own, which end with it.
    """

    def __init__(self, run: Run, gate: Gate, around: Around | None = None, launch: Launch | None = None) -> None:
        self._run, self._gate, self._around, self._launch = run, gate, around or _nothing, launch
        self._pool: ProcessPoolExecutor | None = None
        self._progress: Any = None
        self._bars: dict[str, _Bar] = {}
        """The progress bars of jobs that wait or are under way, by name."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    async def train(self, jobs: Sequence[Job]) -> list[Path]:
        """Train all jobs that are not trained yet; returns the folders in the order of ``jobs``.

        If the gate lets one through at a time, everything runs in this process. Raises the error of the first failing
        job; jobs that were done by then stay done.
        """
        waiting = [(job, folder) for job in jobs if (folder := self._folder_of(job)) is not None]
        if self._launch is not None:
            await together(*(self._train_together(self._launch, job, folder) for job, folder in waiting))
        elif waiting and self._gate.width > 1:
            await self._train_in_processes(waiting)
        else:
            for job, folder in waiting:
                stopped = threading.Event()
                async with self._gate.enter("training"), self._around(job):
                    try:
                        await asyncio.to_thread(train_here, job, folder, stopped, self._run.track)
                    finally:
                        stopped.set()  # where this is cancelled: a thread cannot be, and would train on to its end
                self._run.finished(job.name, job.depends)
        return [self._run.path / "checkpoints" / job.name for job in jobs]

    async def _train_together(self, launch: Launch, job: Job, folder: Path) -> None:
        stopped = threading.Event()
        with _Bar(job.name, self._run.track) as shown:
            async with self._gate.enter("training"), self._around(job):
                with launch.devices() as devices:
                    work = asyncio.ensure_future(
                        asyncio.to_thread(launch.train, job, folder, devices, shown.show, stopped)
                    )
                    try:
                        await asyncio.shield(work)
                    finally:
                        stopped.set()
                        await asyncio.wait([work])  # its processes have ended then, and their devices are free
            shown.fill()
        self._run.finished(job.name, job.depends)

    def _folder_of(self, job: Job) -> Path | None:
        return self._run.folder(job.name, job.depends, kind=kind_of(job.settings))

    async def _train_in_processes(self, waiting: Sequence[tuple[Job, Path]]) -> None:
        with ExitStack() as opened:
            several = len(waiting) > 1
            advance = opened.enter_context(bar("trained models", len(waiting))) if several else lambda: None
            await together(*(self._train_in_process(job, folder, advance) for job, folder in waiting))
        import torch

        if torch.cuda.is_available() and not self._bars:
            self._close()

    async def _train_in_process(self, job: Job, folder: Path, advance: Callable[[], None]) -> None:
        with _Bar(job.name, self._run.track) as shown:
            self._bars[job.name] = shown
            try:
                async with self._gate.enter("training"), self._around(job):
                    done = asyncio.wrap_future(self._open_pool().submit(_work, job, folder))
                    try:
                        while not (await asyncio.wait([done], timeout=0.3))[0]:
                            self._show()
                        await done
                    finally:
                        done.cancel()
                self._show()
                shown.fill()
            finally:
                del self._bars[job.name]
        self._run.finished(job.name, job.depends)
        advance()

    def _show(self) -> None:
        """Show the progress of jobs, by their own reports."""
        while True:
            try:
                name, *rest = self._progress.get_nowait()
            except queue.Empty:
                return
            if shown := self._bars.get(name):  # the last word of a job may come after it
                shown.show(*rest)

    def _open_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = _context()
            self._progress = context.Queue()
            self._pool = ProcessPoolExecutor(
                self._gate.width, context, _open_worker, (self._progress, dict(os.environ))
            )
        return self._pool

    def _close(self) -> None:
        """End the processes, with the jobs under way."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def train_here(
    job: Job, folder: Path, stopped: threading.Event | None = None, track: Track | None = None
) -> TrainResult:
    """Train one job in this process, with a progress bar. Raises CancelledError if ``stopped`` is set meanwhile."""
    with _Bar(job.name, track) as shown:

        def show(step: int, total: int, logs: dict[str, float]) -> None:
            if stopped is not None and stopped.is_set():
                raise asyncio.CancelledError
            shown.show(step, total, logs)

        return train(job, folder, show)


def train(job: Job, folder: Path, progress: Any = None) -> TrainResult:
    """Train one job into ``folder``."""
    kind: Any = Example
    if isinstance(job.settings, TreeDPOSettings):
        kind = Tree
    elif isinstance(job.settings, OnPolicySettings):
        kind = State
    elif isinstance(job.settings, MAGDiSettings):
        kind = Interaction
    return train_on(job.start, training_rows(job.rows, kind), job.settings, folder, job.seed, progress, job.rows)


def train_on(
    start: Path,
    rows: Sequence[Any],
    settings: Settings,
    folder: Path,
    seed: int = 0,
    progress: Any = None,
    source: Path | None = None,
) -> TrainResult:
    """Train the model in ``start`` on ``rows`` into ``folder``, in the way that the settings are for.

    Rows are :class:`Example` for SFT and two tasks, :class:`Tree` for T-DPO, :class:`Interaction` for MAGDi,
    :class:`State` for on-policy. ``source`` is their file, for errors.
    """
    if isinstance(settings, SFTSettings):
        from vivavoce.train.sft import train_sft

        return train_sft(start, rows, settings, folder, seed=seed, progress=progress, source=source)
    if isinstance(settings, TwoTaskSettings):
        from vivavoce.train.two_task import train_two_task

        return train_two_task(start, rows, settings, folder, seed=seed, progress=progress, source=source)
    if isinstance(settings, MAGDiSettings):
        from vivavoce.train.magdi import train_magdi

        return train_magdi(start, rows, settings, folder, seed=seed, progress=progress, source=source)
    if isinstance(settings, OnPolicySettings):
        from vivavoce.train.on_policy import train_on_policy

        return train_on_policy(start, rows, settings, folder, seed=seed, progress=progress)
    from vivavoce.train.tree_dpo import train_tree_dpo

    return train_tree_dpo(start, rows, settings, folder, seed=seed, progress=progress, source=source)


class _Bar(ExitStack):
    """The bar of a model in training, opened when its number of updates is known."""

    def __init__(self, name: str, track: Track | None = None) -> None:
        super().__init__()
        self._name, self._track = name, track
        self._advance: Callable[..., None] | None = None
        self._left = 0

    def show(self, step: int, total: int, logs: dict[str, float]) -> None:
        if self._advance is None:
            self._advance, self._left = self.enter_context(bar(f"  {self._name}", total)), total
        if self._track is not None:
            self._track(f"train/{self._name}", logs, step)
        self._advance(self._left - (total - step), note=f"loss {logs['loss']:.4f}" if "loss" in logs else None)
        self._left = total - step

    def fill(self) -> None:
        """Fill the bar: the training is done, whatever was reported last."""
        if self._advance is not None and self._left:
            self._advance(self._left)


def _context() -> Any:
    """Forks of a process that has only imported, if that is safe, else fresh processes.

    A fork costs nothing, and its imports share their memory; a fresh process imports for five seconds and holds half a
    gigabyte. CUDA does not survive a fork, and asking for it may begin it, so if it is there each process is fresh.
    """
    import torch

    if sys.platform != "linux" or torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vivavoce.train.imported"])
    return context


_progress: Any = None


def _open_worker(progress: Any, environment: dict[str, str]) -> None:
    global _progress
    _progress = progress
    os.environ.clear()
    os.environ.update(environment)  # a fork has that of the time when the process was started that it is a fork of
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent says what Ctrl-C came to; an idle worker just goes
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End this process with its parent. A killed run must not leave models in training, which the next start would
    train again.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job, folder: Path) -> None:
    train(job, folder, lambda step, total, logs: _progress.put((job.name, step, total, logs)))
