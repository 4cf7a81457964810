"""Agents under test: a tiny random model in a folder, the same model behind real servers, and a server that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agents.faulty import FaultyServer
from tests.serving import save_tiny_model, served, served_by_llama_cpp


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of context 256 whose weights are large enough for its replies to differ."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny_model"), context=256, initializer_range=0.2)


@pytest.fixture(scope="session")
def served_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of ``transformers serve`` with the tiny model."""
    with served(tiny_model, tmp_path_factory.mktemp("serve") / "log.txt") as address:
        yield address


@pytest.fixture(scope="session")
def llama_cpp(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of llama.cpp's server with the tiny model."""
    with served_by_llama_cpp(tiny_model, tmp_path_factory.mktemp("llama_cpp") / "log.txt") as address:
        yield address


@pytest.fixture
def faulty() -> Iterator[FaultyServer]:
    """A server on loopback that goes wrong as it is told to."""
    with FaultyServer() as server:
        yield server
