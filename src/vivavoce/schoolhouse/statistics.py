"""The three statistics that the gates need: rank correlation of a score with the truth, paired test, plain mean."""

import math
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """The mean, NaN if there is nothing to average."""
    return sum(values) / len(values) if values else math.nan


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The probability that a random right item scores above a random wrong one, ties counting half."""
    pairs = sorted(zip(scores, right, strict=True))
    positives = sum(right)
    negatives = len(right) - positives
    if not positives or not negatives:
        return math.nan
    rank_sum, i = 0.0, 0
    while i < len(pairs):
        j = i
        while j < len(pairs) and pairs[j][0] == pairs[i][0]:
            j += 1
        rank_sum += sum(y for _, y in pairs[i:j]) * (i + 1 + j) / 2
        i = j
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """The z of McNemar's paired test, positive if `ours` is right more often."""
    only_ours = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    only_theirs = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    return (only_ours - only_theirs) / math.sqrt(max(1, only_ours + only_theirs))
