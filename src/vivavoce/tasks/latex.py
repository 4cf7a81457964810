"""One form for the many in which people write the same mathematics: typed characters, plain text, units, words."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from vivavoce.tasks.characters import alike
from vivavoce.tasks.dress import SPACE
from vivavoce.tasks.numbers import VULGAR

# --- typed characters

_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ϵ": "epsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ϑ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "µ": "mu", "ν": "nu", "ξ": "xi",
    "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "ϕ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi",
    "Ω": "Omega", "∞": "infty", "·": "cdot", "⋅": "cdot", "∙": "cdot", "•": "cdot", "×": "times", "✕": "times",
    "÷": "div", "≤": "le", "⩽": "le", "≦": "le", "≥": "ge", "⩾": "ge", "≧": "ge", "≠": "neq", "≈": "approx",
    "±": "pm", "∓": "mp", "∪": "cup", "⋃": "cup", "∩": "cap", "⋂": "cap", "∈": "in", "∉": "notin", "⊂": "subset",
    "⊆": "subseteq", "∅": "emptyset", "∖": "setminus", "∧": "wedge", "∨": "vee", "→": "to", "⇒": "Rightarrow",
    "⌊": "lfloor", "⌋": "rfloor", "⌈": "lceil", "⌉": "rceil", "⟨": "langle", "⟩": "rangle", "∑": "sum", "∏": "prod",
    "∫": "int", "∂": "partial", "∇": "nabla", "∠": "angle", "⊥": "perp", "∥": "parallel", "…": "ldots", "∝": "propto",
    "ℝ": "mathbb{R}", "ℤ": "mathbb{Z}", "ℕ": "mathbb{N}", "ℚ": "mathbb{Q}", "ℂ": "mathbb{C}", "ℓ": "ell",
}  # fmt: skip
_SYMBOLS = str.maketrans(
    {character: f"\\{name} " for character, name in _GREEK.items()} | {"°": "^\\circ ", "º": "^\\circ "}
)
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣ", "0123456789+-=()nix", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙₓₖᵢ", "0123456789+-=()nxki", strict=True))
_ROOTS = {"√": "", "∛": "[3]", "∜": "[4]"}
_ROOT = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|([0-9]+(?:\.[0-9]+)?|[a-zA-Z]|\\[a-zA-Z]+))")
_FUNCTIONS = re.compile(
    r"(?<![\\a-zA-Z])(?:arc(?:sin|cos|tan)|(?:sin|cos|tan|cot|sec|csc)h?|ln|log|exp|gcd|lcm|max|min|det)(?=[\s(^_0-9])"
)
_PLAIN = [
    (re.compile(r"(?<![a-zA-Z\\])sqrt\s*\(((?:[^()]|\([^()]*\))*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![a-zA-Z\\])(?:cbrt|cuberoot)\s*\(((?:[^()]|\([^()]*\))*)\)"), r"\\sqrt[3]{\1}"),
    (re.compile(r"(?<![a-zA-Z\\])abs\s*\(((?:[^()]|\([^()]*\))*)\)"), r"|\1|"),
    (re.compile(r"(?<![a-zA-Z\\])(pi|theta|alpha|beta|gamma|delta|lambda|sigma|omega|phi)(?![a-zA-Z])"), r"\\\1 "),
    (re.compile(r"(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])", re.IGNORECASE), r"\\infty "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\^\s*(-\s*[0-9a-zA-Z.]+|[0-9]{2,})"), r"^{\1}"),
    (re.compile(r"\^\s*\(([^()]*)\)"), r"^{\1}"),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"!="), r"\\neq "),
    (re.compile(r"\+/-|\+-"), r"\\pm "),
    (re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])"), r" \\cup "),
]
"""LaTeX for mathematics that is written without it."""


def as_text(text: str) -> str:
    """The expression with commands of LaTeX for typed characters, and for plain text if it has no LaTeX."""
    plain = "\\" not in text
    if not text.isascii():
        text = _type_out(text)
    if plain:
        for pattern, replacement in _PLAIN:
            text = pattern.sub(replacement, text)
        text = _FUNCTIONS.sub(lambda match: f"\\{match[0]}", text)
    return text


def _type_out(text: str) -> str:
    for marks, sign in ((_RAISED, "^"), (_LOWERED, "_")):
        run = re.compile(f"[{''.join(marks)}]+")
        text = run.sub(lambda m, marks=marks, sign=sign: f"{sign}{{{''.join(map(marks.get, m[0]))}}}", text)  # type: ignore[arg-type]
    text = _PART.sub(_fraction, alike(text))
    for _ in range(2):  # a root in a root
        text = _ROOT.sub(lambda m: f"\\sqrt{_ROOTS[m[1]]}{{{m[2] or m[3] or m[4]}}}", text)
    return text.translate(_SYMBOLS)


_PART = re.compile(f"(?P<whole>[0-9]*)\\s?(?P<part>[{''.join(VULGAR)}])(?P<next>[0-9]?)")


def _fraction(match: re.Match[str]) -> str:
    """A fraction in one character, with the whole number before it; a digit behind it is a factor."""
    top, _, bottom = VULGAR[match["part"]].partition("/")
    factor = rf" \cdot {match['next']}" if match["next"] else ""
    return rf"{match['whole']}\frac{{{top}}}{{{bottom}}}{factor}"


# --- one form of what is LaTeX

_UPRIGHT = re.compile(
    r"\\(?:text(?:rm|bf|it|sf|normal|up)?|math(?:rm|bf|it|sf|normal)|[mhf]box|operatorname\*?|emph|unit|si)\s*"
    r"\{((?:[^{}]|\{[^{}]*\})*)\}|\{\\(?:rm|bf|it|sf)\s+([^{}]*)\}|\\(?:rm|bf|it|sf)\s*\{([^{}]*)\}"
    r"|\\(?:text|math)(?:rm|bf|it|sf|normal)\s+([a-zA-Z0-9])(?![a-zA-Z0-9])|\\(?:rm|bf)\s+([a-zA-Z]+)$"
)
_UPRIGHT_VALUE = re.compile(r"⟦\s*(\\[a-zA-Z]+|-?[0-9][0-9.,]*)\s*⟧")
"""A command or a number is what it is, in upright type too."""
_UPRIGHT_MEASURE = re.compile(r"^⟦\s*(-?[0-9][0-9.,]*)\s+([^0-9⟦⟧]+)⟧$")
_REPEATED = re.compile(
    r"(?<![0-9.])([0-9]+)\.([0-9]*)(?:\\(?:overline|bar|dot|overbar)\s*(?:\{([0-9]+)\}|([0-9]))|\(([0-9]+)\))(?![0-9\\(])"
)
_DRESS = [
    (re.compile(r",\\!|\{,\}"), ""),  # 10,\!000
    (re.compile(r"\\(?:boldsymbol|bm|displaystyle|textstyle|limits|mathstrut|strut)(?![a-zA-Z])"), ""),
    (re.compile(r"\\!|\\phantom\s*(?:\{[^{}]*\}|.)|\\(?:left|right|[bB]igg?[lr]?)(?=\s*\\?[()\[\]{}|])"), ""),
    (SPACE, " "),
    (re.compile(r"\\[tc]frac(?![a-zA-Z])|\\dfrac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\frac\s*(\\[a-zA-Z]+)\s*([0-9a-zA-Z])"), r"\\frac{\1}{\2}"),  # \frac\pi 2
    (re.compile(r"\\[td]?binom\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])"), r"\\binom{\1}{\2}"),
    (re.compile(r"\\(?:leq|leqslant|leqq)(?![a-zA-Z])"), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant|geqq)(?![a-zA-Z])"), r"\\ge "),
    (re.compile(r"\\varnothing(?![a-zA-Z])|\\\{\s*\\\}"), r"\\emptyset "),
    (re.compile(r"\\(?:degree|textdegree)s?(?![a-zA-Z])"), r"^\\circ "),
    (re.compile(r"^\\approx|\\approx.*|[,.]$"), ""),
    (re.compile(r"^[^a-zA-Z=]*=(?=.*[0-9])"), ""),  # 3 + 4 = 7
    (re.compile(r"^\s*(?:minus|negative)\s+(?=[0-9.\\])"), "-"),
    (re.compile(r"^(?:\\?\$|€|£|¥|₹)\s*|\s*(?:\\?\$|€|£|¥|₹)$"), ""),
    (re.compile(r"(?<=^-)(?:\\?\$|€|£|¥|₹)\s*"), ""),
]  # fmt: skip
_LETTER = re.compile(r"⟦\s*([iejd])\s*⟧")
"""An upright letter that is a number or an operator, not a unit."""


def plain(text: str) -> str:
    """The expression without spacing commands, with upright text between ``⟦`` and ``⟧``."""
    text = text.strip()
    for _ in range(2):
        text = _UPRIGHT.sub(lambda match: f"⟦{match[match.lastindex or 1]}⟧", text)
    text = _REPEATED.sub(_endless, _UPRIGHT_VALUE.sub(r"\1 ", text))
    if (one := _UPRIGHT_MEASURE.match(text)) and _is_unit(one[2]):
        text = f"{one[1]} ⟦{one[2]}⟧"
    for pattern, replacement in _DRESS:
        text = pattern.sub(replacement, text.strip()) or text
    return _LETTER.sub(r"\1", text).strip()


def _endless(match: re.Match[str]) -> str:
    """A decimal whose last digits repeat without end, as the fraction that it is."""
    whole, first, period = match[1], match[2], match[3] or match[4] or match[5]
    value = Fraction(int(whole + first + period) - int(whole + first), 10 ** len(first) * (10 ** len(period) - 1))
    return str(value.numerator) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def latex(text: str) -> str:
    """The result of :func:`plain`, as LaTeX again."""
    return text.replace("⟦", r"\text{").replace("⟧", "}")


# --- words

_WORD = re.compile(r"[a-zA-Z]{4,}(?:[ -][a-zA-Z]+)*")


def words(text: str, loose: bool = False) -> str | None:
    """The words that an expression of :func:`plain` is (``circle``, ``⟦(C)⟧``, ``⟦H⟧, ⟦E⟧``); None for others.

    Several that are listed come in the order of the alphabet. The case of a single letter counts. ``loose`` takes any
    text for words, to compare it with some.
    """
    if not loose:
        if "⟦" not in text and not _WORD.fullmatch(text.strip(" .")):
            return None
        if "⟦" in text and re.sub(r"⟦[^⟦⟧]*⟧", "", text).strip(" ,;.()"):
            return None
    phrase = " ".join(re.sub("[⟦⟧]", " ", text).split()).strip(" .,;:!?\"'")
    if not loose and not re.search(r"[a-zA-Z]", phrase):
        return None
    phrase = re.sub(r"\b([apAP])\.?\s?[mM]\b\.?", r"\1m", phrase)
    pieces = [piece.strip(" .()") for piece in re.split(r",|;|\band\b", phrase)]
    cased = [piece if len(piece) == 1 else piece.casefold() for piece in pieces if piece]
    return ",".join(sorted(re.sub(r"^(?:the|an?) (?=\w)", "", piece) for piece in cased))


# --- units and percent

_UNIT_WORDS = (
    r"degrees?|deg|dollars?|cents?|euros?|pounds?|USD|bucks|feet|foot|ft|inch(?:es)?|in|yards?|yds?|miles?|mi"
    r"|mph|kph|kmh|hours?|hrs?|"
    r"hr|minutes?|mins?|seconds?|secs?|days?|weeks?|months?|years?|yrs?|units?|points?|(?:centi|milli|kilo"
    r"|deci|micro|nano)?met(?:er|re)s?|"
    r"[cmkdµμn]?m|(?:milli|centi|deci)?lit(?:er|re)s?|m[lL]|gallons?|quarts?|pints?|cups?|ounces?|oz|lbs?"
    r"|(?:kilo|milli)?grams?|kg|mg|"
    r"tons?|tonnes?|acres?|hectares?|newtons?|(?:kilo)?joules?|(?:kilo)?watts?|volts?|amperes?|amps?|ohms?"
    r"|hertz|k?Hz|k?Pa|pascals?|"
    r"kelvin|moles?|mol|radians?|rad|square|cubic|sq|cu|per|each|people|students|ways|pieces|boxes|sides|edges"
)
_UNIT_LETTERS = "msghLlNJWVAKCFT"
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\s*[0-9]\s*\}|-?[0-9]))"
_UPRIGHT_TAIL = re.compile(
    rf"(?<=[0-9a-zA-Z)}}\]|!])\s*(?:\\cdot\s*)?(?P<unit>(?:⟦[^⟦⟧]*⟧{_POWER}?|\{{⟦[^⟦⟧]*⟧{_POWER}?\}}|\\frac\s*\{{⟦[^⟦⟧]*⟧{_POWER}?\}}\s*\{{⟦[^⟦⟧]*⟧{_POWER}?\}})"
    rf"(?:\s*(?:/|\\cdot|\*)?\s*⟦[^⟦⟧]*⟧{_POWER}?)*)\s*\.?$"
)
_BARE_TAIL = re.compile(
    rf"(?:(?<=[0-9}})])|(?<=\\pi))(?:\s+(?:{_UNIT_WORDS})\b\.?{_POWER}?|(?<=[0-9])\s*(?:[ckm]m|kg|mg|m[lL]|mph|ft|lbs?|oz|hrs?|mins?){_POWER}?(?![a-zA-Z])"
    rf"|\s*(?:/|\bper\b)\s*(?:{_UNIT_WORDS}|[hs])\b{_POWER}?)+\s*\.?$"
)
_NOUN_TAIL = re.compile(r"(?<=[0-9])\s+(?P<noun>[a-zA-Z]{4,}(?:\s+[a-zA-Z]{2,}){0,3})\.?$")
_DEGREES = re.compile(r"(?<=[0-9}a-z)])\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})\s*(?:⟦?\s*[CF]\s*⟧?)?$")
_CHANGES = re.compile(
    r"\b(?:and|or|if|for|when|where|with|such|that|is|mod|modulo|base|hundreds?|thousands?|millions?"
    r"|billions?|trillions?|lakhs?|crores?|dozens?|mill?i?on\w*|milliard\w*|mil|mille|mio|mrd|"
    r"score|gross|squared|cubed|factorial|half|halves|thirds?|quarters?|fourths?|fifths?|tenths?"
    r"|\w*(?:hundred|thousand|million)ths?|"
    r"th|st|nd|rd|times|plus|minus|less|more|not|to|choose|remainder|k|below|over|under|negative|least|most"
    r"|[ap]\.?m|solutions?|sin|cos|"
    r"tan|log|sqrt|percent|one|two|three|four|five|six|seven|eight|nine|ten)\b|[0-9(=<>+*,;]",
    re.IGNORECASE,
)
"""Upright text that is more than a unit."""


class Unitless(NamedTuple):
    """An expression without its unit."""

    value: str
    unit: str
    percent: bool


_PERCENT = re.compile(
    r"\s*(?:\\%|%|⟦\s*(?:%|\\%|percent(?:age)?|per\s?cent|pct)\.?\s*⟧|\s(?:percent|per\s?cent|pct)\b\.?)\s*$"
)


def without_unit(text: str, nouns: bool = False) -> Unitless:
    """An expression of :func:`plain` without units, degrees and the percent sign behind it.

    With ``nouns`` any word behind a number counts as a unit: ``18 apples``.
    """
    units = list[str]()
    for _ in range(3):
        if percent := _PERCENT.search(text):
            return Unitless(text[: percent.start()].strip(), "%", True)
        tail = _UPRIGHT_TAIL.search(text)
        if tail is None or not all(map(_is_unit, re.findall(r"⟦([^⟦⟧]*)⟧", tail["unit"]))):
            tail = _DEGREES.search(text) or _BARE_TAIL.search(text)
        if tail is None and nouns and (noun := _NOUN_TAIL.search(text)) and not _CHANGES.search(noun["noun"]):
            tail = noun
        if tail is None:
            break
        units.append(text[tail.start() :].strip())
        text = text[: tail.start()].strip()
    return Unitless(text, " ".join(reversed(units)), False)


def _is_unit(text: str) -> bool:
    """Whether upright text behind a number names the counted or measured thing, and changes no value."""
    text = re.sub(r"\^\s*\{?-?[0-9]\}?|(?<=[a-zA-Z])[23]\b", "", text).strip(" .")
    if len(text) == 1:
        return text in _UNIT_LETTERS or text == "%"
    return re.search(r"[a-zA-Z]", text) is not None and not _CHANGES.search(text)


# --- inequalities

_ENDS = {"<": ("(", ")"), "\\le": ("[", "]")}


def interval(text: str) -> str | None:
    """An inequality in one unknown as the interval of its solutions, or None: ``-1 \\le x < 2`` is ``[-1,2)``."""
    text = re.sub(r"\\lt(?![a-z])", "<", re.sub(r"\\gt(?![a-z])", ">", text)).strip()
    pieces = re.split(r"\s*(<|>|\\le|\\ge)(?![a-zA-Z])\s*", text)
    if len(pieces) not in (3, 5):
        return None
    terms, signs = pieces[::2], pieces[1::2]
    if any(sign in (">", "\\ge") for sign in signs):
        if any(sign in ("<", "\\le") for sign in signs):
            return None
        terms, signs = terms[::-1], [{">": "<", "\\ge": "\\le"}[sign] for sign in signs[::-1]]
    unknown = [bool(re.fullmatch(r"[a-zA-Z]|\\(?:theta|alpha|lambda)", term.strip())) for term in terms]
    if unknown.count(True) != 1 or "" in map(str.strip, terms):
        return None
    at = unknown.index(True)
    low = (_ENDS[signs[at - 1]][0], terms[at - 1]) if at > 0 else ("(", "-\\infty")
    high = (terms[at + 1], _ENDS[signs[at]][1]) if at < len(terms) - 1 else ("\\infty", ")")
    return f"{low[0]}{low[1].strip()},{high[0].strip()}{high[1]}"


__all__ = ["Unitless", "as_text", "interval", "latex", "plain", "without_unit", "words"]
