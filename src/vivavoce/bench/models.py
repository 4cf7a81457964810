"""Random models and texts of exact lengths, for benchmarks: what is measured depends on shapes alone."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from vivavoce.records import Message

_SPECIAL = ["<pad>", "<end>", "<unk>", "<user>", "<assistant>"]
_TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] + ' <end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token for each word, so that lengths are exact."""
    words = {t: i for i, t in enumerate([*_SPECIAL, *(f"w{i}" for i in range(vocabulary - len(_SPECIAL)))])}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(_SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", chat_template=_TEMPLATE
    )


def random_model(vocabulary: int, hidden: int, layers: int, device: str, seed: int) -> Any:
    """A Qwen3 of ``hidden`` x ``layers``, heads of 64, half as many keys as queries."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 128),
        head_dim=64,
        max_position_embeddings=16384,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return cast(torch.nn.Module, Qwen3ForCausalLM(config)).to(device)


class Words:
    """Draws texts."""

    def __init__(self, vocabulary: int, seed: int) -> None:
        self._draw, self._known = np.random.default_rng(seed), vocabulary - len(_SPECIAL)

    def text(self, tokens: int) -> str:
        """A text of so many tokens."""
        return " ".join(f"w{i}" for i in self._draw.integers(0, self._known, tokens))

    def answer(self, tokens: int) -> str:
        """A text that is so many tokens with its end of turn."""
        return self.text(tokens - 1)

    def prompt(self, tokens: int) -> tuple[Message, ...]:
        """Messages that render to so many tokens: ``<user> … <end> <assistant>``."""
        return (Message(role="user", content=self.text(tokens - 3)),)


__all__ = ["Words", "random_model", "word_tokenizer"]
