"""TensorBoard: event files in ``tracking/tensorboard/SERIES``. ``tensorboard --logdir runs`` shows all runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from vivavoce.trackers import RunDescription, Tracker


class TensorBoard:
    """Writes event files, without torch or TensorFlow."""

    def __init__(self, description: RunDescription) -> None:
        self._folder, self._writers = description.folder / "tracking" / "tensorboard", dict[str, Any]()

    def log(self, series: str, figures: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if series not in self._writers:
            (self._folder / series).mkdir(parents=True, exist_ok=True)
            self._writers[series] = EventFileWriter(str(self._folder / series))
        written = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._writers[series].add_event(Event(step=step, wall_time=time.time(), summary=Summary(value=written)))

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def open_tracker(description: RunDescription) -> Tracker:
    """Open the tracker. It writes nothing before the first figure."""
    return TensorBoard(description)
