"""What vLLM's server says of prompts, from a real model on loopback: /v1/completions with prompt_logprobs, /tokenize.

vLLM itself does not run where the tests do. Requests, answers and refusals have the shapes of its
``entrypoints/openai/completion/protocol.py`` and ``entrypoints/serve/tokenize/protocol.py``; the numbers are the
model's own.
"""

from __future__ import annotations

import json
import threading
from functools import cache
from pathlib import Path
from typing import Any

from tests.listening import Handler, Listening


class VLLMServer(Listening):
    """Serves the model of a folder. ``requests`` holds what was asked of it.

    Args:
        folder: Of the model.
        tokenizer: Of another folder, to serve what it should not.
        max_logprobs: As vLLM's ``--max-logprobs``.
        change: Is given each choice before it is sent, to go wrong on purpose.
    """

    def __init__(
        self, folder: Path, *, tokenizer: Path | None = None, max_logprobs: int = 20, change: Any = lambda choice: None
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer or folder)
        self.max_logprobs, self.change = max_logprobs, change
        self._decoded = cache(lambda i: self.tokenizer.decode([i]))
        self.requests: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        outer = self

        class Asked(Handler):
            def do_POST(self) -> None:
                body = json.loads(self.body())
                with outer._lock:
                    outer.requests.append(body)
                    status, answer = outer._answer(self.path, body)
                self.say(answer, status)

        super().__init__(Asked)

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/tokenize":
            tokens = self.tokenizer(body["prompt"], add_special_tokens=body["add_special_tokens"])["input_ids"]
            limit = self.model.config.max_position_embeddings
            return 200, {"count": len(tokens), "max_model_len": limit, "tokens": tokens, "token_strs": None}
        if path != "/v1/completions":
            return 404, {"detail": "Not Found"}
        wanted = body["prompt_logprobs"]
        if wanted > self.max_logprobs:
            message = f"Requested prompt logprobs of {wanted}, which is greater than max allowed: {self.max_logprobs}"
            return 400, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}
        choice = {
            "index": 0,
            "text": "?",
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
            "prompt_logprobs": self._score(body["prompt"], wanted),
            "prompt_token_ids": body["prompt"] if body.get("return_token_ids") else None,
        }
        self.change(choice)
        size = len(body["prompt"])
        usage = {"prompt_tokens": size, "completion_tokens": 1, "total_tokens": size + 1}
        return 200, {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1,
            "model": body["model"],
            "choices": [choice],
            "usage": usage,
        }

    def _score(self, prompt: list[int], wanted: int) -> list[dict[str, Any] | None]:
        """The token that stands at each place first, then the likeliest; nothing at the first place."""
        import torch

        with torch.inference_mode():
            logp = self.model(torch.tensor([prompt])).logits[0].double().log_softmax(-1)
        entries: list[dict[str, Any] | None] = [None]
        likeliest = logp.topk(min(wanted, logp.shape[1])).indices.tolist()
        for token, row, best in zip(prompt[1:], logp.tolist(), likeliest, strict=False):
            rank = sum(value > row[token] for value in row) + 1
            ranked = {token: rank, **{i: n for n, i in enumerate(best, 1)}}
            entries.append(
                {
                    str(i): {"logprob": max(row[i], -9999.0), "rank": n, "decoded_token": self._decoded(i)}
                    for i, n in ranked.items()
                }
            )
        return entries
