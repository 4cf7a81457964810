"""Keys stay where they belong, what models write is never obeyed, and nothing is run that the recipe does not name."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.agents.faulty import FaultyServer, completion
from tests.agents.providers import Providers, Redirect, message
from tests.report.whole_run import HOSTILE

from vivavoce.agents import open_agent
from vivavoce.config import load_recipe
from vivavoce.errors import AgentError, RecipeError
from vivavoce.graph.packed import unpack
from vivavoce.records import Sampling

KEYS = {"OPENAI_TEST_KEY": 'sk-open/+ai "quoted"-0123456789', "ANTHROPIC_TEST_KEY": "sk-ant-0123456789-abcdef"}
SOURCE = Path(__file__).parent.parent / "src" / "vivavoce"


class Echo(FaultyServer):
    """A server that repeats the key that it was sent, wherever it can: in answers, errors, headers, broken bodies.

    ``seen`` holds the command lines of all processes, as they were at each request.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key, self.seen = key, set[bytes]()

    def step(self, body: dict[str, Any]) -> str | dict[str, Any]:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.seen.add(process.read_bytes())
            except OSError:
                continue  # it has ended
        text = f"My key is {self.key}. {HOSTILE} The answer is 1."
        if body["messages"][-1]["content"] == "crash":
            return f"error=401,invalid_api_key,no such key: {self.key}"
        kinds = [
            completion(text) if "top_p" in body else message(text),
            f"error=400,{self.key[:9]}x,wrong key {'.' * 250}{self.key} is wrong",
            f"busy={self.key}",
            f"body={{oops {self.key}",
            f"body={json.dumps(self.key)}",
            f"body={json.dumps([self.key]).replace('/', chr(92) + '/')}",
        ]
        return kinds[len(self.requests) % len(kinds)]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, set[bytes]]]:
    """A run's folder, all that it said, and the command lines of all processes meanwhile."""
    folder = tmp_path_factory.mktemp("keyed")
    with Echo(KEYS["OPENAI_TEST_KEY"]) as one, Echo(KEYS["ANTHROPIC_TEST_KEY"]) as two:
        shared = {"model": "m", "backoff_s": 0.01, "max_retries": 3}
        recipe = {
            "method": "debate_reflect",
            "task": {"name": "schoolhouse", "train": 4, "test": 4},
            "teachers": [
                {"name": "a", "backend": "openai_chat", "base_url": one.base_url, "api_key_env": "OPENAI_TEST_KEY"}
                | shared,
                {"name": "b", "backend": "anthropic_messages", "api_key_env": "ANTHROPIC_TEST_KEY"}
                | shared
                | {"base_url": two.base_url.removesuffix("/v1")},
            ],
            "student": {"name": "s", "model": "schoolhouse:stu"},
        }
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        run = subprocess.run(
            [sys.executable, "-m", "tests.keyed_run", str(folder / "recipe.yaml"), str(folder / "run")],
            env={**os.environ, **KEYS, "ANTHROPIC_LOG": "debug"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "RuntimeError" in run.stderr, run.stderr[-3000:]
        yield folder / "run", run.stdout + run.stderr, one.seen | two.seen


def spellings(key: str) -> set[bytes]:
    """A key as files may hold it."""
    return {
        key.encode(),
        json.dumps(key)[1:-1].encode(),
        json.dumps(key)[1:-1].replace("/", "\\/").encode(),
        repr(key)[1:-1].encode(),
        base64.b64encode(key.encode()),
        key[2:-2].encode(),
    }


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_in_no_file_of_a_run_though_the_server_repeats_it(
    watched: tuple[Path, str, set[bytes]], name: str
) -> None:
    files = {path.relative_to(watched[0]).as_posix(): path for path in watched[0].rglob("*") if path.is_file()}
    assert {"journal.sqlite", "graphs/train.jsonl.gz", "report.html", "recipe.yaml", "manifest.json"} <= files.keys()
    contents = {file: unpack(path.read_bytes(), file) for file, path in files.items()}
    assert b"My key is ***" in contents["graphs/train.jsonl.gz"], "it was repeated, and taken out"
    for file, content in contents.items():
        assert not [s for s in spellings(KEYS[name]) if s in content], file


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_in_no_log_or_traceback_at_any_level(watched: tuple[Path, str, set[bytes]], name: str) -> None:
    log = watched[1].encode()
    assert b"DEBUG" in log
    assert b"auth" in log, "the failure is told"
    assert not [s for s in spellings(KEYS[name]) if s in log]


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_on_no_command_line(watched: tuple[Path, str, set[bytes]], name: str) -> None:
    assert any(b"tests.keyed_run" in line for line in watched[2])
    assert not any(KEYS[name].encode() in line for line in watched[2])


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("backend", ["openai_chat", "anthropic_messages"])
def test_no_prompt_follows_a_redirect(backend: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_TEST_KEY", KEYS["OPENAI_TEST_KEY"])
    with FaultyServer() as here, FaultyServer() as elsewhere:
        here.script = [f"redirect={status},{elsewhere.base_url}/chat/completions"] * 9
        options = {"model": "m", "base_url": here.base_url, "api_key_env": "OPENAI_TEST_KEY", "backoff_s": 0.01}
        agent = open_agent("a", backend, options)

        async def go() -> None:
            try:
                await agent.reply([{"role": "user", "content": "secret"}], Sampling(), 1)
            finally:
                await agent.aclose()

        with pytest.raises(AgentError, match=f"HTTP {status}"):
            asyncio.run(go())
        assert not elsewhere.requests


def test_no_key_follows_a_redirect_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of results may lie elsewhere; who keeps it is not told the key."""
    monkeypatch.setenv("OPENAI_TEST_KEY", KEYS["OPENAI_TEST_KEY"])
    with Providers() as here, Providers() as elsewhere:

        def move(what: str) -> None:
            raise Redirect(f"{elsewhere.address}/v1/files/file-1/content")

        here.before = move
        options: Any = {"model": "m", "base_url": f"{here.address}/v1", "api_key_env": "OPENAI_TEST_KEY"}
        agent: Any = open_agent("a", "openai_chat", {**options, "batch": {}, "max_retries": 0})

        async def go() -> None:
            try:
                await agent.results("batch_1")
            finally:
                await agent.aclose()

        with pytest.raises(AgentError):
            asyncio.run(go())
        assert elsewhere.asked
        assert KEYS["OPENAI_TEST_KEY"] not in str(elsewhere.headers)


def test_what_a_model_wrote_is_text_in_the_report(watched: tuple[Path, str, set[bytes]]) -> None:
    page = (watched[0] / "report.html").read_text("utf-8")
    assert "\\u003cscript>alert(1)" in page, "it is there, and ends no element"
    assert page.count("<script") == 2, "the questions, and what shows them"
    for bad in ("<img src=x", "\x1b", "\u202e", "<!-- http"):
        assert bad not in page
    near = page.split("My key is", 1)[1][:400]
    assert not re.search(r"(?<![0-9a-f])49(?![0-9a-f])", near), "no template runs; an id may hold these digits"


@pytest.mark.parametrize(
    "text",
    [
        "task: !!python/object/apply:os.system ['touch HERE']",
        "task: !!python/name:os.system",
        "task: !!python/object/new:subprocess.Popen [[touch, HERE]]",
        "task: !run {name: gsm8k}",
    ],
)
def test_yaml_makes_no_objects_and_runs_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace("HERE", str(tmp_path / "made")))
    with pytest.raises(RecipeError):
        load_recipe(path)
    with pytest.raises(RecipeError):
        load_recipe(Path("recipes/schoolhouse/demo.yaml"), [text.replace("HERE", str(tmp_path)).replace(": ", "=", 1)])
    assert not (tmp_path / "made").exists()


@pytest.fixture
def trap(tmp_path: Path) -> tuple[Path, Path]:
    """A model folder whose code of its own leaves a mark when it is run, and that mark."""
    mark, folder = tmp_path / "mark", tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "trap",
                "architectures": ["TrapModel"],
                "auto_map": {"AutoConfig": "trap.TrapConfig", "AutoModelForCausalLM": "trap.TrapModel"},
            }
        )
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Trap", "auto_map": {"AutoTokenizer": ["trap.Trap", None]}})
    )
    code = "from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizer\n"
    code += f"open({str(mark)!r}, 'w').close()\n"
    code += "class TrapConfig(PretrainedConfig):\n    model_type = 'trap'\n"
    code += "class TrapModel(PreTrainedModel):\n    config_class = TrapConfig\n"
    code += "class Trap(PreTrainedTokenizer):\n    pass\n"
    (folder / "trap.py").write_text(code)
    return folder, mark


@pytest.mark.parametrize("trusted", [False, True])
def test_code_that_comes_with_a_model_runs_only_where_the_recipe_says_so(
    trap: tuple[Path, Path], trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vivavoce.agents import weights

    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, mark = trap
    with pytest.raises((ValueError, OSError, RuntimeError, TypeError, AttributeError, ImportError, RecipeError)):
        weights.load(folder, "float32", "cpu", trusted)
    assert mark.exists() == trusted


def test_every_loader_says_whether_it_trusts_and_none_does_by_itself() -> None:
    for path in SOURCE.rglob("*.py"):
        text = path.read_text("utf-8")
        assert "trust_remote_code=True" not in text, path
        assert "trust_remote_code: bool = True" not in text, path
    from vivavoce.agents import hf_local
    from vivavoce.train.objective import Scorer

    assert hf_local.Options(model="m").trust_remote_code is False
    assert Scorer(name="s").trust_remote_code is False
