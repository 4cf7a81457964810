"""Engines that are started for a model, watched over, and asked again when they die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving import save_tiny_model

from vivavoce.agents import Agent, engines, open_agent
from vivavoce.agents.attached import Attached
from vivavoce.agents.engines import Serve
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
    how = {"command": [sys.executable, str(STAND_IN)], "logs": str(logs), "device": "cpu", **serve}
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
    command = (sys.executable, str(STAND_IN))
    return Serve(command=command, logs=str(logs), device="cpu", env={"STANDIN_TOY": "1", **env})


def drawn(serve: Serve, state: Path | None, prompts: list[list[int]], kill: Path | None = None) -> list[Any]:
    """What is answered to prompts at once; the engine of the state ``kill`` is killed when some are answered."""

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
                os.kill(child(json.loads(kill.read_text())["pid"]), signal.SIGKILL)
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
    assert drawn(serve, engine.state, PROMPTS, kill=engine.state) == whole
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
    while engines.healthy(content["url"], 1.0) and time.monotonic() < until:
        time.sleep(0.1)
    assert not engines.healthy(content["url"], 1.0)


def test_an_engine_that_does_not_start_says_why(model: Path, logs: Path) -> None:
    program = "import sys; print('no such flag: --port'); sys.exit(3)"
    agent = served(model, logs, command=[sys.executable, "-c", program])
    with pytest.raises(AgentUnusable, match="ended before it was ready") as error:
        replies(agent, questions(2), GREEDY)
    assert "no such flag" in str(error.value)


@pytest.mark.slow  # once in ten runs it waits for an engine that does not come back: not understood yet
@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
def test_an_engine_that_runs_already_is_asked_at_its_address_and_waited_for(
    model: Path, logs: Path, dialect: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody else brings it back: here the same supervisor, under another name."""
    own = toy(logs, STANDIN_SLOW_S="0.02")
    theirs = engines.engine("theirs", own, model)
    whole = drawn(own, theirs.state, PROMPTS)
    serve = Serve(url=json.loads(theirs.state.read_text())["url"], engine=dialect, start_s=60)
    assert drawn(serve, None, PROMPTS, kill=theirs.state) == whole
    # said once; not at all, if it was back before the call was made again
    assert capsys.readouterr().err.count("does not answer: it is waited for") <= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "sglang"}, "SGLang is not started here"),
        ({"url": "http://h:1", "python": "python3"}, "`url` names one that runs already"),
        ({"url": "h:1"}, "no address"),
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
            "command": [sys.executable, str(STAND_IN)],
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
