"""The value that a stated answer holds: a number, a letter, yes or no, or words.

Every reader takes one line, such as the rest of the line after ``Final answer:``, and gives the canonical form, in
which equal answers are equal strings, or None where the line holds no such value or more than one. None of them
guesses, and none evaluates what it reads: a model's text never reaches a parser of expressions.
"""

from __future__ import annotations

import itertools
import re
from fractions import Fraction

LETTERS = "ABCDEFGHIJ"
_LONGEST = 1000
"""Characters of a line that are looked at; no answer is longer, and the expressions below stay quick on any input."""
_MOST_DIGITS = 100

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})++|[0-9]++)"
NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>(?<![)\]])[-+])?(?:US)?[$€£¥₹]?\s?(?P<inner>(?<=[$€£¥₹])-)?"
    r"(?:(?:(?P<whole>[0-9]++)\s+)?(?P<top>[0-9]++)\s?/\s?(?P<bottom>[0-9]++)"
    rf"|(?P<plain>(?:{_DIGITS}(?:\.[0-9]++)?|\.[0-9]++)(?:[eE][-+]?[0-9]{{1,2}}(?![0-9]))?))"
    r"(?![.,/]?[0-9]|[eE][-+]?[0-9])"
)
# A second number joined to the first makes an expression, a range or a hedge, not an answer.
_JOINED = re.compile(
    r"^\W{0,3}[-–—+*/×÷^:,x%]?\s*[$€£(]?[0-9]|\b(?:or|and|to|of|plus|minus|times)\s+[$€£]?[0-9]",
    re.ASCII | re.IGNORECASE,
)
_BRACKETED = re.compile(r"\([^()]*\)")
_NEGATED = re.compile(r"\b(?:not|isn't|neither|never)\b", re.IGNORECASE)
_PLAIN = str.maketrans({"−": "-", "\u00a0": " ", "⁄": "/", "’": "'", "*": "", "`": "", "：": ":", "∣": "|"})
_THIN = re.compile(r"(?<=[0-9])[\u2009\u202f](?=[0-9]{3}(?![0-9]))")
_LATEX = [
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\{,\}|,\\!"), ","),
    (re.compile(r"(?<=[0-9])\\[,!](?=[0-9])"), ""),
    (re.compile(r"\\([$%&#_{}])"), r"\1"),
    (re.compile(r"\\[()\[\],!;: ]"), " "),
    (re.compile(r"\\(?:times|cdot)\b"), "×"),
    (re.compile(r"\\(?:left|right|quad|qquad)\b"), ""),
]


def plain(line: str) -> str:
    """The line without markdown emphasis and LaTeX dress; no longer than an answer can be."""
    line = _THIN.sub("", line[:_LONGEST]).translate(_PLAIN)
    if "\\" in line or "{" in line:
        for pattern, replacement in _LATEX:
            line = pattern.sub(replacement, line)
    return line.strip()


def number(line: str) -> str | None:
    """The one number that the line states, exactly: ``$1,000`` is 1000, ``18.0`` is 18, ``1/2`` is 0.5, ``1/3`` is 1/3.

    Thousands commas, currency signs, units and a trailing period do not count; a percentage keeps its figure (``50%``
    is 50). After an equals sign stands the result (``3 + 4 = 7``), and what brackets add is an aside. An expression, a
    range, a choice (``7 or 8``) or two unrelated numbers state none, unless the line begins with its number.
    """
    line = plain(line)
    outside = _BRACKETED.sub(" ", line)
    value = _value(outside) if NUMBER.search(outside) else _value(line)
    return None if value is None else canonical(value)


def _value(line: str) -> Fraction | None:
    before, equals, after = line.rpartition("=")
    if equals:
        if re.search(r"[,;]\s|\band\b", before.rpartition("=")[2]) and "=" in before:
            return None  # x = 3, y = 4
        value = _value(after)
        return _value(before) if value is None else value
    found = [(match, fraction(match)) for match in NUMBER.finditer(line)]
    if not found or _NEGATED.search(line):
        return None
    match, value = found[0]
    leads = not re.search(r"\w", line[: match.start()])
    alone = len({v for _, v in found}) == 1
    return value if (leads or alone) and not _JOINED.search(line[match.end() :]) else None


def fraction(match: re.Match[str]) -> Fraction | None:
    """The value of a match of ``NUMBER``; None for a division by zero and for more digits than an answer has."""
    if sum(map(str.isdigit, match[0])) > _MOST_DIGITS:  # Python refuses to read very long ones, and it takes long
        return None
    if match["plain"]:
        digits = match["plain"].replace(",", "")
        value = Fraction(int(digits) if digits.isdecimal() else digits)  # of whole numbers at a third of the time
    elif int(match["bottom"]) == 0:
        return None
    else:
        value = int(match["whole"] or 0) + Fraction(int(match["top"]), int(match["bottom"]))
    return -value if (match["sign"] == "-") != bool(match["inner"]) else value


def canonical(value: Fraction) -> str:
    """Shortest exact form: digits, a decimal where it ends, otherwise a reduced fraction."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest, power = rest // prime, power + 1
        places = max(places, power)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    if places == 0:
        return str(value.numerator)
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


_LETTER = re.compile(r"(?<![\w'])[A-J](?![\w'])")
_LEADING = re.compile(
    r"^[\s\W]*(?:(?:the\s+)?(?:option|choice|answer|letter|correct)\s*(?:is|:)?\s*)?"
    r"[(\[{|\"']*(?P<letter>[A-J])(?:[)\]}|\".:,;]|'(?!\w)|\s*[-–—]\s|\s*\(|\s*$|\s+(?:because|since|as|is)\b)",
    re.IGNORECASE,
)
_SAID = re.compile(r"(?:\bis|:|=)\s*[(\[{|\"']*([A-J])(?![\w'])")
_HEDGED = re.compile(r"^\s*[)\]}|\"']*\s*(?:or|and|/|,|&)\s*[(\[]?(?:[A-J](?![\w'])|both\b)", re.IGNORECASE)


def choice(line: str) -> str | None:
    """The one letter A to J that the line chooses, in upper case: ``(C)``, ``C) because …``, ``Correct: B`` (not the C
    of "Correct"), ``The Best choice is D`` (not the B of "Best").

    A letter inside a word is none; neither is the article ``A`` before a word, nor the pronoun ``I``. A lower-case
    letter counts where it stands at the beginning, closed off. Two letters are no choice, unless the line begins with
    one (``D, not B``) or says of one that it is the answer.
    """
    line = plain(line)
    leading = _LEADING.match(line)
    if leading and not _HEDGED.match(line[leading.end("letter") :]):
        return leading["letter"].upper()
    outside = _BRACKETED.sub(" ", line)  # what brackets add is an aside, unless they hold the letter itself
    if any(not _article(outside, match) for match in _LETTER.finditer(outside)):
        line = outside
    if _NEGATED.search(line):
        return None
    letters = list(_LETTER.finditer(line))
    if any(_HEDGED.match(line[match.end() :]) for match in letters):
        return None
    found = {match[0] for match in letters if not _article(line, match)}
    said = found & set(_SAID.findall(line))
    return next((candidates.pop() for candidates in (found, said) if len(candidates) == 1), None)


def _article(line: str, match: re.Match[str]) -> bool:
    """Whether a lone A or I is a word of the sentence: another word follows and nothing marks it as a letter."""
    return match[0] in "AI" and re.match(r"\s+[a-z0-9]", line[match.end() :]) is not None


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


def yes_no(line: str) -> str | None:
    """``yes`` or ``no`` (true and false read the same) where the line says exactly one of them, as a word.

    "untrue" is not true, and there is no "no" in "know". A first word that is set off wins (``No, that is true of
    others``). A negation around the word (``not true``) is left unread.
    """
    line = plain(line)
    found = polar(line)
    first = _POLAR.match(line.lstrip(" \"'([|"))
    if first and found and re.match(r"\s*[,.;:!\-–—]", line.lstrip(" \"'([|")[first.end() :]):
        return found[0]
    return found[0] if len(set(found)) == 1 and not _NEGATED.search(line) else None


def exact(line: str) -> str | None:
    """The line as it stands, without the dress around it: emphasis, quotes, dollars, a trailing period."""
    line = line[:_LONGEST].strip().strip("*`").strip()
    for opening, closing in ("$$", '""', "“”", "''"):
        if len(line) > 1 and line[0] == opening and line[-1] == closing:
            line = line[1:-1].strip()
    return line.removesuffix(".").rstrip("*` ") or None


def words(line: str) -> str | None:
    """The line's words: case, spacing, outer punctuation and a leading article do not count."""
    line = " ".join(plain(line).casefold().split()).strip(" .,;:!?\"'“”()[]$")
    return re.sub(r"^(?:the|an|a)\s+", "", line) or None


_SPAN = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LISTED = re.compile(r"[\s,;]*(?:and|or)?\s*", re.IGNORECASE)
_TYPED = str.maketrans({"−": "-", "·": "\\cdot ", "×": "\\times ", "÷": "\\div ", "π": "\\pi ", "∞": "\\infty ",
                        "≤": "\\le ", "≥": "\\ge ", "°": "^\\circ "})  # fmt: skip


def expression(line: str) -> str | None:
    """The mathematical expression that the line states, as LaTeX without dollars.

    What stands between dollars, where anything does: several such that are listed (``$1$ and $2$``) are a list. A line
    without LaTeX may write ``sqrt(2)``, ``pi`` and ``≤``.
    """
    line = line.strip().strip("*`").strip().replace("\\$", "")
    spans = list(_SPAN.finditer(line))
    if spans:
        between = [line[a.end() : b.start()] for a, b in itertools.pairwise(spans)]
        inside = ["".join(filter(None, span.groups())).strip() for span in spans]
        line = ", ".join(inside) if all(map(_LISTED.fullmatch, between)) else line.replace("$", " ")
    elif "\\" not in line:
        line = re.sub(r"\bsqrt\(([^()]*)\)", r"\\sqrt{\1}", line.translate(_TYPED))
        line = re.sub(r"(?<![a-zA-Z])pi(?![a-zA-Z])", r"\\pi", line)
    return line.strip(" $").removesuffix(".").strip() or None


__all__ = [
    "LETTERS",
    "NUMBER",
    "canonical",
    "choice",
    "exact",
    "expression",
    "fraction",
    "number",
    "plain",
    "polar",
    "words",
    "yes_no",
]
