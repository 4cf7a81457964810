"""A small engine on loopback: vLLM's and SGLang's requests in tokens, answered by a real model of this package.

It is run as a process of its own, so that it can be killed: ``python tests/engine_server.py --model DIR --port P``,
with vLLM's other flags, which it does not read. Adapters are loaded while it serves, and weights are replaced. In its
environment::

    STANDIN_TOY       answer with tokens that are a function of prompt and seed: no model is loaded, it is ready at once
    STANDIN_DEADLY    a prompt that begins with this token ends the engine, as a request with a seed may end vLLM
    STANDIN_FAILING   a prompt that begins with this token is answered with status 500
    STANDIN_SLOW_S    seconds that an answer takes
    STANDIN_STALE     say that weights were taken, and go on with the old ones
"""

from __future__ import annotations

import argparse
import json
import os
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivavoce.agents.decode import Decoder


class Engine:
    """The model, its adapters, and what is asked of them."""

    def __init__(self, model: Path, name: str, context: int, lora: bool) -> None:
        self.name, self.context, self.lora = name, context, lora
        self.deadly = int(os.environ.get("STANDIN_DEADLY", "-1"))
        self.failing = int(os.environ.get("STANDIN_FAILING", "-1"))
        self.slow_s = float(os.environ.get("STANDIN_SLOW_S", "0"))
        self.stale = bool(os.environ.get("STANDIN_STALE"))
        self.lock = threading.Lock()
        self.toy = bool(os.environ.get("STANDIN_TOY"))
        self.decoders: dict[str, Any] = {name: None if self.toy else self._decoder(model)}

    def _decoder(self, folder: Path) -> Decoder:
        import torch

        from vivavoce.agents import weights
        from vivavoce.agents.decode import Decoder

        torch.set_num_threads(1)
        model, tokenizer = weights.load(folder, "auto", "cpu", False)
        return Decoder(model, tokenizer)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and content."""
        if path in ("/v1/load_lora_adapter", "/load_lora_adapter"):
            if not self.lora:
                return 404, {"detail": "Not Found"}
            if body["lora_name"] in self.decoders:
                return 400, {"error": {"message": f"The lora adapter '{body['lora_name']}' has already been loaded."}}
            with self.lock:
                base = self.decoders[self.name]
                fresh = base if self.stale else self._decoder(Path(body["lora_path"]))
                self.decoders[body["lora_name"]] = fresh
            return 200, "Success"
        if path in ("/v1/unload_lora_adapter", "/unload_lora_adapter"):
            return (200, "Success") if self.decoders.pop(body["lora_name"], None) else (404, {"detail": "not found"})
        if path in ("/collective_rpc", "/update_weights_from_disk"):
            folder = Path(body.get("model_path") or body["kwargs"]["weights_path"])
            with self.lock:
                if not self.stale:
                    self.decoders[self.name] = self._replaced(folder)
            return 200, {"success": True, "message": "done"}
        if path == "/reset_prefix_cache":
            return 200, {}
        if (body.get("prompt") or body.get("input_ids") or [0])[0] == self.failing:
            return 500, {"error": {"message": "CUDA error", "type": "InternalServerError"}}
        model = body.get("model") or body.get("lora_path") or self.name
        if model not in self.decoders:
            return 404, {"error": {"message": f"The model `{model}` does not exist.", "type": "NotFoundError"}}
        with self.lock:
            if "prompt_logprobs" in body:
                return 200, self._scored(self.decoders[model], body)
            return 200, self._drawn(self.decoders[model], body, path == "/generate")

    def _replaced(self, folder: Path) -> Decoder:
        """The engine's own tokenizer with the weights of another folder."""
        from transformers import AutoModelForCausalLM

        from vivavoce.agents.decode import Decoder

        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        return Decoder(model.eval(), self.decoders[self.name].tokenizer)

    def _drawn(self, decoder: Decoder, body: dict[str, Any], sglang: bool) -> dict[str, Any]:
        how = body["sampling_params"] if sglang else body
        prompt = body["input_ids"] if sglang else body["prompt"]
        if prompt[0] == self.deadly:
            os._exit(7)
        time.sleep(self.slow_s)
        new = how["max_new_tokens" if sglang else "max_tokens"]
        seed = how["sampling_seed" if sglang else "seed"]
        if self.toy:
            rng = random.Random(f"{prompt} {seed}")
            ids, logprobs = [rng.randrange(10, 60) for _ in range(new)], [-1.0] * new
        else:
            ids, logprobs = self._decoded(decoder, prompt, how, new, seed)
        why = "stop" if ids[-1] in how["stop_token_ids"] or how["stop"] else "length"
        if sglang:
            listed = [[value, token, None] for token, value in zip(ids, logprobs, strict=True)]
            meta = {"finish_reason": {"type": why}, "output_token_logprobs": listed}
            return {"text": "", "output_ids": ids, "meta_info": meta}
        choice = {"finish_reason": why, "token_ids": ids, "logprobs": {"token_logprobs": logprobs}, "text": ""}
        return {"id": "cmpl-1", "model": body["model"], "choices": [choice]}

    def _decoded(
        self, decoder: Decoder, prompt: list[int], how: dict[str, Any], new: int, seed: int
    ) -> tuple[list[int], list[float]]:
        from vivavoce.agents.batch import TokenPrompt
        from vivavoce.records import Sampling

        drawn = {"top_k": max(0, how["top_k"]), "repetition_penalty": how["repetition_penalty"]}
        sampling = Sampling(how["temperature"], how["top_p"], new, tuple(how["stop"]), logprobs=True, **drawn)
        entries: list[tuple[list[int], list[float]]] = []
        waiting = [[TokenPrompt(prompt, sampling, seed)]]
        decoder.stream(
            lambda _: waiting.pop() if waiting else (), lambda _, ids, logprobs: entries.append((ids, logprobs))
        )
        return entries[0]

    def _scored(self, decoder: Decoder, body: dict[str, Any]) -> dict[str, Any]:
        import torch

        prompt, wanted = body["prompt"], body["prompt_logprobs"]
        with torch.inference_mode():
            logp = decoder.model(torch.tensor([prompt])).logits[0].float().log_softmax(-1)
        prompt_logprobs: list[Any] = [None]
        for token, row in zip(prompt[1:], logp[:-1], strict=True):
            named = {token, *row.topk(min(wanted, len(row))).indices.tolist()}
            prompt_logprobs.append({str(i): {"logprob": max(float(row[i]), -9999.0), "rank": 1} for i in named})
        return {
            "choices": [{"prompt_logprobs": prompt_logprobs, "prompt_token_ids": prompt, "finish_reason": "length"}]
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--served-model-name", default="model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-model-len", type=int, default=512)
    parser.add_argument("--enable-lora", action="store_true")
    given, _ = parser.parse_known_args()
    engine = Engine(given.model, given.served_model_name, given.max_model_len, given.enable_lora)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            listed = [{"id": engine.name, "max_model_len": engine.context}]
            pages = {
                "/health": {},
                "/v1/models": {"data": listed},
                "/get_model_info": {"context_length": engine.context},
            }
            self._say(200 if self.path in pages else 404, pages.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/tokenize":
                ids = engine.decoders[engine.name].tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
                self._say(200, {"tokens": ids, "max_model_len": engine.context})
                return
            self._say(*engine.answer(self.path, body))

        def _say(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 256

    Server(("127.0.0.1", given.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
