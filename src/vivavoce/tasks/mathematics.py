"""Equality of two mathematical expressions: numbers and tuples here, everything else by math-verify, in another
process.

A model's text may be hostile: ``9^{9^{9^9}}``, a thousand open brackets, something that a parser would evaluate. So
math-verify runs in processes that live on from pair to pair (``mathematics_worker``), with limits on memory and time
and nothing within reach. One that dies is replaced, and its pair comes out as not comparable, with the reason.
"""

from __future__ import annotations

import importlib.util
import re
import signal
import sys
from fractions import Fraction
from pathlib import Path

from vivavoce.errors import MissingDependency
from vivavoce.line_process import LineProcess, Pool
from vivavoce.tasks import latex, numbers

SECONDS = 2.0
"""CPU time for one pair; ordinary ones take some thousandths of it."""
MEMORY = 2 << 30
"""Bytes of address space of a process; it holds some 150 MiB when it starts."""
LONGEST = 500
"""Characters of an expression; the longest gold answer of MATH has 159."""
_DECIMALS = 10
_AT_ONCE = 2
"""Processes; each needs some seconds of CPU time to start."""
_RENEWED_AFTER = 2000
"""Pairs, after which a process is replaced: sympy keeps what it has seen."""
_WORKER = Path(__file__).with_name("mathematics_worker.py")


def need_math_verify() -> None:
    """Raise MissingDependency if math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise MissingDependency(
            "mathematical answers are compared by math-verify, which is not installed",
            "task",
            "pip install 'vivavoce[math]'",
        )


def equal(gold: str, answer: str) -> bool | str | None:
    """Whether ``answer`` equals ``gold``, both LaTeX without dollars. Never raises on any text.

    None if the answer is nothing that can be read, a text with the reason if the two could not be compared. Numbers are
    compared exactly, tuples and intervals part by part with the same brackets.
    """
    if max(len(gold), len(answer)) > LONGEST:
        return True if gold == answer else f"longer than {LONGEST:,} characters"
    gold, answer = latex.plain(gold), latex.plain(answer)
    if _pack(gold) == _pack(answer):
        return True
    if (expected := latex.words(gold)) is not None:
        return expected == latex.words(answer, loose=True)
    right, measured = latex.without_unit(gold), latex.without_unit(answer, nouns=True)
    if right.percent == measured.percent:
        return _compare(right.value, measured.value)
    verdict = _compare(right.value, measured.value)  # 28 % and 28: a percentage keeps its figure
    if verdict is True:
        return True
    if right.percent:
        return _compare(_hundredth(right.value), measured.value)  # 28 % and 0.28
    return _compare(right.value, _hundredth(measured.value))


def same(a: str, b: str) -> bool:
    """Whether two answers are one, whatever the gold answer is. As an answer, 50 % is 50 and not 0.5 as well."""
    one, other = (latex.without_unit(latex.plain(text)) for text in (a, b))
    if one.percent != other.percent:
        a, b = one.value, other.value
    return equal(a, b) is True or equal(b, a) is True


def _pack(text: str) -> str:
    """The expression without spaces, but for one that ends a command (``\\pi x``)."""
    return re.sub(r"\s", "", re.sub(r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])", "\\1\0", text))


def _hundredth(text: str) -> str:
    value = numbers.alone(text)
    return f"\\frac{{{text}}}{{100}}" if value is None else numbers.canonical(value / 100)


def _compare(gold: str, answer: str) -> bool | str | None:
    """The comparison of two expressions without units."""
    if _pack(gold) == _pack(answer):
        return True
    if _CUT_OFF.search(answer) and not _CUT_OFF.search(gold):
        return None  # 0.333… is no 0.333
    if bool(_RELATION.match(gold)) != bool(_RELATION.match(answer)):
        return False  # > 7 is no 7
    values = [numbers.alone(latex.latex(text)) for text in (gold, answer)]
    if values[0] is not None and values[1] is not None:
        return _near(values[0], values[1])
    bases = [_BASE.fullmatch(text.strip()) for text in (gold, answer)]
    if bases[0] and (bases[1] or values[1] is not None):
        return bases[0][1] == (bases[1] or [answer.strip()] * 2)[1] and (not bases[1] or bases[0][2] == bases[1][2])
    if bases[1] and values[0] is not None:
        return "only the answer names a base"
    if _CLOCK.fullmatch(gold) and _CLOCK.fullmatch(answer):
        return [*map(int, gold.split(":"))] == [*map(int, answer.split(":"))]
    (left, _, right), (other, _, right_side) = gold.partition("="), answer.partition("=")
    if right and right_side and "".join(left.split()) == "".join(other.split()):
        return equal(right, right_side)  # y = 2x and y = 3x: solving would be slow
    gold_parts, answer_parts = _parts(gold), _parts(answer)
    if gold_parts and (converted := latex.interval(answer)):
        answer_parts = _parts(converted)
    if answer_parts and (converted := latex.interval(gold)):
        gold_parts = _parts(converted)
    if gold_parts and answer_parts:
        return _each(gold_parts, answer_parts)
    with _pool.take() as process:
        return process.compare(latex.latex(gold), latex.latex(answer))


_RELATION = re.compile(r"[<>~]|\\(?:le|ge|neq|lt|gt|ll|gg|sim|not)(?![a-zA-Z])")
_CUT_OFF = re.compile(r"^[^,;]*[0-9]\s*(?:\\[lc]?dots[cbmio]?|\.\.\.+)\s*$")
"""A number whose decimals go on."""
_CLOCK = re.compile(r"[0-9]{1,4}(?::[0-9]{1,4})+")
_BASE = re.compile(r"(-?[0-9A-F]+(?:\.[0-9A-F]+)?)_\{?([0-9]+)\}?")
"""A number with its base; to math-verify ``11_2`` equals ``11_3``."""
_BRACKETED = re.compile(r"(?:\\left\s*)?([(\[])(.*?)(?:\\right\s*)?([)\]])", re.DOTALL)


def _near(a: Fraction, b: Fraction) -> bool:
    """Whether two numbers are equal; a fraction without end equals a decimal that has ten of its decimals right."""
    endless = any(10**_DECIMALS % value.denominator for value in (a, b))
    return a == b or (endless and abs(a - b) * 10**_DECIMALS <= max(abs(a), abs(b)))


def _parts(text: str) -> list[str] | None:
    """Brackets and components of ``(a, b)`` or ``[a, b)``; None for anything else.

    Cut here, because to math-verify ``(3,1)`` is an interval from 3 to 1, and that is empty like any other such.
    """
    match = _BRACKETED.fullmatch(text.strip())
    if match is None:
        return None
    parts, depth = [""], 0
    for piece in re.split(r"(\\[{}]|[(\[{}\])]|,)", match[2]):
        depth += {"(": 1, "[": 1, "{": 1, "\\{": 1, ")": -1, "]": -1, "}": -1, "\\}": -1}.get(piece, 0)
        if depth < 0:
            return None  # (0,1) \cup (2,3)
        if piece == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return [match[1], match[3], *(part.strip() for part in parts)] if len(parts) > 1 else None


def _each(gold_parts: list[str], answer_parts: list[str]) -> bool | str | None:
    if len(gold_parts) != len(answer_parts) or gold_parts[:2] != answer_parts[:2]:
        return False
    verdicts = [equal(part, other) for part, other in zip(gold_parts[2:], answer_parts[2:], strict=True)]
    return next((one for one in verdicts if one is not True), True)


def perturb(gold: str) -> str:
    """The same expression with its first number one larger, or with something more if it has none."""
    number = re.compile(r"(?<![0-9.])[0-9]{1,9}(?![0-9])").search(gold, gold.rfind("=") + 1)
    if number is None:
        return gold.replace(r"\text{", r"\text{not ", 1) if r"\text{" in gold else f"{gold}+1"
    return f"{gold[: number.start()]}{int(number[0]) + 1}{gold[number.end() :]}"


class _Process(LineProcess):
    """One process that compares pairs."""

    def __init__(self) -> None:
        # -P: the script's own folder is not searched for modules; it holds a math.py. -B: nothing is written.
        super().__init__([sys.executable, "-P", "-B", str(_WORKER), str(MEMORY), str(SECONDS)])
        self.answered = 0
        if not self.says_ready():
            code = self.close()
            raise MissingDependency(
                f"math-verify cannot be started (exit code {code})",
                "task",
                f"see what `{sys.executable} -c 'import math_verify'` says; pip install 'vivavoce[math]'",
            )

    def compare(self, gold: str, answer: str) -> bool | str | None:
        self.answered += 1
        try:
            return self.ask([gold, answer])
        except EOFError:
            code = self.process.wait()
        return f"took longer than {SECONDS:g} s" if code in _TIMED_OUT else f"the reader broke down (exit code {code})"

    @property
    def good(self) -> bool:
        return super().good and self.answered < _RENEWED_AFTER


_TIMED_OUT = (-signal.SIGPROF,)
"""The end of a process by the signal of the timer of CPU time."""
_pool = Pool(_AT_ONCE, _Process)

__all__ = ["LONGEST", "MEMORY", "SECONDS", "equal", "need_math_verify", "perturb", "same"]
