"""Fixtures of the training tests: everything tiny, on one thread, offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.students import bpe, metaspace, tiny_model, tree
from transformers import PreTrainedTokenizerFast

from vivavoce.records import Tree
from vivavoce.train.tree_dpo import TreeDPOTrainer


@pytest.fixture(scope="session", params=["bpe", "metaspace"])
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return {"bpe": bpe, "metaspace": metaspace}[request.param]()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return bpe()


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("student")
    tiny_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trees() -> list[Tree]:
    """Five trees of several shapes; two share their problem, two more their answers' beginnings."""
    return [
        tree(("The sum is 42.", "So the answer is 42."), ("The sum is 41.", "48, nobody believed it.")),
        tree(("42",), ("41", "48", "The others agreed: 12"), "Check: 6 * 7?"),
        tree(
            ("After the debate: 42", "42."),
            ("41.",),
            "Solve: what is 12 + 30? Ada said 41.",
            problem="Solve: what is 12 + 30?",
            id="round 1",
            round=1,
        ),
        tree((" then 7 = 42",), (" then 7 = 48", " and not"), prefix="Check each step, 6 *", complete=False, id="step"),
        tree(("forty-two",), ("forty",), "Die Antwort lautet?"),
    ]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The students as trainers have them at the end."""
    parts: list[Any] = []
    plain = TreeDPOTrainer.train

    def train(self: TreeDPOTrainer, *args: Any, **kwargs: Any) -> Any:
        done = plain(self, *args, **kwargs)
        parts.append(self.model)
        return done

    monkeypatch.setattr(TreeDPOTrainer, "train", train)
    return parts
