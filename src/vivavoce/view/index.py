"""The index of a run: a small database beside its files, made file by file as they appear.

::

    graphs/*.jsonl  evaluations/*.jsonl  episodes/*.jsonl  data/*.jsonl  journal.sqlite
              │ one source each: read again only if the file has changed
              ▼
    view.sqlite     questions of each set · a letter for each answer · places in the files · words (FTS5)

Texts are not copied: a place is the beginning of a line in its file, and the line is read when it is looked at. A set
is one list of questions: those of a stage (``train``, ``states-0``), or of a test. Of a chain, ``STAGE/train``.
"""

from __future__ import annotations

import json
import re
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from vivavoce.agents.journal import Journal, Written
from vivavoce.environments.environment import Episode
from vivavoce.errors import DataError, UserError
from vivavoce.exams.examine import Judged
from vivavoce.files import file_name
from vivavoce.graph.graph import graph_of
from vivavoce.records import Problem, from_json
from vivavoce.report.sources import Sources
from vivavoce.report.tables import head_of
from vivavoce.report.verdicts import NOTHING, in_order, letter, seats
from vivavoce.view.words import for_index, sought

_VERSION = 1
_BATCH = 2000
"""Questions between two commits, after which a page can show them."""
_TASK = "the task: "
"""Before the name of a set, in place of a file: questions that no file of the run holds."""
_PROBLEM = re.compile(rb'"problem":("(?:[^"\\]|\\.)*")')
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
            n = _count(db, of)
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
            total = [0] * _count(db, of)
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
                return file.read(place.length)
        except OSError as error:
            raise DataError("the file is gone", place.path, "was the run started again? reload the page") from error

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
            n = _count(db, of)
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
    def _worded(db: sqlite3.Connection, of: str) -> list[int]:
        """The sources of a set of which there are words, those of debates first."""
        return [i for (i,) in db.execute("SELECT id FROM sources WHERE of = ? AND words ORDER BY kind DESC", (of,))]

    def words(self, of: str) -> Iterator[tuple[str, list[int]]]:
        """Every word of a set in order, and the questions in whose texts it stands."""
        with closing(self._open()) as db:
            sources = self._worded(db, of)
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
            there = list(_files(self.run))
            known = {path: (i, stat) for i, path, stat in db.execute("SELECT id, path, stat FROM sources")}
            for path in set(known) - {f.path for f in there}:
                if not path.startswith(_TASK):
                    _Writer(db, self).drop(known[path][0])
            for file in there:
                if end():
                    break
                stat = _stat(self.run / file.path)
                if stat is None or (file.path in known and known[file.path][1] == stat):
                    continue
                self.doing = file.path
                writer = _Writer(db, self, advanced)
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
                writer, last = _Writer(db, self), since
                db.execute("BEGIN")
                with db:
                    for call in journal.since(since):
                        last = call.row
                        writer.called(call)
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
                _Writer(db, self).fill(of, rows_known)


def _order(of: str) -> tuple[bool, bool, str]:
    """Debates first, then tests, then episodes."""
    return of.startswith("episodes of"), _tests(of), of


class _File(NamedTuple):
    """A file that the index reads."""

    path: str
    kind: str
    of: str | None
    label: dict[str, Any]


def _files(run: Path) -> Iterator[_File]:
    """What there is to read, those first that know their questions."""
    sources = Sources(run)
    files = [(name, part, _Named(name, sources, first)) for first, (name, part) in _parts(sources)]
    for kind in ("graphs", "evaluations", "episodes", "data"):
        for name, part, named in files:
            before = f"{name}/" if name else ""
            for file in sorted((part.path / kind).rglob("*.jsonl")):
                path, stem = file.relative_to(run).as_posix(), file.name.removesuffix(".jsonl")
                if kind == "graphs":
                    yield _File(path, "graph", "test" if stem == "test" else before + stem, {"stage": before + stem})
                elif kind == "evaluations":
                    also = file.parent.name if file.parent.name != "evaluations" else ""
                    yield _File(path, "exam", _of_test(also), named.exam(stem))
                elif kind == "episodes":
                    of, label = named.episode(stem.rpartition("-")[0])
                    yield _File(path, "episode", of, label)
                else:
                    yield _File(path, "row", None, {"data": before + stem.replace("+", ":")})


def _parts(sources: Sources) -> Iterator[tuple[bool, tuple[str, Sources]]]:
    """The run itself, and the stages of a chain; whether each is the first that may have tested the student."""
    yield True, ("", sources)
    for i, part in enumerate(sources.parts.items()):
        yield not i, part


def _of_test(also: str) -> str:
    return f"test {also}" if also else "test"


def _tests(of: str) -> bool:
    """Whether a set is of test questions; one of a chain's stage that is called ``testing`` is not."""
    return of == "test" or (of.startswith("test ") and "/" not in of)


class _Named:
    """The names after which the files of a run, or of a stage of a chain, are called. Names in files are those of
    :func:`~vivavoce.files.file_name`, which are told back by trying the possible ones.
    """

    def __init__(self, stage: str, whole: Sources, first: bool) -> None:
        self.stage, self.first = stage, first
        known = [arm["name"] for arm in (whole.results or {}).get("arms", ())]
        own = {arm.removeprefix(f"{stage}."): arm for arm in known}
        seeds = whole.recipe.get("seeds") or [0]
        also = ["", *(whole.recipe.get("also_test") or ())]
        self._arms = {file_name(arm): arm_name for arm, arm_name in own.items()}
        self._episodes = {
            file_name(f"test{':' if name else ''}{name} {arm}-{seed}"): (
                _of_test(name),
                {"arm": arm_name, "seed": seed},
            )
            for name in also
            for arm, arm_name in own.items()
            for seed in seeds
        }

    def exam(self, stem: str) -> dict[str, Any]:
        """The test that a file of answers is of."""
        folder, _, seed = stem.rpartition("-")
        return {"arm": self._arm(folder), "seed": int(seed) if seed.isdigit() else 0}

    def episode(self, stem: str) -> tuple[str, dict[str, Any]]:
        """The set of a file of episodes, and who plays."""
        if stem in self._episodes:
            return self._episodes[stem]
        plain = stem.partition("~")[0]
        if test := re.fullmatch(r"test(?:\+([^-]+))?-(.+)-(\d+)", plain):
            return _of_test(test[1] or ""), {"arm": self._arm(test[2]), "seed": int(test[3])}
        stage = f"{self.stage}/{plain}" if self.stage else plain
        return f"episodes of {stage}", {"stage": stage}

    def _arm(self, name: str) -> str:
        guess = name.replace("+", ":")
        shared = not self.stage or (guess == "student" and self.first)
        return self._arms.get(name, guess if shared else f"{self.stage}.{guess}")


def _fact(db: sqlite3.Connection, name: str) -> int:
    return db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0]


def _count(db: sqlite3.Connection, of: str) -> int:
    return db.execute("SELECT coalesce(max(at) + 1, 0) FROM questions WHERE of = ?", (of,)).fetchone()[0]


def _stat(path: Path) -> str | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


class _Writer:
    """Reads one file into the database."""

    def __init__(self, db: sqlite3.Connection, index: Index, advanced: Callable[[], object] = lambda: None) -> None:
        self.db, self.index, self.advanced = db, index, advanced
        self.letters: dict[Any, bytearray] = {}
        self.counts, self.at_of = array("I"), dict[tuple[str, str], int]()

    def drop(self, source: int) -> None:
        """Forget a file. Its questions stay, for other files are about them too."""
        self.db.execute("BEGIN")
        with self.db:
            for table in ("columns", "tokens", "places"):
                self.db.execute(f"DELETE FROM {table} WHERE source = ?", (source,))
            self.db.execute(f"DROP TABLE IF EXISTS w{source}")
            self.db.execute("DELETE FROM sources WHERE id = ?", (source,))
            self.grown()

    def grown(self) -> None:
        """Count a change."""
        self.db.execute("UPDATE facts SET value = value + 1 WHERE name = 'version'")

    def replace(self, file: _File, stat: str, old: int | None) -> None:
        """Read a file in place of what was known of it."""
        if old is not None:
            self.drop(old)
        self.db.execute("BEGIN")
        with self.db:
            row = (file.path, f"unfinished {stat}", file.kind, file.of, json.dumps(file.label), file.kind != "row")
            self.source = self.db.execute("INSERT INTO sources VALUES (NULL, ?, ?, ?, ?, ?, ?)", row).lastrowid
            if file.kind != "row":
                self._table_of_words()
        read = {"graph": self._graphs, "exam": self._exam, "episode": self._episodes, "row": self._rows}[file.kind]
        lines, unread = _lines(self.index.run / file.path), list[DataError]()
        self.index.unread.pop(file.path, None)
        self.db.execute("BEGIN")
        try:
            for done, (start, line) in enumerate(lines, 1):
                try:
                    read(file, start, line)
                except DataError as error:
                    unread.append(error)
                if done % _BATCH == 0:
                    self._write()
                    self.db.execute("COMMIT")
                    self.advanced()
                    self.db.execute("BEGIN")
            self._write()
            self.db.execute("UPDATE sources SET stat = ? WHERE id = ?", (stat, self.source))
            self.db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")
            raise
        if unread:
            self.index.unread[file.path] = f"{len(unread):,} lines cannot be read; the first: {unread[0]}"
        self.advanced()

    def fill(self, of: str, problems: Iterable[Problem]) -> None:
        """Write down questions that the run's task has, and no file of the run."""
        path = _TASK + of
        old = self.db.execute("SELECT id FROM sources WHERE path = ?", (path,)).fetchone()
        self.db.execute("BEGIN")
        with self.db:
            if old is None:
                row = (path, "", "task", of, "{}", True)
                self.source = self.db.execute("INSERT INTO sources VALUES (NULL, ?, ?, ?, ?, ?, ?)", row).lastrowid
                self._table_of_words()
            else:
                self.source = old[0]
            for p in problems:
                self._words(self.question(of, p), (p.group, p.question, p.gold))
            self.grown()

    def _table_of_words(self) -> None:
        self.db.execute(
            f"CREATE VIRTUAL TABLE w{self.source} USING fts5(words, content='', columnsize=0, detail=none, "
            "tokenize='unicode61 remove_diacritics 2')"
        )

    def _write(self) -> None:
        """Write down what is known of the letters by now."""
        self.db.execute("DELETE FROM columns WHERE source = ?", (self.source,))
        keys = (
            in_order(self.letters) if self.letters and isinstance(next(iter(self.letters)), tuple) else [*self.letters]
        )
        for place, key in enumerate(keys):
            label = key._asdict() if isinstance(key, tuple) else json.loads(key)
            row = (self.source, place, json.dumps(label), bytes(self.letters[key]))
            self.db.execute("INSERT INTO columns VALUES (?, ?, ?, ?)", row)
        if self.counts:
            self.db.execute("REPLACE INTO tokens VALUES (?, ?)", (self.source, self.counts.tobytes()))
        self.grown()

    def _graphs(self, file: _File, start: int, line: bytes) -> None:
        assert file.of is not None
        graph = graph_of(line, f"{file.path}, byte {start}")
        at = self.question(file.of, graph.problem, whole=False)
        for place, sign in seats(graph).items():
            self._letter(place, at, sign)
        self._count(at, sum(n.usage.prompt + n.usage.completion for n in graph.nodes))
        self._place(at, start, line)
        p = graph.problem
        texts = (text for n in graph.nodes for text in (n.text, n.error) if text)
        self._words(at, (p.id, p.group, p.question, p.gold, *texts))

    def _exam(self, file: _File, start: int, line: bytes) -> None:
        assert file.of is not None
        row = _checked(Judged, line, file.path, start)
        unread = not self._has_text(file.of, row.problem)
        at = self.question(file.of, Problem(row.problem, row.question, row.gold, row.group))
        self._letter(json.dumps(file.label), at, letter(row))
        self._place(at, start, line)
        self._words(at, (row.problem, row.text, *((row.question, row.gold) if unread else ())))

    def _has_text(self, of: str, problem: str) -> bool:
        """Whether the index has the text of a question already, from a debate or another arm's answer."""
        row = self.db.execute("SELECT head FROM questions WHERE problem = ? AND of = ?", (problem, of)).fetchone()
        return row is not None and bool(row[0])

    def _episodes(self, file: _File, start: int, line: bytes) -> None:
        assert file.of is not None
        episode = _checked(Episode, line, file.path, start)
        asked = next((m["content"] for m in reversed(episode.prompt) if m["role"] != "system"), "")
        at = self.question(file.of, Problem(episode.task, asked, ""))
        good = {True: "R", False: "W", None: "N"}[episode.success]
        self._letter(json.dumps(file.label), at, "E" if episode.ended == "no_action" else good)
        self._place(at, start, line)
        self._words(at, (episode.task, *(m["content"] for m, _ in episode.masked())))

    def _rows(self, file: _File, start: int, line: bytes) -> None:
        match = _PROBLEM.search(line)
        if match is None:
            return
        problem = json.loads(match[1])
        for (of,) in self.db.execute("SELECT of FROM questions WHERE problem = ?", (problem,)).fetchall():
            if not _fits(of, file):
                continue
            self.db.execute("UPDATE sources SET of = ? WHERE id = ? AND of IS NULL", (of, self.source))
            self._place(self.question(of, Problem(problem, "", "")), start, line)
            return

    def question(self, of: str, p: Problem, whole: bool = True) -> int:
        """The place of a question in its set, which is written down if it is new. ``whole``: no graph has its text."""
        if (at := self.at_of.get((of, p.id))) is not None:
            return at
        row = self.db.execute("SELECT at, head FROM questions WHERE problem = ? AND of = ?", (p.id, of)).fetchone()
        head = head_of(p.question)
        if row is None:
            at = _count(self.db, of)
            full = p.question if whole and p.question else None
            self.db.execute(
                "INSERT INTO questions VALUES (?, ?, ?, ?, ?, ?, ?)", (of, at, p.id, p.group, p.gold, head, full)
            )
        else:
            at = row[0]
            if p.question and not row[1]:
                full = p.question if whole else None
                known = (p.gold, p.group, head, full, of, at)
                self.db.execute(
                    "UPDATE questions SET gold = ?, grp = ?, head = ?, full = ? WHERE of = ? AND at = ?", known
                )
        self.at_of[of, p.id] = at
        return at

    def called(self, call: Written) -> None:
        """Note a call of the journal, if its stage is under way, or it failed."""
        part, slash, own = call.stage.rpartition("/")
        room, _, name = own.partition(":")
        if room in ("debate", "review") and call.problem:
            of = f"{part}{slash}{name}" if name != "test" else "test"
            at = self.question(of, Problem(call.problem, "", ""))
            self.db.execute("REPLACE INTO calls VALUES (?, ?, ?)", (at, of, call.row))
        if call.failed:
            row = (call.row, call.agent, call.stage, call.problem)
            self.db.execute("REPLACE INTO failures VALUES (?, ?, ?, ?)", row)

    def _letter(self, key: Any, at: int, sign: str) -> None:
        column = self.letters.setdefault(key, bytearray())
        if len(column) <= at:
            column.extend(NOTHING.encode() * (at + 1 - len(column)))
        column[at] = ord(sign)

    def _count(self, at: int, n: int) -> None:
        if len(self.counts) <= at:
            self.counts.extend([0] * (at + 1 - len(self.counts)))
        self.counts[at] += n

    def _place(self, at: int, start: int, line: bytes) -> None:
        self.db.execute("INSERT OR IGNORE INTO places VALUES (?, ?, ?, ?)", (self.source, at, start, len(line)))

    def _words(self, at: int, texts: Iterable[str]) -> None:
        self.db.execute(f"INSERT INTO w{self.source} (rowid, words) VALUES (?, ?)", (at, for_index("\n".join(texts))))


def _fits(of: str, file: _File) -> bool:
    """Whether rows of a data file can have come from a set: of a chain, that of the same stage."""
    stage, slash, _ = of.rpartition("/")
    own = file.label["data"].rpartition("/")[0]
    return not _tests(of) and (stage if slash else "") == own


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that have ended, and where each begins."""
    with path.open("rb") as file:
        start = 0
        for line in file:
            if line.strip():
                yield start, line.rstrip(b"\n")
            start += len(line)


def _checked(kind: Any, line: bytes, path: str, start: int) -> Any:
    from pydantic import ValidationError

    try:
        return from_json(kind, line)
    except ValidationError as error:
        what = f"no {kind.__name__}: {error.errors(include_url=False)[0]['msg']}"
        raise DataError(what, f"{path}, byte {start}", "was the file cut or edited?") from error
