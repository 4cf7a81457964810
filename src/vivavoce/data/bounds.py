"""Bounds on whether a text is right, from its numbers, if its author was not asked to mark the answer.

Published rationales end in prose, so that a grader which guesses nothing reads an answer in few of them. Two bounds
remain. A text without the gold number is *surely wrong*, and a text whose last number is the gold number is *probably
right*. The truth lies between them (arXiv:2410.03663, released SVAMP files: 24 % and 37 % wrong).
"""

from __future__ import annotations

import re
from decimal import Decimal

from vivavoce.records import Node, Problem

# A hyphen behind a digit, letter or bracket subtracts or joins; it is no sign.
_FIGURE = re.compile(
    r"(?:(?<![\w)\]])-)?(?:[0-9]+(?:,[0-9]{3}(?![0-9]))+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
)
_LONGEST = 100
"""Characters of a number; longer runs of digits are noise."""


def figures(text: str) -> list[Decimal]:
    """Every number that is written in the text, in order: ``$1,080.50`` is 1080.5, ``29 - 42 = -13`` 29, 42 and -13."""
    numbers = (match[0].replace(",", "") for match in _FIGURE.finditer(text.replace("\N{MINUS SIGN}", "-")))
    return [Decimal(digits) for digits in numbers if len(digits) <= _LONGEST]


def figure(answer: str) -> Decimal | None:
    """The answer if it is nothing but a number; None for a letter, a word or a fraction."""
    answer = answer.strip()
    return figures(answer)[0] if len(answer) <= _LONGEST and _FIGURE.fullmatch(answer) else None


def right(answer: Node, problem: Problem) -> bool | None:
    """Whether the text ends at the gold answer: the grader's word if it read an answer, else the last number, sign
    ignored. None if the grader could not tell and the gold answer is no number.
    """
    gold = figure(problem.gold)
    if answer.answer is not None or gold is None:
        return answer.correct
    written = figures(answer.text)
    return bool(written) and written[-1].copy_abs() == gold.copy_abs()


def surely_wrong(answer: Node, problem: Problem) -> bool:
    """Whether the gold number, sign ignored, is nowhere in the text; the grader's word if gold is no number."""
    gold = figure(problem.gold)
    if gold is None or answer.correct:
        return answer.correct is False
    return gold.copy_abs() not in {written.copy_abs() for written in figures(answer.text)}


__all__ = ["figure", "figures", "right", "surely_wrong"]
