"""Writes the files of a run into its index: questions, letters, places of lines, and words."""

from __future__ import annotations

import json
import re
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from vivavoce.agents.journal import Written
from vivavoce.environments.environment import Episode
from vivavoce.errors import DataError
from vivavoce.exams.examine import Judged
from vivavoce.graph.graph import graph_of
from vivavoce.graph.packed import LinePlace, line_places, unpack
from vivavoce.records import Problem, from_json
from vivavoce.report.tables import head_of
from vivavoce.report.verdicts import NOTHING, in_order, letter, seats
from vivavoce.view.run_files import RunFile, of_tests
from vivavoce.view.words import for_index

_BATCH = 2000
"""Questions between two commits, after which a page can show them."""
OF_TASK = "the task: "
"""Begins the path of a set, in place of a file, whose questions no file of the run holds."""
_PROBLEM = re.compile(rb'"problem":("(?:[^"\\]|\\.)*")')


class Writer:
    """Reads one file into the database.

    Args:
        db: The database of the index.
        run: The run directory.
        unread: Faults by file, to which those of this file are added.
        advanced: Called when more questions can be shown.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        run: Path,
        unread: dict[str, str],
        advanced: Callable[[], object] = lambda: None,
    ) -> None:
        self.db, self.run, self.unread, self.advanced = db, run, unread, advanced
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

    def replace(self, file: RunFile, stat: str, old: int | None) -> None:
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
        faults = list[DataError]()
        lines = _lines(self.run / file.path, faults)
        self.unread.pop(file.path, None)
        self.db.execute("BEGIN")
        try:
            for done, (place, line) in enumerate(lines, 1):
                try:
                    read(file, place, unpack(line, f"{file.path}, byte {place.start}").rstrip(b"\n"))
                except DataError as error:
                    faults.append(error)
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
        if faults:
            self.unread[file.path] = f"{len(faults):,} lines cannot be read; the first: {faults[0]}"
        self.advanced()

    def fill(self, of: str, problems: Iterable[Problem]) -> None:
        """Write down questions that the run's task has, and no file of the run."""
        path = OF_TASK + of
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

    def _graphs(self, file: RunFile, place: LinePlace, line: bytes) -> None:
        assert file.of is not None
        graph = graph_of(line, f"{file.path}, byte {place.start}")
        at = self.question(file.of, graph.problem, whole=False)
        for column, sign in seats(graph).items():
            self._letter(column, at, sign)
        self._count(at, sum(n.usage.prompt + n.usage.completion for n in graph.nodes))
        self._place(at, place)
        p = graph.problem
        texts = (text for n in graph.nodes for text in (n.text, n.error) if text)
        self._words(at, (p.id, p.group, p.question, p.gold, *texts))

    def _exam(self, file: RunFile, place: LinePlace, line: bytes) -> None:
        assert file.of is not None
        row = _check(Judged, line, file.path, place.start)
        unread = not self._has_text(file.of, row.problem)
        at = self.question(file.of, Problem(row.problem, row.question, row.gold, row.group))
        self._letter(json.dumps(file.label), at, letter(row))
        self._place(at, place)
        self._words(at, (row.problem, row.text, *((row.question, row.gold) if unread else ())))

    def _has_text(self, of: str, problem: str) -> bool:
        """Whether the index has the text of a question already, from a debate or another arm's answer."""
        row = self.db.execute("SELECT head FROM questions WHERE problem = ? AND of = ?", (problem, of)).fetchone()
        return row is not None and bool(row[0])

    def _episodes(self, file: RunFile, place: LinePlace, line: bytes) -> None:
        assert file.of is not None
        episode = _check(Episode, line, file.path, place.start)
        asked = next((m["content"] for m in reversed(episode.prompt) if m["role"] != "system"), "")
        at = self.question(file.of, Problem(episode.task, asked, ""))
        good = {True: "R", False: "W", None: "N"}[episode.success]
        self._letter(json.dumps(file.label), at, "E" if episode.ended == "no_action" else good)
        self._place(at, place)
        self._words(at, (episode.task, *(m["content"] for m, _ in episode.masked())))

    def _rows(self, file: RunFile, place: LinePlace, line: bytes) -> None:
        match = _PROBLEM.search(line)
        if match is None:
            return
        problem = json.loads(match[1])
        for (of,) in self.db.execute("SELECT of FROM questions WHERE problem = ?", (problem,)).fetchall():
            if not _fits(of, file):
                continue
            self.db.execute("UPDATE sources SET of = ? WHERE id = ? AND of IS NULL", (of, self.source))
            self._place(self.question(of, Problem(problem, "", "")), place)
            return

    def question(self, of: str, p: Problem, whole: bool = True) -> int:
        """The place of a question in its set, which is written down if it is new. ``whole``: no graph has its text."""
        if (at := self.at_of.get((of, p.id))) is not None:
            return at
        row = self.db.execute("SELECT at, head FROM questions WHERE problem = ? AND of = ?", (p.id, of)).fetchone()
        head = head_of(p.question)
        if row is None:
            at = count_of(self.db, of)
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

    def note_call(self, call: Written) -> None:
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

    def _place(self, at: int, place: LinePlace) -> None:
        self.db.execute("INSERT OR IGNORE INTO places VALUES (?, ?, ?, ?)", (self.source, at, *place))

    def _words(self, at: int, texts: Iterable[str]) -> None:
        self.db.execute(f"INSERT INTO w{self.source} (rowid, words) VALUES (?, ?)", (at, for_index("\n".join(texts))))


def _fits(of: str, file: RunFile) -> bool:
    """Whether rows of a data file can have come from a set: of a chain, that of the same stage."""
    stage, slash, _ = of.rpartition("/")
    own = file.label["data"].rpartition("/")[0]
    return not of_tests(of) and (stage if slash else "") == own


def _lines(path: Path, faults: list[DataError]) -> Iterator[tuple[LinePlace, bytes]]:
    """What stands at the place of each line of a file. A file in which they cannot be found is added to ``faults``."""
    with path.open("rb") as places, path.open("rb") as texts:
        try:
            for place in line_places(places, path.name):
                texts.seek(place.start)
                yield place, texts.read(place.length)
        except DataError as error:
            faults.append(error)


def _check(kind: Any, line: bytes, path: str, start: int) -> Any:
    from pydantic import ValidationError

    try:
        return from_json(kind, line)
    except ValidationError as error:
        what = f"not a valid {kind.__name__}: {error.errors(include_url=False)[0]['msg']}"
        raise DataError(what, f"{path}, byte {start}", "check whether the file was cut or edited") from error


def count_of(db: sqlite3.Connection, of: str) -> int:
    return db.execute("SELECT coalesce(max(at) + 1, 0) FROM questions WHERE of = ?", (of,)).fetchone()[0]


__all__ = ["OF_TASK", "Writer", "count_of"]
