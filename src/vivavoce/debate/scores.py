"""Reading the score that a review gives: strictly, or exactly as the authors of peer review read it.

A score that was not plainly given is worth asking for again; a misread one decides what a student learns. So the
strict form guesses nothing, and ``compat`` is there to reproduce what was published (arXiv:2410.03663, released code):
it takes ``[4.5]`` for 5, ``4 out of 5`` for 5 and the number of a solution that a reviewer repeats for a score.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from vivavoce.agents.replies import spoken
from vivavoce.records import Status

ScoreForm = Literal["strict", "compat"]

_BRACKETED = re.compile(r"\[([^\[\]]*)\]")
_WHOLE = re.compile(r"\s*([0-9]{1,9})(?:\s*/\s*([0-9]{1,9}))?\s*")
_LABEL = r"[\W_]*(?:(?:final|overall)\s+)?score[*_]*\s*:[*_\s]*"
_LAST_LINE = re.compile(rf"{_LABEL}([0-9]{{1,9}})(?:\s*/\s*([0-9]{{1,9}}))?[\s*_.]*", re.IGNORECASE)
_UNREADABLE_LINE = re.compile(rf"{_LABEL}[^\[\]]*", re.IGNORECASE)
# The top of a scale or the end of a list: "4 out of [5]", "[4]/[5]", "[1], [2], [3], [4] or [5]".
_JOINED = re.compile(r"[\])0-9][*_]*\s*(?:[,/–—-]|,?\s*\b(?:or|and|to|of|out\s+of)\b)\s*[*_]*$", re.IGNORECASE)


class Score(NamedTuple):
    """``value`` is None unless ``status`` is ``ok``; otherwise the status is ``no_answer`` or ``out_of_range``."""

    value: float | None
    status: Status


def read_score(text: str, form: ScoreForm = "strict", lowest: float = 1, highest: float = 5) -> Score:
    """The score that a review states on the scale from ``lowest`` to ``highest``. Never raises.

    ``strict``: a last line ``Score: 4``, or else one whole number in the last square brackets; both may name the top
    of the scale (``[4/5]``). Anything else (``[4.5]``, ``[3-4]``, ``4 out of 5``) is ``no_answer``; a whole number
    off the scale is ``out_of_range``. What a reasoning model wrote inside ``<think>`` is not part of the review.

    ``compat``: the released reading. Of the last brackets, or of the whole text where there are none, the last digits;
    in brackets with a slash the whole number before it. What cannot be read is 0 there, thus ``out_of_range``.
    """
    text = spoken(text)
    if form == "compat":
        return on_scale(_released(text), lowest, highest)
    text = text.rstrip()
    line = text[text.rfind("\n") + 1 :]
    said = _LAST_LINE.fullmatch(line) or (None if _UNREADABLE_LINE.fullmatch(line) else _last_bracketed(text))
    if said is None or (said[2] is not None and float(said[2]) != highest):
        return Score(None, "no_answer")
    return on_scale(float(said[1]), lowest, highest)


def on_scale(value: float, lowest: float = 1, highest: float = 5) -> Score:
    """The score where it lies on the scale, both ends included; ``out_of_range`` where it does not."""
    return Score(float(value), "ok") if lowest <= value <= highest else Score(None, "out_of_range")


def _last_bracketed(text: str) -> re.Match[str] | None:
    last = None
    for last in _BRACKETED.finditer(text):  # noqa: B007  only the last one counts
        pass
    if last is None or _JOINED.search(text[max(0, last.start() - 40) : last.start()]):
        return None
    return _WHOLE.fullmatch(last[1])


def _released(text: str) -> int:
    """Peer review's own parser, errors and all; 0 for what it cannot read."""
    try:
        bracketed = re.findall(r"\[(.*?)\]", text)
        if bracketed and "/" in bracketed[-1]:
            return int(bracketed[-1].split("/")[0])
        return int(re.findall(r"\d+", bracketed[-1] if bracketed else text)[-1])
    except (ValueError, IndexError):
        return 0


__all__ = ["Score", "ScoreForm", "on_scale", "read_score"]
