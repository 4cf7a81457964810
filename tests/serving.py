"""A tiny random model in an ordinary folder, and the same model behind real HTTP servers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest


def save_tiny_model(folder: Path, context: int, initializer_range: float = 0.02) -> Path:
    """A random two-layer Qwen3 of ``context`` positions with the schoolhouse's tokenizer, which spells any text."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from vivavoce.schoolhouse import tokenizer

    words = tokenizer.tokenizer()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=initializer_range,
        pad_token_id=cast(int, words.pad_token_id),
        eos_token_id=words.convert_tokens_to_ids(tokenizer.END),
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@contextlib.contextmanager
def served(folder: Path, log: Path) -> Iterator[str]:
    """Address of ``transformers serve`` with the model of a folder, in a process of its own."""
    program = Path(sys.executable).with_name("transformers")
    with _running(
        "transformers serve", [program, "serve", folder, "--host", "127.0.0.1", "--device", "cpu"], log
    ) as at:
        yield at


@contextlib.contextmanager
def served_by_llama_cpp(folder: Path, log: Path) -> Iterator[str]:
    """Address of llama.cpp's server with the same model, in a process of its own.

    Skips the test where it is not installed: ``pip install xllamacpp gguf`` brings it ready built.
    """
    for package in ("xllamacpp", "gguf"):
        pytest.importorskip(package, reason=f"llama.cpp's server needs {package}: pip install xllamacpp gguf")
    from tests.gguf_model import save_gguf

    file = save_gguf(folder, log.with_name("model.gguf"))
    program = Path(__file__).with_name("llama_server.py")
    with _running("llama.cpp's server", [sys.executable, program, "--model", file], log) as address:
        yield address


@contextlib.contextmanager
def _running(name: str, command: Sequence[str | Path], log: Path) -> Iterator[str]:
    """The API's address of a server that takes ``--port``, once it is healthy; it is killed at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*command, "--port", str(port)], stdout=out, stderr=subprocess.STDOUT, env=environment
        )
    try:
        deadline = time.monotonic() + 900  # the imports alone take a while on a busy machine
        while not _healthy(port):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{name} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def _healthy(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        return answer.status == 200
    return False
