"""Test questions that are among the training questions, word for word or nearly."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from vivavoce.records import Problem

_WORDS = 5
_NEAR = 0.8
_PIECE = re.compile(r"\w+|[^\w\s]")


def overlap(train: Sequence[Problem], test: Sequence[Problem]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs ``(training id, test id)`` of equal questions, and of nearly equal ones; each test question once at most.

    Compared are words and signs, without case and space; of a state of an episode, all that was said by then. Nearly
    equal: one training question holds four fifths of the test question's runs of five words, and the other way round;
    so a template with other names and numbers is not.
    """
    exact: dict[tuple[str, ...], str] = {}
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for p in train:
        words = _words(_text(p))
        exact.setdefault(words, p.id)
        runs = _runs(words)
        sizes[p.id] = len(runs)
        for run in runs:
            holders[run].append(p.id)
    same, near = [], []
    for p in test:
        words = _words(_text(p))
        if words in exact:
            same.append((exact[words], p.id))
            continue
        runs = _runs(words)
        shared = Counter(t for run in runs for t in holders.get(run, ()))
        close = [(n, t) for t, n in shared.items() if n >= _NEAR * max(len(runs), sizes[t])]
        if close:
            near.append((max(close)[1], p.id))
    return same, near


def _text(p: Problem) -> str:
    """The question; in a chat, all messages but the system's, which may be the same for all."""
    return "\n".join(m["content"] for m in p.history if m["role"] != "system") or p.question


def _words(text: str) -> tuple[str, ...]:
    return tuple(_PIECE.findall(text.casefold()))


def _runs(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {words[i : i + _WORDS] for i in range(max(1, len(words) - _WORDS + 1))}
