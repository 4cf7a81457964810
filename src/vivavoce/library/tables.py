"""Frames and data sets of what the library returns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

from vivavoce.errors import MissingDependency

T = TypeVar("T")


class Records(Sequence[T]):
    """A sequence of records that can also be had as a pandas frame or a ``datasets.Dataset``."""

    def __init__(self, rows: Sequence[T]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        return self._rows[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Records) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def records(self) -> Iterable[dict[str, Any]]:
        """One dictionary for each row of the frame."""
        return (asdict(row) if is_dataclass(row) and not isinstance(row, type) else {"value": row} for row in self)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``. Raises MissingDependency if pandas is not installed."""
        try:
            import pandas
        except ImportError as e:
            raise MissingDependency("pandas is not installed", "to_pandas", "pip install pandas") from e
        return pandas.DataFrame(list(self.records()))

    def to_dataset(self) -> Any:
        """A ``datasets.Dataset``. Raises MissingDependency if datasets is not installed."""
        try:
            import datasets
        except ImportError as e:
            raise MissingDependency("datasets is not installed", "to_dataset", "pip install datasets") from e
        rows = json.loads(json.dumps(list(self.records()), default=str))  # Arrow wants plain lists and dictionaries
        return datasets.Dataset.from_list(rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {len(self):,}"


__all__ = ["Records"]
