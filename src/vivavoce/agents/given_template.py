"""A chat template for a model that has none, such as a base model: its folder once more, by links, with the template.

Everything that reads a model reads a folder, so that debates, training, tests and the trained student all have the
template. The folders lie in ``~/.cache/vivavoce`` (``XDG_CACHE_HOME``), named by model and template.
"""

from __future__ import annotations

import os
from pathlib import Path

from vivavoce.agents.chat_template import AS_IT_CAME, ChatTemplate
from vivavoce.errors import DataError, RecipeError
from vivavoce.files import object_in, text_of
from vivavoce.plugins import near
from vivavoce.records import digest

_KNOWN = Path(__file__).parent / "templates"
_FILE = "chat_template.jinja"
_TOKENIZER = {
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
}
"""The files of a tokenizer, which an adapter may leave to its base."""


def template_names() -> list[str]:
    """Names of templates that come with the package."""
    return sorted(path.stem for path in _KNOWN.glob("*.jinja"))


def source(name: str) -> str:
    """The template of a known name, or of a file. Raises RecipeError if there is none."""
    path = Path(name).expanduser()
    if name in template_names():
        path = _KNOWN / f"{name}.jinja"
    elif not path.is_file():
        what = f"there is no chat template `{name}`{near(name, template_names())}"
        raise RecipeError(what, "`chat_template`", f"write {', '.join(template_names())}, or the path to a .jinja file")
    try:
        return text_of(path)
    except DataError as error:
        raise RecipeError(f"cannot read the chat template: {error.what}", error.where, error.do) from error


def with_template(folder: Path, name: str, tokenizer: Path | None = None) -> Path:
    """A folder with the files of a model and this chat template; the model's own if it has the same template.

    ``tokenizer`` is the folder of its tokenizer, if that is another one: the base of an adapter. Raises RecipeError if
    there is no such template, or if it writes turns of ChatML for a tokenizer without its marks.
    """
    text, tokenizer = source(name), tokenizer or folder
    own = ChatTemplate.within(tokenizer)
    if own is not None and own.source == text:
        return folder
    _need_marks(tokenizer, name, text)
    made = _cache() / digest([str(folder.resolve()), text])[:16]
    made.mkdir(parents=True, exist_ok=True)
    theirs = [] if tokenizer == folder else [file for file in tokenizer.iterdir() if file.name in _TOKENIZER]
    for file in [*folder.iterdir(), *theirs]:
        link = made / file.name
        if file.name != _FILE and not link.exists():
            link.unlink(missing_ok=True)  # a link to what is gone
            link.symlink_to(file.resolve())
    part = made / f"{_FILE}.{os.getpid()}"
    part.write_text(text, "utf-8")
    part.replace(made / _FILE)
    return made


def _need_marks(folder: Path, name: str, text: str) -> None:
    tokens = folder / "tokenizer.json"
    if "<|im_end|>" not in text or not tokens.is_file():
        return
    content = object_in(tokens, AS_IT_CAME)
    added = {token["content"] for token in content.get("added_tokens", ())}
    if "<|im_end|>" not in added:
        do = "write chat_template: plain, which ends an answer with the model's own end of text"
        raise RecipeError(f"the tokenizer has no token <|im_end|>, with which `{name}` ends a turn", str(folder), do)


def _cache() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "vivavoce" / "templates"


__all__ = ["source", "template_names", "with_template"]
