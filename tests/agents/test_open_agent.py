"""Finding a backend by name or path, and saying what is wrong with its options."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from vivavoce import plugins
from vivavoce.agents import Agent, open_agent
from vivavoce.errors import MissingKey, RecipeError
from vivavoce.records import Sampling


def test_the_backends_are_the_files_that_define_agent() -> None:
    assert {"hf_local", "openai_chat", "scripted"} <= set(plugins.names("agents"))
    assert not {"journal", "decode", "detokenise", "weights"} & set(plugins.names("agents"))


def test_an_unknown_backend_names_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean `hf_local`") as caught:
        open_agent("ada", "hf_lokal", {})
    assert "openai_chat" in caught.value.do
    assert "ada" in caught.value.where


def test_an_unknown_option_names_the_nearest_and_shows_no_value() -> None:
    with pytest.raises(RecipeError, match=r"unknown key `timeout`, did you mean `timeout_s`\?") as caught:
        open_agent("ada", "openai_chat", {"model": "m", "timeout": "sk-secret"})
    assert "sk-secret" not in str(caught.value)
    with pytest.raises(RecipeError, match="max_retries"):
        open_agent("ada", "openai_chat", {"model": "m", "max_retries": -1})
    with pytest.raises(RecipeError, match="either `replies` or `function`"):
        open_agent("ada", "scripted", {})


@pytest.mark.parametrize(
    "url",
    ["localhost:11434", "ftp://h/v1", "http://", "http://[::1/v1", "http://h:99999/v1", "http://h:1 /v1", "http://h:x"],
)
def test_what_is_no_address_is_told_before_anything_is_asked(url: str) -> None:
    with pytest.raises(RecipeError, match="the address is not one of HTTP") as caught:
        open_agent("ada", "openai_chat", {"model": "m", "base_url": url, "api_key_env": None})
    assert "base_url: https://" in caught.value.do


@pytest.mark.parametrize(("key", "sign"), [("sk-…abc", "U+2026"), ("sk-a\nbc", "U+000A"), ('"sk-abc"', "U+0022")])
def test_a_key_that_was_copied_with_other_signs_is_told_without_it(
    key: str, sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", key)
    for backend in ("openai_chat", "anthropic_messages"):
        with pytest.raises(MissingKey, match="a sign that no API key has") as caught:
            open_agent("ada", backend, {"model": "m", "api_key_env": "TEST_KEY"})
        assert sign in caught.value.what
        assert key not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-abcdefgh12345678", "hf_Ab1" + "c" * 20, "MY KEY", ""])
@pytest.mark.parametrize("backend", ["openai_chat", "anthropic_messages", "vllm"])
def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated(backend: str, key: str) -> None:
    with pytest.raises(RecipeError, match="must be the name of an environment variable") as caught:
        open_agent("ada", backend, {"model": "m", "api_key_env": key})
    assert not key or key not in str(caught.value)


def test_a_path_to_a_python_file_is_a_backend(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from pydantic import BaseModel, ConfigDict\n"
        "from vivavoce.agents.scripted import Scripted\n"
        "class Options(BaseModel):\n"
        "    model_config = ConfigDict(extra='forbid')\n"
        "    words: list[str]\n"
        "def agent(name, options):\n"
        "    return Scripted(name, lambda *_: ' '.join(options.words))\n"
    )
    agent = open_agent("ada", str(file), {"words": ["a", "b"]})
    assert isinstance(agent, Agent)
    assert asyncio.run(agent.reply([], Sampling(), 1)).text == "a b"
    with pytest.raises(RecipeError, match="unknown key `word`"):
        open_agent("ada", str(file), {"word": []})
    with pytest.raises(RecipeError, match="there is no file"):
        open_agent("ada", str(tmp_path / "other.py"), {})
    file.write_text("Options = None\n")
    with pytest.raises(RecipeError, match="no function `agent`"):
        open_agent("ada", str(file), {})


def test_opening_agents_imports_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys, vivavoce.agents, vivavoce.agents.journal, vivavoce.agents.scripted\n"
        "heavy = {'torch', 'transformers', 'aiohttp', 'huggingface_hub'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "vivavoce.agents.open_agent('a', 'hf_local', {'model': sys.argv[1]})\n"
        "vivavoce.agents.open_agent('b', 'openai_chat', {'model': 'm', 'api_key_env': None})\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
