"""Data-parallel training: two processes that share every update end where one process does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.train.students import bpe, messages, tiny_model, weights

from vivavoce.records import Completion, State, View, to_json

WORKER = """
import json, sys
from pathlib import Path
from vivavoce.records import State, from_json
from vivavoce.train.objective import OnPolicySettings, Scorer
from vivavoce.train.on_policy import train_on_policy

student, teacher, rows, out = map(Path, sys.argv[1:])
states = [from_json(State, line) for line in rows.read_text().splitlines()]
settings = OnPolicySettings(
    scorers=(Scorer(name="ada", model=str(teacher)),), lora=None, learning_rate=1e-3, max_steps=3, states_per_step=4,
    max_new_tokens=8, temperature=1.0, top_p=1.0, max_length=200, log_steps=1, threads=1, device="cpu",
)
train_on_policy(student, states, settings, out, seed=0)
"""


def start(arguments: list[str], world: int, log: Path) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = []
    for rank in range(world):
        own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}
        with log.with_suffix(f".{rank}").open("wb") as said:
            command = [sys.executable, "-c", WORKER, *arguments]
            environment = {**os.environ, **own, "OMP_NUM_THREADS": "1"}
            processes.append(subprocess.Popen(command, env=environment, stderr=said))
    return processes


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    words = bpe()
    for i, name in enumerate(("student", "ada")):
        tiny_model(seed=i, vocab_size=len(words)).save_pretrained(tmp_path / name)
        words.save_pretrained(tmp_path / name)
    rows = tmp_path / "rows.jsonl"
    states = [
        State(q, messages(q), (View(messages(f"Think. {q}"), 1.0),), (Completion("42", "n"),))
        for q in ("What is 12 + 30?", "6 * 7?", "Is it 41 or 42?", "Check each step.", "The sum?")
    ]
    rows.write_text("".join(to_json(s) + "\n" for s in states))
    for world in (1, 2):
        given = [str(tmp_path / "student"), str(tmp_path / "ada"), str(rows), str(tmp_path / f"out{world}")]
        for process in start(given, world, tmp_path / f"log{world}"):
            assert process.wait(300) == 0, (tmp_path / f"log{world}.0").read_text()[-3000:]
    curves = [
        [json.loads(line) for line in (tmp_path / f"out{world}" / "loss.jsonl").read_text().splitlines()]
        for world in (1, 2)
    ]
    for one, two in zip(*curves, strict=True):
        assert two["divergence/ada"] == pytest.approx(one["divergence/ada"], rel=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    ends = [weights(tmp_path / f"out{world}") for world in (1, 2)]
    for name in ends[0]:
        torch.testing.assert_close(ends[1][name], ends[0][name], rtol=1e-3, atol=2e-5)
