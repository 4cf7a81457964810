"""A whole committee for the methods: scripted teachers, and a real if untaught student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TEACHERS = Path(__file__).parent / "teachers.py"


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Qwen3 with random weights and the schoolhouse's tokenizer."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from vivavoce.schoolhouse import tokenizer

    words = tokenizer.tokenizer()
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            intermediate_size=64,
            tie_word_embeddings=True,
            max_position_embeddings=512,
            pad_token_id=words.pad_token_id,
            eos_token_id=words.convert_tokens_to_ids("<|end|>"),
            bos_token_id=None,
        )
    )
    folder = tmp_path_factory.mktemp("student")
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture
def recipe(student: Path) -> dict[str, Any]:
    """A recipe as plain values, small enough for a test."""
    quick = {"max_steps": 3, "lora": None, "threads": 1, "max_length": 400, "log_steps": 1}
    return {
        "method": "debate_reflect",
        "name": "test",
        "seeds": [0, 1],
        "task": {"name": "schoolhouse", "train": 30, "test": 20},
        "teachers": [{"name": n, "backend": "scripted", "function": f"{TEACHERS}:{n}"} for n in ("ada", "bob", "cyd")],
        "student": {"name": "student", "model": str(student), "dtype": "float32", "max_new_tokens": 12, "samples": 2},
        "debate": {
            "prompts": "schoolhouse",
            "max_rounds": 2,
            "stop": "consensus",
            "student": "first_round",
            "shuffle": "per_agent",
        },
        "sft": {**quick, "rows_per_step": 8, "learning_rate": 1e-3},
        "attempts": {"samples": 1},
        "trees": {"branch": "answer", "context": "none"},
        "dpo": {**quick, "trees_per_step": 4, "learning_rate": 1e-3},
        "test": {"max_new_tokens": 40},
    }
