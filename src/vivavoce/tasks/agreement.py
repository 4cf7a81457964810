r"""Equality of answers to one question, by the task's own rule.

Two agents that write ``\frac{1}{2}`` and ``0.5`` agree, although their answers are different texts. Stop rules, votes
and majorities use these functions. A task whose answers have one canonical text each (numbers, letters, words, calls)
needs nothing: equal texts are the same answer. A task whose answers have several defines ``same(problem, a, b) ->
bool``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from vivavoce.records import Problem
from vivavoce.tasks import Task


def classes(task: Task | None, problem: Problem, answers: Sequence[str | None]) -> list[int | None]:
    """The class of each answer: the index of the first answer that is the same; None for an answer that is None.

    So two answers agree if and only if their classes are equal and not None. Sameness is closed transitively: if a and
    b are the same and b and c are, so are a and c. The result depends on nothing but the arguments. Without a task
    (``None``) equal texts are the same answer.
    """
    texts = list(dict.fromkeys(answer for answer in answers if answer is not None))
    same = getattr(task, "same", None)
    group = list(range(len(texts)))
    if same is not None:
        for i, j in itertools.combinations(range(len(texts)), 2):
            if group[i] != group[j] and same(problem, texts[i], texts[j]):
                low, high = sorted((group[i], group[j]))
                group = [low if g == high else g for g in group]
    first = {text: answers.index(texts[g]) for text, g in zip(texts, group, strict=True)}
    return [None if answer is None else first[answer] for answer in answers]


def majority(task: Task | None, problem: Problem, answers: Sequence[str | None]) -> str | None:
    """The answer of more than half of ``answers``, as its first author wrote it; None if no answer has so many.

    An answer that is None counts in the number of answers, and for no answer.
    """
    labels = classes(task, problem, answers)
    for i in sorted({i for i in labels if i is not None}):
        if 2 * labels.count(i) > len(labels):
            return answers[i]
    return None


__all__ = ["classes", "majority"]
