"""Engines that are started for a model, watched over, and asked again when they die."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from tests.command import interpreter
from tests.serving import save_tiny_model

from vivavoce.agents import Agent, engine_probes, engines, open_agent
from vivavoce.agents.attached import Attached, Server
from vivavoce.agents.engines import Serve
from vivavoce.agents.journal import Journal
from vivavoce.agents.reaching import reach
from vivavoce.config import AgentSpec, check_recipe
from vivavoce.errors import AgentError, AgentUnusable, RecipeError
from vivavoce.methods.opening import Agents, Serving
from vivavoce.records import Message, Reply, Sampling

STAND_IN = Path(__file__).parent.parent / "engine_server.py"
GREEDY, DRAWN = Sampling(0.0, max_new_tokens=12), Sampling(1.0, max_new_tokens=12)


def questions(n: int) -> list[list[Message]]:
    return [[{"role": "user", "content": f"What is {i} plus {i + 1}?"}] for i in range(n)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny", 256, 0.3)


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "engines"
    engines.close_all(tmp_path / "engines")


def served(model: Path, logs: Path, name: str = "student", **serve: Any) -> Agent:
    how = {"command": [*interpreter(), str(STAND_IN)], "logs": str(logs), "device": "cpu", **serve}
    return open_agent(name, "hf_local", {"model": str(model), "dtype": "float32", "serve": how})


def replies(agent: Agent, asked: list[list[Message]], sampling: Sampling) -> list[Reply]:
    async def ask() -> list[Reply]:
        try:
            return await asyncio.gather(*(agent.reply(m, sampling, seed) for seed, m in enumerate(asked)))
        finally:
            await agent.aclose()

    return asyncio.run(ask())


def child(keeper: int) -> int:
    return int(Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()[0])


def test_a_served_model_answers_token_for_token_as_the_same_model_in_this_process(model: Path, logs: Path) -> None:
    local = open_agent("student", "hf_local", {"model": str(model), "dtype": "float32"})
    for sampling in (GREEDY, DRAWN, Sampling(1.0, max_new_tokens=30, stop=("a",), logprobs=True)):
        here, there = (replies(agent, questions(6), sampling) for agent in (local, served(model, logs)))
        assert [(r.text, r.finish, r.usage, r.ids) for r in there] == [(r.text, r.finish, r.usage, r.ids) for r in here]
    assert there[0].tokens
    assert here[0].tokens
    assert [t.text for t in there[0].tokens] == [t.text for t in here[0].tokens]
    assert there[0].tokens[0].logprob == pytest.approx(here[0].tokens[0].logprob, abs=1e-4)
    assert (logs / "student.log").is_file()


def toy(logs: Path, **env: str) -> Serve:
    """An engine that loads no model: for what is about engines alone."""
    command = (*interpreter(), str(STAND_IN))
    return Serve(command=command, logs=str(logs), device="cpu", env={"STANDIN_TOY": "1", **env})


def drawn(
    serve: Serve, state: Path | None, prompts: list[list[int]], kill: Callable[[], object] | None = None
) -> list[Any]:
    """What is answered to prompts at once; ``kill`` is called when some are answered."""

    async def ask() -> list[Any]:
        done = list[int]()
        async with Attached("student", serve, state) as attached:

            async def one(i: int, prompt: list[int]) -> list[int]:
                answer = await attached.ask(lambda server: server.draw(prompt, DRAWN, i, [2]))
                done.append(i)
                return answer.ids

            calls = asyncio.gather(*(one(i, p) for i, p in enumerate(prompts)), return_exceptions=True)
            while kill is not None and len(done) < 3:
                await asyncio.sleep(0.01)
            if kill is not None:
                assert len(done) < len(prompts)
                await asyncio.to_thread(kill)
            return await calls

    return asyncio.run(ask())


PROMPTS = [[5, 20 + i] for i in range(60)]


def test_an_engine_that_is_killed_is_started_again_and_no_answer_is_lost(
    model: Path, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve = toy(logs, STANDIN_SLOW_S="0.02")  # it answers one after the other
    engine = engines.engine("student", serve, model)
    whole = drawn(serve, engine.state, PROMPTS)
    first = json.loads(engine.state.read_text())

    def kill() -> None:
        os.kill(child(json.loads(engine.state.read_text())["pid"]), signal.SIGKILL)

    assert drawn(serve, engine.state, PROMPTS, kill=kill) == whole
    assert json.loads(engine.state.read_text())["generation"] == first["generation"] + 1
    printed = capsys.readouterr().err
    assert printed.count("engine student was killed by SIGKILL: it is started again") == 1
    assert "student.log" in printed


def test_a_call_that_kills_every_engine_fails_alone(model: Path, logs: Path) -> None:
    """A prompt that begins with 9 ends the engine; the others do not."""
    serve = toy(logs, STANDIN_DEADLY="9")
    outcomes = drawn(serve, engines.engine("student", serve, model).state, [[8, 1], [9, 1], [10, 1], [11, 1]])
    assert [isinstance(one, AgentError) for one in outcomes] == [False, True, False, False]
    assert "died 4 times over this call" in str(outcomes[1])


def test_a_call_that_fails_fails_alone_but_an_engine_that_answers_none_stops_the_run(model: Path, logs: Path) -> None:
    """A prompt that begins with 9 gets status 500, from an engine that says that it is well."""
    serve = toy(logs, STANDIN_FAILING="9")
    engine = engines.engine("student", serve, model)
    mixed = drawn(serve, engine.state, [[8, 1], [9, 1], [10, 1]])
    assert [isinstance(one, AgentError) for one in mixed] == [False, True, False]
    assert not mixed[1].do, "another call may be answered"
    none = drawn(serve, engine.state, [[9, i] for i in range(5)])
    assert {(one.reason, one.do) for one in none} == {("server", f"read {engine.log}")}
    assert "HTTP 500" in str(none[0])


def test_an_engine_that_dies_of_every_call_is_given_up(
    model: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivavoce.agents.attached._HOPELESS", 3)
    serve = toy(logs, STANDIN_DEADLY="9")
    outcomes = drawn(serve, engines.engine("student", serve, model).state, [[9, 1], [9, 2]])
    assert isinstance(outcomes[0], AgentUnusable)
    assert "has died 3 times in a row, and answered no call" in str(outcomes[0])
    assert "student.log" in str(outcomes[0])


class _Stranger(BaseHTTPRequestHandler):
    """Another engine, which is well."""

    def do_GET(self) -> None:
        content = b'{"data": [{"id": "other"}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("seen", [True, False], ids=["before", "a moment later"])
def test_a_port_that_another_engine_takes_is_left_to_it(
    seen: bool, model: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        taken, free, looked = stranger.server_address[1], engine_probes.free_port, engine_probes.listenable
        chosen, looks = iter([taken]), iter([] if seen else [True])
        monkeypatch.setattr(engines, "free_port", lambda: next(chosen, None) or free())
        monkeypatch.setattr(engines, "listenable", lambda port: next(looks, None) or looked(port))
        serve = toy(logs)
        state = engines.engine("student", serve, model).state
        assert all(isinstance(ids, list) for ids in drawn(serve, state, PROMPTS[:3]))
        assert json.loads(state.read_text())["url"] != f"http://127.0.0.1:{taken}"
        stranger.shutdown()


def test_calls_do_not_wait_for_an_engine_that_nobody_watches_over(
    model: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome() -> str:
        (error,) = drawn(toy(logs), logs / "student.json", [[5, 1]])
        assert isinstance(error, AgentUnusable), error
        return str(error)

    ended = subprocess.Popen(["true"])
    ended.wait()
    logs.mkdir()
    state = {"generation": 3, "url": "http://127.0.0.1:9", "model": "m", "ready": False, "owner": ended.pid}
    (logs / "student.json").write_text(json.dumps(state))
    assert "the process that started the engine has ended" in outcome()
    tell = engines.Engine._tell

    def full(self: engines.Engine, generation: int, *, ready: bool, failed: str | None = None) -> None:
        if ready or failed:
            raise OSError(errno.ENOSPC, "No space left on device")
        tell(self, generation, ready=ready)

    monkeypatch.setattr(engines.Engine, "_tell", full)
    engines.engine("student", toy(logs), model)
    assert "is gone" in outcome()


def test_an_engine_of_this_machine_is_not_asked_through_a_proxy(
    model: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("http_proxy", "http://127.0.0.1:9"), ("no_proxy", "example.org"), ("NO_PROXY", "")):
        monkeypatch.setenv(name, value)
    serve = toy(logs)
    (one,) = drawn(serve, engines.engine("student", serve, model).state, [[5, 1]])
    assert isinstance(one, list), one
    assert os.environ["no_proxy"] == "example.org,127.0.0.1"


def test_two_runs_do_not_tell_of_their_engines_in_one_file(model: Path, logs: Path) -> None:
    serve = toy(logs)
    theirs = engines.engine("student", serve, model).state
    drawn(serve, theirs, [[5, 1]])
    state = {**engines.state_of(theirs), "owner": os.getppid()}
    engines.close_all(logs)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        theirs.write_text(json.dumps({**state, "url": f"http://127.0.0.1:{stranger.server_address[1]}"}))
        with pytest.raises(RecipeError, match=r"of another run .* is at work there"):
            engines.engine("student", serve, model)
        stranger.shutdown()
    own = engines.engine("student", serve, model).state  # it has ended meanwhile
    assert isinstance(drawn(serve, own, [[5, 1]])[0], list)


def test_an_engine_ends_with_the_process_that_started_it(model: Path, logs: Path) -> None:
    program = f"""
import json, os, time
from pathlib import Path
from vivavoce.agents import engines
serve = engines.Serve.model_validate_json({toy(logs).model_dump_json()!r})
engine = engines.engine("student", serve, Path({str(model)!r}))
while not json.loads(engine.state.read_text())["ready"]:
    time.sleep(0.1)
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program], check=False, timeout=120)
    content = json.loads((logs / "student.json").read_text())
    assert content["ready"]
    until = time.monotonic() + 60
    while engine_probes.healthy(content["url"], 1.0) and time.monotonic() < until:
        time.sleep(0.1)
    assert not engine_probes.healthy(content["url"], 1.0)


def test_an_engine_that_does_not_start_says_why(model: Path, logs: Path) -> None:
    program = "import sys; print('no such flag: --port'); sys.exit(3)"
    agent = served(model, logs, command=[sys.executable, "-c", program])
    with pytest.raises(AgentUnusable, match="ended before it was ready") as error:
        replies(agent, questions(2), GREEDY)
    assert "no such flag" in str(error.value)


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
def test_an_engine_that_runs_already_is_asked_at_its_address_and_waited_for(
    model: Path, logs: Path, dialect: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not there yet when it is first asked, dies half-way, and somebody else brings it back."""
    whole = drawn(toy(logs), engines.engine("student", toy(logs), model).state, PROMPTS)
    port, lives = engine_probes.free_port(), list[subprocess.Popen[bytes]]()
    command = [sys.executable, str(STAND_IN), "--model", str(model), "--port", str(port)]

    def begin() -> None:
        lives.append(subprocess.Popen(command, env={**os.environ, "STANDIN_TOY": "1", "STANDIN_SLOW_S": "0.02"}))

    def restart() -> None:
        lives[0].kill()
        lives[0].wait()
        time.sleep(0.5)
        begin()

    later = threading.Timer(0.5, begin)
    later.start()
    serve = Serve(url=f"http://127.0.0.1:{port}", engine=dialect, start_s=60)
    try:
        assert drawn(serve, None, PROMPTS, kill=restart) == whole
    finally:
        later.join()
        for one in lives:
            one.kill()
            one.wait()
    assert len(lives) == 2
    assert capsys.readouterr().err.count("does not answer: the run waits for it") == 2, "once for each time"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "sglang"}, "does not start SGLang"),
        ({"url": "http://h:1", "python": "python3"}, "`url` names one that runs already"),
        ({"url": "h:1"}, "is not an address"),
        ({"served_name": "x"}, "give its `url`"),
        ({"pyhton": "x"}, "pyhton"),
        ({"python": "/no/such/python"}, "cannot run"),
        ({"python": sys.executable}, "vLLM is not installed"),
    ],
)
def test_a_wrong_serve_is_named_before_anything_is_spent(model: Path, logs: Path, given: Any, message: str) -> None:
    def ask() -> None:
        agent = open_agent("student", "hf_local", {"model": str(model), "serve": {"logs": str(logs), **given}})
        replies(agent, questions(1), GREEDY)

    with pytest.raises(RecipeError, match=message):
        ask()


def test_flags_of_the_recipe_win_over_ours(model: Path, logs: Path) -> None:
    how: dict[str, Any] = {
        "command": ("true",),
        "logs": str(logs),
        "device": "cpu",
        "lora_rank": 20,
    }  # runs, and ends at once
    engine = engines.Engine(
        "a", Serve(**how, args=("--max-model-len", "99")), model, dtype="auto", rank=20, trust=False
    )
    flags = engine.command()
    engine.close()
    assert flags.count("--max-model-len") == 1
    assert flags[flags.index("--max-model-len") + 1] == "99"
    assert flags[flags.index("--max-lora-rank") + 1] == "32"
    assert "--no-enable-chunked-prefill" in flags


def test_a_run_looks_for_vllm_before_it_asks_anything(model: Path, tmp_path: Path) -> None:
    values = {
        "method": "debate_reflect",
        "task": {"name": "schoolhouse", "train": 4, "test": 4},
        "teachers": [{"name": "ada", "model": "schoolhouse:ada", "dtype": "float32"}],
        "student": {"name": "student", "model": str(model), "serve": {"python": "/no/such/python"}},
    }
    recipe = check_recipe(values, Path("recipe.yaml"))
    with pytest.raises(RecipeError, match="cannot run /no/such/python"):
        Agents(recipe.agents, serving=Serving.of(recipe, tmp_path))
    assert (Serving.of(recipe, tmp_path).rank or 0) >= 32, "the adapter of SFT, and that of T-DPO on top of it"


def test_an_engine_rests_while_nobody_waits_for_it_and_starts_again_for_the_next_reply(model: Path, logs: Path) -> None:
    async def ask() -> tuple[list[str], list[bool]]:
        there = list[bool]()
        serve = {
            "command": [*interpreter(), str(STAND_IN)],
            "logs": str(logs),
            "device": "cpu",
            "while_training": False,
        }
        spec = {"name": "student", "model": str(model), "dtype": "float32", "serve": serve}
        agents = Agents([AgentSpec.model_validate(spec)])
        other = agents.another(AgentSpec.model_validate(spec))
        texts = [(await other.reply(questions(1)[0], GREEDY, 0)).text]
        waiting = asyncio.create_task(other.reply(questions(1)[0], GREEDY, 0))
        await asyncio.sleep(0)
        await agents.leave_memory()
        there.append(engines.there("student", Serve.model_validate(serve)))
        texts.append((await waiting).text)
        await agents.leave_memory()
        there.append(engines.there("student", Serve.model_validate(serve)))
        texts += [(await one.reply(questions(1)[0], GREEDY, 0)).text for one in (other, agents["student"])]
        there.append(engines.there("student", Serve.model_validate(serve)))
        await agents.aclose()
        return texts, there

    texts, there = asyncio.run(ask())
    assert len(set(texts)) == 1
    assert there == [True, False, True], "it is not ended under a call"


def test_a_model_at_an_address_is_looked_at_before_anything_is_paid(
    model: Path, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def looked(**serve: Any) -> str:
        agent = open_agent("student", "hf_local", {"model": str(model), "dtype": "float32", "serve": serve})

        async def look() -> None:
            try:
                with Journal(tmp_path / "journal.sqlite") as journal:
                    await reach([(agent, GREEDY)], journal)
            finally:
                await agent.aclose()

        try:
            asyncio.run(look())
        except AgentUnusable as error:
            return str(error)
        return "well"

    assert "has not answered for 0.5 s" in looked(url="http://127.0.0.1:9", start_s=0.5)
    assert "does not answer: the run waits for it, 0.5 s at most" in capsys.readouterr().err
    replies(served(model, logs, name="theirs"), questions(1), GREEDY)
    url = json.loads((logs / "theirs.json").read_text())["url"]
    assert looked(url=url) == "well"
    assert "does not serve 'another', but tiny" in looked(url=url, served_name="another")
    monkeypatch.setattr(Server, "tokens", AsyncMock(return_value=[1, 2]))
    assert "whose tokenizer is not that of" in looked(url=url)
