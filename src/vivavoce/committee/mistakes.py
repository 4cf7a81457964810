"""The rules that say which answers of an exam are mistakes that are taught."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from vivavoce.records import Node

MistakeClass = Literal["wrong", "no_answer", "empty", "truncated"]
MistakeRule = Literal["any_wrong", "majority_wrong", "pass_rate"]


class MistakeRules(Protocol):
    """A protocol's options about mistakes."""

    @property
    def mistake(self) -> MistakeRule: ...

    @property
    def pass_rate(self) -> float: ...

    @property
    def classes(self) -> list[MistakeClass]: ...


def mistake(answers: Iterable[Node], rules: MistakeRules) -> Node | None:
    """The student's answer that teachers are to explain; None if the question counts as known.

    It is the first mistaken sample of a class that is taught. An ungradable or failed answer is no mistake.
    """
    graded = [n for n in answers if n.correct is not None]
    wrong = [n for n in graded if not n.correct]
    right = len(graded) - len(wrong)
    counts = {
        "any_wrong": bool(wrong),
        "majority_wrong": 2 * len(wrong) > len(graded),
        "pass_rate": right < rules.pass_rate * len(graded),
    }
    taught = [n for n in wrong if mistake_class(n) in rules.classes]
    return taught[0] if taught and counts[rules.mistake] else None


def mistake_class(answer: Node) -> MistakeClass:
    """The kind of a wrong answer: a mistake of reasoning (``wrong``), or of form."""
    if answer.status in ("no_answer", "empty", "truncated"):
        return answer.status
    return "wrong"


__all__ = ["MistakeClass", "MistakeRule", "MistakeRules", "mistake", "mistake_class"]
