"""Compares two expressions of LaTeX by math-verify: a script that :mod:`vivavoce.tasks.mathematics` runs.

It has a process of its own, a bounded memory and so many seconds of CPU time for each pair. Once it is ready it may
neither write files, start processes, open connections nor compile text to code: only math-verify's grammar reads a
model's text. (``sympy.Number("12")``, in which the grammar ends, would evaluate text as Python; it is given a reader of
numerals instead.) One JSON line ``[gold, answer]`` comes in, one line goes out: ``true``, ``false``, null if the answer
cannot be read, or a text that says why the pair could not be compared.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import resource
import signal
import sys
from typing import Any

FLOAT_DECIMALS = 10
"""The number of decimals that must agree if a decimal is to equal an expression (``0.3333333333`` for 1/3)."""
_FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.remove", "os.rename", "os.rmdir", "os.mkdir",
    "os.putenv", "subprocess.", "socket.", "ctypes.", "shutil.", "urllib.", "ftplib.", "smtplib.", "pty.",
)  # fmt: skip
# Loads what sympy imports late, some of which compiles text of its own.
_WARM_UP = [
    (r"\frac{1}{2}", r"\frac{2}{4}"), (r"x^2+1", r"1+x^2"), (r"(x+1)^2", r"x^2+2x+1"), (r"\{1,2\}", r"\{2,3\}"),
    (r"(0,1]", r"(0,2]"), (r"x=3", r"x=4"), (r"x<3", r"3>x"), (r"\begin{pmatrix}1\\2\end{pmatrix}", r"(1,2)"),
    (r"\sqrt{2}", r"1.4142135624"), (r"\sin(x)", r"\cos(x)"), (r"3+4i", r"3-4i"), (r"\{i^2\}", r"-1"),
    (r"50\%", r"0.5"),
    (r"\binom{5}{2}", r"10"), (r"\text{even}", r"\text{odd}"), (r"x^2+y^2=1", r"y^2+x^2=1"),
    (r"[0,1)\cup(2,3]", r"[0,3]"),
    (r"e^{i\pi}", r"-1"), (r"\log_2 8", r"3"), (r"5!", r"120"), (r"|x|", r"x"), (r"-1\le x\le 1", r"[-1,1]"),
    (r"\int_0^1 x^2 dx", r"1"), (r"\sum_{k=1}^n k", r"n"), (r"\prod_{k=1}^n k", r"n"), (r"\lim_{x\to 0} x", r"0"),
    (r"\frac{d}{dx} x^2", r"2x"), (r"\lfloor x\rfloor", r"x"), (r"f(x)=x", r"f(x)=2x"), (r"\tan^{-1} x", r"x"),
]  # fmt: skip


def main(memory: int, seconds: float) -> None:
    """Answer pairs until the input ends. ``memory`` in bytes, ``seconds`` of CPU time for a pair."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    logging.disable(logging.CRITICAL)
    compare = _comparison()
    for gold, answer in _WARM_UP:
        compare(gold, answer)
    from sympy.parsing import sympy_parser

    sympy_parser.parse_expr = _numeral  # only now: sympy's own modules read their names by it when they are loaded
    refused = list[str]()
    for limit, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    sys.addaudithook(lambda event, args: _forbid(event, args, refused))
    print(json.dumps("ready"), file=answers, flush=True)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for line in sys.stdin:
        # By default the signal ends the process, in the middle of a multiplication too, where no handler would run.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            verdict: bool | str | None = compare(*json.loads(line))
        except MemoryError:
            verdict = "too large"
        except RecursionError:
            verdict = "nested too deep"
        except Exception as error:  # noqa: BLE001  whatever a parser raises on a hostile text is its answer
            verdict = f"{type(error).__name__} while reading it"
        signal.setitimer(signal.ITIMER_PROF, 0)
        if refused:
            verdict = f"reading it led to {refused[0]}, which is not allowed"
            refused.clear()
        print(json.dumps(verdict), file=answers, flush=True)


def _comparison() -> Any:
    from functools import lru_cache

    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    for late in ("integrals.manualintegrate", "integrals.meijerint", "concrete.gosper", "solvers.inequalities"):
        importlib.import_module(f"sympy.{late}")

    dress = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    form = (LatexExtractionConfig(boxed_match_priority=-1, normalization_config=dress),)

    @lru_cache(maxsize=256)
    def read(text: str) -> list[Any]:
        read = parse(f"${text}$", form, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True)  # type: ignore[arg-type]
        return [_imaginary(one) for one in read]

    def compare(gold: str, answer: str) -> bool | str | None:
        right = read(gold)
        if not right:
            return "the gold answer cannot be read"
        stated = read(answer)
        if not stated:
            return None
        same = verify(right, stated, FLOAT_DECIMALS, timeout_seconds=None, raise_on_error=True)
        return same and _near(right[0], stated[0])

    return compare


def _imaginary(expression: Any) -> Any:
    """The expression with ``i`` for the imaginary unit; math-verify takes it for a variable, and so ``i^2`` for no
    number.
    """
    from sympy import I

    units = {symbol: I for symbol in getattr(expression, "free_symbols", ()) if symbol.name == "i"}
    return expression.subs(units) if units else expression


def _near(a: Any, b: Any) -> bool:
    """Whether two numbers are equal within their own size. To math-verify all that differ by less than 1e-15 are
    equal, and so ``1/2004!`` equals ``2/2004!``.
    """
    if not (getattr(a, "is_number", False) and getattr(b, "is_number", False)):
        return True
    a, b = a.doit().evalf(20), b.doit().evalf(20)
    if getattr(a, "is_comparable", False) and getattr(b, "is_comparable", False):
        return bool(abs(a - b) * 10**8 <= max(abs(a), abs(b))) or bool(a == 100 * b) or bool(100 * a == b)
    return True


def _numeral(text: str, *_: object, **__: object) -> Any:
    from sympy import Float, Integer, SympifyError

    if re.fullmatch(r"[-+]?[0-9]+", text := text.strip()):
        return Integer(int(text))
    if re.fullmatch(r"[-+]?(?:[0-9]+\.[0-9]*|\.?[0-9]+)(?:[eE][-+]?[0-9]{1,3})?", text):
        return Float(text)
    raise SympifyError(text)


def _forbid(event: str, args: tuple[Any, ...], refused: list[str]) -> None:
    writes = event == "open" and (
        (isinstance(args[1], str) and set(args[1]) & set("wax+")) or (args[1] is None and args[2] & _WRITING)
    )
    code = event == "compile" and not str(args[1]).endswith(".py") and not _is_generated(args[0])
    if writes or code or event.startswith(_FORBIDDEN):
        refused.append(event)
        raise RuntimeError(f"{event} is not allowed here")


def _is_generated(source: object) -> bool:
    """Whether sympy made it from nothing but a number of variables, to multiply their powers."""
    return isinstance(source, bytes | str) and source[:13] in (b"def monomial_", "def monomial_")


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
