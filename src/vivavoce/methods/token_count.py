"""Token counts of prompts for a model: by its own tokenizer and chat template if they are on disk.

Otherwise four characters count as a token, the usual ratio of English prose in today's large models. A call has seven
more tokens for its chat template, and four for each message after the first. Measured calls correct the count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from vivavoce.agents.chat_template import AS_IT_CAME, ChatTemplate
from vivavoce.agents.gguf_files import gguf_in, unpack
from vivavoce.agents.weights import LOADING
from vivavoce.config import AgentSpec
from vivavoce.errors import DataError
from vivavoce.files import object_in
from vivavoce.records import Message

CHARACTERS = 4
_FRAME, _EACH = 3, 4


class TokenCount:
    """Counts for the model of one agent. ``exact`` tells whether its own tokenizer counts."""

    def __init__(self, spec: AgentSpec) -> None:
        self._encode = self._template = None
        folder = local_folder(spec)
        if folder is not None and (tokens := tokenizer_in(folder)) is not None:
            self._encode = _tokenizer(tokens)
            self._template = ChatTemplate.within(tokens, spec.options.get("chat_template_kwargs"))
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
    model, own_template = str(spec.options.get("model", "")), spec.options.get("chat_template")
    folder = _here(model, spec.options.get("revision")) if spec.backend == "hf_local" and model else None
    if folder is None or not own_template or (tokens := tokenizer_in(folder)) is None:
        return folder
    from vivavoce.agents.given_template import with_template

    return with_template(folder, own_template, tokens)


def tokenizer_in(folder: Path) -> Path | None:
    """The folder of a model's tokenizer: its own, or that of an adapter's base; None if that is not here."""
    from vivavoce.agents import weights

    if weights.has_tokenizer(folder) or (base := weights.base_name(folder)) is None:
        return folder
    return _here(base, None)


def is_given(spec: AgentSpec) -> bool:
    """Whether a local model is a folder that the user has named, and no id of the Hub, whose parts may come later."""
    return Path(str(spec.options.get("model", ""))).expanduser().is_dir()


def _here(model: str, revision: str | None) -> Path | None:
    """The folder of a model as far as it is on this machine; that of a GGUF file is made."""
    if model.startswith("schoolhouse:"):
        from vivavoce.schoolhouse import weights

        return weights(model.removeprefix("schoolhouse:"))
    path = Path(model).expanduser()
    if file := gguf_in(path):
        return unpack(file, LOADING)
    if path.is_dir():
        return path
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    try:
        cached_files = [
            try_to_load_from_cache(model, n, revision=revision) for n in ("tokenizer.json", "adapter_config.json")
        ]
    except ValueError:  # no name of the hub
        return None
    return next((Path(cached).parent for cached in cached_files if isinstance(cached, str)), None)


def model_folders(spec: AgentSpec) -> list[Path]:
    """The folder of a local model and, if that holds an adapter, of its base, as far as they are on this machine."""
    from vivavoce.agents import weights

    folder = local_folder(spec)
    if folder is None:
        return []
    name = weights.base_name(folder)
    base = _here(name, None) if name else None
    return [folder, base] if base else [folder]


def _tokenizer(folder: Path) -> Callable[[str], int] | None:
    file = folder / "tokenizer.json"
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    if not file.is_file() or "model" not in object_in(file, AS_IT_CAME):
        return None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # its errors have no type of their own
        raise DataError(f"no tokenizer: {error}", str(file), AS_IT_CAME) from error
    # a rehearsal, of whose texts the made-up words are counted apart, asks for the same few again and again
    return lru_cache(1 << 14)(lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids))
