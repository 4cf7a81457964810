"""A vLLM server that answers, and that scores: its model may debate, and score the student's tokens.

It answers as every endpoint of the OpenAI protocol does. Scoring is its own extension of the completions endpoint::

    POST /completions   prompt: [context, answer] in token ids, prompt_logprobs: k, max_tokens: 1
    answer              per position the k likeliest tokens and the one that stands there, with log-probabilities

Source: ``vllm/entrypoints/openai/completion/protocol.py`` of vLLM. Start it with ``--max-logprobs K`` for more than its
20. It computes the scores of its prefix cache again, so a long transcript costs its prefill once for every answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import Field

from vivavoce.agents import openai_chat
from vivavoce.agents.endpoint import Endpoint, address_and_key
from vivavoce.agents.faults import short
from vivavoce.agents.openai_chat import OpenAIChat
from vivavoce.agents.variables import Variable
from vivavoce.errors import AgentError

_HERE = "http://localhost:8000/v1"


class Options(openai_chat.Options):
    """The server and model, and the settings of its scores."""

    preset: openai_chat.Preset | None = "vllm"
    """The server whose address and peculiarities are known."""
    api_key_env: Variable | None = None
    """Name of the environment variable with the key; null for a server that needs none."""
    tokenizer: str = ""
    """Folder or hub id of the model's tokenizer and chat template; empty: the value of ``model``. Scoring needs it."""
    revision: str | None = None
    """Branch, tag or commit of that hub id."""
    top_logprobs: int = Field(default=20, ge=1)
    """Likeliest tokens that are asked for at every position; at most the server's ``--max-logprobs``."""
    chat_template_kwargs: dict[str, Any] = Field(default={})
    """Further arguments of the model's chat template, for example ``enable_thinking: false``; part of the identity."""


class Position(NamedTuple):
    """The model's scores of one place of a prompt: token ids, and their log-probabilities in nats."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


class VLLM(OpenAIChat):
    """The agent, with :meth:`score` and :meth:`tokens` for training."""

    def __init__(self, name: str, options: Options, base_url: str, key: str | None) -> None:
        extra = {"chat_template_kwargs": options.chat_template_kwargs} if options.chat_template_kwargs else {}
        with_flags = options.model_copy(update={"extra_body": {**extra, **options.extra_body}})
        super().__init__(name, with_flags, base_url, key)
        self._top = options.top_logprobs
        root = base_url.rstrip("/").removesuffix("/v1")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._root = Endpoint(name, options, root, headers, key)

    async def score(self, prompt: Sequence[int], start: int) -> list[Position]:
        """The model's scores of every token of ``prompt`` from ``start`` on, in order; ``start`` is at least 1.

        Each position holds its own token and the likeliest ones. Raises AgentError ``malformed`` if there are not N
        positions for N tokens, or one lacks its token; otherwise as :meth:`Endpoint.fetch`.
        """
        answer = await self._post(
            self._endpoint,
            "/completions",
            {
                "prompt": list(prompt),
                "prompt_logprobs": self._top,
                "return_token_ids": True,
                "add_special_tokens": False,
                # a server may be told to report what is left after these
                "temperature": 1.0,
                "top_p": 1.0,
                "top_k": 0,
                "max_tokens": 1,
            },
        )
        try:
            choice = answer["choices"][0]
            positions, echoed = choice.get("prompt_logprobs"), choice.get("prompt_token_ids")
            if positions is None:
                raise AgentError("bad_request", "the server gives no prompt_logprobs")
            if len(positions) != len(prompt) or (echoed is not None and list(echoed) != list(prompt)):
                raise AgentError("malformed", f"{len(positions)} prompt_logprobs for a prompt of {len(prompt)} tokens")
            parsed = [_position(entry) for entry in positions[start:]]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise AgentError("malformed", short(f"{type(error).__name__}: {error} in prompt_logprobs")) from None
        for token, position in zip(prompt[start:], parsed, strict=True):
            if token not in position.ids:
                raise AgentError("malformed", f"prompt_logprobs leave out token {token}, which stands there")
        return parsed

    async def tokens(self, text: str) -> tuple[list[int], int | None]:
        """The server's own tokens of a text, nothing added, and the number of tokens that its model takes."""
        answer = await self._post(self._root, "/tokenize", {"prompt": text, "add_special_tokens": False})
        try:
            return [int(token) for token in answer["tokens"]], answer.get("max_model_len")
        except (LookupError, TypeError, ValueError) as error:
            raise AgentError("malformed", f"{type(error).__name__} in the answer of /tokenize") from None

    async def aclose(self) -> None:
        """Close the connections. A later call opens new ones."""
        await super().aclose()
        await self._root.aclose()

    async def _post(self, endpoint: Endpoint, path: str, body: dict[str, Any]) -> Any:
        data = json.dumps({"model": self.options.model, **body}).encode()
        reply = await endpoint.fetch("POST", path, data)
        try:
            return json.loads(reply)
        except (ValueError, RecursionError):
            raise AgentError("malformed", short(f"no JSON: {reply[:200]!r}")) from None


def _position(entry: Any) -> Position:
    """One entry, ``{"17": {"logprob": -0.1, …}, …}``. vLLM writes -9999 if the probability is 0."""
    ids = tuple(int(token) for token in entry)
    values = tuple(float(token["logprob"]) for token in entry.values())
    if any(math.isnan(value) or value > 1e-3 for value in values):
        raise ValueError(f"{max(values)} is no log-probability")
    return Position(ids, values)


unsent = openai_chat.unsent


def agent(name: str, options: Options) -> VLLM:
    """Make the agent. Raises MissingKey, RecipeError or MissingDependency, see
    :func:`vivavoce.agents.endpoint.address_and_key`."""
    base_url, key = address_and_key(options, _HERE, f"agent {name!r}")
    return VLLM(name, options, base_url, key)
