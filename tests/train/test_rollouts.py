"""A student that an engine serves while it learns: the engine follows its weights."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.command import interpreter
from tests.serving import save_tiny_model
from tests.train.students import curve
from transformers import AutoTokenizer

from vivavoce.agents import engines
from vivavoce.agents.engines import Serve
from vivavoce.errors import AgentError, AgentUnusable, Mismatched, RecipeError
from vivavoce.records import State, View, to_json
from vivavoce.train.jobs import Job
from vivavoce.train.launch import Launch
from vivavoce.train.objective import (
    OnPolicySettings,
    Scorer,
    ServedModel,
    ServedStudent,
    engine_scorer,
    local_scorer,
)
from vivavoce.train.on_policy import OnPolicyTrainer, train_on_policy
from vivavoce.train.rollouts import ServedRollouts, _Refusals
from vivavoce.train.settings import LoRASettings
from vivavoce.train.tokens import answer_ids

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's and transformers' own
STAND_IN = Path(__file__).parent.parent / "engine_server.py"
STATES = [
    State(
        f"q{i}",
        ({"role": "user", "content": f"What is {i} plus 7?"},),
        (View(({"role": "user", "content": f"{i}"},), 1.0),),
    )
    for i in range(8)
]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("student") / "tiny", 256, 0.3)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("teacher") / "tiny", 256, 0.1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, student: Path) -> Iterator[ServedStudent]:
    """One engine for the tests that do not harm it; it takes adapters, and new weights too."""
    logs = tmp_path_factory.mktemp("engines")
    yield started(student, logs)
    engines.close_all(logs)


def started(student: Path, logs: Path, rank: int | None = 16, **env: str) -> ServedStudent:
    command = (*interpreter(), str(STAND_IN))
    serve = Serve(command=command, logs=str(logs), device="cpu", env=env, max_mismatch=0.01)
    return ServedStudent(name="student", serve=serve, state=engines.engine("student", serve, student, rank=rank).state)


def settings(teacher: Path, served: ServedStudent | None, **changes: Any) -> OnPolicySettings:
    values: dict[str, Any] = {
        "scorers": (Scorer(name="ada", model=str(teacher), fingerprint="ada"),),
        "served": served,
        "lora": LoRASettings(r=4),
        "learning_rate": 0.03,
        "warmup_ratio": 0,
        "lr_scheduler": "constant",
        "max_steps": 4,
        "states_per_step": 2,
        "rollouts": 2,
        "max_new_tokens": 10,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 40,
        "repetition_penalty": 1.1,
        "max_length": 200,
        "log_steps": 1,
        "threads": 1,
        "device": "cpu",
    }
    return OnPolicySettings(**{**values, **changes})


@pytest.mark.parametrize("lora", [True, False], ids=["adapter", "all weights"])
def test_a_served_student_learns_what_one_that_samples_itself_learns(
    student: Path, teacher: Path, tmp_path: Path, lora: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And from the very tokens that the engine drew: nothing is cut into tokens again between rollout and loss."""
    drawn, learnt = list[tuple[int, ...]](), list[tuple[int, ...]]()
    draw, loss = ServedRollouts.draw, OnPolicyTrainer.part_loss

    def drawing(self: ServedRollouts, *args: Any) -> Any:
        answers = draw(self, *args)
        drawn.extend(tuple(one.ids) for one in answers)
        return answers

    def learning(self: OnPolicyTrainer, model: Any, inputs: Any) -> Any:
        if self.settings.served is not None:
            learnt.extend(inputs["answers"][i].ids for i in inputs["chosen"])
        return loss(self, model, inputs)

    monkeypatch.setattr(ServedRollouts, "draw", drawing)
    monkeypatch.setattr(OnPolicyTrainer, "part_loss", learning)
    served = started(student, tmp_path / "engines", 16 if lora else None)
    how = {} if lora else {"lora": None, "learning_rate": 0.003}
    try:
        for name, engine in (("own", None), ("served", served)):
            train_on_policy(student, STATES, settings(teacher, engine, **how), tmp_path / name, seed=0)
    finally:
        engines.close_all(tmp_path / "engines")
    assert sorted(learnt) == sorted(drawn)
    tokenizer = AutoTokenizer.from_pretrained(student)
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in drawn]
    assert any(tuple(answer_ids(tokenizer, text)) != ids for text, ids in zip(texts, drawn, strict=True))
    own, there = curve(tmp_path / "own"), curve(tmp_path / "served")
    assert [p["loss"] for p in there] == pytest.approx([p["loss"] for p in own], abs=1e-4)
    assert len({round(p["loss"], 4) for p in own}) == 4
    assert all(p["served_mismatch"] < 1e-4 for p in there)
    assert not (tmp_path / "served" / "served").exists(), "what was written for the engine is gone"


@pytest.mark.parametrize("lora", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["adapter", "all weights"])
def test_several_processes_share_the_engine_and_learn_what_one_does(
    student: Path, teacher: Path, tmp_path: Path, lora: bool
) -> None:
    """With weights in parts and two updates at once under way, so that all of it has to fit."""
    served = started(student, tmp_path / "engines", 16 if lora else None)
    how = {"staleness": 1} if lora else {"lora": None, "learning_rate": 0.003}
    rows = tmp_path / "states.jsonl"
    rows.write_text("".join(to_json(state) + "\n" for state in STATES))
    try:
        train_on_policy(student, STATES, settings(teacher, served, **how), tmp_path / "one", seed=0)
        job = Job("two", student, "start", rows, settings(teacher, served, **how), 0)
        Launch(2, True, logs=tmp_path).train(job, tmp_path / "two", [], lambda *_: None, threading.Event())
    finally:
        engines.close_all(tmp_path / "engines")
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert [p["loss"] for p in two] == pytest.approx([p["loss"] for p in one], rel=1e-3)
    assert all(p["served_mismatch"] < 1e-4 for p in two)
    assert len({round(p["loss"], 4) for p in one}) == 4
    assert not (tmp_path / "two" / "served").exists()


def test_a_scorer_on_an_engine_of_the_run_teaches_as_a_local_one(student: Path, teacher: Path, tmp_path: Path) -> None:
    words = len(AutoTokenizer.from_pretrained(teacher))
    serve = Serve(command=(*interpreter(), str(STAND_IN)), logs=str(tmp_path / "e"), device="cpu", top_logprobs=words)
    engine = engines.engine("ada", serve, teacher, dtype="float32")
    assert str(words) in engine.command()[engine.command().index("--max-logprobs") + 1]
    there = engine_scorer(
        "ada", {"model": str(teacher), "dtype": "float32"}, ServedModel(name="ada", serve=serve, state=engine.state)
    )
    assert there.fingerprint != local_scorer("ada", {"model": str(teacher)}).fingerprint
    try:
        for name, one in (("local", None), ("there", there)):
            how = settings(teacher, None, max_steps=2, **({} if one is None else {"scorers": (one,)}))
            train_on_policy(student, STATES, how, tmp_path / name, seed=0)
    finally:
        engines.close_all(tmp_path / "e")
    losses = [[p["loss"] for p in curve(tmp_path / name)] for name in ("local", "there")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_with_staleness_the_engine_draws_ahead_with_earlier_weights(
    student: Path, teacher: Path, tmp_path: Path, shared: ServedStudent
) -> None:
    train_on_policy(student, STATES, settings(teacher, shared), tmp_path / "now", seed=0)
    train_on_policy(student, STATES, settings(teacher, shared, staleness=1), tmp_path / "late", seed=0)
    now, late = curve(tmp_path / "now"), curve(tmp_path / "late")
    assert late[0]["loss"] == pytest.approx(now[0]["loss"], abs=1e-4), "drawn with the same weights"
    assert late[1]["loss"] != pytest.approx(now[1]["loss"], abs=1e-4), "drawn with the weights before the update"
    assert all(p["served_mismatch"] < 1e-4 for p in late), "asked of the newest weights all the same"


@pytest.mark.parametrize(("reason", "kind"), [("server", AgentUnusable), ("bad_request", RecipeError)])
def test_an_engine_that_gives_no_answer_or_refuses_ends_training_in_words(reason: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="HTTP"), _Refusals():
        raise AgentError(reason, "HTTP")


def test_an_engine_that_keeps_old_weights_stops_training_before_it_learns_from_them(
    student: Path, teacher: Path, tmp_path: Path
) -> None:
    served = started(student, tmp_path / "engines", STANDIN_STALE="1")
    try:
        with pytest.raises(Mismatched, match="apart in update 2"):
            train_on_policy(student, STATES, settings(teacher, served), tmp_path / "out", seed=0)
    finally:
        engines.close_all(tmp_path / "engines")
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_an_engine_killed_in_the_middle_of_a_round_is_given_the_weights_again_and_draws_the_same(
    student: Path, teacher: Path, tmp_path: Path, shared: ServedStudent
) -> None:
    train_on_policy(student, STATES, settings(teacher, shared), tmp_path / "whole", seed=0)
    served = started(student, tmp_path / "engines", STANDIN_SLOW_S="0.1")
    assert served.state is not None
    file, killed = served.state, list[int]()

    def kill() -> None:
        until = time.monotonic() + 300
        while not (tmp_path / "out" / "served" / "2").exists() and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(0.15)
        keeper = json.loads(file.read_text())["pid"]
        killed.append(int(Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()[0]))
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        train_on_policy(student, STATES, settings(teacher, served), tmp_path / "out", seed=0)
    finally:
        thread.join()
        engines.close_all(tmp_path / "engines")
    assert killed
    assert [p["loss"] for p in curve(tmp_path / "out")] == pytest.approx(
        [p["loss"] for p in curve(tmp_path / "whole")], abs=1e-4
    )
