"""llama.cpp's own HTTP server in a process of its own, until it is killed. Four slots of 256 tokens."""

from __future__ import annotations

import argparse
import threading
from typing import Any

import xllamacpp

llama_cpp: Any = xllamacpp  # a compiled module, which tells type checkers nothing

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    params = llama_cpp.CommonParams()
    params.model.path = given.model
    params.hostnames, params.port = ["127.0.0.1"], given.port
    params.n_ctx, params.n_parallel = 4 * 256, 4
    # all in float32, as the local model has it
    params.cache_type_k = params.cache_type_v = llama_cpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = llama_cpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = llama_cpp.Server(params)
    threading.Event().wait()
