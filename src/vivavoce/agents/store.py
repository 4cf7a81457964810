"""Replies that runs of a workspace share: a call that one run has paid is free for every other.

A run looks into the journals of earlier runs (:class:`EarlierRuns`), which stay as they are, or into a store
(:class:`Store`): a file that any number of processes may read and write at once. A store knows a call by the same key
as the journal and holds the reply alone; prompts, stages and tags are those of the run that asks. A run writes every
call to its own journal too, so it never depends on the others: if they cannot be read or written any more, it says so
once and goes on without them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from vivavoce.agents.stored_calls import FORMAT, READABLE, UNREADABLE, compress, outcome_of, read_only, reply_row
from vivavoce.errors import DataError, RunConflict
from vivavoce.records import Reply

_FORMAT = 1
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS replies (key BLOB PRIMARY KEY, reply TEXT NOT NULL, said TEXT NOT NULL) WITHOUT ROWID;
PRAGMA application_id = 1447646836;
PRAGMA user_version = {_FORMAT};
"""
_WAIT_S = 30
"""Seconds for which one process waits until another has written."""


class Replies(Protocol):
    """Replies that other runs have paid for, by the journal keys of calls."""

    def get(self, key: str) -> Reply | None:
        """The reply to a call, or None."""
        ...

    def put(self, replies: Iterable[tuple[str, Reply]]) -> None:
        """Take in what a run has paid for."""
        ...

    def has_answered(self, identity: str) -> bool:
        """Whether an agent of that identity may have answered before, so that it need not be reached now."""
        ...


class Store:
    """Replies that any run of a workspace has paid for. Failed calls are not kept: each run asks again.

    Args:
        path: The file; made, with its parents, if it is not there. It must lie on a disk of this machine, because
            SQLite cannot lock a file on a network disk for several writers.
        failed: Told once why the store cannot be used any more; the run goes on without it.

    Raises DataError if the file is no store, and RunConflict if another version of vivavoce made it.
    """

    def __init__(self, path: str | os.PathLike[str], failed: Callable[[str], object] = lambda _: None) -> None:
        self.path, self._failed, self._gone = Path(path), failed, False
        where = str(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(where, isolation_level=None, timeout=_WAIT_S)
        except (OSError, sqlite3.Error) as error:
            raise DataError(f"cannot open the store: {error}", where, "give a path that can be written") from error
        try:
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables - {"replies"}:
                raise DataError("the file is a database, but not a store", where, "give another path")
            if version not in (0, _FORMAT):
                what = f"the store has format {version}, and this version of vivavoce reads {_FORMAT}"
                raise RunConflict(what, where, "use the version that wrote it, or name another file")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            written = isinstance(error, sqlite3.OperationalError)  # it is one, and cannot be used now
            do = "move the file away: each run keeps its own replies, and lends them (--store FOLDER)"
            do = "free disk space, check the permissions, or run without a store" if written else do
            raise DataError(f"cannot open the store: {error}", where, do) from error
        except (DataError, RunConflict):
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file. Closing twice does nothing."""
        self._db.close()

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM replies").fetchone()[0]

    def get(self, key: str) -> Reply | None:
        """The reply to the call with this journal key, or None if no run has paid for it."""
        if self._gone:
            return None
        try:
            row = self._db.execute("SELECT reply, said FROM replies WHERE key = ?", (bytes.fromhex(key),)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        if row is None:
            return None
        try:
            rest, text = row
            return outcome_of(rest, text, None, None)[0]
        except UNREADABLE as error:
            self._give_up(f"a reply in it is damaged: {error}")
            return None

    def has_answered(self, identity: str) -> bool:
        """True if any reply is here, because a store knows calls and no agents."""
        return bool(not self._gone and self._db.execute("SELECT 1 FROM replies LIMIT 1").fetchone())

    def put(self, replies: Iterable[tuple[str, Reply]]) -> None:
        """Keep replies by their journal keys, all or none. Of two replies to one call the first that came stays."""
        if self._gone:
            return
        rows = []
        for key, reply in replies:
            rest, text = reply_row(reply)
            rows.append((bytes.fromhex(key), rest, compress(text)))
        if not rows:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                self._db.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: Exception | str) -> None:
        self._gone = True
        self._failed(f"the store {self.path} cannot be used any more ({error}); the run goes on without it")


class EarlierRuns:
    """The replies that earlier runs have paid for, by the same keys; nothing is written to those runs.

    Args:
        runs: Their folders. Of two replies to one call, that of the run which is named first is taken.
        lent: Told the folder of a run when it lends its first reply.
        failed: Told why a run cannot lend, or not any more; its calls are made again then. None: the error is raised.

    Without ``failed``, raises DataError if a folder holds no journal that can be read, and RunConflict if another
    version of vivavoce wrote it.
    """

    def __init__(
        self,
        runs: Sequence[Path],
        lent: Callable[[Path], object] = lambda _: None,
        failed: Callable[[str], object] | None = None,
    ) -> None:
        self._lent, self._failed = lent, failed
        self._lenders = dict[Path, sqlite3.Connection]()
        self._silent = set[Path]()
        """Runs that have lent nothing yet."""
        for run in runs:
            try:
                self._lenders[run] = _open_journal(run)
            except (DataError, RunConflict) as error:
                if failed is None:
                    self.close()
                    raise
                failed(f"{run} lends no reply: {error.what}" + (f" ({error.do})" if error.do else ""))
            self._silent.add(run)

    def close(self) -> None:
        """Close the files. Closing twice does nothing."""
        for database in self._lenders.values():
            database.close()

    def get(self, key: str) -> Reply | None:
        """The reply to the call with this journal key, or None if no run has one."""
        query = "SELECT reply, text, reason, detail FROM calls LEFT JOIN texts ON said = id WHERE key = ?"
        for run, row in self._rows(query, key):
            if row is None or row[0] is None:
                continue
            try:
                reply = outcome_of(*row)[0]
            except UNREADABLE as error:
                self._cannot_lend(run, f"a reply is damaged: {error}")
                continue
            if run in self._silent:
                self._silent.remove(run)
                self._lent(run)
            return reply
        return None

    def has_answered(self, identity: str) -> bool:
        """Whether an agent of that identity has answered a call of these runs."""
        query = "SELECT 1 FROM calls WHERE identity = ? AND reply IS NOT NULL LIMIT 1"
        return any(row is not None for _, row in self._rows(query, identity))

    def put(self, replies: Iterable[tuple[str, Reply]]) -> None:
        """Do nothing, because the runs are left as they are."""

    def _rows(self, query: str, value: str) -> Iterator[tuple[Path, Any]]:
        for run, database in list(self._lenders.items()):
            try:
                yield run, database.execute(query, (value,)).fetchone()
            except sqlite3.Error as error:
                self._cannot_lend(run, error)

    def _cannot_lend(self, run: Path, error: Exception | str) -> None:
        if self._failed is None:
            raise DataError(f"cannot read the journal: {error}", str(run), "name another run, or none")
        self._failed(f"{run} lends no further reply: {error}")
        self._lenders.pop(run).close()


def _open_journal(run: Path) -> sqlite3.Connection:
    file = run / "journal.sqlite"
    if not file.is_file():
        do = "name a run, or a file for a store"
        raise DataError("there is no run whose replies could be used", str(run), do)
    try:
        database = read_only(file, _WAIT_S)
        version = database.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise DataError(f"cannot open the journal: {error}", str(file), "name another run, or none") from error
    if version not in READABLE:
        database.close()
        do = f"`viva run {run}` updates it"
        raise RunConflict(f"the journal has format {version}, not {FORMAT}", str(file), do)
    return database


__all__ = ["EarlierRuns", "Replies", "Store"]
