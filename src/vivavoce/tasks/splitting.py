"""Cutting: a list of problems into train and test, an answer into steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from vivavoce.errors import DataError
from vivavoce.records import Problem, digest

Split = Literal["train", "test"]

_LINES = re.compile(r"[^\n]*\n+|[^\n]+")
_SENTENCE_END = re.compile(r"[.!?][\"')\]*]{0,3}(?=[ \t]+[^\s])")
_NO_END = re.compile(r"(?:^|\s)(?:[0-9]+|[A-Za-z]|Mr|Mrs|Ms|Dr|St|vs|etc|No|e\.g|i\.e|approx)\.$", re.IGNORECASE)


def lines_and_sentences(text: str) -> list[str]:
    """Steps of prose: lines, and sentences within a line. Joined, they are the text again, and none is blank.

    A line break ends its step and the space between two sentences begins the next, because that is where tokenizers
    cut too: a break is one token with what stands before it, a space one with the word after it.
    """
    pieces = list[str]()
    for line in _LINES.findall(text):
        start = 0
        for match in _SENTENCE_END.finditer(line):
            if not _NO_END.search(line[max(start, match.end() - 12) : match.end()]):
                pieces.append(line[start : match.end()])
                start = match.end()
        pieces.append(line[start:])
    joined = list[str]()
    for piece in pieces:
        if joined and (not piece.strip() or not joined[0].strip()):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def known_split(split: str, task: str) -> Split:
    """The split that a task is asked for. Raises DataError for one other than train and test."""
    if split == "train" or split == "test":
        return split
    raise DataError(f"unknown split {split!r}", task, "ask for train or test")


_POINTS = frozenset(".,;:!?'\"’“”…")


def split(ids: Sequence[str], train_share: float, seed: int) -> tuple[set[str], set[str]]:
    """The ids of train and test: ``round(train_share * n)`` of them in train, chosen by a hash of seed and id.

    The order of the rows does not matter, and the same ids and seed split alike on every machine.
    """
    shuffled = sorted(ids, key=lambda i: digest([seed, i]))
    cut = round(train_share * len(shuffled))
    return set(shuffled[:cut]), set(shuffled[cut:])


def key_of(question: str) -> str:
    """A key that wordings of a question share if they differ in spacing and case only."""
    return " ".join(question.split()).casefold()


def spelling(question: str) -> str:
    """A key that wordings share if they differ in punctuation too: a story joined to its question by a comma or a
    stop.
    """
    return "".join(c for c in question.casefold() if c not in _POINTS and not c.isspace())


def question_id(prefix: str, question: str) -> str:
    """An id that depends on the question alone, so that reordering, cutting or extending a file changes none."""
    return f"{prefix}/{digest(question)[:12]}"


def refuse_overlap(train: Sequence[Problem], test: Sequence[Problem], where: str) -> None:
    """Raise DataError if a question is in both splits: a score on it would measure memory."""
    tested = {key_of(problem.question) for problem in test}  # of a million training questions no keys are held
    seen = {key: problem.id for problem in train if (key := key_of(problem.question)) in tested}
    shared = [problem for problem in test if key_of(problem.question) in seen]
    if shared:
        first = shared[0]
        raise DataError(
            f"{len(shared)} questions are both in train and in test, the first: {first.question[:80]!r}",
            f"{where}: {seen[key_of(first.question)]} and {first.id}",
            "remove them from one of the two",
        )


__all__ = [
    "Split",
    "key_of",
    "known_split",
    "lines_and_sentences",
    "question_id",
    "refuse_overlap",
    "spelling",
    "split",
]
