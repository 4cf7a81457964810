"""The calls of a run that earlier runs have paid for already, counted without making a call.

The method's pilot is held over the journals of those runs with a cap of no call: replies that are there are read, and
every other call is refused. So each prompt is the real one, and later rounds quote what was really said.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vivavoce.agents.budget import Budget, Caps
from vivavoce.agents.store import Replies
from vivavoce.config import Recipe
from vivavoce.errors import BudgetReached
from vivavoce.records import Reply
from vivavoce.run import open_run


@dataclass
class InStore:
    """The calls that a run makes before it trains, about so many training questions, and how many are paid for."""

    questions: int
    looked_up: int = 0
    calls: int = 0
    runs: list[str] = field(default_factory=list)
    """The runs that have them."""


class _Looked:
    """The replies of other runs, counted; every agent passes for one that has answered, so that none is reached."""

    def __init__(self, replies: Replies, counts: InStore) -> None:
        self._replies, self._counts = replies, counts
        self._seen = Counter[str]()

    def get(self, key: str) -> Reply | None:
        reply = self._replies.get(key)
        self._seen[key] += 1
        if self._seen[key] == 1:
            self._counts.looked_up += 1
            self._counts.calls += reply is not None
        return reply

    def put(self, replies: Iterable[tuple[str, Reply]]) -> None:
        pass

    def has_answered(self, identity: str) -> bool:
        return True


def in_store(recipe: Recipe, method: Any, runs: Sequence[Path], questions: int) -> InStore:
    """Count the calls about ``questions`` training questions, and as many test questions, that these runs hold.

    Raises UserError if the run could not begin: without a key, say.
    """
    counts, none = InStore(questions), Caps(calls=0)
    dry = recipe.model_copy(update={"budget": Budget(run=none, question=none), "track": []})
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stderr(io.StringIO()),
        open_run(Path(folder), dry, earlier=runs) as run,
    ):
        assert run.journal.store is not None
        run.journal.store = _Looked(run.journal.store, counts)
        with contextlib.suppress(BudgetReached):
            asyncio.run(method.pilot(dry, run, questions))
        counts.runs = list(run.manifest.get("lenders", ()))
    return counts


__all__ = ["InStore", "in_store"]
