"""Local models: the folders of their files, the hashes of their content, and their loading.

A trained adapter (LoRA) is a folder that names its base model. In float32 the two are added up when they are loaded. A
base in half precision keeps its adapter beside it, in float32, because sums rounded to half precision lose most of what
an adapter has learned.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vivavoce.agents.gguf_files import gguf_in, header, unpack
from vivavoce.agents.given_template import template_names, with_template
from vivavoce.agents.quantised import Quantise, loading, one_way
from vivavoce.errors import MissingDependency, RecipeError
from vivavoce.files import object_in
from vivavoce.records import digest

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")
_SCHOOLHOUSE = "schoolhouse:"
GIVE_TEMPLATE = (
    f"use an instruction-tuned model, or set chat_template: {' or '.join(template_names())}, or a .jinja file"
)
"""What to do about a model without a chat template."""
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
_ADAPTER = "adapter_config.json"
_PLACE = ("base_model_name_or_path", "revision")
"""The keys of an adapter's config that say where its base is."""
_TENSORS = ("*.safetensors", "*.bin", "*.safetensors.index.json")
_hashes = dict[tuple[str, int, int], str]()
LOADING = threading.Lock()
"""The lock that every load of a model takes.

Transformers replaces methods of its classes while it loads: it ties no weights, for example. If two threads load at
once, the second may restore what the first had replaced, and then no later model in the process is whole.
"""


def check(model: str) -> None:
    """Raise RecipeError if ``model``, or the base of an adapter, can be seen to be missing; downloads nothing."""
    if base := base_name(Path(model).expanduser()):
        _base_there(Path(model).expanduser(), lambda: check(base))
    if model.startswith(_SCHOOLHOUSE):
        folder(model)
    elif model.endswith(".gguf") and not Path(model).expanduser().is_file():
        raise RecipeError(f"there is no file {model}", "`model`", "give the path of a GGUF file on this machine")
    elif model.endswith(".gguf"):
        header(Path(model).expanduser())
    elif Path(model).expanduser().is_file():
        raise RecipeError(f"{model} is a file", "`model`", "give the folder that it lies in, or a .gguf file")
    elif (model.startswith((".", "/", "~")) or model.count("/") > 1) and not Path(model).expanduser().is_dir():
        raise RecipeError(f"there is no folder {model}", "`model`", "give a folder, a hub id or schoolhouse:NAME")


def folder(
    model: str, revision: str | None = None, *, tokenizer_only: bool = False, template: str | None = None
) -> Path:
    """The folder with the files of a folder, a hub id (downloaded if need be) or ``schoolhouse:NAME``; a GGUF file is
    unpacked to one.

    With ``tokenizer_only`` no tensors are downloaded, because the model runs elsewhere. A ``template`` is given to a
    model that has another chat template or none: :func:`vivavoce.agents.given_template.with_template`. Raises
    RecipeError if there is no such model or template.
    """
    if template:
        own = folder(model, revision, tokenizer_only=tokenizer_only)
        return with_template(own, template, tokenizer_folder(own))
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
    if file := gguf_in(path):
        return unpack(file, LOADING)
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

    With ``tokenizer_only``, over those that determine its tokens; tensors beside them do not count.

    A file that has not changed since (path, time, size) is not read again by this process.
    """
    tensors = {file for pattern in _TENSORS for file in path.glob(pattern)} if tokenizer_only else set[Path]()
    files = sorted({file for pattern in _FILES for file in path.glob(pattern)} - tensors)
    base = base_folder(path)
    if base is None:
        return digest([[file.name, _hash(file)] for file in files])[:16]
    # Where the base lies is no matter, only what it holds.
    config = {key: value for key, value in _adapter_config(path).items() if key not in _PLACE}
    content = [[file.name, _hash(file)] for file in files if file.name != _ADAPTER]
    return digest([content, config, fingerprint(base, tokenizer_only=tokenizer_only)])[:16]


def load(
    path: Path, dtype: str, device: str, trust_remote_code: bool, quantise: Quantise | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model, in evaluation mode on ``device``, and tokenizer. An adapter is loaded with its base model.

    A quantised model computes in ``dtype``. Raises RecipeError if they cannot be loaded or have no chat template,
    MissingDependency for an adapter without peft, or for weights that need a package which is not there.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # we show our own, and a load of a second is not worth one
    base = base_folder(path)
    try:
        with LOADING:
            how = loading(quantise, base or path, dtype, device, trust_remote_code)
            model: Any = AutoModelForCausalLM.from_pretrained(base or path, trust_remote_code=trust_remote_code, **how)
            one_way(model)
            if base:
                adapted = add_adapter(model, path)
                whole = all(p.dtype.itemsize >= 4 for p in model.parameters())
                model = (
                    merge_adapter(adapted) if whole else adapted.get_base_model()
                )  # which has the adapter's layers in it
            model = model.to(device).eval()
        tokenizer: Any = AutoTokenizer.from_pretrained(
            tokenizer_folder(path), trust_remote_code=trust_remote_code, padding_side="left"
        )
    except MissingDependency:
        raise
    except ImportError as error:
        what = f"the model needs a package that is not here: {str(error).strip().splitlines()[0]}"
        raise MissingDependency(what, str(path), "install it, or take the model's whole weights") from error
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        unlike = "mismatched_sizes" in str(error)
        what = "its weights have other shapes than its config.json says" if unlike else str(error)
        raise RecipeError(f"cannot load the model: {what}", str(path), "check that the folder is complete") from error
    if not tokenizer.chat_template:
        raise RecipeError("the model has no chat template", str(path), GIVE_TEMPLATE)
    return model, tokenizer


def base_folder(path: Path) -> Path | None:
    """The folder of the base model, if ``path`` holds an adapter. Raises RecipeError if the base is not there."""
    base = base_name(path)
    if base is None:
        return None
    return _base_there(path, lambda: folder(base, _adapter_config(path).get("revision")))


def base_name(path: Path) -> str | None:
    """The base model's name in an adapter's folder: a folder or a hub id; None for a whole model."""
    if not (path / _ADAPTER).is_file():
        return None
    base = _adapter_config(path).get(_PLACE[0])
    if not isinstance(base, str) or not base:
        do = f"write the folder or Hub id of its base model as {_PLACE[0]} in that file"
        raise RecipeError("the adapter does not name its base model", str(path / _ADAPTER), do)
    return base


def adapter_rank(path: Path) -> int:
    """The rank of the adapter in the folder ``path``."""
    config = _adapter_config(path)
    return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])


def _base_there(path: Path, use: Callable[[], T]) -> T:
    try:
        return use()
    except RecipeError as error:
        do = "set base_model_name_or_path in that file to the folder in which the base model is now"
        raise RecipeError(f"the adapter's base model is missing: {error.what}", str(path / _ADAPTER), do) from error


def tokenizer_folder(path: Path) -> Path:
    """The folder with a model's tokenizer: that of its base model if an adapter has none of its own."""
    return path if has_tokenizer(path) else base_folder(path) or path


def has_tokenizer(path: Path) -> bool:
    """Whether the folder has a tokenizer of its own, as an adapter's need not."""
    return any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))


def token_counter(model: str | Path) -> Callable[[str], int]:
    """A function that counts the tokens of a text for a model: a folder, a Hub id or ``schoolhouse:NAME``.

    The tokenizer is loaded when the first text is counted.
    """
    loaded: list[Any] = []

    def count(text: str) -> int:
        if not loaded:
            from transformers import AutoTokenizer

            loaded.append(AutoTokenizer.from_pretrained(folder(str(model))))
        return len(loaded[0](text, add_special_tokens=False)["input_ids"])

    return count


def add_adapter(model: PreTrainedModel, path: Path, name: str = "default") -> PeftModel:
    """``model`` with the adapter of the folder ``path`` beside its weights, in float32 and without dropout.

    Raises MissingDependency without peft, RecipeError for an adapter that is no layer beside a layer (prompt tuning).
    """
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise MissingDependency("LoRA adapters need peft", str(path), 'pip install "vivavoce[train]"') from error
    config: Any = PeftConfig.from_pretrained(str(path))
    if config.is_prompt_learning or config.is_adaption_prompt:
        what = f"an adapter of the kind {config.peft_type} cannot be loaded"
        raise RecipeError(what, str(path), "use LoRA or another kind that adds to layers")
    if hasattr(config, "lora_dropout"):
        config.lora_dropout = 0.0  # what is learnt on top of it shall see it as it will be served
    with peft_unheard():
        return PeftModel.from_pretrained(model, path, adapter_name=name, config=config)


@contextmanager
def peft_unheard() -> Iterator[None]:
    """Keep peft from warning of what users can do nothing about.

    It says that an adapter on a tied layer may not survive a merge, which :func:`merge_adapter` handles, and reads an
    attribute by a name that Transformers has replaced.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings", UserWarning)
        yield


def merge_adapter(adapted: PeftModel) -> PreTrainedModel:
    """The whole model with the adapter added to its weights, which must be float32 for nothing to be lost.

    If an adapter changes only one of embedding and output layer, and the two share a weight, each gets its own.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Parameter

    model: Any = adapted.get_base_model()
    ends: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    plain: list[Any] = [end.get_base_layer() if isinstance(end, BaseTunerLayer) else end for end in ends]
    if any(a is not b for a, b in zip(ends, plain, strict=True)) and plain[0].weight is plain[1].weight:
        plain[1].weight = Parameter(plain[1].weight.detach().clone())
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False
    whole: Any = adapted
    with peft_unheard():
        return whole.merge_and_unload()


def _adapter_config(path: Path) -> dict[str, Any]:
    return object_in(path / _ADAPTER, "restore this file from the adapter's download")


def _hash(file: Path) -> str:
    stat = file.stat()
    key = str(file.resolve()), stat.st_mtime_ns, stat.st_size
    if key not in _hashes:
        with file.open("rb") as stream:
            _hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _hashes[key]
