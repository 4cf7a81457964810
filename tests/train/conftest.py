"""Tiny students with random weights, and two tokenizers made on the spot: byte-level BPE and sentencepiece-style."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from vivavoce.records import Completion, Message, Tree

TEXT = [
    "Solve: what is 12 + 30? The sum of twelve and thirty is forty-two, so the answer is 42.",
    "Ada said 41, Bob said 42. Check each step, then answer: 6 * 7 = 42 and not 48.",
    "Die Antwort lautet zweiundvierzig; nobody believed it. Thence the others agreed.",
] * 4

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The generation prompt ends in plain text and a space, as old instruction formats do: the space and the first word of
# the answer become one token. The content is trimmed, as Llama's template trims it.
PLAIN = (
    "{{ '<s>' }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '### Answer: ' + message['content'] | trim + '</s>' }}"
    "{% else %}{{ '### ' + message['role'] + ': ' + message['content'] | trim + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Answer: ' }}{% endif %}"
)


def bpe() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", eos_token="<|im_end|>", chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )


def metaspace() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>"]
    core.train_from_iterator(
        [*TEXT, "### user: ### Answer: ### system: " * 3, *(chr(i) for i in range(33, 127))],
        trainers.UnigramTrainer(vocab_size=220, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>",
        chat_template=PLAIN, clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session", params=["bpe", "metaspace"])
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return {"bpe": bpe, "metaspace": metaspace}[request.param]()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return bpe()


def tiny_model(seed: int = 0, **overrides: Any) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(**{
        "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
        "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None, "tie_word_embeddings": True,
        # large enough for answers to differ clearly in probability
        "initializer_range": 0.2, **overrides,
    })
    return Qwen3ForCausalLM(config).eval()


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


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


def messages(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def tree(
    chosen: tuple[str, ...], rejected: tuple[str, ...], prompt: str = "Solve: what is 12 + 30?", **rest: Any
) -> Tree:
    return Tree(
        id=rest.pop("id", prompt), problem=rest.pop("problem", prompt), prompt=messages(prompt),
        chosen=tuple(Completion(text, f"c{i}") for i, text in enumerate(chosen)),
        rejected=tuple(Completion(text, f"r{i}") for i, text in enumerate(rejected)), **rest,
    )


@pytest.fixture(scope="session")
def trees() -> list[Tree]:
    """Five trees of several shapes; two share their problem, two more their answers' beginnings."""
    return [
        tree(("The sum is 42.", "So the answer is 42."), ("The sum is 41.", "48, nobody believed it.")),
        tree(("42",), ("41", "48", "The others agreed: 12"), "Check: 6 * 7?"),
        tree(("After the debate: 42", "42."), ("41.",), "Solve: what is 12 + 30? Ada said 41.",
             problem="Solve: what is 12 + 30?", id="round 1", round=1),
        tree((" then 7 = 42",), (" then 7 = 48", " and not"), prefix="Check each step, 6 *", complete=False, id="step"),
        tree(("forty-two",), ("forty",), "Die Antwort lautet?"),
    ]


TreeFactory = Callable[..., Tree]
