"""The number that a line states, or none: a sign, word or symbol that changes the value is read, or the line has none.

``2 million`` is 2000000, ``2½`` is 2.5, ``minus 5`` is -5. ``10²``, ``5 hours 30 minutes``, ``3:45``, ``12/25/2020``,
``2 dozen``, ``5th`` and ``3x`` are no number here: one has to know more than the line to read them. Nothing that is
read is evaluated: a model's text never reaches a parser of expressions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from vivavoce.tasks.characters import alike
from vivavoce.tasks.dress import undress

_MOST_DIGITS = 100

# --- what a line is before it is read

_ARROW = re.compile(r"=+>|-+>|\\(?:Right|right|Long|long|longright)arrow\b|\\(?:to|implies|therefore)\b|[⇒➜➡⟶⟹]|∴")
_FRACTION = re.compile(
    r"\\[dtc]?frac\s*(?:\{\s*(-?)\s*([0-9]+(?:\{?,\}?[0-9]{3})*)\s*\}|()([0-9]))\s*"
    r"(?:\{\s*([0-9]+(?:\{?,\}?[0-9]{3})*)\s*\}|([0-9]))"
)
_LATEX = [
    (re.compile(r"\\(?:times|ast)(?![a-zA-Z])"), "×"),
    (re.compile(r"\\cdot(?![a-zA-Z])"), "·"),
    (re.compile(r"\\div(?![a-zA-Z])"), "÷"),
    (re.compile(r"\\(?:pm|mp)(?![a-zA-Z])"), "±"),
    (re.compile(r"\\(?:approx|simeq|sim|cong)(?![a-zA-Z])"), "≈"),
    (re.compile(r"\\(?:leq?|leqslant|lt)(?![a-zA-Z])"), "<"),
    (re.compile(r"\\(?:geq?|geqslant|gt)(?![a-zA-Z])"), ">"),
    (re.compile(r"\\(?:neq?|not)(?![a-zA-Z])"), "≠"),
    (re.compile(r"\^\s*(?:\{\s*)?(?:\\circ|∘)\s*\}?|\\degrees?(?![a-zA-Z])|\^o(?![a-zA-Z])"), "°"),
    (re.compile(r"\\(?:text)?(?:euro|dollar|yen|sterling|pounds)(?![a-zA-Z])(?:\{\})?"), "$"),
]  # fmt: skip
_BRACES = re.compile(r"[{}]")
_UNDER = {"€": "$", "£": "$", "¥": "$", "₹": "$", "₩": "$", "₽": "$", "₺": "$", "₫": "$", "₱": "$", "฿": "$", "₦": "$",
          "₴": "$", "₪": "$", "₿": "$", "₡": "$", "¢": "¢", "＄": "$", "￥": "$", "￡": "$"}  # fmt: skip
_TYPED = str.maketrans(
    {**_UNDER, "≃": "≈", "≅": "≈", "∼": "≈", "✕": "×", "✖": "×", "⨯": "×", "∙": "·", "⋅": "·", "•": "·", "・": "·",
     "≤": "<", "≥": ">", "⩽": "<", "⩾": ">", "≦": "<", "≧": ">", "∓": "±", "∗": "*", "º": "°", "˚": "°", "∘": "°",
     "➕": "+", "➖": "-"}
)  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_POWER = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")

VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅐": "1/7", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅑": "1/9", "⅒": "1/10",
    "↉": "0/3",
}  # fmt: skip
"""Fractions in one character."""

_UNITS = (
    r"[mckdµμnhM]?m|[kcdmµμ]?[gl]|[mcdk]?L|kgs?|in|inch(?:es)?|ft|yds?|mi|lbs?|oz|qt|pt|gal|s|secs?|ms|min"
    r"|mins|h|hrs?|yrs?|"
    r"[mkMG]?Hz|[mkM]?[JWVNAC]|[kMG]?Pa|kWh|[kK]?cal|Cal|mph|kph|kmh|rpm|[kMGT]B|px|rad|mol|atm|bar|ppm|pts?"
    r"|pcs?|deg|F|Ω|"
    r"[kM]Ω|USD|EUR|GBP|Rs|sq|cu|sqm|cc|ac|ha"
)
_COUNTERS = "元块塊圆個个只隻人名天日周年岁歲米克斤次本张張支枚头頭辆輛台家条條件円원개명"
_RAISED_UNIT = re.compile(
    rf"(?<![A-Za-z])(?![A-Z]-?[0-9])({_UNITS}|[a-z]{{4,}})(?:\s?(?:\^|\*\*)\s?)?-?[234](?![\w.,/])"
)


def _plain(line: str) -> str:
    """The line with one sign for each operation, one for all currencies, and fractions as they are typed."""
    line = undress(_POWER.sub(lambda match: "^" + match[0].translate(_RAISED), _ARROW.sub("→", line)))
    line = line.translate(_TYPED)
    if "\\" in line or "{" in line or "^" in line:
        line = _FRACTION.sub(_fraction_text, line)
        for pattern, replacement in _LATEX:
            line = pattern.sub(replacement, line)
        line = _BRACES.sub("", line)
    return re.sub(r"(?<=[(\[])\s+|\s+(?=[)\]])", "", line).strip()


def _fraction_text(match: re.Match[str]) -> str:
    """A fraction of whole numbers as it is typed; behind a number it is the rest of a mixed one."""
    top, bottom = match[2] or match[4], match[5] or match[6]
    glued = match.string[match.end() : match.end() + 1].isdigit()
    sign = "-" if match[1] else ""
    strip = str.maketrans("", "", "{},")
    return f" {sign}{top.translate(strip)}/{bottom.translate(strip)}{'×' if glued else ''}"


# --- numbers in a line

_SPACE = "[ \u2009\u202f]"
_WHOLE = (
    rf"[0-9]{{1,3}}(?:,[0-9]{{3}})++(?![0-9])|[0-9]{{1,2}}(?:,[0-9]{{2}})+,[0-9]{{3}}(?![0-9])"
    rf"|[1-9][0-9]{{0,2}}(?:{_SPACE}[0-9]{{3}})++(?![0-9])|[1-9][0-9]{{0,2}}(?:'[0-9]{{3}})++(?![0-9])"
    rf"|[1-9][0-9]{{0,2}}(?:_[0-9]{{3}})++(?![0-9])|[0-9]++"
)
_EUROPEAN = r"[1-9][0-9]{0,2}(?:\.[0-9]{3})++,[0-9]++|[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}+(?![0-9])"
_VULGAR = "".join(VULGAR)
_CURRENCY = r"(?:(?:US|A|AU|C|CA|R|HK|NZ|NT|S|SG)?\$|USD|EUR|GBP|INR|CAD|AUD|Rs\.?)"
NUMBER = re.compile(
    rf"(?P<sign>[-+] ?)?(?P<currency>{_CURRENCY}\s?)?(?P<inner>-(?=[0-9.]))?"
    rf"(?:(?:(?P<whole>[0-9]++)\s?)?(?P<vulgar>[{_VULGAR}])"
    rf"|(?:(?P<mixed>[0-9]++)\s+)?(?P<top>[0-9]++)\s?/\s?(?P<bottom>[0-9]++)"
    rf"|(?P<european>{_EUROPEAN})"
    rf"|(?P<plain>(?:{_WHOLE})(?:\.[0-9]++)?|\.[0-9]++)"
    r"(?:[eE](?P<e>[-+]?[0-9]{1,2})(?![0-9])|\s?[×xX*·]\s?10\s?(?:\^|\*\*)\s?(?P<ten>[-+]?[0-9]{1,2})(?![0-9]))?)"
)
_SCALES = {
    "hundred": 10**2, "hundreds": 10**2, "thousand": 10**3, "thousands": 10**3, "million": 10**6, "millions": 10**6,
    "billion": 10**9, "billions": 10**9, "trillion": 10**12, "trillions": 10**12, "lakh": 10**5, "lakhs": 10**5,
    "crore": 10**7, "crores": 10**7, "k": 10**3, "mn": 10**6, "mln": 10**6, "mil": None, "bn": 10**9, "bln": 10**9,
    "tn": 10**12,
}  # fmt: skip
_LETTER_SCALES = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_SCALE = re.compile(
    rf"[\s-]{{0,3}}(?P<word>{'|'.join(sorted(_SCALES, key=len, reverse=True))})(?![\w^])(?!-)"
    r"|(?P<letter>[KMBT])(?![\w^])",
    re.IGNORECASE,
)

_COUNTED = (
    r"zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    r"eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
)
_MONTH = (
    r"jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?"
)
# Words right before a number that make it another one, or no value.
_BEFORE = re.compile(
    rf"(?:\b(?:or|and|plus|times|than|over|under|above|below|beyond|exceed(?:s|ing)?|nearly|almost|least|most"
    rf"|between|half|"
    rf"twice|double|triple|thrice|root|log|ln|sqrt|sin|cos|tan|squared?|cubed?|per|versus|vs|except|but|mod"
    rf"|modulo|base|"
    rf"divided by|multiplied by|raised to|up to|within|menos|moins|meno|minus|negative|neg|negativo|unlike|"
    rf"{_COUNTED}|hundred|thousand|million|billion|dozen|point|{_MONTH}|"
    rf"(?:root|half|halves|thirds?|quarters?|fifths?|square|cube|percent|power|reciprocal|inverse|negative|opposite|"
    rf"factorial|value|logarithm|multiples?|factors?|product|sum|difference|ratio) of)\.?|[%½⅓¼¾]\s*of|минус"
    rf"|(?:{_COUNTED})\s+(?:in|out of|of)|[0-9]\s+in|(?<![\w'])[b-hj-z])[\s-]*$",
    re.IGNORECASE,
)
_MINUS = re.compile(
    r"(?:^|\b(?:is|are|was|be|equals?|equal to|to|of|by|at|get|gives|becomes)\b|[:=→≈,])\W*(?:minus|negative)\s+$", re.I
)
_BOUND = re.compile(r"[<>≠±√∛∜∈∉^_/|#@&*×÷·¬!∝∑∏∫+\\]\s*$|(?<!≈)[-~]\s*$")
# What may follow a number at once: an ordinary word or unit, or the end of what is said about it.
_SUFFIX = re.compile(
    rf"\s*%|°\s?(?:[CFK](?![\w]))?|\s?¢|\s?\$|\s?\""
    rf"|(?:{_UNITS})(?:/(?:{_UNITS}|[a-z]{{2,}}))?(?![\w^²³])|[A-Za-z]{{4,}}(?![\w^])"
    rf"|[{_COUNTERS}](?![^\W\d_]*[十百千万億亿兆半])|[-\s]?percent(?:age points?)?",
)
_AFTER = re.compile(
    r"$|[\s)\]}\"'»’”,;:|]|[.](?=\s*$|\s+[\"'(*]?[A-Z]|[)\]}\"'»”])|\?|-(?=[A-Za-z]{2})|/(?=\s?[A-Za-z]{2,}"
    r"|[smhdLg](?![\w]))|[≈→]"
)
_WORDS_AFTER = re.compile(
    rf"^[\s-]*(?:and\s+(?:an?\s+)?(?:(?:{_COUNTED})\b|half|quarter|third|some)|(?:an?|one)\s+(?:half|quarter"
    rf"|third)\b|half\b|halves\b|"
    rf"thirds?\b|quarters?\b|fourths?\b|fifths?\b|sixths?\b|sevenths?\b|eighths?\b|ninths?\b|tenths?\b|hundredths?\b|"
    rf"[a-z]*(?:thousand|million|billion|trillion)ths?\b|dozens?\b|scores?\b|gross\b|(?:squar|doubl|tripl|halv)ed\b|cubed\b"
    rf"|factorial\b|choose\b|mod\b|modulo\b|base\b|below\b|"
    rf"plus\b|minus\b|times\s+(?:the|a|as|its|that|x|itself)?\s*$|times\s+(?:{_COUNTED}|itself)|to\s+the\b"
    rf"|pi\b|‰|per\s?mill?e\b|permille\b|or\s+(?:more|less|so|fewer|greater|higher|lower|above|"
    rf"below|over|under|{_COUNTED})\b|(?:more|less|fewer|greater|higher|lower|smaller|larger)\s+than\b|or\b"
    rf"|point\b|ish\b|odd\b|some\b|"
    rf"and\s+(?:over|up|above|more|change|counting)\b|(?:st|nd|rd|th)\b|[十百千万萬億亿兆半多余]|[ap]\.?\s?m\.?(?![a-z])"
    rf"|o'?\s?clock\b|(?:{_COUNTED}|hundred|thousand|million|billion|trillion|lakhs?|crores?|mn|mln|bn|bln|tn|(?-i:k)|"
    rf"mille|millones|mill?iard\w*|millionen|millione[ns]?|milioni|milh\w*|miljoen\w*|mio|mrd|tsd|tausend"
    rf"|hundert|mil|cien\w*|"
    rf"тысяч\w*|тыс|млн|миллион\w*|млрд)\b|(?:{_MONTH})\b|ratio\b|remainder\b|rem\b|"
    rf"[a-zA-Z](?![\w'.])(?-i:(?<![msghLlNJWVACFKatTk])))",
    re.IGNORECASE,
)
_ARTICLE_ALONE = re.compile(r"^\s*[aAtT]\s*[.]?$|^\s*[A-Za-z]{1,2}[0-9]")
_ANYWHERE_AFTER = re.compile(
    rf"\b(?:below\s+(?:zero|freezing|sea|the\s+surface|ground)|under\s+par|and\s+(?:an?\s+|one\s+)?(?:half"
    rf"|quarter|third|{_COUNTED})\b"
    rf"|or\s+(?:more|less|fewer|{_COUNTED})\b|in\s+(?:hundreds|thousands|millions|billions)\b|(?:squared"
    rf"|cubed)\s*$|to\s+(?:{_COUNTED})\b"
    rf"|out\s+of\b|plus\b|minus\b|times\s+(?:{_COUNTED})\b|[ap]\.m\.|[AP]M\b)",
)
_ASIDE = re.compile(r"(?<=[\s\w%$.])\s*\(([^()]*)\)")
_ASIDE_CHANGES = re.compile(
    r"^\W*(?:in\s+)?(?:hundreds?|thousands?|millions?|billions?|trillions?|dozens?|lakhs?|crores?|negative"
    r"|minus|k|mod|base|[×x*·]\s*[0-9]|"
    r"10\s*\^|in\s+1[0,]*0s)\b|\b(?:or|maybe|possibly|perhaps|alternatively)\b|^[×x*·]",
    re.IGNORECASE,
)
# Where what is said about the number ends, and something else is said.
_BOUNDARY = re.compile(
    r"\s*[,;]\s+(?=(?:which|because|since|as|so|not|where|given|after|assuming|meaning|i\.e|rather"
    r"|instead)\b)|[.]\s+(?=[\"'(*]?[A-Z])"
    r"|\s+(?=(?:because|since|rather than|instead of)\b)|\s+-+\s+(?=[A-Za-z])|\n",
)
_RETRACTED = re.compile(
    r"\b(?:wait|sorry|correction|oops|hmm|alternatively|actually|mistake|wrong|incorrect)\b|\bor\s+[-+$]?[0-9]", re.I
)
_GOES_ON = re.compile(r"\s*(?:or|and|no|maybe|perhaps|remainder|plus|minus|times)\b", re.I)
_NEGATED = re.compile(r"\b(?:not|neither|never|nor|cannot|unknown|undefined)\b|n't\b", re.IGNORECASE)
_COMPARED = re.compile(r"[!<>/~≠]\s?=|=\s?[/!]\s?=|=\s?[<>]")
_SEPARATED = re.compile(r"[,;]\s|\b(?:and|or)\b")
_NO_VALUE_OF = re.compile(r"[0-9][A-Za-z√(]|[\^√±]|^\W*-\s?[A-Za-z]|\\[a-zA-Z]|/\s*[0-9]+\s*$|^\s*1/[A-Za-z]|\|")
_ONLY_NUMBERS = re.compile(r"(?:[\s0-9.,$%()+×÷·*/-]|(?<=[0-9\s])x(?=\s*[0-9$]))*")


_GLUED = re.compile(r"[0-9.][\w.]*")
"""Digits that belong to a word, as in ``CO2``."""


class Number(NamedTuple):
    """A number at its place in a line; ``value`` is None if something beside it makes it another one."""

    begin: int
    end: int
    value: Fraction | None


@lru_cache(maxsize=4096)
def number(line: str) -> str | None:
    """The one number that the line states, exactly: ``$1,000`` is 1000, ``18.0`` is 18, ``1/2`` is 0.5, ``1/3`` is 1/3.

    Thousands separators, currency signs, units and a trailing period do not count; a percentage keeps its figure
    (``50%`` is 50). After an equals sign stands the result (``3 + 4 = 7``), and what brackets add is an aside. An
    expression, a range, a bound, a choice (``7 or 8``), a date, a time or two unrelated numbers state none.
    """
    value = _stated_value(_plain(line))
    return None if value is None else canonical(value)


def alone(text: str) -> Fraction | None:
    """The value of a text that is nothing but a number, with its sign, currency, percent sign or scale; else None."""
    text = _plain(text)
    candidate = next(_numbers(text), None)
    if candidate is None or text[: candidate.begin].strip(" ("):
        return None
    return candidate.value if re.fullmatch(r"[\s%$.)]*", text[candidate.end :]) else None


def every(text: str) -> list[Fraction]:
    """The values of all numbers of a text, whatever stands beside them."""
    values = (fraction(match) for match in NUMBER.finditer(alike(text)))
    return [value for value in values if value is not None]


def _stated_value(line: str) -> Fraction | None:
    if _COMPARED.search(line) or "\\" in line:
        return None
    asides = [match[1] for match in _ASIDE.finditer(line)]
    outside = _ASIDE.sub(lambda match: match[0] if _is_glued(match) else " ", line)
    if re.search(r"[0-9½⅓¼¾]", outside):
        if any(_ASIDE_CHANGES.search(aside) for aside in asides):
            return None
        line = outside
    before, equals, after = line.rpartition("=")
    if not equals:
        return _number_of_line(line)
    left = before.rpartition("=")[2]
    if "=" in before and _SEPARATED.search(left):
        return None  # x = 3, y = 4
    if re.search(r"[0-9]", after):
        if not _NO_VALUE_OF.search(left) and (value := _number_of_line(after)) is not None:
            return value
        return _number_of_line(before) if _ONLY_NUMBERS.fullmatch(after) and "=" not in before else None  # 18 = 9 * 2
    return _number_of_line(before) if "=" not in before else None


def _is_glued(match: re.Match[str]) -> bool:
    """Whether a bracket stands at a number or word without a space, so that it is no aside."""
    return match[0].startswith("(") and re.search(r"[0-9]", match[1]) is not None


def _number_of_line(line: str) -> Fraction | None:
    """The number of a line without equations and asides."""
    numbers = list(_numbers(line))
    if not numbers:
        return None
    first = numbers[0]
    leads = not re.search(r"[^\W\d_]", line[: first.begin])
    if leads and (boundary := _BOUNDARY.search(line, first.end)):
        rest = line[boundary.end() :]
        if _RETRACTED.search(rest) or _GOES_ON.match(rest):
            return None
        line = line[: boundary.start()]
        numbers = [one for one in numbers if one.begin < boundary.start()]
    if _NEGATED.search(line) or _RETRACTED.search(line):
        return None
    values = {one.value for one in numbers}
    if None in values or len(values) > 1:
        return None
    if any(_ANYWHERE_AFTER.search(line, one.end) for one in numbers):
        return None
    return first.value


def _numbers(line: str) -> Iterator[Number]:
    """Every number of the line, in order. Digits inside a word (``CO2``) are none."""
    line = _RAISED_UNIT.sub(lambda match: match[1] + " " * (len(match[0]) - len(match[1])), line)
    at = 0
    while match := NUMBER.search(line, at):
        if line[match.start() - 1 : match.start()].isalpha() and (word := _GLUED.match(line, match.start())):
            at = word.end()
            continue
        end, value = _scale(line, match)
        if value is not None and not _fits(line, match, end):
            value = None
        if value is not None and _MINUS.search(_peel(line[: match.start()], line[end:])[0]):
            value = None if match["sign"] or match["inner"] else -value
        yield Number(match.start(), end, value)
        at = end


def _scale(line: str, match: re.Match[str]) -> tuple[int, Fraction | None]:
    """The value of a number with the words of scale behind it, and where they end."""
    value, end = fraction(match), match.end()
    while scale := _SCALE.match(line, end):
        word = scale[0].strip(" -")
        by = _LETTER_SCALES.get(word.upper()) if scale["letter"] else _SCALES[word.lower()]
        if scale["letter"] and word.islower() and word != "k" and not match["currency"]:
            break  # 5m: metres
        if word == "K" and scale[0][:1] in " -" and not match["currency"]:
            break  # 300 K: kelvin
        value = None if by is None or value is None else value * by
        end = scale.end()
    return end, value


def _peel(before: str, after: str) -> tuple[str, str]:
    """The texts before and after a number, without brackets and quotes around the number alone."""
    while before and after and before[-1] + after[0] in ("()", "[]", "{}", '""', "''", "<>"):
        before, after = before[:-1], after[1:]
    return before, after


def _fits(line: str, match: re.Match[str], end: int) -> bool:
    """Whether nothing beside a number changes its value."""
    before, after = line[: match.start()], line[end:]
    if re.search(r"(?:\w|[)\]√^*/×÷·+±-]\s*)[(\[{]+$", before):
        return False
    before, after = _peel(before, after)
    if re.search(r"[-~±√^*/×÷·+][\s$(\[{\"']+$", before) and "→" not in before[-3:]:
        return False
    if match["sign"] and before.strip():
        if match["sign"].endswith(" ") and not re.search(r"[:=→≈(\[\"'$]\s*$", before):
            return False  # 10 - 5
        if re.search(r"(?:[\w)\]}]|(?:^|\s)[A-Za-z]\s|[0-9)\]]\s)$", before):
            return False  # x-5, x -5
    if before and not before[-1].isspace() and not re.search(r"[(\[{\"'“‘«:=→≈,;$%.?…#]$", before):
        return False
    if re.search(r"[0-9][,.:'/]$|\.\.$|…$|[A-Za-z)][,.]$|[\w)\]](?:[(\[{])$|[\w)\]]'$", before):
        return False
    if match["sign"] and match["inner"] and not match["currency"]:
        return False
    if _BOUND.search(before) and not re.search(r"(?:^|[^\w\s)])\s*#$", before):
        return False
    if _BEFORE.search(before) and not _MINUS.search(before):
        return False
    suffix = _SUFFIX.match(after)
    glued = suffix is not None and suffix[0][:1].isalpha()
    if glued and suffix is not None and _WORDS_AFTER.match(suffix[0]):
        return False
    tail = (after[suffix.end() :] if suffix else after).lstrip("$")
    if tail[:1] and unicodedata.category(tail[0]) == "So":
        tail = " " + tail[1:]  # an emoji
    if not _AFTER.match(tail) or re.match(
        r"[)\]}\"',:]*[\^!(×÷*+√]|[)\]}\"',:']+[0-9]|[)\]}]?[-+/*]\s*(?:[0-9(]|$)", tail
    ):
        return False
    if re.match(r"\s*[-+/*×÷·^√π∞<>≠±:&|~_=]\s*[\w(√π]", tail) and not re.match(
        r"-[A-Za-z]{2}|/\s?[A-Za-z]|\s+-+\s+[A-Za-z]{2}|:\s+[A-Za-z]", tail
    ):
        return False
    if re.match(r"\s*[×÷^√π∞±+*!]|\s*[-+]\s*$", tail) or re.match(r"\s+x\s*[0-9(]", tail):
        return False
    words = tail.lstrip("-")
    if _ARTICLE_ALONE.match(words):
        return False
    return not _WORDS_AFTER.match(words if suffix is None or not glued else " " + words)


def fraction(match: re.Match[str]) -> Fraction | None:
    """The value of a match of ``NUMBER``; None for a division by zero and for more digits than an answer has."""
    if sum(map(str.isdigit, match[0])) > _MOST_DIGITS:  # Python refuses to read very long ones, and it takes long
        return None
    if match["plain"] or match["european"]:
        if match["european"]:
            digits = match["european"].replace(".", "").replace(",", ".")
        else:
            digits = re.sub(r"[,'_\s]", "", match["plain"])
        value = Fraction(int(digits) if digits.isdecimal() else digits)  # of whole numbers at a third of the time
        if exponent := match["e"] or match["ten"]:
            value *= Fraction(10) ** int(exponent)
    elif match["vulgar"]:
        value = int(match["whole"] or 0) + Fraction(VULGAR[match["vulgar"]])
    elif int(match["bottom"]) == 0:
        return None
    else:
        value = int(match["mixed"] or 0) + Fraction(int(match["top"]), int(match["bottom"]))
    minus = (match["sign"] or "").startswith("-")
    return -value if minus != bool(match["inner"]) else value


def canonical(value: Fraction) -> str:
    """Shortest exact form: digits, a decimal if it ends, otherwise a reduced fraction."""
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


__all__ = ["NUMBER", "VULGAR", "Number", "alone", "canonical", "every", "fraction", "number"]
