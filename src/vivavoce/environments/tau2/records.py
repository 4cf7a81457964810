"""A database of tables that many episodes share: each sees its own changes, and none changes the tables below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from vivavoce.environments.functions import Refused

Tables = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Table to id to record."""


class Records:
    """Tables, with the changes of one episode."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._changed: dict[str, dict[str, dict[str, Any]]] = {}

    def read(self, table: str, id: str) -> Mapping[str, Any]:
        """A record, to look at. Raises Refused if there is none."""
        record = self._changed.get(table, {}).get(id) or self._tables[table].get(id)
        if record is None:
            raise Refused(f"there is no {table.removesuffix('s')} {id!r}")
        return record

    def change(self, table: str, id: str) -> dict[str, Any]:
        """A record, to write into."""
        changed = self._changed.setdefault(table, {})
        if id not in changed:
            changed[id] = deepcopy(dict(self.read(table, id)))
        return changed[id]

    def add(self, table: str, id: str, record: dict[str, Any]) -> None:
        """A new record."""
        assert id not in self._tables[table], id
        self._changed.setdefault(table, {})[id] = record

    def all(self, table: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Every record of a table with its id."""
        changed = self._changed.get(table, {})
        for id, record in self._tables[table].items():
            yield id, changed.get(id, record)
        yield from ((id, record) for id, record in changed.items() if id not in self._tables[table])

    def changes(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The records that differ from those below, by table and id: equal for equal databases."""
        changes = {
            table: {id: record for id, record in sorted(changed.items()) if self._tables[table].get(id) != record}
            for table, changed in sorted(self._changed.items())
        }
        return {table: records for table, records in changes.items() if records}


__all__ = ["Records", "Tables"]
