"""The value that a stated answer holds: a number, a letter, yes or no, or words.

Every reader takes one line, such as the rest of the line after ``Final answer:``, and gives the canonical form, in
which equal answers are equal strings, or None if the line holds no such value or more than one. None of them guesses,
and none evaluates what it reads: a model's text never reaches a parser of expressions.
"""

from __future__ import annotations

import itertools
import re

from vivavoce.tasks.characters import clean_text
from vivavoce.tasks.dress import LONGEST, undress
from vivavoce.tasks.latex import as_text
from vivavoce.tasks.numbers import number

LETTERS = "ABCDEFGHIJ"

_NOT = r"(?:\bnot|\bneither|\bnor|\bnever|\bcannot|\b(?:ca|is|was|wo|wouldn|does|do|did|could|should)nt|n't)\b"
_NEGATED = re.compile(_NOT, re.IGNORECASE)

# --- the chosen letter

_LETTER = re.compile(r"(?<!\w)(?<!\w')(?:[A-J]|[a-j])(?!\w|'\w)")
_CUE = re.compile(
    r"(?:^|\b(?:is|be|are|was|it's|that's|choos(?:e|ing)|chosen?|pick(?:ed|ing)?|select(?:ed|ing)?|(?:go"
    r"|going|went|stick) with"
    r"|(?:vote|opt|going|go) for|answer|option|choice|letter|statement|alternative|say|guess|correct|right"
    r"|therefore|thus|so|think|believe"
    r"|hence|definitely|probably|clearly|likely)\b|[:=→])[\s:=→|>-]*[(\[{\"'<$|]*$",
    re.IGNORECASE,
)
"""Words directly before a letter that is chosen; none is needed."""
_AGAINST = re.compile(
    rf"{_NOT}|\b(?:except|excluding|exclud\w*|eliminat\w*|reject\w*|rul(?:e|es|ed|ing) out|other than|(?:all"
    rf"|anything|everything)"
    r" but|wrong|incorrect|false|invalid|unlikely|doubt\w*|if|unless|either|both|between|unsure|none)\b"
    r"|(?<!\w)[A-J]\s*→",
    re.IGNORECASE,
)
"""Words before a letter that speak against it, or leave it open."""
_CLOSED = re.compile(
    r"[)\]}|\"'>$]*(?:\s*$|[.,;:!?](?![\w])|\s+(?:because|since|as|is|was|for|not|rather|instead|which|due"
    r"|and not|but not|can|could|does|"
    r"only|alone|exactly|itself|did|would|will|must|should|has|seems|looks|or|and|to|but|vs|versus|then)\b|\s+[^\w\s=+*^<>]"
    r"|\s*[/&;|\\]|\s*\n|\s*\+\s*\(?[A-J]\b"
    r"|-\(?[A-J]\b|[)\]}\"'](?=[\s(\[])|\s+\(?[A-J]\b(?!\s[a-z]))"
)
"""The ends of a letter that is no word of a sentence: the end, punctuation, or a judgement about it."""
_FURTHER = re.compile(
    r"(?:[\s)\]}\"'.,;/|&+<>\\?(\[-]|\b(?:or|and|to|then|but|vs|versus|possibly|maybe|perhaps|also|though"
    r"|through)\b)*(?P<letter>[A-J])(?![\w'])",
    re.IGNORECASE,
)
"""A second letter that goes with the first."""
_IS_NOT = re.compile(
    r"[\s)\]}\"',(]*(?:(?:is|was|seems|looks|appears|(?:must|would|can|could|should|may) be|has been|being|it is"
    r"|it's)\s+(?:clearly |also |definitely |probably |the |an? )*"
    r"(?:not|wrong|incorrect|false|invalid|untrue|impossible|unlikely|ruled|eliminated|excluded|rejected|out)\b"
    r"|(?:is|was|does|did|can|could|would|will|must|should|has|ca|wo)\s?(?:n't|not)\b|(?:is|was|does|did"
    r"|could|should|ca|wo)nt\b)"
    r"|[\s)\]}\"'.,:;(-]*(?:(?:clearly |also |definitely )?(?:wrong|incorrect)\b|[❌✗✘✖🚫])|\s+\(\s*(?:false"
    r"|untrue|no)\b",
    re.IGNORECASE,
)
"""Words after a letter that is not chosen. (``D: not enough information`` is an option's own text.)"""
_OPEN = re.compile(r"[\s)\]}\"']*\?\W*\w|\s+(?:or|and|to|but|then|vs|versus)\b(?!\s+not\b)", re.IGNORECASE)
_OWN_TEXT = re.compile(r"(?:[)\]]\.?|\.)\s+(?:only\s+)?\(?[A-J]\)?(?:,\s*\(?[A-J]\)?)*,?\s+(?:and|or|&)\s+\(?[A-J]\b")
"""Behind ``D)`` or ``D.``: an option that names others (``D) A and B only``)."""
_STRONG_CUE = re.compile(r"\b(?:answer|choice|option)\s+(?:is|would be|must be)[\s:(\[\"'*]*$", re.IGNORECASE)
_ONE_OF = re.compile(r"(?:^|\s)\(([A-J])\)")


def choice(line: str) -> str | None:
    """The one letter A to J that the line chooses, in upper case: ``(C)``, ``C) because …``, ``Correct: B`` (not the C
    of "Correct"), ``The Best choice is D`` (not the B of "Best"), ``D, a net force of 5 N``.

    A chosen letter begins the line, or is behind words that choose (``I choose B``), and something closes it off. A
    letter inside a word is none; neither is the article ``A``, the pronoun ``I``, nor the C of ``vitamin C``. Two
    letters are no choice (``A; B``), unless the second is set against the first (``D, not B``); neither is a letter
    that the line speaks against (``D is incorrect``, ``It can't be D``).
    """
    line = undress(line).replace("$", "").strip()
    chosen = None
    for match in _LETTER.finditer(line):
        before, after = line[: match.start()], line[match.end() :]
        if not _CUE.search(before.lstrip(" \t.,;!?>|#*-✅✓✔☑")) or not _CLOSED.match(after) or _article(line, match):
            continue
        letter = match[0].upper()
        if chosen is None:
            if _AGAINST.search(before) or _IS_NOT.match(after) or _OPEN.match(after) or _more(line, match):
                return None
            chosen = letter
        elif letter != chosen and _STRONG_CUE.search(before) and not _AGAINST.search(before[-40:]):
            return None  # I think it is B, but the answer is D
    if chosen is None and not _AGAINST.search(line):
        letters = {match[1] for match in _ONE_OF.finditer(line)}  # the sun (C)
        others = {m[0] for m in _LETTER.finditer(line) if m[0].isupper() and not _article(line, m)}
        chosen = letters.pop() if len(letters) == 1 and letters == others else None
    return chosen


def _more(line: str, match: re.Match[str]) -> bool:
    """Whether another letter goes with the one of ``match``."""
    after = line[match.end() :]
    if re.match(r"\s*:\s*\(?[A-J]\)?\W*$", after):
        return True  # A: B
    further = _FURTHER.match(after)
    if further is None or _OWN_TEXT.match(after):
        return False
    second = _LETTER.match(line, match.end() + further.start("letter"))
    if second is None or _article(line, second) or _IS_NOT.match(line, second.end()):
        return False
    if re.match(r"\s*[=^_+*]", line[second.end() :]):
        return False
    return second[0].isupper() or re.match(r"\W*$", line[second.end() :]) is not None


def _article(line: str, match: re.Match[str]) -> bool:
    """Whether a lone A or I is a word of the sentence: another word follows and nothing marks it as a letter."""
    return (
        match[0] in "AaIi"
        and re.match(r"\s+(?!(?:is|because|since|as|or|and|not|but|was)\b)[a-z0-9]", line[match.end() :]) is not None
    )


# --- yes or no

_POLAR = re.compile(r"(?<![\w'-])(?:(yes|true)|(no|false))(?![\w'-])", re.IGNORECASE)
# "no one", "no doubt": the determiner, not the answer.
_DETERMINER = re.compile(
    r"[ \t]+(?!(?:because|since|as|it|he|she|they|this|that|these|those|the|there|we|you)\b)\w", re.IGNORECASE
)


def polar(line: str) -> list[str]:
    """Every ``yes`` (or true) and ``no`` (or false) of the line that stands as a word of its own, in order."""
    return [
        "yes" if match[1] else "no"
        for match in _POLAR.finditer(line)
        if not (match[0].lower() == "no" and _DETERMINER.match(line, match.end()))
    ]


_PARTLY = re.compile(
    r"\b(?:doubt\w*|den(?:y|ies|ied)|unclear|unsure)\b|\b(?:part(?:ly|ially)|half|mostly|nearly|almost|hardly|barely|sometimes|somewhat|usually|largely|mainly|often)\s+"
    r"(?:yes|no|true|false)\b",
    re.IGNORECASE,
)


def yes_no(line: str) -> str | None:
    """``yes`` or ``no`` (true and false read the same) if the line says exactly one of them, as a word.

    "untrue" is not true, and there is no "no" in "know". A first word that is set off wins (``No, that is true of
    others``). A word that is negated or weakened (``not true``, ``partly true``) is left unread.
    """
    line = undress(line).lstrip(" \"'([|")
    polarities, first = polar(line), _POLAR.match(line)
    if first and polarities and re.match(r"\s*[,.;:!-]", line[first.end() :]):
        return polarities[0]
    return polarities[0] if len(set(polarities)) == 1 and not (_NEGATED.search(line) or _PARTLY.search(line)) else None


def exact(line: str) -> str | None:
    """The line without the marks around it: emphasis, quotes, dollars, a trailing period."""
    line = clean_text(line)[:LONGEST].strip().strip("*`").strip()
    for opening, closing in ("$$", '""', "“”", "''"):
        if len(line) > 1 and line[0] == opening and line[-1] == closing:
            line = line[1:-1].strip()
    return line.removesuffix(".").rstrip("*` ") or None


def words(line: str) -> str | None:
    """The line's words: case, spacing, outer punctuation and a leading article do not count."""
    line = " ".join(undress(line).casefold().split()).strip(" .,;:!?\"'()[]$«»‹›„“”‘’「」『』")
    return re.sub(r"^(?:the|an|a)\s+", "", line) or None


_SPAN = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_DOTS = re.compile(r"(?<=[0-9])\s*\.{3,}")
_LISTED = re.compile(r"[\s,;]*(?:and|or)?\s*", re.IGNORECASE)
_GOES_ON = re.compile(r"\s*[,;.]?\s*(?:\(|(?:because|since|as|which|where|so)\b|(?<=\.\s)[A-Z])")
"""The beginning of further words behind a complete answer."""
_PROSE = re.compile(r"^(?:[A-Z][a-z]*|the|so|thus|hence)(?:\s+[a-zA-Z,]+)*?\s+(?:is|are|was|equals)\s*:?\s+(?=\S)")


def expression(line: str) -> str | None:
    """The mathematical expression that the line states, as LaTeX without dollars.

    It is the text between dollars, if there are any; several that are listed (``$1$ and $2$``) are a list. Typed
    characters (``π``, ``√2``, ``x²``) become commands, and a line without LaTeX may write ``sqrt(2)`` and ``pi``. None
    if words outside the dollars change the value, unless it is a number that can be read with them.
    """
    line = _DOTS.sub(r"\\ldots ", _bare_line(line))
    spans = list(_SPAN.finditer(line))
    if spans:
        between = [line[a.end() : b.start()] for a, b in itertools.pairwise(spans)]
        before, after = line[: spans[0].start()], line[spans[-1].end() :]
        if between and _GOES_ON.match(between[0]):
            spans, between, after = spans[:1], [], ""
        if not all(map(_LISTED.fullmatch, between)) or not _harmless(before, after):
            return number(re.sub(r"(?<=[\w)}])\$(?=[\w({])", " ", line).replace("$", ""))  # -$5$, $5$ million
        line = ", ".join("".join(filter(None, span.groups())).strip() for span in spans)
    elif "\\" not in line:
        line = _PROSE.sub("", line)
    return as_text(line).strip(" $").removesuffix(".").strip() or None


def _harmless(before: str, after: str) -> bool:
    """Whether the text outside the dollars leaves the value between them unchanged."""
    return not re.search(r"[0-9]\W*$", before) and number(f"{re.split('[0-9]', before)[-1]}7{after}") == "7"


def _bare_line(line: str) -> str:
    """The line without markdown and without dollars that are money; its LaTeX stays."""
    line = clean_text(line[: 4 * LONGEST])[:LONGEST].strip()
    line = re.sub(r"^([*`_]{1,3})(.*?)\1(?=[\s.]*$)", r"\2", line).strip("*`").strip()
    return line.replace("\\$", "").replace("＄", "$")


__all__ = ["LETTERS", "choice", "exact", "expression", "number", "polar", "words", "yes_no"]
