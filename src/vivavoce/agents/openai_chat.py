"""Any endpoint of the OpenAI chat protocol: OpenAI, vLLM, SGLang, llama.cpp, Ollama, OpenRouter and others.

This file has the protocol alone, and a table of providers with their addresses and departures from it. Limits, retries
and faults are those of every endpoint (:mod:`vivavoce.agents.endpoint`).
"""

from __future__ import annotations

import codecs
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from vivavoce.agents.called import call_as_text, with_calls
from vivavoce.agents.chat_template import in_form
from vivavoce.agents.endpoint import Endpoint, EndpointOptions, address_and_key
from vivavoce.agents.faults import Failed, failed_status, failure_inside, refuses_turns, short
from vivavoce.agents.provider_batches import BatchOptions, Request
from vivavoce.agents.reading import NO_MORE, End, end_of, usage_of
from vivavoce.agents.replies import QUOTES, closing_tokens, in_chunks, thought_beside, without_marks
from vivavoce.agents.variables import Variable
from vivavoce.errors import AgentError
from vivavoce.files import lines_in
from vivavoce.records import Message, Reply, Sampling, Token, Usage, digest, storable

_log = logging.getLogger(__name__)
_PLAIN = Sampling()
_URL = "/v1/chat/completions"  # as batches name it, wherever the endpoint is
_MARK = "vivavoce"
_CONTEXT = ("max_model_len", "context_length", "max_context_length", "n_ctx", "n_ctx_train")
_FORMS = ("as_asked", "alternate", "no_system")
_CLOCKS_S = 600.0  # the provider's clock may be so far behind ours

Preset = Literal["openai", "gemini", "mistral", "openrouter", "ollama", "vllm", "sglang", "llama_cpp"]
Later = Literal["top_k", "repetition_penalty"]
_BOTH: dict[Later, str] = {"top_k": "top_k", "repetition_penalty": "repetition_penalty"}
PRESETS: dict[Preset, dict[str, Any]] = {
    # hosted: they limit each model by itself
    "openai": {"base_url": "https://api.openai.com/v1", "api_key_env": "OPENAI_API_KEY", "limits": "model"},
    "gemini": {
        "base_url": "https://generativelanguage.googleapis.com/v1beta/openai",
        "api_key_env": "GEMINI_API_KEY",
        "omit": ("seed",),  # HTTP 400, unknown name
        "limits": "model",
    },
    "mistral": {
        "base_url": "https://api.mistral.ai/v1",
        "api_key_env": "MISTRAL_API_KEY",
        "seed_field": "random_seed",  # HTTP 422 for a field that it does not know
        "limits": "model",
    },
    "openrouter": {
        "base_url": "https://openrouter.ai/api/v1",
        "api_key_env": "OPENROUTER_API_KEY",
        "limits": "model",
        "also_takes": _BOTH,
    },
    # your own servers, at the ports that they choose: the machine is the limit, whichever model it runs
    "ollama": {"base_url": "http://localhost:11434/v1", "api_key_env": None},
    "vllm": {"base_url": "http://localhost:8000/v1", "api_key_env": None, "also_takes": _BOTH},
    "sglang": {"base_url": "http://localhost:30000/v1", "api_key_env": None, "also_takes": _BOTH},
    "llama_cpp": {
        "base_url": "http://localhost:8080/v1",
        "api_key_env": None,
        "also_takes": {"top_k": "top_k", "repetition_penalty": "repeat_penalty"},
    },
}
"""The keys that each preset sets. A key in the recipe overrides it."""


class Options(EndpointOptions):
    """The endpoint and model, and how patient to be."""

    model: str = Field(min_length=1)
    """Name of the model at the endpoint."""
    preset: Preset | None = None
    """A provider or server whose address, key variable and peculiarities are known."""
    api_key_env: Variable | None = "OPENAI_API_KEY"
    """Name of the environment variable with the key; null for a server that needs none."""
    limits: Literal["model", "endpoint"] = "endpoint"
    """Whether agents of different models at one address, with one key, share its limits."""
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The endpoint's name for the bound of new tokens; OpenAI's reasoning models want the second."""
    seed_field: Literal["seed", "random_seed"] = "seed"
    """The endpoint's name for the seed of a reply."""
    omit: tuple[str, ...] = ()
    """Request fields that the endpoint rejects, for example ``temperature`` or ``seed``."""
    also_takes: dict[Later, str] = Field(default={})
    """The endpoint's names for settings of a sampling that the protocol does not have; what is not named is not sent.
    """
    extra_body: dict[str, Any] = Field(default={})
    """Further request fields; they determine replies, so they are part of the agent's identity."""
    native_tools: bool = True
    """Offer tools in the protocol's own form. Set false if the server reads no calls out of its model's replies
    (vLLM without ``--enable-auto-tool-choice``, llama.cpp without ``--jinja``): the prompt then describes the tools.
    """
    turns: Literal["as_asked", "alternate", "no_system"] = "as_asked"
    """The form of messages, for models whose chat template takes no system text or wants turns to alternate.
    ``alternate``: turns of one role that follow each other are put together. ``no_system``: system texts go into the
    user's turn too. After a first refusal because of roles the agent goes on in the next form that is taken; for
    batches the form has to be set.
    """
    opens_thought: bool = False
    """Whether the server's chat template opens a thought in the prompt and leaves it in the content (vLLM without
    ``--reasoning-parser``). A reply then begins inside a thought, and one that never closes it has no answer.
    """
    batch: BatchOptions | None = None
    """Send calls through the provider's Batch API, if it has OpenAI's; null: each by itself."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        anywhere = not (values.get("base_url") or values.get("base_url_env"))
        preset = values.get("preset", cls.model_fields["preset"].default or (anywhere and "openai"))
        known = next((PRESETS[name] for name in PRESETS if name == preset), {})
        return {**{key: value for key, value in known.items() if anywhere or key != "base_url"}, **values}


class OpenAIChat:
    """An agent behind an endpoint.

    Attributes:
        unmetered: Replies that came without usage; their tokens count as 0.
    """

    def __init__(self, name: str, options: Options, base_url: str, key: str | None) -> None:
        self.name, self.options, self.batch = name, options, options.batch
        self.takes_tools = options.native_tools
        self.unmetered = 0
        extra = f":{digest(options.extra_body)[:16]}" if options.extra_body else ""
        opened = ":opens_thought" if options.opens_thought else ""
        turns = "" if options.turns == "as_asked" else f":{options.turns}"
        self.identity = f"openai:{base_url.rstrip('/')}:{options.model}{extra}{opened}{turns}"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        share = options.model if options.limits == "model" else ""
        self._endpoint = Endpoint(name, options, base_url, headers, key, share)
        self._logprobs_refused = self._warned = False
        self._form = _FORMS.index(options.turns)

    def __repr__(self) -> str:
        return f"OpenAIChat({self.name!r}, {self.identity!r})"

    @property
    def attempts(self) -> int:
        """Requests sent so far, retries included."""
        return self._endpoint.attempts

    async def reply(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        """Answer the messages. Raises AgentError for the reasons of :meth:`Endpoint.ask`, and ``empty`` for an empty
        answer.
        """
        reply = await self._ask(messages, sampling, seed)
        if reply is None:  # an endpoint without log-probabilities; most ignore the wish, some reject it
            self._logprobs_refused = True
            reply = await self._ask(messages, sampling, seed)
            assert reply is not None, self.identity
        if reply.usage == Usage():
            self._mark_unmetered()
        return reply

    async def lists_model(self) -> bool | None:
        """Whether the endpoint lists the model, as :class:`vivavoce.agents.reaching.Reachable` has it.

        False too if the list is where the address would be with ``/v1`` behind it: some servers answer calls without.
        """
        endpoint = self._endpoint
        if (listed := await endpoint.list_models("/models")) is not None:
            return not listed.isdisjoint((self.options.model, f"{self.options.model}:latest"))  # as Ollama has it
        return None if await endpoint.list_models("/v1/models") is None else False

    async def context(self) -> int | None:
        """Tokens that prompt and reply may have together, as the endpoint's list of models tells; None: it does not.

        Nothing is paid for it. vLLM and SGLang, OpenRouter, Mistral and llama.cpp each have a name of their own for it.
        """
        try:
            listed = json.loads(await self._endpoint.fetch("GET", "/models"))["data"]
            (entry,) = [m for m in listed if m["id"] == self.options.model]
            facts = {**(entry.get("meta") or {}), **entry}
        except (AgentError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None
        lengths = [facts.get(name) for name in _CONTEXT]
        return next((n for n in lengths if isinstance(n, int) and n > 0), None)

    async def aclose(self) -> None:
        """Close the connections. A later reply opens new ones."""
        await self._endpoint.aclose()

    async def _ask(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply | None:
        """A reply, or None if the request for log-probabilities was rejected."""
        self._warn_of_quotes(messages)
        for form in range(self._form, len(_FORMS)):
            form = max(form, self._form)  # another call may have found out meanwhile
            body = self.body(messages, sampling, seed, form)
            try:
                reply = await self._endpoint.ask("/chat/completions", body, self._read, sampling.max_new_tokens)
            except AgentError as error:
                if error.reason == "bad_request" and "logprobs" in body and "logprob" in error.detail:
                    return None
                if error.reason != "bad_request" or not refuses_turns(error.detail) or form == len(_FORMS) - 1:
                    raise
            else:
                if form > self._form:
                    self._form = form
                    _log.warning("%s accepts messages only in the form %s: see `turns`", self.name, _FORMS[form])
                return reply
        raise AssertionError("the last form returns or raises")

    def body(
        self, messages: Sequence[Message], sampling: Sampling, seed: int, form: int | None = None
    ) -> dict[str, Any]:
        """A call in the form of the endpoint, alone or in a batch. ``form`` is as in :func:`in_form`; None: the
        agent's.
        """
        messages = in_form(messages, self._form if form is None else form)
        wish: dict[str, Any] = {
            "model": self.options.model,
            "messages": with_calls(messages) if sampling.tools else list(messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self.options.token_limit: sampling.max_new_tokens,
            self.options.seed_field: seed,
        }
        for setting, field in self.options.also_takes.items():
            if (value := getattr(sampling, setting)) != getattr(_PLAIN, setting):
                wish[field] = value
        if sampling.stop:
            wish["stop"] = list(sampling.stop)
        if sampling.tools:
            wish["tools"] = [tool.schema() for tool in sampling.tools]
        if sampling.logprobs and not self._logprobs_refused:
            wish["logprobs"] = True
        wish = {field: value for field, value in wish.items() if field not in self.options.omit}
        return {**wish, **self.options.extra_body}

    # --- batches: what provider_batches.py asks for

    async def submit(self, token: str, requests: Sequence[Request]) -> str:
        """Upload the calls, one a line, and make a batch of them; returns its id."""
        lines = [
            {"custom_id": request.key, "method": "POST", "url": _URL, "body": request.body} for request in requests
        ]
        text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
        form = _form({"purpose": "batch"}, f"{token}.jsonl", text.encode("utf-8", "replace"), token)
        headers = {"Content-Type": f"multipart/form-data; boundary={token}"}
        file = json.loads(await self._endpoint.fetch("POST", "/files", form, headers))["id"]
        wish = {"input_file_id": file, "endpoint": _URL, "completion_window": "24h", "metadata": {_MARK: token}}
        made = await self._endpoint.fetch("POST", "/batches", json.dumps(wish).encode(), once=True)
        return str(json.loads(made)["id"])

    async def find(self, token: str, keys: frozenset[str], since: float) -> str | None:
        """The id of the batch that carries the mark, or None."""
        path = "/batches?limit=100"
        while True:
            page = json.loads(await self._endpoint.fetch("GET", path))
            for batch in page["data"]:
                if (batch.get("metadata") or {}).get(_MARK) == token:
                    return str(batch["id"])
            if not page.get("has_more") or page["data"][-1]["created_at"] < since - _CLOCKS_S:
                return None
            path = f"/batches?limit=100&after={page['data'][-1]['id']}"

    async def results(self, batch: str) -> dict[str, Reply | Failed] | Failed | None:
        """The outcome of each call of a batch, or of all; None while it is worked on."""
        now = json.loads(await self._endpoint.fetch("GET", f"/batches/{batch}"))
        if now["status"] == "failed":
            error = ((now.get("errors") or {}).get("data") or [{}])[0]
            full = error.get("code") == "token_limit_exceeded"  # of all batches that wait
            return Failed("bad_request", short(f"{error.get('code')}: {error.get('message')}"), full)
        if now["status"] not in ("completed", "expired", "cancelled"):
            return None
        replies = dict[str, Reply | Failed]()
        for file in (now.get("output_file_id"), now.get("error_file_id")):
            text = await self._endpoint.fetch("GET", f"/files/{file}/content") if file else b""
            rows = [json.loads(line) for line in lines_in(text)]
            replies |= {row["custom_id"]: self._result(row) for row in rows}
        return replies

    def _result(self, row: dict[str, Any]) -> Reply | Failed:
        answer, error = row.get("response"), row.get("error") or {}
        if not answer:  # expired, or cancelled
            return Failed("server", short(f"{error.get('code')}: {error.get('message')}"), True)
        body = json.dumps(answer["body"]).encode()
        if answer["status_code"] >= 400:
            return failed_status(answer["status_code"], body, {})
        return self._endpoint.parse(body, self._read)

    def _read(self, answer: Any) -> Reply | Failed:
        """A reply out of a chat completion, with its thought apart."""
        reply = read(answer, self.options.finish_reasons)
        return without_marks(reply, self.options.opens_thought) if isinstance(reply, Reply) else reply

    def _warn_of_quotes(self, messages: Sequence[Message]) -> None:
        """Say once that a message quotes the mark of a turn, if the server is one that renders templates itself."""
        if self._warned or self.options.limits == "model":
            return
        quote = next((match for m in messages if (match := QUOTES.search(m["content"]))), None)
        if quote is not None:
            self._warned = True
            _log.warning(
                "%s: a message quotes %s. Servers that render chat templates to text (vLLM, SGLang, Ollama) "
                "read it as the mark of a turn; local models (hf_local) and training read it as plain text",
                self.name,
                quote[0],
            )

    def _mark_unmetered(self) -> None:
        self.unmetered += 1
        if self.unmetered == 1:
            _log.warning(
                "%s does not report token usage: caps count the most that each call may use, and tables count 0",
                self.name,
            )


def _form(fields: dict[str, str], name: str, content: bytes, boundary: str) -> bytes:
    """A form with a file, in the encoding of browsers. ``boundary`` must not occur in it."""
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    )
    file = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: application/jsonl'
    return f"{head}--{boundary}\r\n{file}\r\n\r\n".encode() + content + f"\r\n--{boundary}--\r\n".encode()


def read(answer: Any, means: Mapping[str, End] = NO_MORE) -> Reply | Failed:
    """A reply out of a chat completion. Raises the errors that :meth:`Endpoint.ask` expects if it is none.

    ``means`` explains finish reasons that are not known here.
    """
    usage = usage_of(answer)
    if (failed := failure_inside(answer, usage)) is not None:
        return failed
    choice = answer["choices"][0]
    if (failed := failure_inside(choice, usage)) is not None:
        return failed
    message, why = choice["message"], choice.get("finish_reason")
    content, refusal = message.get("content"), message.get("refusal")
    if not isinstance(content, str | list | None):
        raise TypeError(f"content is of type {type(content).__name__}")
    text, beside = in_chunks(content) if isinstance(content, list) else (content or "", "")
    text = "\n".join([*([text] if text else []), *map(call_as_text, message.get("tool_calls") or ())])
    if refusal and not text:
        return Failed("refused", short(str(refusal)), False, usage=usage)
    end = end_of(why, means)
    if not text:
        if end == "filter":
            return Failed("refused", f"by the endpoint's content filter ({why})", False, usage=usage)
        if end == "length":  # a reasoning model that thought until the end would do so again
            return Failed("empty", f"all {usage.completion} new tokens went by without an answer", False, usage=usage)
        return Failed("empty", f"finish_reason {why}", True, usage=usage)
    if isinstance(end, Failed):
        return end._replace(usage=usage)
    if end == "error":
        return Failed("server", f"the reply broke off: finish_reason {why}", True, usage=usage)
    text, thought = storable(text), beside or thought_beside(message)
    return Reply(text, end, usage, str(answer.get("model") or ""), _tokens(choice, text), thought=thought)


def _tokens(choice: Any, text: str) -> tuple[Token, ...] | None:
    """The tokens of a reply; None if the endpoint gives none, or some that do not end in the text."""
    try:
        content = choice["logprobs"]["content"]
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces = [decoder.decode(bytes(t["bytes"])) if t.get("bytes") is not None else t["token"] for t in content]
        values = [float(t["logprob"]) for t in content]
        if content and not (content[-1].get("bytes") or content[-1]["token"]):  # llama.cpp lists the end of turn too
            pieces, values = pieces[:-1], values[:-1]
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
    if not all(map(math.isfinite, values)):
        return None
    return closing_tokens([Token(piece, value) for piece, value in zip(pieces, values, strict=True)], text)


def unsent(options: Options) -> dict[str, str]:
    """Settings of a sampling that are not sent, in the form of :func:`vivavoce.agents.unsent.unsent`."""
    fields = {options.token_limit: "max_new_tokens", options.seed_field: "seed"}
    fields |= {field: setting for setting, field in options.also_takes.items()}
    unnamed = {
        setting: f"add `also_takes: {{{setting}: {field}}}` if the endpoint takes it by that name, as vLLM does"
        for setting, field in _BOTH.items()
        if setting not in options.also_takes and field not in options.extra_body
    }
    return unnamed | {
        fields.get(field, field): f"take `{field}` out of `omit` if the endpoint takes it"
        for field in options.omit
        if field not in options.extra_body
    }


def agent(name: str, options: Options) -> OpenAIChat:
    """Make the agent. Raises MissingKey, RecipeError or MissingDependency, see
    :func:`vivavoce.agents.endpoint.address_and_key`."""
    base_url, key = address_and_key(options, PRESETS["openai"]["base_url"], f"agent {name!r}")
    return OpenAIChat(name, options, base_url, key)
