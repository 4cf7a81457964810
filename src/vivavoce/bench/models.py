"""Random models and texts of exact lengths, for benchmarks: what is measured depends on shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class ModelDimensions:
    """Dimensions of a Qwen3."""

    hidden: int
    layers: int
    vocabulary: int
    heads: int
    key_heads: int
    head: int
    intermediate: int
    tied: bool = False
    """Whether the input embedding is the output embedding too."""

    @classmethod
    def narrow(cls, hidden: int, layers: int, vocabulary: int) -> ModelDimensions:
        """One for a CPU: heads of 64, half as many keys as queries."""
        return cls(hidden, layers, vocabulary, hidden // 64, max(1, hidden // 128), 64, 3 * hidden)


QWEN3_06B = ModelDimensions(1024, 28, 151_936, heads=16, key_heads=8, head=128, intermediate=3072, tied=True)


def random_model(size: ModelDimensions, device: str, seed: int) -> Any:
    """A Qwen3 of this size with random weights, float32."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        head_dim=size.head,
        tie_word_embeddings=size.tied,
        max_position_embeddings=16384,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    with torch.device(device):
        return cast(torch.nn.Module, Qwen3ForCausalLM(config))


class TextSource:
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


__all__ = ["QWEN3_06B", "ModelDimensions", "TextSource", "random_model", "word_tokenizer"]
