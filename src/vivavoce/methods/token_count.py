"""Token counts of prompts for a model: by its own tokenizer and chat template if they are on disk.

Otherwise four characters count as a token, the usual ratio of English prose in today's large models. A call has seven
more tokens for its chat template, and four for each message after the first. Measured calls correct the count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from vivavoce.agents.chat_template import ChatTemplate
from vivavoce.config import AgentSpec
from vivavoce.records import Message

CHARACTERS = 4
_FRAME, _EACH = 3, 4


class TokenCount:
    """Counts for the model of one agent. ``exact`` tells whether its own tokenizer counts."""

    def __init__(self, spec: AgentSpec) -> None:
        self._encode = self._template = None
        folder = local_folder(spec)
        if folder is not None:
            self._encode = _tokenizer(folder)
            self._template = ChatTemplate.within(folder, spec.options.get("chat_template_kwargs"))
        self.exact = self._encode is not None

    def text(self, text: str) -> int:
        """Tokens of a text."""
        return self._encode(text) if self._encode else len(text) // CHARACTERS

    def messages(self, messages: Sequence[Message]) -> int:
        """Prompt tokens of a call."""
        if self._template and self._encode:
            return self._encode(self._template.prompt(messages))
        return sum(self.text(m["content"]) + _EACH for m in messages) + _FRAME


def local_folder(spec: AgentSpec) -> Path | None:
    """The folder of an agent's model, as far as it is on this machine; nothing is downloaded.

    Raises RecipeError if the recipe gives the model a chat template that is none.
    """
    folder = _local_folder(spec)
    if folder is None or not spec.options.get("chat_template"):
        return folder
    from vivavoce.agents.given_template import with_template

    return with_template(folder, spec.options["chat_template"])


def _local_folder(spec: AgentSpec) -> Path | None:
    model = str(spec.options.get("model", ""))
    if spec.backend != "hf_local" or not model:
        return None
    if model.startswith("schoolhouse:"):
        from vivavoce.schoolhouse import weights

        return weights(model.removeprefix("schoolhouse:"))
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    try:
        cached = try_to_load_from_cache(model, "tokenizer.json", revision=spec.options.get("revision"))
    except ValueError:  # no name of the hub
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def model_folders(spec: AgentSpec) -> list[Path]:
    """The folder of a local model and, if that holds an adapter, of its base, as far as they are on this machine."""
    from vivavoce.agents import weights

    folder = local_folder(spec)
    if folder is None:
        return []
    base = Path(weights.base_name(folder) or "")
    return [folder, base] if base.is_absolute() and base.is_dir() else [folder]


def _tokenizer(folder: Path) -> Callable[[str], int] | None:
    file = folder / "tokenizer.json"
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    if not file.is_file() or "model" not in json.loads(file.read_text("utf-8")):
        return None
    tokenizer = Tokenizer.from_file(str(file))
    # a rehearsal, of whose texts the made-up words are counted apart, asks for the same few again and again
    return lru_cache(1 << 14)(lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids))
