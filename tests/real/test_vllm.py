"""vLLM itself serves SmolLM2 while its adapter changes. `make test-real` brings both."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from vivavoce.agents import engines
from vivavoce.agents.batch import TokenPrompt
from vivavoce.agents.engines import Serve
from vivavoce.agents.rendering import rendering
from vivavoce.records import Message, Sampling
from vivavoce.train.adapters import add_lora
from vivavoce.train.objective import OnPolicySettings, ServedStudent
from vivavoce.train.rollouts import ServedRollouts, rollouts
from vivavoce.train.settings import LoRASettings

logger = logging.getLogger(__name__)
pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore::FutureWarning")]
ANSWERS, NEW = 64, 24
ROUNDED: list[float] = []
"""How far the trainer's own bfloat16 logits are from the engine's, answer by answer: told beside, and not asserted."""


@pytest.fixture(scope="module")
def served(smollm2: Path, vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStudent]:
    logs = tmp_path_factory.mktemp("engines")
    serve = Serve(python=vllm_python, device="cpu", memory=1, context=1024, logs=str(logs))
    engine = engines.engine("student", serve, smollm2, dtype="bfloat16", rank=8)
    yield ServedStudent(name="student", serve=serve, state=engine.state)
    engines.close_all(logs)


@pytest.fixture(scope="module")
def student(smollm2: Path) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    return add_lora(model, LoRASettings(r=8), dropout=0.0).eval()


def change(student: Any, seed: int) -> None:
    """What an update does to an adapter, larger: its second matrices get small random numbers."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in student.named_parameters():
        if "lora_B" in name:
            value.data = 0.02 * torch.randn(value.shape, generator=generator)


@torch.no_grad()
def trainers(student: Any, prompts: list[TokenPrompt], drawn: list[Any]) -> list[torch.Tensor]:
    """The trainer's log-probabilities of every token of every answer, rounded nowhere after its last layer's input."""
    entries, head = [], student.get_base_model().get_output_embeddings().weight.float()
    for prompt, one in zip(prompts, drawn, strict=True):
        ids = torch.tensor([[*prompt.ids, *one.ids]])
        with torch.autocast("cpu", torch.bfloat16):
            out = student(ids, output_hidden_states=True)
        at = slice(len(prompt.ids) - 1, -1)
        whole, rounded = out.hidden_states[-1][0, at].float() @ head.T, out.logits[0, at].float()
        named = torch.tensor(one.ids)[:, None]
        exact, plain = (z.log_softmax(-1).gather(1, named)[:, 0] for z in (whole, rounded))
        entries.append(exact)
        ROUNDED.append(float((plain - torch.tensor(one.logprobs)).abs().mean()))
    return entries


@pytest.fixture
def sampler(served: ServedStudent, student: Any, smollm2: Path, tmp_path: Path) -> Iterator[ServedRollouts]:
    settings = OnPolicySettings(served=served, bf16=True, lora=LoRASettings(r=8))
    made = rollouts(student, AutoTokenizer.from_pretrained(smollm2), settings, tmp_path, updates=10)
    assert isinstance(made, ServedRollouts)
    yield made
    made.close()


@pytest.fixture(scope="module")
def prompts(smollm2: Path) -> list[TokenPrompt]:
    form = rendering(AutoTokenizer.from_pretrained(smollm2))
    asked: list[list[Message]] = [
        [{"role": "user", "content": f"Ada has {3 * i} pens and gives {i} away. How many are left?"}]
        for i in range(1, ANSWERS + 1)
    ]
    return [TokenPrompt(form.prompt_ids(m), Sampling(0.7, 0.9, NEW), seed) for seed, m in enumerate(asked)]


def test_after_every_update_the_served_log_probabilities_are_the_trainers_and_not_the_old_adapters(
    sampler: ServedRollouts, student: Any, prompts: list[TokenPrompt]
) -> None:
    old: dict[str, torch.Tensor] = {}
    for update in range(3):
        if update:
            old = {n: v.detach().clone() for n, v in student.named_parameters() if "lora_B" in n}
            change(student, update)
        drawn = sampler.draw(student, update, lambda _, _device=None: prompts)
        served = [torch.tensor(one.logprobs) for one in drawn]
        off = [(a - b).abs() for a, b in zip(served, trainers(student, prompts, drawn), strict=True)]
        mean = float(torch.cat(off).mean())
        rounded = sum(ROUNDED[-ANSWERS:]) / ANSWERS
        logger.info(
            f"update {update}: {mean:.2e} nats a token over {len(drawn)} answers; bfloat16 logits {rounded:.2e}"
        )
        assert len(drawn) == ANSWERS
        assert mean <= 3e-2  # 2.2e-2 was measured on a CPU: thirty layers, rounded to bfloat16 in another order
        if not old:
            continue
        new = {n: v.detach().clone() for n, v in student.named_parameters() if "lora_B" in n}
        _put(student, old)
        before = [(a - b).abs() for a, b in zip(served, trainers(student, prompts, drawn), strict=True)]
        _put(student, new)
        assert all(float(a.mean()) < float(b.mean()) for a, b in zip(off, before, strict=True))


def _put(student: Any, values: dict[str, torch.Tensor]) -> None:
    for name, value in student.named_parameters():
        if name in values:
            value.data = values[name]


def test_an_engine_killed_in_the_middle_of_a_round_draws_the_same_answers_and_loses_none(
    sampler: ServedRollouts, served: ServedStudent, student: Any, prompts: list[TokenPrompt]
) -> None:
    change(student, 7)
    whole = sampler.draw(student, 5, lambda _, _device=None: prompts)
    assert served.state is not None
    content = json.loads(served.state.read_text())
    keeper = content["pid"]
    engine = int(Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()[0])

    def kill() -> None:
        time.sleep(1.0)
        os.kill(engine, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    change(student, 8)
    thread.start()
    second = sampler.draw(student, 6, lambda _, _device=None: prompts)
    thread.join()
    assert json.loads(served.state.read_text())["generation"] == content["generation"] + 1
    assert sampler.asked_again > 0
    assert len(second) == ANSWERS
    assert [one.ids for one in sampler.draw(student, 7, lambda _, _device=None: prompts)] == [one.ids for one in second]
    assert [one.ids for one in second] != [one.ids for one in whole]
