"""Models that are loaded at the same time, some to train and some to answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.tiny_qwen3 import save_tiny_qwen3
from transformers import PreTrainedModel

from vivavoce.agents import weights
from vivavoce.train.checkpoint import open_model
from vivavoce.train.sft import SFTSettings


def test_students_and_agents_that_load_at_once_are_whole_and_so_is_whatever_loads_later(tmp_path: Path) -> None:
    folder = save_tiny_qwen3(tmp_path / "student", ["some words to say"])
    tie = PreTrainedModel.tie_weights

    def load(number: int) -> bool:
        if number % 2:
            model = weights.load(folder, "float32", "cpu", False)[0]
        else:
            model = open_model(folder, SFTSettings())[0]
        return model.lm_head.weight is model.model.embed_tokens.weight and not model.lm_head.weight.is_meta

    try:
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(load, range(48)))
        assert PreTrainedModel.tie_weights is tie
    finally:
        PreTrainedModel.tie_weights = tie  # type: ignore[method-assign]
