"""A calculator. It has no state, so only its results are judged."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Any

from vivavoce.environments.bfcl.service import Refused, Service

_METRES = {"km": 1e3, "m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "nm": 1e-9}
_GRAMS = {"kg": 1e3, "g": 1.0, "mg": 1e-3}
_IMPERIAL = {
    ("inch", "cm"): 2.54,
    ("in", "cm"): 2.54,
    ("ft", "m"): 0.3048,
    ("yd", "m"): 0.9144,
    ("mile", "km"): 1.609344,
    ("miles", "km"): 1.609344,
    ("lb", "kg"): 0.45359237,
    ("oz", "g"): 28.349523125,
    ("gallon", "liter"): 3.785411784,
}
"""The number of the second unit that equals one of the first."""


class Calculator(Service):
    """The functions."""

    NAME = "MathAPI"
    DOCUMENT = "math_api.json"

    def __init__(self, config: Mapping[str, Any]) -> None:
        pass

    def add(self, a: float, b: float) -> dict[str, float]:
        """a + b."""
        return {"result": a + b}

    def subtract(self, a: float, b: float) -> dict[str, float]:
        """a - b."""
        return {"result": a - b}

    def multiply(self, a: float, b: float) -> dict[str, float]:
        """a · b."""
        return {"result": a * b}

    def divide(self, a: float, b: float) -> dict[str, float]:
        """a / b."""
        if b == 0:
            raise Refused("nothing can be divided by zero")
        return {"result": a / b}

    def power(self, base: float, exponent: float) -> dict[str, float]:
        """base to the exponent."""
        if isinstance(result := base**exponent, complex):
            raise Refused("the result is no real number")
        return {"result": result}

    def square_root(self, number: float, precision: int) -> dict[str, float]:
        """The square root, to so many significant digits."""
        if number < 0:
            raise Refused("a negative number has no real root")
        if precision < 1:
            raise Refused("a precision is at least 1")
        return {"result": float(Context(prec=precision).sqrt(Decimal(str(number))))}

    def logarithm(self, value: float, base: float, precision: int) -> dict[str, float]:
        """Worked out with so many decimal digits, as mpmath does it: in mantissas of as many bits as they need."""
        if value <= 0 or base <= 0 or base == 1:
            raise Refused("there is no such logarithm")
        if precision < 1:
            raise Refused("a precision is at least 1")
        bits = round((precision + 1) * math.log2(10))
        above, below = (_in_bits(math.log(_in_bits(number, bits)), bits) for number in (value, base))
        return {"result": _in_bits(above / below, bits)}

    def absolute_value(self, number: float) -> dict[str, float]:
        """Without its sign."""
        return {"result": abs(number)}

    def round_number(self, number: float, decimal_places: int = 0) -> dict[str, float]:
        """The number, rounded to so many places."""
        return {"result": round(number, decimal_places)}

    def percentage(self, part: float, whole: float) -> dict[str, float]:
        """The percentage that a part is of the whole."""
        if whole == 0:
            raise Refused("nothing is a part of zero")
        return {"result": part / whole * 100}

    def mean(self, numbers: list[float]) -> dict[str, float]:
        """The mean of a list."""
        return {"result": statistics.fmean(_need_numbers(numbers))}

    def standard_deviation(self, numbers: list[float]) -> dict[str, float]:
        """The standard deviation of a list that is the whole population."""
        return {"result": statistics.pstdev(_need_numbers(numbers))}

    def max_value(self, numbers: list[float]) -> dict[str, float]:
        """The largest."""
        return {"result": max(_need_numbers(numbers))}

    def min_value(self, numbers: list[float]) -> dict[str, float]:
        """The smallest."""
        return {"result": min(_need_numbers(numbers))}

    def sum_values(self, numbers: list[float]) -> dict[str, float]:
        """The sum of a list."""
        return {"result": math.fsum(_need_numbers(numbers))}

    def si_unit_conversion(self, value: float, unit_in: str, unit_out: str) -> dict[str, float]:
        """Between lengths, or between masses."""
        for units in (_METRES, _GRAMS):
            if unit_in in units and unit_out in units:
                return {"result": value * units[unit_in] / units[unit_out]}
        raise Refused(f"{unit_in} cannot be turned into {unit_out}; there are {', '.join([*_METRES, *_GRAMS])}")

    def imperial_si_conversion(self, value: float, unit_in: str, unit_out: str) -> dict[str, float]:
        """Between an imperial unit and one of the SI."""
        if (unit_in, unit_out) == ("celsius", "fahrenheit"):
            return {"result": value * 9 / 5 + 32}
        if (unit_in, unit_out) == ("fahrenheit", "celsius"):
            return {"result": (value - 32) * 5 / 9}
        if (unit_in, unit_out) in _IMPERIAL:
            return {"result": value * _IMPERIAL[unit_in, unit_out]}
        if (unit_out, unit_in) in _IMPERIAL:
            return {"result": value / _IMPERIAL[unit_out, unit_in]}
        raise Refused(f"{unit_in} cannot be turned into {unit_out}")


def _need_numbers(numbers: list[float]) -> list[float]:
    if not numbers:
        raise Refused("there are no numbers")
    return numbers


def _in_bits(number: float, bits: int) -> float:
    """The nearest number whose mantissa has so many bits."""
    mantissa, exponent = math.frexp(number)
    return math.ldexp(round(math.ldexp(mantissa, bits)), exponent - bits) if bits < 53 else number


__all__ = ["Calculator"]
