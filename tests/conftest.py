"""What every test may use: no hub, no telemetry, and the shared benchmark data where it lies beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def official() -> Path:
    """Folder of the real files of many benchmarks; the test is skipped where they are not at hand."""
    return _data("gsm8k").parent


@pytest.fixture(scope="session")
def gsm8k() -> Path:
    """Folder of the real GSM8K files; the test is skipped where they are not at hand."""
    return _data("gsm8k")


@pytest.fixture(scope="session")
def fair_svamp() -> Path:
    """Folder of the released peer-review files on SVAMP; the test is skipped where they are not at hand."""
    return _data("fair_svamp")


@pytest.fixture(scope="session")
def bfcl() -> Path:
    """Folder of the function-calling leaderboard's questions and answers."""
    return _data("bfcl")


@pytest.fixture(scope="session")
def tau2() -> Path:
    """Folder of the agent benchmark's databases, policies and tasks."""
    return _data("tau2")


def _data(name: str) -> Path:
    for folder in (ROOT / "shared", ROOT.parent / "shared"):
        if (folder / "data" / name).is_dir():
            return folder / "data" / name
    pytest.skip(f"no {name} in shared/data beside the checkout")
