"""Every training once, on tiny models: in this process, or as a program on each of several devices (``--sharded``)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tests.train.students import bpe, messages, tiny_model, tree

from vivavoce.records import Completion, Example, State, View
from vivavoce.train.checkpoint import leave_launch
from vivavoce.train.launch import SHARES, shard_on_cpus
from vivavoce.train.objective import OnPolicySettings, Scorer
from vivavoce.train.on_policy import train_on_policy
from vivavoce.train.settings import LoRASettings, MuonSettings, SFTSettings, TreeDPOSettings, TwoTaskSettings
from vivavoce.train.sft import train_sft
from vivavoce.train.tree_dpo import train_tree_dpo
from vivavoce.train.two_task import train_two_task

SHARED = {"lora": None, "learning_rate": 1e-3, "max_length": 200, "log_steps": 1, "threads": 1, "device": "cpu"}
FEW = {**SHARED, "max_steps": 3, "token_budget": 100}
"""So few tokens to a pass that devices need different numbers of them."""


def save_models(folder: Path) -> None:
    """A student whose embeddings are tied, one whose are not, and a teacher."""
    words = bpe()
    for seed, (name, tied) in enumerate((("student", True), ("untied", False), ("ada", True))):
        tiny_model(seed=seed, vocab_size=len(words), tie_word_embeddings=tied).save_pretrained(folder / name)
        words.save_pretrained(folder / name)


def trainings(models: Path, out: Path, sharded: bool) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each training's name, which is its folder in ``out``, and how to do it; those that can be ``sharded``, or all."""
    questions = ["What is 12 + 30?", "6 * 7?", "Is it 41 or 42? " * 5, "Check each step.", "The sum?"]
    rows = [
        Example(q, messages(q), "The answer is 42." + " Check each step." * i, ("n",)) for i, q in enumerate(questions)
    ]
    trees = [tree(("It is 42.", "So 42."), ("It is 41.", "48" * 9), q) for q in questions]
    states = [
        State(q, messages(q), (View(messages(f"Think. {q}"), 1.0),), (Completion("42 " * (1 + 3 * i), "n"),))
        for i, q in enumerate(questions)
    ]
    supervised = SFTSettings(rows_per_step=3, **FEW)
    adapted = supervised.model_copy(update={"lora": LoRASettings(r=4, alpha=8, dropout=0.0)})
    preferences = TreeDPOSettings(trees_per_step=3, **FEW)
    scorers = (Scorer(name="ada", model=str(models / "ada")),)
    drawn = OnPolicySettings(scorers=scorers, states_per_step=4, max_new_tokens=8, temperature=1.0, top_p=1.0, **FEW)
    recorded = drawn.model_copy(update={"on_policy": 0.0, "states_per_step": 3})
    drawn_adapted = drawn.model_copy(update={"lora": adapted.lora})
    averaged = drawn.model_copy(update={"scorers": (Scorer(name="ada", own="ema"),), "ema_decay": 0.5})
    tasks = TwoTaskSettings(rows_per_step=3, **FEW)
    both = [replace(row, stream=("feedback", "rationale")[i % 2]) for i, row in enumerate(rows)]
    student, untied = models / "student", models / "untied"
    yield "sft", lambda: train_sft(student, rows, supervised, out / "sft", seed=0)
    yield "sft untied", lambda: train_sft(untied, rows, supervised, out / "sft untied", seed=0)
    yield "sft adapted", lambda: train_sft(untied, rows, adapted, out / "sft adapted", seed=0)
    yield "tree_dpo", lambda: train_tree_dpo(untied, trees, preferences, out / "tree_dpo", seed=0)
    yield "two_task", lambda: train_two_task(student, both, tasks, out / "two_task", seed=0)
    yield "recorded", lambda: train_on_policy(student, states, recorded, out / "recorded", seed=0)
    yield "drawn", lambda: train_on_policy(student, states, drawn, out / "drawn", seed=0)
    yield "drawn adapted", lambda: train_on_policy(untied, states, drawn_adapted, out / "drawn adapted", seed=0)
    yield "averaged", lambda: train_on_policy(student, states, averaged, out / "averaged", seed=0)
    if not sharded:
        orthogonal = supervised.model_copy(update={"muon": MuonSettings()})
        yield "sft muon", lambda: train_sft(untied, rows, orthogonal, out / "sft muon", seed=0)
        # Each answer in a row of its own, and more of them on one device than on the other.
        alone = supervised.model_copy(update={"attention": "rows"})
        recorded_alone = recorded.model_copy(update={"attention": "rows"})
        trees_alone = preferences.model_copy(update={"attention": "rows"})
        yield "sft rows", lambda: train_sft(student, rows, alone, out / "sft rows", seed=0)
        yield "tree_dpo rows", lambda: train_tree_dpo(untied, trees, trees_alone, out / "tree_dpo rows", seed=0)
        yield "recorded rows", lambda: train_on_policy(student, states, recorded_alone, out / "recorded rows", seed=0)


if __name__ == "__main__":
    if sharded := sys.argv[3:] == ["--sharded"]:
        shard_on_cpus()
        os.environ.update(SHARES)
    for _, train in trainings(Path(sys.argv[1]), Path(sys.argv[2]), sharded):
        train()
    leave_launch()
