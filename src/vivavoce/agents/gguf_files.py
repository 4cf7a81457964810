"""Models in GGUF files, the form of llama.cpp: unpacked once to an ordinary folder, which is then read as any other.

::

    model-q4_k_m.gguf ──▶ ~/.cache/vivavoce/gguf/HASH/  model.safetensors (float32), config, tokenizer, chat template

What a file of 4 bits says is kept whole: its numbers are written as float32. Training starts from them and saves
safetensors; no GGUF file is written.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import struct
import threading
from pathlib import Path
from typing import Any, BinaryIO

from vivavoce.agents.chat_template import ChatTemplate
from vivavoce.errors import MissingDependency, RecipeError
from vivavoce.progress import awaited
from vivavoce.records import digest

_MAGIC = b"GGUF"
_SIZES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""Files beside a GGUF file that are taken in place of what it holds."""


def gguf_in(path: Path) -> Path | None:
    """The GGUF file that ``path`` is, or the one that a folder without other weights holds; None if there is none.

    Raises RecipeError if the folder holds several.
    """
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    files = sorted(path.glob("*.gguf")) if path.is_dir() else []
    if not files or any(path.glob("*.safetensors")) or any(path.glob("*.bin")):
        return None
    if len(files) > 1:
        what = f"the folder holds {len(files)} GGUF files, such as {files[0].name}"
        raise RecipeError(
            what, str(path), f"write one of them as `model`, such as {files[0]}; split files cannot be read"
        )
    return files[0]


def unpack(file: Path, loading: threading.Lock) -> Path:
    """The folder with the model of a GGUF file; made on first use and if the file changes. ``loading`` is held while
    the model is loaded.

    Raises RecipeError if it cannot be read or does not fit on the disk, MissingDependency without the package gguf.
    """
    stat = file.stat()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vivavoce" / "gguf"
    beside = [file.with_name(name) for name in _TOKENIZER if file.with_name(name).is_file()]
    known = [str(file.resolve()), stat.st_mtime_ns, stat.st_size, [(f.name, f.stat().st_mtime_ns) for f in beside]]
    place = base / digest(known)[:16]
    if (place / "config.json").is_file():
        return place
    facts, count = header(file)
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependency("GGUF files need the package gguf", str(file), 'pip install "vivavoce[gguf]"')
    base.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(base).free) < 4 * count:
        need = f"{4 * count / 2**30:.1f} GiB for its numbers as float32, and {free / 2**30:.1f} GiB are free in {base}"
        raise RecipeError(f"the model needs {need}", str(file), "make room, or set XDG_CACHE_HOME to another disk")
    part = place.with_name(f"{place.name}.part-{os.getpid()}")
    with awaited(f"unpacking {file.name}"):
        _unpack(file, facts, part, loading)
    for one in beside:
        shutil.copy(one, part)
    template = facts.get("tokenizer.chat_template")
    if template and ChatTemplate.within(part) is None:
        (part / "chat_template.jinja").write_text(template, "utf-8")
    shutil.rmtree(place, ignore_errors=True)
    part.replace(place)
    return place


def _unpack(file: Path, facts: dict[str, Any], out: Path, loading: threading.Lock) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    do = "give the original model's folder or Hub id, or serve the file: backend: openai_chat, preset: llama_cpp"
    try:
        config: Any = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        width = facts.get(f"{facts.get('general.architecture')}.attention.key_length")
        if width and getattr(config, "head_dim", None):
            config.head_dim = width  # Transformers reads it for some families only, and assumes 128 for Qwen3
        with loading:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, config=config, dtype=torch.float32, output_loading_info=True
            )
        model, notes = loaded
        tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, NotImplementedError) as error:
        raise RecipeError(f"cannot read the GGUF file: {str(error).splitlines()[0]}", str(file), do) from error
    if missing := sorted(notes["missing_keys"]):
        raise RecipeError(f"the GGUF file lacks {len(missing)} weights, such as {missing[0]}", str(file), do)
    model.hf_quantizer = None  # what it holds now are plain numbers
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def header(file: Path) -> tuple[dict[str, Any], int]:
    """The plain values that a GGUF file says of its model, by key, and the number of its weights; lists are left out.

    Raises RecipeError if it is no such file.
    """
    try:
        with file.open("rb") as stream:
            if stream.read(4) != _MAGIC:
                raise RecipeError(
                    "the file is not a GGUF file", str(file), "download it again: the file seems to be incomplete"
                )
            _, tensors, values = struct.unpack("<IQQ", _read(stream, 20))
            facts = {}
            for _ in range(values):
                key = _text(stream)
                value = _value(stream, _number(stream, "I"))
                if value is not None:
                    facts[key] = value
            count = 0
            for _ in range(tensors):
                _text(stream)
                count += math.prod(_number(stream, "Q") for _ in range(_number(stream, "I")))
                _read(stream, 12)
    except (OSError, EOFError, KeyError, UnicodeDecodeError, OverflowError) as error:
        what = f"the GGUF file cannot be read: {error}"
        raise RecipeError(what, str(file), "download it again: the file seems to be incomplete") from error
    return facts, count


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the file ends within its header")
    return data


def _number(stream: BinaryIO, form: str) -> Any:
    return struct.unpack(f"<{form}", _read(stream, struct.calcsize(form)))[0]


def _text(stream: BinaryIO) -> str:
    return _read(stream, _number(stream, "Q")).decode()


def _value(stream: BinaryIO, kind: int) -> Any:
    """One value of a header; None for a list, which is passed over."""
    if kind == _STRING:
        return _text(stream)
    if kind != _ARRAY:
        return _number(stream, _SIZES[kind])
    inner, count = _number(stream, "I"), _number(stream, "Q")
    if inner in (_STRING, _ARRAY):
        for _ in range(count):
            _value(stream, inner)
    else:
        _read(stream, count * struct.calcsize(_SIZES[inner]))
    return None


__all__ = ["gguf_in", "header", "unpack"]
