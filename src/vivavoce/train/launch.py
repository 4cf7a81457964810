"""One student trained by several processes, each on a device of its own, as `accelerate launch` would start them.

::

    the run                                   process 0 … n-1:  python -m vivavoce.train.launched FD
      pickled job ─────────▶ stdin              accelerate finds the others by RANK, WORLD_SIZE, MASTER_PORT
      steps, warnings, errors ◀── a pipe        every one has its share of each update; process 0 saves the student
      one failed, or the run stops? all end     stdin closes with the run, and they end

What a process prints goes to a log of its own, so that it does not stand amid the bars of the run.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from vivavoce.agents.engine_probes import free_port
from vivavoce.errors import RecipeError, UserError

SHARES = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
"""The environment variables that `accelerate launch --use_fsdp --fsdp_version 2` sets."""
_OTHERS_S = 5.0
"""Within this time of one process's failure the others may tell theirs: the one that the user can mend is raised."""
_LINES = 12
_POLL_S = 0.2

logger = logging.getLogger(__name__)


class Named(Protocol):
    """A job of :mod:`vivavoce.train.jobs`, which its processes read; here it is only named."""

    @property
    def name(self) -> str: ...


@dataclass
class Launch:
    """The processes that train a student, and the GPUs that they may use."""

    processes: int
    sharded: bool
    gpus: Sequence[str] = ()
    """The GPUs as CUDA_VISIBLE_DEVICES names them; none on a CPU."""
    logs: Path = Path("training")
    _taken: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def devices(self) -> Iterator[list[str]]:
        """GPUs for one student, those that the fewest others use; given back after the block. None on a CPU."""
        chosen = sorted(self.gpus, key=lambda gpu: self._taken.get(gpu, 0))[: self.processes]
        for gpu in chosen:
            self._taken[gpu] = self._taken.get(gpu, 0) + 1
        try:
            yield chosen
        finally:
            for gpu in chosen:
                self._taken[gpu] -= 1

    def train(
        self,
        job: Named,
        folder: Path,
        devices: Sequence[str],
        show: Callable[[int, int, dict[str, float]], None],
        stopped: threading.Event,
    ) -> None:
        """Train ``job`` into ``folder`` by several processes. Raises what the first failing one raised; all end then,
        and if ``stopped`` is set."""
        port, pipes = free_port(), dict[Connection, int]()
        with ExitStack() as opened:
            processes = []
            for rank in range(self.processes):
                logs = self._log(job, rank)
                receiver, end = Pipe(duplex=False)
                opened.callback(receiver.close)
                processes.append(self._start(rank, port, devices, end, opened.enter_context(logs.open("wb"))))
                opened.callback(_end, processes[-1])
                end.close()  # so that its end is seen here
                pipes[receiver] = rank
            for process in processes:
                assert process.stdin is not None
                try:
                    process.stdin.write(pickle.dumps((job, folder)))
                    process.stdin.flush()
                except BrokenPipeError:
                    pass  # it has ended: that is told below
            self._follow(job, pipes, processes, show, stopped)
        for rank in range(self.processes):
            self._log(job, rank).unlink(missing_ok=True)

    def _log(self, job: Named, rank: int) -> Path:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self.logs / f"{job.name}.{rank}.log"

    def _start(
        self, rank: int, port: int, devices: Sequence[str], end: Connection, log: Any
    ) -> subprocess.Popen[bytes]:
        told_where = {
            "WORLD_SIZE": str(self.processes),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(self.processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        environment = {**os.environ, **(told_where if self.processes > 1 else {}), **(SHARES if self.sharded else {})}
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        elif self.processes > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.processes)))
        return subprocess.Popen(
            [sys.executable, "-m", "vivavoce.train.launched", str(end.fileno())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[end.fileno()],
        )

    def _follow(
        self,
        job: Named,
        pipes: dict[Connection, int],
        processes: Sequence[subprocess.Popen[bytes]],
        show: Callable[[int, int, dict[str, float]], None],
        stopped: threading.Event,
    ) -> None:
        """Hear what processes tell until all are done. Raises what one of them raised."""
        errors, until, done = list[BaseException](), float("inf"), set[int]()
        while pipes and time.monotonic() < until:
            if stopped.is_set():
                return
            for pipe in wait(list(pipes), _POLL_S):
                assert isinstance(pipe, Connection)
                rank = pipes[pipe]
                try:
                    kind, *details = pipe.recv()
                except (EOFError, OSError):
                    del pipes[pipe]
                    if rank not in done and not any(isinstance(e, UserError) for e in errors):
                        errors.append(self._end_error(job, rank, processes[rank].wait()))
                    if errors:
                        until = min(until, time.monotonic() + _OTHERS_S)
                    continue
                if kind == "step":
                    show(*details)
                elif kind == "warning":
                    logger.warning("%s", details[0])
                elif kind == "error":
                    errors.append(details[0])
                    done.add(rank)
                    until = min(until, time.monotonic() + _OTHERS_S)
                else:
                    done.add(rank)
        if errors:
            raise next((e for e in errors if isinstance(e, UserError)), errors[0])

    def _end_error(self, job: Named, rank: int, code: int) -> RuntimeError:
        log = self._log(job, rank)
        last = "\n".join(log.read_text("utf-8", "replace").splitlines()[-_LINES:])
        end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        what = f"process {rank} of {self.processes}, which trained {job.name}, {end}; its log is {log}"
        return RuntimeError(f"{what}, and ends:\n{last}" if last else what)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, unless it ends by itself once its input is closed, and wait for it."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@cache
def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    if not (Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()):
        return ()
    import torch

    count = torch.cuda.device_count()
    named = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    return tuple(named[:count]) if len(named) >= count else tuple(map(str, range(count)))


def need_devices(processes: int | None, gpus: Sequence[str]) -> None:
    """Raise RecipeError if the GPUs that are there do not go with the processes that a recipe asks for."""
    seen = len(gpus)
    if processes is None and seen > 1:
        what = f"{seen} GPUs are visible, and the recipe does not say how many of them train a student"
        do = (
            f"write `train: {{processes: {seen}}}`, with `fsdp: true` if the student is too large for one of them; or "
            "`train: {processes: 1}`, or set CUDA_VISIBLE_DEVICES to one of them"
        )
        raise RecipeError(what, "train.processes", do)
    if processes is not None and seen and processes > seen:
        what = f"{processes} processes train a student, each on a GPU of its own, and {seen} are visible"
        raise RecipeError(what, "train.processes", f"set it to {seen} or fewer")


def shard_on_cpus() -> None:
    """Let accelerate shard weights on CPUs, as torch can: it does so on GPUs alone, so it is told that these are."""
    from accelerate.state import DistributedType, PartialState

    before = PartialState.__init__

    def init(self: PartialState, *args: object, **kwargs: object) -> None:
        before(self, *args, **kwargs)  # pyright: ignore[reportArgumentType]
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = init


__all__ = ["SHARES", "Launch", "need_devices", "shard_on_cpus", "visible_gpus"]
