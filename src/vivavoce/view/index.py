"""The index of a run: a small database beside its files, made file by file as they appear.

::

    graphs/*.jsonl.gz  evaluations/*.jsonl  episodes/*.jsonl  data/*.jsonl  journal.sqlite
              │ one source each: read again only if the file has changed
              ▼
    view.sqlite     questions of each set · a letter for each answer · places in the files · words (FTS5)

Texts are not copied: a place is the beginning of a line in its file, and the line is read when it is looked at. A set
is one list of questions: those of a stage (``train``, ``states-0``), or of a test. Of a chain, ``STAGE/train``.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from vivavoce.agents.journal import Journal
from vivavoce.errors import DataError, UserError
from vivavoce.graph.packed import unpack
from vivavoce.records import Problem
from vivavoce.report.sources import Sources
from vivavoce.report.verdicts import NOTHING
from vivavoce.view.run_files import files_of, of_tests
from vivavoce.view.words import sought
from vivavoce.view.writing import OF_TASK, Writer, count_of

_VERSION = 1
_SCHEMA = f"""
CREATE TABLE sources (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, stat TEXT NOT NULL, kind TEXT NOT NULL,
    of TEXT, label TEXT NOT NULL, words INTEGER NOT NULL);
CREATE TABLE questions (of TEXT NOT NULL, at INTEGER NOT NULL, problem TEXT NOT NULL, grp TEXT NOT NULL,
    gold TEXT NOT NULL, head TEXT NOT NULL, full TEXT, PRIMARY KEY (of, at)) WITHOUT ROWID;
CREATE UNIQUE INDEX by_problem ON questions (problem, of);
CREATE TABLE columns (source INTEGER NOT NULL, place INTEGER NOT NULL, label TEXT NOT NULL, letters BLOB NOT NULL);
CREATE TABLE tokens (source INTEGER PRIMARY KEY, counts BLOB NOT NULL);
CREATE TABLE places (source INTEGER NOT NULL, at INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
    PRIMARY KEY (source, at, start)) WITHOUT ROWID;
CREATE TABLE calls (at INTEGER NOT NULL, of TEXT NOT NULL, place INTEGER PRIMARY KEY);
CREATE INDEX calls_of ON calls (of, at);
CREATE TABLE failures (place INTEGER PRIMARY KEY, agent TEXT NOT NULL, stage TEXT NOT NULL, problem TEXT NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO facts VALUES ('version', 0), ('journal', 0);
PRAGMA user_version = {_VERSION};
"""


class Column(NamedTuple):
    """One column of a table of questions: whose answers, and a letter for each question
    (:mod:`vivavoce.report.verdicts`)."""

    label: dict[str, Any]
    letters: str


class Place(NamedTuple):
    """The place of something about a question: a line of a file of the run."""

    kind: str
    label: dict[str, Any]
    path: str
    start: int
    length: int


class Index:
    """The index of one run. Any number of threads may read; one at a time may :meth:`refresh`.

    Args:
        run: The run directory.
        file: The database; made anew if it is another version's.
    """

    def __init__(self, run: Path, file: Path) -> None:
        self.run, self.file = run, file
        self.doing = ""
        """What is being read now, for people; empty if nothing is."""
        self.unread: dict[str, str] = {}
        """Files that could not be read in whole, and why."""
        self._of_task: dict[str, dict[str, Problem]] = {}
        """Questions of the run's task by set, read once."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._open()) as db:
            known = db.execute("PRAGMA user_version").fetchone()[0]
        if known != _VERSION:
            for old in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
                old.unlink(missing_ok=True)
            with closing(self._open()) as db:
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(_SCHEMA)

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.file, isolation_level=None, timeout=60)
        db.execute("PRAGMA synchronous = OFF")  # it can always be made again
        return db

    # --- reading

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        with closing(self._open()) as db:
            return _fact(db, "version")

    def sets(self) -> dict[str, int]:
        """Sets of questions, and how many each has; those of debates first, as their files were read."""
        with closing(self._open()) as db:
            counts = dict(db.execute("SELECT of, count(*) FROM questions GROUP BY of"))
        return {of: counts[of] for of in sorted(counts, key=_order)}

    def columns(self, of: str) -> list[Column]:
        """The columns of a set."""
        with closing(self._open()) as db:
            n = count_of(db, of)
            rows = db.execute(
                "SELECT c.label, letters FROM columns c JOIN sources s ON s.id = source WHERE s.of = ? "
                "ORDER BY s.kind DESC, s.path, place",
                (of,),
            )
            columns = [Column(json.loads(label), letters.decode().ljust(n, NOTHING)) for label, letters in rows]
            if live := db.execute("SELECT DISTINCT at FROM calls WHERE of = ?", (of,)).fetchall():
                begun = bytearray(NOTHING * n, "ascii")
                for (at,) in live:
                    begun[at] = ord("L")
                columns.append(Column({"live": True}, begun.decode()))
            return columns

    def names(self, of: str) -> tuple[list[str], list[str]]:
        """Ids and groups of the questions of a set."""
        with closing(self._open()) as db:
            rows = db.execute("SELECT problem, grp FROM questions WHERE of = ? ORDER BY at", (of,)).fetchall()
        return [row[0] for row in rows], [row[1] for row in rows]

    def tokens(self, of: str) -> list[int]:
        """Tokens that were spent on each question of a set, in its graphs."""
        with closing(self._open()) as db:
            total = [0] * count_of(db, of)
            for (counts,) in db.execute(
                "SELECT counts FROM tokens t JOIN sources s ON s.id = t.source WHERE of = ?", (of,)
            ):
                for at, n in enumerate(array("I", counts)):
                    total[at] += n
        return total

    def heads(self, of: str, start: int, end: int) -> list[tuple[str, str]]:
        """``(beginning of the question, gold)`` of some questions."""
        with closing(self._open()) as db:
            rows = db.execute(
                "SELECT head, gold FROM questions WHERE of = ? AND at >= ? AND at < ? ORDER BY at", (of, start, end)
            )
            return rows.fetchall()

    def question(self, of: str, at: int) -> Problem | None:
        """A question as far as the index has it, with its whole text unless a graph has that."""
        with closing(self._open()) as db:
            row = db.execute(
                "SELECT problem, coalesce(full, head), gold, grp FROM questions WHERE of = ? AND at = ?", (of, at)
            ).fetchone()
        return None if row is None else Problem(*row)

    def find(self, of: str, problem: str) -> int | None:
        """The number of the question of a set with this id."""
        with closing(self._open()) as db:
            row = db.execute("SELECT at FROM questions WHERE problem = ? AND of = ?", (problem, of)).fetchone()
        return row and row[0]

    def places(self, of: str, at: int) -> list[Place]:
        """The places of everything about a question in the files of the run."""
        with closing(self._open()) as db:
            rows = db.execute(
                "SELECT kind, label, path, start, length FROM places p JOIN sources s ON s.id = p.source "
                "WHERE s.of = ? AND at = ? ORDER BY s.kind, path, start",
                (of, at),
            )
            return [Place(kind, json.loads(label), *rest) for kind, label, *rest in rows]

    def line(self, place: Place) -> bytes:
        """The line at a place. Raises DataError if its file is gone."""
        try:
            with (self.run / place.path).open("rb") as file:
                file.seek(place.start)
                return unpack(file.read(place.length), place.path)
        except OSError as error:
            raise DataError(
                "the file is gone", place.path, "reload the page: the run may have been started again"
            ) from error

    def calls(self, of: str, at: int) -> list[int]:
        """Rows of the journal that are about a question of a stage that is under way."""
        with closing(self._open()) as db:
            rows = db.execute("SELECT place FROM calls WHERE of = ? AND at = ? ORDER BY place", (of, at))
            return [row[0] for row in rows]

    def failures(self) -> list[int]:
        """Rows of the journal that were failures when they were read."""
        with closing(self._open()) as db:
            return [row[0] for row in db.execute("SELECT place FROM failures ORDER BY place")]

    def search(self, of: str, query: str) -> list[int]:
        """Questions of a set that hold every word of ``query``; the last one may be the beginning of a word."""
        wanted = sought(query)
        if not wanted:
            return []
        with closing(self._open()) as db:
            n = count_of(db, of)
            sources = [
                i for (i,) in db.execute("SELECT id FROM sources WHERE of = ? AND words ORDER BY kind DESC", (of,))
            ]
            matches: set[int] | None = None
            for i, word in enumerate(wanted):
                match = f'"{word}"' + ("*" if i == len(wanted) - 1 else "")
                hits: set[int] = set()
                for source in sources:
                    hits.update(
                        row for (row,) in db.execute(f"SELECT rowid FROM w{source} WHERE w{source} MATCH ?", (match,))
                    )
                    if len(hits) == n:
                        break
                matches = hits if matches is None else matches & hits
                if not matches:
                    break
        return sorted(matches or ())

    @staticmethod
    def _sources_with_words(db: sqlite3.Connection, of: str) -> list[int]:
        """The sources of a set of which there are words, those of debates first."""
        return [i for (i,) in db.execute("SELECT id FROM sources WHERE of = ? AND words ORDER BY kind DESC", (of,))]

    def words(self, of: str) -> Iterator[tuple[str, list[int]]]:
        """Every word of a set in order, and the questions in whose texts it stands."""
        with closing(self._open()) as db:
            sources = self._sources_with_words(db, of)
            for i in sources:
                db.execute(f"CREATE VIRTUAL TABLE temp.v{i} USING fts5vocab(main, w{i}, 'instance')")
            if not sources:
                return
            each = " UNION ALL ".join(f"SELECT term, doc FROM v{i}" for i in sources)
            term, docs = "", set[int]()
            for word, doc in db.execute(f"SELECT term, doc FROM ({each}) ORDER BY term"):
                if word != term:
                    if docs:
                        yield term, sorted(docs)
                    term, docs = word, set()
                docs.add(doc)
            if docs:
                yield term, sorted(docs)

    # --- making

    def refresh(self, advanced: Callable[[], object] = lambda: None, end: Callable[[], bool] = lambda: False) -> bool:
        """Read what is new or has changed since the last time; whether anything was. ``advanced`` is called as parts
        are ready, and ``end`` asks whether to stop.
        """
        before = self.version
        with closing(self._open()) as db:
            there = list(files_of(self.run))
            known = {path: (i, stat) for i, path, stat in db.execute("SELECT id, path, stat FROM sources")}
            for path in set(known) - {f.path for f in there}:
                if not path.startswith(OF_TASK):
                    Writer(db, self.run, self.unread).drop(known[path][0])
            for file in there:
                if end():
                    break
                stat = _stat(self.run / file.path)
                if stat is None or (file.path in known and known[file.path][1] == stat):
                    continue
                self.doing = file.path
                writer = Writer(db, self.run, self.unread, advanced)
                try:
                    writer.replace(file, stat, known.get(file.path, (None,))[0])
                except (OSError, sqlite3.Error) as error:
                    self.unread[file.path] = str(error)
            if not end():
                self.doing = "journal.sqlite"
                self._live(db)
                self._fill(db)
            self.doing = ""
        return self.version != before

    def _live(self, db: sqlite3.Connection) -> None:
        """Read calls that were written since the last time: those of stages whose graphs are not there yet, and those
        that failed."""
        path, since = self.run / "journal.sqlite", _fact(db, "journal")
        if not path.is_file():
            return
        try:
            with Journal(path, read_only=True) as journal:
                writer, last = Writer(db, self.run, self.unread), since
                db.execute("BEGIN")
                with db:
                    for call in journal.since(since):
                        last = call.row
                        writer.note_call(call)
                    if last != since:
                        db.execute("UPDATE facts SET value = ? WHERE name = 'journal'", (last,))
                        writer.grown()
                    db.execute(
                        "DELETE FROM calls WHERE of IN "
                        "(SELECT of FROM sources WHERE kind = 'graph' AND stat NOT LIKE 'unfinished%')"
                    )
        except UserError as error:
            self.unread["journal.sqlite"] = str(error)

    def _fill(self, db: sqlite3.Connection) -> None:
        """Give questions of which no file has the text the one that the run's task has."""
        if db.execute("SELECT 1 FROM sources WHERE stat LIKE 'unfinished%'").fetchone():
            return
        rows = db.execute("SELECT of, problem FROM questions WHERE head = ''").fetchall()
        for of in {of for of, _ in rows}:
            if of not in self._of_task:
                self._of_task[of] = Sources(self.run).problems(of)
            known = self._of_task[of]
            if rows_known := [known[problem] for where, problem in rows if where == of and problem in known]:
                Writer(db, self.run, self.unread).fill(of, rows_known)


def _order(of: str) -> tuple[bool, bool, str]:
    """Debates first, then tests, then episodes."""
    return of.startswith("episodes of"), of_tests(of), of


def _fact(db: sqlite3.Connection, name: str) -> int:
    return db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0]


def _stat(path: Path) -> str | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"
