"""The form of calls in the journal's file: the tables, the texts that are stored once, and files of earlier versions.

A prompt that quotes five replies is a list of references to them, to the question and to the texts of its template. So
the file grows with the texts that are written, not with how often they are read. A long text is stored compressed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError, to_json

from vivavoce.agents.replies import without_marks
from vivavoce.errors import AgentError
from vivavoce.records import Message, Prompt, Quote, Reply, Sampling, Tool, canonical

FORMAT = 3
"""The version of a journal: 2 since each text is stored once, 3 since long ones are compressed."""
READABLE = (2, FORMAT)
"""Versions that can be read as they are."""
UNREADABLE = (ValueError, LookupError, TypeError, zlib.error)
"""The errors of :func:`outcome_of` if what is stored was damaged."""
_CALLS = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, agent TEXT NOT NULL, identity TEXT NOT NULL, stage TEXT NOT NULL, tags TEXT NOT NULL,
    request TEXT NOT NULL, reply TEXT, said INTEGER, reason TEXT, detail TEXT,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    latency_s REAL NOT NULL, attempts INTEGER NOT NULL, created_at REAL NOT NULL);
"""
# `calls.request` and `calls.said` (the text of the reply) refer to `texts`; see `Texts`.
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS texts (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, text TEXT NOT NULL);
{_CALLS}
CREATE TABLE IF NOT EXISTS hits (
    agent TEXT NOT NULL, stage TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (agent, stage)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS under_way (
    id INTEGER PRIMARY KEY, agent TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL);
PRAGMA user_version = {FORMAT};
"""
COLUMNS = (
    "key, agent, identity, stage, tags, request, reply, said, reason, detail, prompt_tokens, completion_tokens, "
    "cached_tokens, latency_s, attempts, created_at"
)
Parts = list[tuple[str, list[str]]]
"""``(role, parts)`` of each message of a prompt."""
_REPLY = TypeAdapter(Reply)
_LATER = {field.name: field.default for field in fields(Sampling) if field.name in ("top_k", "repetition_penalty")}
_SAMPLING = tuple(field.name for field in fields(Sampling) if field.name not in ("tools", *_LATER))
_LINE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_SHORT = 200
"""Characters of a text that is stored as it is."""
_REMEMBERED = 50_000
"""Texts whose rows are remembered by their hashes."""
_REMEMBERED_CHARACTERS = 4_000_000
"""Characters of texts that are remembered themselves."""


def parts_of(messages: Sequence[Message] | Prompt) -> tuple[list[Message], Parts]:
    """The messages of a call, and the same in parts."""
    if isinstance(messages, Prompt):
        parts = [(role, [p.text if isinstance(p, Quote) else p for p in ps]) for role, ps in messages.messages]
        return [{"role": role, "content": "".join(ps)} for role, ps in parts], parts
    return list(messages), [(m["role"], [m["content"]]) for m in messages]


def request_of(messages: list[Message], sampling: Sampling, seed: int) -> str:
    """A call's request, which determines a reply beside the agent, as canonical JSON. Journal keys are made of it."""
    return f'{{"messages":{_plain(messages)},"sampling":{_line_of(sampling)},"seed":{seed}}}'


def _plain(messages: list[Message]) -> str:
    """Messages as canonical JSON."""
    try:  # of texts pydantic writes the same JSON as the standard library, at a fifth of the time
        return to_json([{name: m[name] for name in sorted(m)} for m in messages]).decode()
    except PydanticSerializationError:  # half a surrogate pair
        return canonical(messages)


def key_from(identity: str, request: str) -> str:
    """The journal key of a request to the agent of that identity."""
    return hashlib.sha256(f"{identity}\n{request}".encode()).hexdigest()


_lines: dict[int, tuple[Sampling, str]] = {}


def _line_of(sampling: Sampling) -> str:
    """A sampling as canonical JSON. The same few objects are asked for again and again; equal ones may be written in
    other ways (0 and 0.0).
    """
    known = _lines.get(id(sampling))
    if known is None:
        if len(_lines) >= 1000:
            _lines.clear()
        known = _lines[id(sampling)] = (sampling, canonical(_settings_of(sampling)))
    return known[1]


def _settings_of(sampling: Sampling) -> dict[str, Any]:
    drawn = {name: getattr(sampling, name) for name in _SAMPLING}  # asdict copies deeply, at ten times the price
    # What came later is named only if it asks for something, so that older journals are found again.
    if sampling.tools:
        drawn["tools"] = [tool.schema()["function"] for tool in sampling.tools]
    return drawn | {name: value for name in _LATER if (value := getattr(sampling, name)) != _LATER[name]}


def sampling_of(text: str) -> Sampling:
    """The sampling that a stored text holds."""
    drawn = json.loads(text)
    tools = tuple(Tool(**tool) for tool in drawn.get("tools", ()))
    return Sampling(**{**drawn, "stop": tuple(drawn["stop"]), "tools": tools})


class Texts:
    """The table of texts: each is stored once and found by its hash; a long one without the white space around it.

    A reference to a text is the number of its row or, if there is white space around it, ``[before, row, after]``.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._rows: dict[bytes, int] = {}
        self._recent: dict[str, Any] = {}
        self._characters = 0
        """Of the texts in ``_recent``."""

    def at(self, text: str) -> Any:
        """A reference to the text, which is stored if it is new. Call it inside a transaction."""
        known = self._recent.get(text)  # texts are read by several prompts: quicker remembered than hashed again
        if known is None:
            if self._characters > _REMEMBERED_CHARACTERS:
                self._recent.clear()
                self._characters = 0
            self._characters += len(text)
            known = self._recent[text] = self._reference(text)
        return known

    def _reference(self, text: str) -> Any:
        if len(text) <= _SHORT:
            return self._row_of(text)
        core = text.strip()
        row = self._row_of(core)
        if len(core) == len(text):
            return row
        start = text.find(core)
        return [text[:start], row, text[start + len(core) :]]

    def _row_of(self, core: str) -> int:
        key = hashlib.blake2b(core.encode(), digest_size=16).digest()
        row = self._rows.get(key)
        if row is None:
            stored = self._db.execute("SELECT id FROM texts WHERE hash = ?", (key,)).fetchone()
            if stored:
                row = stored[0]
            else:
                row = self._db.execute("INSERT INTO texts VALUES (NULL, ?, ?)", (key, compress(core))).lastrowid
            assert row is not None
            if len(self._rows) >= _REMEMBERED:
                self._rows.clear()
            self._rows[key] = row
        return row

    def forget(self) -> None:
        """Forget which texts are stored, because those of a transaction that failed are not."""
        self._rows.clear()
        self._recent.clear()

    def __getitem__(self, reference: Any) -> str:
        """The text that a reference names."""
        before, row, after = reference if isinstance(reference, list) else ("", reference, "")
        (core,) = self._db.execute("SELECT text FROM texts WHERE id = ?", (row,)).fetchone()
        return f"{before}{decompress(core)}{after}"


def read_only(file: Path, wait_s: float) -> sqlite3.Connection:
    """A connection that reads a journal, which another process may be writing. Raises sqlite3.Error if it cannot."""
    # Readers of a WAL file need to write beside it; in a directory that forbids it no other process writes either. But
    # what the last writer left in the WAL belongs to the journal, and is not read with "immutable".
    left = file.with_name(file.name + "-wal")
    alone = not os.access(file.parent, os.W_OK) and not (left.exists() and left.stat().st_size)
    how = "immutable=1" if alone else "mode=ro"
    return sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True, isolation_level=None, timeout=wait_s)


def compress(text: str) -> str | bytes:
    """The text in the form of the column: compressed if it is long and gets shorter."""
    if len(text) <= _SHORT:
        return text
    data = text.encode()
    packer = zlib.compressobj(6, zlib.DEFLATED, -15, 6)  # raw and with a small table: a text is not much longer than it
    small = packer.compress(data) + packer.flush()
    return small if len(small) < len(data) else text


def decompress(column: str | bytes) -> str:
    """The text of a value of the column ``texts.text``."""
    return column if isinstance(column, str) else zlib.decompress(column, -15).decode()


@dataclass(frozen=True, slots=True)
class Arrived:
    """A call that came back and is not written yet."""

    head: tuple[str, ...]
    """Key, agent, identity, stage and tags."""
    parts: Parts
    sampling: Sampling
    seed: int
    reply: Reply | None
    tail: tuple[Any, ...]
    """Reason, detail and numbers."""

    @property
    def key(self) -> str:
        return self.head[0]

    @property
    def reason(self) -> str | None:
        return self.tail[0]

    @property
    def paid(self) -> bool:
        """Whether the agent was asked, and the reply did not come out of a store."""
        return self.tail[-2] > 0

    def row(self, texts: Texts) -> tuple[Any, ...]:
        """The row of the table; its texts are stored."""
        messages = [[role, [texts.at(part) for part in parts]] for role, parts in self.parts]
        request = _as_stored(messages, texts.at(_line_of(self.sampling)), self.seed)
        return (*self.head, request, *_reply_row(self.reply, texts), *self.tail)


def _as_stored(messages: list[Any], sampling: Any, seed: int) -> str:
    return _LINE({"messages": messages, "sampling": sampling, "seed": seed})


def request_parts(request: str, texts: Texts) -> tuple[list[Message], Sampling, int]:
    """Messages, sampling and seed of a stored request."""
    asked = json.loads(request)
    messages: list[Message] = [
        {"role": role, "content": "".join(texts[part] for part in parts)} for role, parts in asked["messages"]
    ]
    return messages, sampling_of(texts[asked["sampling"]]), asked["seed"]


def reply_row(reply: Reply) -> tuple[str, str]:
    """A reply as JSON without its text, and the text."""
    rest = _REPLY.dump_json(reply, exclude={"text"}, exclude_defaults=True).decode()
    return f'{{"text":""{"," if len(rest) > 2 else ""}{rest[1:]}', reply.text


def _reply_row(reply: Reply | None, texts: Texts) -> tuple[str | None, int | None]:
    """A reply without its text, and the row of that."""
    if reply is None:
        return None, None
    rest, text = reply_row(reply)
    reference = texts.at(text)
    if isinstance(reference, list):
        around = _LINE([reference[0], reference[2]])
        rest, reference = f'{{"around":{around},{rest[1:]}', reference[1]
    return rest, reference


def outcome_of(
    reply: str | None, reply_text: str | bytes | None, reason: str | None, detail: str | None
) -> tuple[Reply | None, AgentError | None]:
    """The outcome of a stored call; ``reply_text`` is the value of the column ``texts.text``."""
    if reply is None:
        return None, AgentError(reason or "", detail or "")
    values = json.loads(reply)
    before, after = values.pop("around", ("", ""))
    text = "" if reply_text is None else decompress(reply_text)
    kept = _REPLY.validate_python({**values, "text": f"{before}{text}{after}"})
    return without_marks(kept), None  # an earlier version left thoughts in the text


def merge(db: sqlite3.Connection, other: sqlite3.Connection) -> int:
    """Copy the calls of another journal that ``db`` lacks, with their texts; returns how many.

    A call that failed here and was answered there is taken over as answered. Both must be of today's format.
    """
    known = dict[int, int]()
    db.execute("BEGIN IMMEDIATE")
    with db:
        for at, hashed, text in other.execute("SELECT id, hash, text FROM texts ORDER BY id"):
            db.execute("INSERT OR IGNORE INTO texts VALUES (NULL, ?, ?)", (hashed, text))
            (known[at],) = db.execute("SELECT id FROM texts WHERE hash = ?", (hashed,)).fetchone()
        before = db.total_changes
        insert = f"""INSERT INTO calls ({COLUMNS}) VALUES ({", ".join("?" * 16)})
            ON CONFLICT (key) DO UPDATE SET reply = excluded.reply, said = excluded.said, reason = NULL, detail = NULL,
            prompt_tokens = prompt_tokens + excluded.prompt_tokens,
            completion_tokens = completion_tokens + excluded.completion_tokens,
            cached_tokens = cached_tokens + excluded.cached_tokens, latency_s = latency_s + excluded.latency_s,
            attempts = attempts + excluded.attempts
            WHERE reply IS NULL AND excluded.reply IS NOT NULL"""
        calls = other.execute(f"SELECT {COLUMNS} FROM calls ORDER BY rowid")
        db.executemany(insert, (_move_references(row, known) for row in calls))
        return db.total_changes - before


def _move_references(row: Sequence[Any], known: dict[int, int]) -> tuple[Any, ...]:
    """A row of calls with its references to texts as ``known`` tells them."""
    *head, request, reply, text_id = row[:8]
    stored = json.loads(request)

    def moved(reference: Any) -> Any:
        if isinstance(reference, list):
            return [reference[0], known[reference[1]], reference[2]]
        return known[reference]

    messages = [[role, [moved(part) for part in parts]] for role, parts in stored["messages"]]
    request = _as_stored(messages, moved(stored["sampling"]), stored["seed"])
    return (*head, request, reply, None if text_id is None else known[text_id], *row[8:])


def upgrade(db: sqlite3.Connection) -> None:
    """Bring a journal of format 1, which held every request and reply in full, to today's. Keys stay."""
    db.execute("BEGIN IMMEDIATE")
    with db:
        db.execute("ALTER TABLE calls RENAME TO calls_1")
        db.execute("CREATE TABLE texts (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, text TEXT NOT NULL)")
        db.execute(_CALLS)
        texts, insert = Texts(db), f"INSERT INTO calls ({COLUMNS}) VALUES ({', '.join('?' * 16)})"
        for *head, request, reply, reason, detail, a, b, c, d, e, f in db.execute(
            "SELECT key, agent, identity, stage, tags, request, reply, reason, detail, prompt_tokens, "
            "completion_tokens, cached_tokens, latency_s, attempts, created_at FROM calls_1 ORDER BY rowid"
        ).fetchall():
            asked = json.loads(request)
            messages = [[m["role"], [texts.at(m["content"])]] for m in asked["messages"]]
            stored = _as_stored(messages, texts.at(canonical(asked["sampling"])), asked["seed"])
            answered = _REPLY.validate_json(reply) if reply is not None else None
            db.execute(insert, (*head, stored, *_reply_row(answered, texts), reason, detail, a, b, c, d, e, f))
        db.execute("DROP TABLE calls_1")
        db.execute(f"PRAGMA user_version = {FORMAT}")


__all__ = [
    "COLUMNS",
    "FORMAT",
    "READABLE",
    "SCHEMA",
    "Arrived",
    "Parts",
    "Texts",
    "compress",
    "decompress",
    "key_from",
    "merge",
    "outcome_of",
    "parts_of",
    "read_only",
    "reply_row",
    "request_of",
    "request_parts",
    "upgrade",
]
