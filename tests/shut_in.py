"""A mark for tests that run programs in the sandbox: they are skipped where the machine cannot shut a program in."""

from __future__ import annotations

import pytest

from vivavoce.errors import MissingDependency
from vivavoce.sandbox.running import machine_level


def _shut_in() -> bool:
    try:
        machine_level()
    except MissingDependency:
        return False
    return True


needs_sandbox = pytest.mark.skipif(not _shut_in(), reason="this machine cannot isolate a program")
