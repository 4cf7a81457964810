"""Checks of a model's folder that need neither its tensors nor torch: a model that cannot be loaded is refused at
once."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path

from vivavoce.agents.chat_template import AS_IT_CAME
from vivavoce.errors import DataError, RecipeError
from vivavoce.files import object_in

_POINTER = b"version https://git-lfs"


def need_whole_tensors(folder: Path) -> None:
    """Raise DataError if a file of tensors is missing, cut, or something else."""
    for index in folder.glob("*.safetensors.index.json"):
        names = object_in(index, AS_IT_CAME).get("weight_map")
        for name in sorted(set(names.values())) if isinstance(names, dict) else ():
            if not (folder / str(name)).is_file():
                raise DataError(f"the weights lack {name}", str(folder), "give the folder of a whole model")
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        with file.open("rb") as opened:
            if opened.read(len(_POINTER)) == _POINTER:
                raise DataError("the file is a pointer of Git LFS and holds no weights", str(file), "git lfs pull")
    for file in sorted(folder.glob("*.safetensors")):
        if (size := file.stat().st_size) < (whole := _bytes_of(file)):
            what = f"the file of weights is cut: it has {size:,} bytes of {whole:,}"
            raise DataError(what, str(file), "save or download it again")


def _bytes_of(file: Path) -> int:
    """The bytes of a whole file, by its header: eight bytes with the header's length, the header, the tensors."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= 100_000_000:
            raise DataError("the file holds no weights: it is no safetensors", str(file), "save or download it again")
        text = opened.read(length)
    if len(text) < length:
        return 8 + length
    try:
        tensors = json.loads(text)
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        what = "the file holds no weights: its header is none of safetensors"
        raise DataError(what, str(file), "save or download it again") from error
    return 8 + length + max(ends, default=0)


def need_known_kind(folder: Path) -> None:
    """Raise RecipeError if the installed transformers cannot load the folder's model as one that writes text."""
    config = object_in(folder / "config.json", AS_IT_CAME)
    kind = str(config.get("model_type") or "")
    if not kind or "auto_map" in config or not _writers() or kind in _writers():
        return
    known = kind in _writers(every_kind=True)
    what = f"a model of the kind `{kind}` writes no text" if known else f"the kind of model `{kind}` is not known"
    do = "take a causal language model" + ("" if known else ", or a newer version of transformers, if that knows it")
    raise RecipeError(what, str(folder / "config.json"), do)


@cache
def _writers(every_kind: bool = False) -> frozenset[str]:
    """The kinds of models that transformers loads as causal language models, or all that it knows; read off its source,
    because its import takes seconds. Empty if they are not found.
    """
    package = importlib.util.find_spec("transformers")
    folder = Path(package.origin).parent / "models" / "auto" if package and package.origin else None
    if folder is None or not folder.is_dir():
        return frozenset()
    if every_kind:
        texts = [file.read_text("utf-8") for file in folder.glob("*.py")]
    else:
        text = (folder / "modeling_auto.py").read_text("utf-8")
        table = re.search(r"^MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = (.*?)^\)", text, re.MULTILINE | re.DOTALL)
        texts = [table[1]] if table else []
    return frozenset(kind for text in texts for kind in re.findall(r'^\s*\("([\w.-]+)", ', text, re.MULTILINE))


__all__ = ["need_known_kind", "need_whole_tensors"]
