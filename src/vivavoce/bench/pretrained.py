"""Local generation with a real model against what people use: transformers' `generate`, llama.cpp's server and vLLM.

The same short questions are asked at once, greedy, with the same limit of new tokens. Every side stops at its end of
turn, and is measured in tokens a second that it drew. Each is warmed up first. Then ours runs once more beside two
processes that do nothing but compute: `busy_share` is the rest of its rate. vLLM and llama.cpp are left out, with a
note, if they are not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from vivavoce.agents import engine_probes, engines, weights
from vivavoce.agents.attached import Attached
from vivavoce.agents.batch import TokenPrompt
from vivavoce.agents.decode import Decoder
from vivavoce.agents.engines import Serve
from vivavoce.agents.rendering import rendering
from vivavoce.errors import AgentUnusable, RecipeError
from vivavoce.progress import say
from vivavoce.records import Message, Sampling

_PADDED = 24
"""Rows of a batch of `generate`: the fastest of those tried on two cores."""
_LLAMA = """
import sys, threading, xllamacpp as x
p = x.CommonParams()
p.model.path, p.hostnames, p.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
p.n_ctx, p.n_parallel = 16 * 512, 16
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(sys.argv[3])
server = x.Server(p)
threading.Event().wait()
"""
_LOOP = "while True: pass"
T = TypeVar("T")


def run(folder: Path, questions: int = 48, new: int = 96, vllm_python: str | None = None) -> dict[str, Any]:
    """Measure all sides on the model in ``folder``; tokens a second, and ratios of ours to each of the others.

    ``vllm_python`` is the Python of an environment with vLLM. Raises RecipeError if there is no model.
    """
    if not (folder / "config.json").is_file():
        raise RecipeError("there are no such weights", str(folder), "`make weights` fetches them")
    say(f"loading {folder.name}")
    model, tokenizer = weights.load(folder, "bfloat16", "cpu", False)
    form = rendering(tokenizer)
    conversations: list[list[Message]] = [
        [
            {
                "role": "user",
                "content": f"Ada has {3 * i + 5} pens, gives away {i} and buys {i + 2}. How many has she now?",
            }
        ]
        for i in range(questions)
    ]
    sampling = Sampling(0.0, max_new_tokens=new)
    prompts = [TokenPrompt(form.prompt_ids(m), sampling, i) for i, m in enumerate(conversations)]
    decoder = Decoder(model, tokenizer)

    def ours(asked_prompts: Sequence[TokenPrompt]) -> int:
        return sum(map(len, decoder.draw(asked_prompts)))

    rates: dict[str, float | None] = {"ours": _rate("ours", ours, prompts)}
    with _busy():
        rates["ours_busy"] = _rate("ours beside two busy processes", ours, prompts)
    rates["generate"] = _rate(
        f"generate in batches of {_PADDED}", lambda asked_prompts: _by_generate(model, decoder, asked_prompts), prompts
    )
    rates["llama"] = _llama(folder, conversations, new)
    rates["vllm"] = _vllm(folder, prompts, form.closing[-1], vllm_python)
    own = rates["ours"] or 0.0

    def ratio(name: str) -> float | None:
        return own / other if (other := rates[name]) else None

    return {
        "model": folder.name,
        "threads": torch.get_num_threads(),
        "tokens_per_second": rates,
        "busy_share": (rates["ours_busy"] or 0.0) / own,
        **{f"ratio_{name}": ratio(name) for name in ("generate", "llama", "vllm")},
    }


def _rate(what: str, one: Callable[[Sequence[T]], int], questions: Sequence[T]) -> float:
    """Tokens a second of one side, which answers ``questions`` and tells how many tokens it drew."""
    say(f"measuring {what}: {len(questions)} questions")
    one(questions[:4])  # warm-up
    begun = time.perf_counter()
    drawn = one(questions)
    seconds = time.perf_counter() - begun
    say(f"  {drawn:,} tokens in {seconds:.1f} s: {drawn / seconds:.0f} a second")
    return drawn / seconds


@torch.inference_mode()
def _by_generate(model: Any, decoder: Decoder, prompts: Sequence[TokenPrompt]) -> int:
    """Tokens that `generate` draws, rows sorted by length."""
    drawn, ordered = 0, sorted(prompts, key=lambda p: len(p.ids))
    for first in range(0, len(ordered), _PADDED):
        batch = ordered[first : first + _PADDED]
        width = max(len(p.ids) for p in batch)
        ids = torch.tensor([[decoder.eos[0]] * (width - len(p.ids)) + list(p.ids) for p in batch])
        mask = torch.tensor([[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in batch])
        new = batch[0].sampling.max_new_tokens
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=new, do_sample=False, eos_token_id=decoder.eos, pad_token_id=0
        )
        for row in out[:, width:].tolist():
            drawn += next((i + 1 for i, token in enumerate(row) if token in decoder.eos), len(row))
    return drawn


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """Two processes that compute."""
    loops = [subprocess.Popen([sys.executable, "-c", _LOOP]) for _ in range(2)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _llama(folder: Path, prompts: Sequence[Sequence[Message]], new: int) -> float | None:
    """llama.cpp's server on the GGUF file that the weights were made from."""
    file = folder / "origin.gguf"
    if not file.is_file() or subprocess.run([sys.executable, "-c", "import xllamacpp"], capture_output=True).returncode:
        say("llama.cpp is left out: pip install xllamacpp, and `make weights` with its file kept")
        return None
    port = engine_probes.free_port()
    command = [sys.executable, "-c", _LLAMA, str(file), str(port), str(torch.get_num_threads())]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def one(messages: Sequence[Message]) -> int:
        body = {"messages": list(messages), "max_tokens": new, "temperature": 0}
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return int(json.load(answer)["usage"]["completion_tokens"])

    async def all_of(conversations: Sequence[Sequence[Message]]) -> int:
        return sum(await asyncio.gather(*(asyncio.to_thread(one, messages) for messages in conversations)))

    try:
        until = time.monotonic() + 120
        while not engine_probes.healthy(url, 5.0):
            if server.poll() is not None or time.monotonic() > until:
                say("llama.cpp is left out: its server did not start")
                return None
            time.sleep(0.2)
        return _rate("llama.cpp's server", lambda batch: asyncio.run(all_of(batch)), prompts)
    finally:
        server.kill()
        server.wait()


def _vllm(folder: Path, prompts: Sequence[TokenPrompt], end: int, python: str | None) -> float | None:
    """vLLM's server."""
    if python is None:
        say("vLLM is left out: `make vllm`, and --vllm .venv-vllm/bin/python")
        return None
    with tempfile.TemporaryDirectory() as logs:
        serve = Serve(python=python, device="cpu", memory=1, context=1024, logs=logs, start_s=240, float32_head=False)
        say("starting vLLM, which takes a minute")
        try:
            state = engines.engine("bench", serve, folder, dtype="bfloat16").state

            async def all_of(batch: Sequence[TokenPrompt]) -> int:
                async with Attached("bench", serve, state) as attached:
                    calls = (
                        attached.ask(lambda server, p=p: server.draw(p.ids, p.sampling, p.seed, [end])) for p in batch
                    )
                    return sum(len(one.ids) for one in await asyncio.gather(*calls))

            return _rate("vLLM's server", lambda batch: asyncio.run(all_of(batch)), prompts)
        except AgentUnusable as error:
            say(f"vLLM is left out: {error.what.splitlines()[0]}")
            return None
        finally:
            engines.close_all(Path(logs))


__all__ = ["run"]
