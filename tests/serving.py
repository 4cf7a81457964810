"""A tiny random model in an ordinary folder, and the same model behind a real HTTP server."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    command = [program, "serve", folder, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + 900  # the imports alone take a while on a busy machine
        while not _healthy(port):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"transformers serve did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def _healthy(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        return answer.status == 200
    return False
