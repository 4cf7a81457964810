"""Where a local model's files are, what their content hashes to, and how they are loaded."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivavoce.errors import MissingDependency, RecipeError
from vivavoce.records import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SCHOOLHOUSE = "schoolhouse:"
# What determines replies. Left out: optimizer and trainer states, README.
_FILES = (
    "*.safetensors",
    "pytorch_model*.bin",
    "*.model",
    "*.jinja",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "adapter_config.json",
    "*.safetensors.index.json",
)
_TENSORS = ("*.safetensors", "*.bin", "*.safetensors.index.json")
_hashes = dict[tuple[str, int, int], str]()
# Two models that loaded at the same time in two threads were seen to keep tensors on the meta device.
_LOADING = threading.Lock()


def check(model: str) -> None:
    """Raise RecipeError where ``model`` can be seen to be missing without loading or downloading anything."""
    if model.startswith(_SCHOOLHOUSE):
        folder(model)
    elif (model.startswith((".", "/", "~")) or model.count("/") > 1) and not Path(model).expanduser().is_dir():
        raise RecipeError(f"there is no folder {model}", "`model`", "give a folder, a hub id or schoolhouse:NAME")


def folder(model: str, revision: str | None = None, *, tokenizer_only: bool = False) -> Path:
    """The folder with the files of a folder, a hub id (downloaded if need be) or ``schoolhouse:NAME``.

    With ``tokenizer_only`` no tensors are downloaded: the model runs elsewhere. Raises RecipeError where there is none.
    """
    do = "give a folder, a hub id or schoolhouse:NAME"
    if model.startswith(_SCHOOLHOUSE):
        from vivavoce import schoolhouse

        try:
            path = schoolhouse.weights(model.removeprefix(_SCHOOLHOUSE))
        except ValueError as error:
            raise RecipeError(str(error), "`model`", do) from error
        if not path.is_dir():
            raise RecipeError(f"the weights of {model} are not installed", str(path), "reinstall vivavoce")
        return path
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    check(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                model,
                revision=revision,
                allow_patterns=[*_FILES, "*.py"],
                ignore_patterns=["original/*", "consolidated*", *(_TENSORS if tokenizer_only else ())],
            )
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise RecipeError(f"cannot find or download {model}: {error}", "`model`", do) from error


def fingerprint(path: Path, *, tokenizer_only: bool = False) -> str:
    """SHA-256 (first 16 hex digits) over the files that determine a model's replies, those of an adapter's base too.

    With ``tokenizer_only``, over those that determine its tokens: whether tensors lie beside them is no matter.

    A file that has not changed since (path, time, size) is not read again by this process.
    """
    tensors = {file for pattern in _TENSORS for file in path.glob(pattern)} if tokenizer_only else set[Path]()
    files = sorted({file for pattern in _FILES for file in path.glob(pattern)} - tensors)
    content = [[file.name, _hash(file)] for file in files]
    base = _base(path)
    return digest([content, fingerprint(folder(base))] if base else content)[:16]


def load(
    path: Path, dtype: str, device: str, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model, in evaluation mode on ``device``, and tokenizer. An adapter is merged into its base model.

    Raises RecipeError where they cannot be loaded or have no chat template, MissingDependency for an adapter without
    peft.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # we show our own, and a load of a second is not worth one
    adapter = _base(path)
    base = folder(adapter) if adapter else path
    own = any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    try:
        with _LOADING:
            model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, trust_remote_code=trust_remote_code)
            if adapter:
                model = _adapted(model, path)
            model = model.to(device).eval()
        tokenizer: Any = AutoTokenizer.from_pretrained(
            path if own else base, trust_remote_code=trust_remote_code, padding_side="left"
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise RecipeError(f"cannot load the model: {error}", str(path), "check that the folder is complete") from error
    if not tokenizer.chat_template:
        raise RecipeError("the model has no chat template", str(path), "use an instruction-tuned model")
    return model, tokenizer


def _adapted(model: Any, path: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingDependency("LoRA adapters need peft", str(path), 'pip install "vivavoce[train]"') from error
    return PeftModel.from_pretrained(model, path).merge_and_unload()


def _base(path: Path) -> str | None:
    """The base model of an adapter folder."""
    config = path / "adapter_config.json"
    if not config.is_file():
        return None
    return json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]


def _hash(file: Path) -> str:
    stat = file.stat()
    key = str(file.resolve()), stat.st_mtime_ns, stat.st_size
    if key not in _hashes:
        with file.open("rb") as stream:
            _hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _hashes[key]
