"""Load a tiny model and let it answer many prompts at once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen3ForCausalLM
from transformers.tokenization_utils_base import PreTrainedTokenizerBase


def result_digits(words: Sequence[str]) -> list[int]:
    """Which tokens of a chain are results: the digit after the second `=` of a step, preceded by `digit =`."""
    return [i for i in range(2, len(words)) if words[i].isdigit() and words[i - 1] == "=" and words[i - 2].isdigit()]


class Speaker:
    """A model with its tokenizer. Weights stored in bf16 are computed with in fp32, which a CPU does faster."""

    def __init__(self, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path) -> "Speaker":
        """Read an ordinary Hugging Face folder."""
        model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return cls(model, AutoTokenizer.from_pretrained(folder, padding_side="left"))

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, without any special token that the text does not spell out."""
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]

    @torch.no_grad()
    def replies(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 72,
        batch: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        forbid: str = "",
    ) -> list[str]:
        """One reply per prompt, greedy unless a temperature is given; `forbid` is a token it may not write.

        Prompts are batched by length, so that little padding is computed.
        """
        torch.manual_seed(seed)
        encoded = self.ids(prompts)
        order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
        options: dict[str, Any] = {"do_sample": False}
        if temperature:
            options = {"do_sample": True, "temperature": temperature, "top_k": 0}
        if forbid:
            options["suppress_tokens"] = self.ids([forbid])[0]
        out = [""] * len(prompts)
        for first in range(0, len(order), batch):
            rows = order[first : first + batch]
            padded = self.tokenizer.pad({"input_ids": [encoded[i] for i in rows]}, return_tensors="pt")
            made = self.model.generate(**padded, max_new_tokens=max_new_tokens, **options)  # pyright: ignore
            texts = self.tokenizer.batch_decode(made[:, padded["input_ids"].shape[1] :], skip_special_tokens=True)
            for i, text in zip(rows, texts, strict=True):
                out[i] = text
        return out

    @torch.no_grad()
    def result_probabilities(
        self,
        prompts: Sequence[str],
        replies: Sequence[str],
        counted: Callable[[Sequence[str]], list[int]] = result_digits,
        batch: int = 256,
    ) -> list[list[float]]:
        """The probability that the model gives to the counted tokens of each reply, marks left out."""
        rows = list[tuple[list[int], list[int]]]()
        for head, text in zip(self.ids(prompts), self.ids([reply.replace("?", "") for reply in replies]), strict=True):
            words = self.tokenizer.convert_ids_to_tokens(text)
            rows.append((head + text, [len(head) + i for i in counted(words)]))
        out: list[list[float]] = [[] for _ in rows]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
        for first in range(0, len(order), batch):
            part = order[first : first + batch]
            width = max(len(rows[i][0]) for i in part)
            ids = torch.tensor([rows[i][0] + [0] * (width - len(rows[i][0])) for i in part])
            probabilities = self.model(input_ids=ids).logits.softmax(-1)  # right-padded and causal: no mask needed
            for k, i in enumerate(part):
                out[i] = [probabilities[k, at - 1, rows[i][0][at]].item() for at in rows[i][1]]
        return out
