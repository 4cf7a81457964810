"""The division of texts into words for searching, in the database and in a page alike.

FTS5 cuts at everything that is no letter or digit and drops accents. Scripts that write no spaces would be one long
word, so each of their characters becomes one.
"""

from __future__ import annotations

import re
import unicodedata

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_WORD = re.compile(r"[^\W_]+")


def for_index(text: str) -> str:
    """The text with spaces around characters of scripts that write none."""
    return text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text)


def sought(query: str) -> list[str]:
    """The words of a query."""
    return _WORD.findall(for_index(unicodedata.normalize("NFC", query).lower()))


__all__ = ["for_index", "sought"]
