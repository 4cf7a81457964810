"""Tiny students with random weights, and two tokenizers made on the spot: byte-level BPE and sentencepiece-style."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from vivavoce.agents import weights as stored
from vivavoce.records import Completion, Message, Tree

cases = settings(deadline=None, max_examples=40)
"""For generated cases: they are small, but torch's first call is slow, so a deadline would measure that."""

TEXT = [
    "Solve: what is 12 + 30? The sum of twelve and thirty is forty-two, so the answer is 42.",
    "Ada said 41, Bob said 42. Check each step, then answer: 6 * 7 = 42 and not 48.",
    "Die Antwort lautet zweiundvierzig; nobody believed it. Thence the others agreed.",
] * 4

# The line break is before a turn and not after it, so that nothing follows the last end of turn: TRL would train it.
CHATML = (
    "{% for message in messages %}{{ '' if loop.first else '\n' }}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n<|im_start|>assistant\n' }}{% endif %}"
)
# As old instruction formats do, it writes plain text and a space before an answer. The content is trimmed, as Llama's
# template trims it.
PLAIN = (
    "{{ '<s>' }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '### Answer: ' + message['content'] | trim + '</s>' }}"
    "{% else %}{{ '### ' + message['role'] + ': ' + message['content'] | trim + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Answer:' }}{% endif %}"
)


def curve(folder: Path) -> list[dict[str, float]]:
    """The curve of a training: its points, in order."""
    return [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]


def bpe() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )


def metaspace() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>"]
    core.train_from_iterator(
        [*TEXT, "### user: ### Answer: ### system: " * 3, *(chr(i) for i in (10, *range(33, 127)))],
        trainers.UnigramTrainer(vocab_size=220, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        chat_template=PLAIN,
        clean_up_tokenization_spaces=False,
    )


def tiny_model(seed: int = 0, **overrides: Any) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        **{
            "vocab_size": 400,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 512,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "bos_token_id": None,
            "tie_word_embeddings": True,
            # large enough for answers to differ clearly in probability
            "initializer_range": 0.2,
            **overrides,
        }
    )
    return Qwen3ForCausalLM(config).eval()


def messages(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def tree(
    chosen: tuple[str, ...], rejected: tuple[str, ...], prompt: str = "Solve: what is 12 + 30?", **rest: Any
) -> Tree:
    return Tree(
        id=rest.pop("id", prompt),
        problem=rest.pop("problem", prompt),
        prompt=messages(prompt),
        chosen=tuple(Completion(text, f"c{i}") for i, text in enumerate(chosen)),
        rejected=tuple(Completion(text, f"r{i}") for i, text in enumerate(rejected)),
        **rest,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a student, an adapter added to its base."""
    if (base := stored.base_folder(folder)) is None:
        return AutoModelForCausalLM.from_pretrained(folder).state_dict()
    whole: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return stored.merge_adapter(stored.add_adapter(whole, folder)).state_dict()


def equal(left: Path, right: Path) -> bool:
    """Bit by bit."""
    a, b = weights(left), weights(right)
    return all(torch.equal(a[name], b[name]) for name in a)


class Killed(Exception):
    """Stands for a kill: raised from the progress hook."""


def die_at(step: int) -> Callable[[int, int, dict[str, float]], None]:
    def progress(done: int, total: int, logs: dict[str, float]) -> None:
        if done == step:
            raise Killed

    return progress
