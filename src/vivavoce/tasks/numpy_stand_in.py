"""The four names of numpy that the official tests of HumanEval+ and MBPP+ use, so that they run without it.

Importing numpy takes longer than the tests, and its threads and files have no place in the sandbox.
"""

from __future__ import annotations

_STAND_IN = """
class np:
    class ndarray: pass
    float32 = float64 = float
    @staticmethod
    def allclose(out, exp, rtol, atol):
        if isinstance(exp, (list, tuple)):
            same = isinstance(out, (list, tuple)) and len(out) == len(exp)
            return same and all(np.allclose(a, b, rtol, atol) for a, b in zip(out, exp))
        if isinstance(out, (list, tuple)):
            return False
        return out == exp or abs(out - exp) <= atol + rtol * abs(exp)
"""
_IMPORT = "import numpy as np"


def without_numpy(tests: str) -> str:
    """The tests with the stand-in for their import of numpy. Unlike numpy's, its ``allclose`` broadcasts nothing."""
    return tests.replace(_IMPORT, _STAND_IN, 1)


__all__ = ["without_numpy"]
