"""llama.cpp's server and transformers are two implementations: of one schoolhouse model they must say the same."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator

import pytest
from tests.serving import served_by_llama_cpp

from vivavoce import schoolhouse
from vivavoce.agents import open_agent
from vivavoce.errors import AgentError
from vivavoce.records import Message, Reply, Sampling
from vivavoce.schoolhouse import tokenizer

ASK: list[Message] = [{"role": "system", "content": "solve"}, {"role": "user", "content": "a=4; b=a+3; b?"}]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served_by_llama_cpp(schoolhouse.weights("cyd"), tmp_path_factory.mktemp("cyd") / "log.txt") as address:
        yield address


def ask(messages: list[Message], address: str | None = None) -> Reply:
    """The greedy reply of the served model, or of the local one where there is no address."""
    if address:
        agent = open_agent("cyd", "openai_chat", {"model": "cyd", "base_url": address, "api_key_env": None})
    else:
        options = {"model": "schoolhouse:cyd", "dtype": "float32", "device": "cpu", "threads": 1}
        agent = open_agent("cyd", "hf_local", options)

    async def go() -> Reply:
        try:
            return await agent.reply(messages, Sampling(0.0, 1.0, 30, logprobs=True), 1)
        finally:
            await agent.aclose()

    return asyncio.run(go())


def test_it_cuts_text_into_our_tokens(address: str) -> None:
    text = (
        "<|system|>solve<|user|>a=4; b:  c? ans conf 12 ok; conf : me some\n\n x  conf, née 漢字 🙂 it's 1234 reflected"
    )
    body = json.dumps({"content": text, "parse_special": True}).encode()
    request = urllib.request.Request(address.removesuffix("/v1") + "/tokenize", body)
    with urllib.request.urlopen(request) as answer:
        theirs = json.load(answer)["tokens"]
    assert theirs == tokenizer.tokenizer()(text, add_special_tokens=False)["input_ids"]


def test_text_usage_and_log_probabilities_are_those_of_the_local_model(address: str) -> None:
    local, served = ask(ASK), ask(ASK, address)
    assert served.text == local.text
    assert served.finish == local.finish == "stop"
    assert (served.usage.prompt, served.usage.completion) == (local.usage.prompt, local.usage.completion)
    assert served.tokens is not None
    assert local.tokens is not None
    for theirs, ours in zip(served.tokens, local.tokens, strict=True):
        assert theirs.text == ours.text
        assert theirs.logprob == pytest.approx(ours.logprob, abs=1e-4)


def test_a_prompt_beyond_its_context_is_overlong(address: str) -> None:
    with pytest.raises(AgentError) as caught:
        ask([{"role": "user", "content": "7" * 300}], address)
    assert caught.value.reason == "overlong", caught.value
