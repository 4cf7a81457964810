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
_JOINED = re.compile(r"\]\s*$|[\])0-9][*_]*\s*(?:[,/–—-]|,?\s*\b(?:or|and|to|of|out\s+of)\b)\s*[*_]*$", re.IGNORECASE)
_TOP = re.compile(r"[*_`]*\s*(?:/|out\s+of)\s*\[?(\d{1,9})\]?", re.IGNORECASE)
_NOTHING_MORE = re.compile(r"[\s*_`.!)\]}]*(?:points?\b|stars?\b)?[\s*_`.!)\]}]*")
_ALONE = re.compile(r"(?:^|[.!?:;–—>-])[\s*_#>`(\[]*$|^\W*$")
# What stands before a number in brackets that is no score: the name of a variable, a quotation, a noun that it counts.
_ATTACHED = re.compile(r"(?:[^\W_]|[)\]\\\"'“‘«$]|\w`|`\w*)$")
_WRAPPED = re.compile(r"^\W*$")
_COUNTED = re.compile(
    r"\b(?:steps?|lines?|items?|cases?|eqs?|equations?|formulas?|refs?|references?|sources?|notes?|parts?|claims?|points?"
    r"|options?|answers?|solutions?|problems?|questions?|examples?|lists?|arrays?|vectors?|sets?|intervals?|elements?"
    r"|ind(?:ex|ices)|entr(?:y|ies)|rows?|columns?|positions?|values?|results?|outputs?|returns?|equals?|numbers?"
    r"|pages?|sections?|figures?|tables?|see|cf)\b[.:]?\s*$|[=+<≤≥∈^]\s*$",
    re.IGNORECASE,
)
_LED_TO = re.compile(
    r"\b(?:is|are|was|be|in|from|by|at|of|to|than|with|use[sd]?|gives?|gets?|and|or|the|an?)\s*$", re.IGNORECASE
)
_SCORES = re.compile(
    r"\b(?:scores?|scored|ratings?|rate[sd]?|grades?|graded|marks?|verdict|evaluation|assessment|judge?ment)\b"
    r"|\b(?:I|we|I'd|I’d)\b[^.!?]{0,20}\b(?:give|award|assign)\b",
    re.IGNORECASE,
)


class Score(NamedTuple):
    """``value`` is None unless ``status`` is ``ok``; otherwise the status is ``no_answer`` or ``out_of_range``."""

    value: float | None
    status: Status


def read_score(text: str, form: ScoreForm = "strict", lowest: float = 1, highest: float = 5) -> Score:
    """The score that a review states on the scale from ``lowest`` to ``highest``. Never raises.

    ``strict``: a last line ``Score: 4``, or else the last whole number in square brackets at a place for a score: at
    the end of the review, alone on its line or as a sentence, or in a sentence about the score. Both may name the top
    of the scale (``[4/5]``, ``[4]/5``). An index (``x[3]``), a step or a source (``step [2]``) is no score. Any other
    form (``[4.5]``, ``[3-4]``, ``4 out of 5``) is ``no_answer``; a whole number off the scale is ``out_of_range``.

    ``compat``: the released reading. It takes the last digits of the last brackets, or of the whole text if there are
    none; in brackets with a slash it takes the whole number before it. A score that cannot be read is 0 there: it is
    ``out_of_range``.

    In either form, the reviewer's thought is no part of the review.
    """
    text = spoken(text)
    if form == "compat":
        return on_scale(_released_score(text), lowest, highest)
    text = text.rstrip()
    line = text[text.rfind("\n") + 1 :]
    match = _LAST_LINE.fullmatch(line) or (
        None if _UNREADABLE_LINE.fullmatch(line) else _bracketed_number(text, highest)
    )
    if match is None or (match[2] is not None and float(match[2]) != highest):
        return Score(None, "no_answer")
    return on_scale(float(match[1]), lowest, highest)


def on_scale(value: float, lowest: float = 1, highest: float = 5) -> Score:
    """The score if it is on the scale, both ends included; otherwise ``out_of_range``."""
    return Score(float(value), "ok") if lowest <= value <= highest else Score(None, "out_of_range")


def _bracketed_number(text: str, highest: float) -> re.Match[str] | None:
    """The number in the last brackets that state a score; None if there are none, or no such number in them."""
    for match in reversed([*_BRACKETED.finditer(text)]):
        line = text[max(text.rfind("\n", 0, match.start()) + 1, match.start() - 200) : match.start()]
        after = text[match.end() : match.end() + 200]
        alone = _ALONE.search(line) is not None
        if not _WRAPPED.search(line) and (_ATTACHED.search(line) or _COUNTED.search(line.rstrip("*_ \t"))):
            continue
        top = _TOP.match(after)
        ends = _NOTHING_MORE.match(after, top.end() if top else 0)
        assert ends is not None, "it matches nothing too"
        rest = after[ends.end() :]
        ends_line = not rest or "\n" in ends[0]
        about = _SCORES.search(re.split(r"[.!?]\s", line)[-1]) is not None
        if about or (ends_line and (alone or (not rest and not _LED_TO.search(line)))):
            if _JOINED.search(text[max(0, match.start() - 40) : match.start()]) or (top and float(top[1]) != highest):
                return None
            if rest and not ends_line and re.search(r"\[\s*[0-9]", re.split(r"[.!?]\s", line)[-1]):
                return None  # the score is [4] because of [2] errors
            return _WHOLE.fullmatch(match[1])
        if re.search(r"\d", match[1]):  # perhaps it is one: to be asked for again
            return None
    return None


def _released_score(text: str) -> int:
    """Peer review's own parser, errors and all; 0 for what it cannot read."""
    try:
        bracketed = re.findall(r"\[(.*?)\]", text)
        if bracketed and "/" in bracketed[-1]:
            return int(bracketed[-1].split("/")[0])
        return int(re.findall(r"\d+", bracketed[-1] if bracketed else text)[-1])
    except (ValueError, IndexError):
        return 0


__all__ = ["Score", "ScoreForm", "on_scale", "read_score"]
