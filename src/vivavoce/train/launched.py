"""One of the processes that train a student together, started by :class:`vivavoce.train.launch.Launch` alone."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
from multiprocessing.connection import Connection

from vivavoce.train.jobs import train
from vivavoce.train.launch import shard_on_cpus, visible_gpus


class _Warnings(logging.Handler):
    """Sends warnings to the run."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(logging.WARNING)
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        self._pipe.send(("warning", record.getMessage()))


def main() -> None:
    """Train one process's share of the job that it is given, and tell how far it is."""
    pipe = Connection(int(sys.argv[1]), readable=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run says what Ctrl-C came to
    job, folder = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    first = os.environ.get("RANK", "0") == "0"
    if first:
        logging.getLogger("vivavoce").addHandler(_Warnings(pipe))

    def show(step: int, total: int, logs: dict[str, float]) -> None:
        if first:
            pipe.send(("step", step, total, logs))

    try:
        from vivavoce.train.checkpoint import leave_launch

        if os.environ.get("ACCELERATE_USE_FSDP") and not visible_gpus():
            shard_on_cpus()
        train(job, folder, show)
        pipe.send(("done",))
        leave_launch()
    except BaseException as error:
        logging.getLogger("vivavoce").handlers.clear()
        pipe.send(("error", _portable(error)))
        raise


def _portable(error: BaseException) -> BaseException:
    """The error itself if it can be sent, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever a library's error does when it is copied
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_the_run() -> None:
    """A killed run must not leave a student in training behind, which the next start would train a second time."""
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()


__all__ = ["main"]
