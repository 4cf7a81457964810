"""What every test may use: no hub, no telemetry, and the shared benchmark data where it lies beside the checkout."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
os.environ.pop("COLUMNS", None)  # how wide a table is depends on it, and pytest-xdist sets it

ROOT = Path(__file__).parent.parent
_frozen_modules = 0
_MANY = 300


def pytest_runtest_setup() -> None:
    """Take what has been imported out of garbage collection, again whenever many modules have come.

    Trainer collects all garbage as a training begins, and Python does so now and then. Each time it went through half a
    million objects of libraries, which took a third of the time of a file of tests that train.
    """
    global _frozen_modules
    if len(sys.modules) - _frozen_modules > _MANY:
        gc.collect()
        gc.freeze()
        _frozen_modules = len(sys.modules)


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


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Folder of SmolLM2-135M-Instruct, which `make weights` fetches; the test is skipped without it."""
    return _weights("SmolLM2-135M-Instruct")


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """Folder of Gemma 3 270M, a base model with another tokenizer and a sliding window."""
    return _weights("gemma-3-270m")


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """Python of an environment with vLLM, which `make vllm` makes; the test is skipped without one."""
    python = os.environ.get("VIVA_VLLM_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("no Python with vLLM: `make vllm`, and VIVA_VLLM_PYTHON=.venv-vllm/bin/python")
    return str(Path(python).absolute())


def _weights(name: str) -> Path:
    folder = Path(os.environ.get("VIVA_REAL_WEIGHTS", "")) / name
    if not folder.is_dir():
        pytest.skip(f"no {name}: `make weights`, and VIVA_REAL_WEIGHTS=build/weights")
    return folder.absolute()


def _data(name: str) -> Path:
    for folder in (ROOT / "shared", ROOT.parent / "shared"):
        if (folder / "data" / name).is_dir():
            return folder / "data" / name
    pytest.skip(f"no {name} in shared/data beside the checkout")
