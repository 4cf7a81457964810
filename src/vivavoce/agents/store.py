"""One store below all runs of a workspace: a call that one run has paid is free for every other.

The store is a file that any number of processes may read and write at once. It knows a call by the same key as the
journal and holds the reply alone; prompts, stages and tags are those of the run that asks. A run still writes every
call to its own journal first, so it never depends on the store: if the store cannot be read or written any more, the
run says so once and goes on without it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from vivavoce.agents.stored_calls import FORMAT, outcome_of, packed, reply_row
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
                raise DataError("the file is a database, but no store", where, "give another path")
            if version not in (0, _FORMAT):
                raise RunConflict(f"the store has format {version}, not {_FORMAT}", where, "open it with what made it")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise DataError(f"cannot open the store: {error}", where, "move the file away") from error
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
        rest, text = row
        return outcome_of(rest, text, None, None)[0]

    def put(self, replies: Iterable[tuple[str, Reply]]) -> None:
        """Keep replies by their journal keys, all or none. Of two replies to one call the first that came stays."""
        if self._gone:
            return
        rows = []
        for key, reply in replies:
            rest, text = reply_row(reply)
            rows.append((bytes.fromhex(key), rest, packed(text)))
        if not rows:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                self._db.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: sqlite3.Error) -> None:
        self._gone = True
        self._failed(f"the store {self.path} cannot be used any more ({error}); the run goes on without it")


class EarlierRun:
    """The replies that one earlier run has paid for, by the same keys; nothing is written to it.

    Raises DataError if the folder holds no journal, RunConflict if another version of vivavoce wrote it.
    """

    def __init__(self, run: Path) -> None:
        file = run / "journal.sqlite"
        if not file.is_file():
            raise DataError(
                "there is no run whose replies could be used", str(run), "name a run, or a file for a store"
            )
        self._db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=_WAIT_S)
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version != FORMAT:
            self._db.close()
            do = f"`viva run {run}` brings it up to date"
            raise RunConflict(f"the journal has format {version}, not {FORMAT}", str(file), do)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def get(self, key: str) -> Reply | None:
        """The reply to the call with this journal key, or None if the run has none."""
        query = "SELECT reply, text, reason, detail FROM calls LEFT JOIN texts ON said = id WHERE key = ?"
        row = self._db.execute(query, (key,)).fetchone()
        return None if row is None else outcome_of(*row)[0]

    def put(self, replies: Iterable[tuple[str, Reply]]) -> None:
        """Do nothing, because the run is left as it is."""


__all__ = ["EarlierRun", "Store"]
