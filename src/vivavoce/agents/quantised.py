"""Weights in four bits (NF4, arXiv:2305.14314), by the package bitsandbytes.

The matrices of linear layers are kept as NF4, in blocks of 64 with a scale each, and the scales in 8 bits: 4.13 bits a
weight. Embeddings, norms and the layer that makes logits keep the type that the model computes in. Such weights are
never trained; an adapter beside them is (QLoRA).
"""

from __future__ import annotations

import importlib.util
import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vivavoce.agents.chat_template import AS_IT_CAME
from vivavoce.errors import MissingDependency, RecipeError
from vivavoce.files import object_in

if TYPE_CHECKING:
    import torch

Quantise = Literal["nf4"]
"""How weights are quantised when a model is loaded."""
BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Bits of one weight as NF4, with its share of both scales."""


def need_quantiser(where: str, device: str = "auto") -> None:
    """Raise MissingDependency without bitsandbytes, RecipeError if it cannot quantise on ``device`` here."""
    for package in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(package) is None:
            what = f"weights in 4 bits need the package {package}"
            do = 'pip install "vivavoce[bitsandbytes]", or set quantise to null'
            raise MissingDependency(what, where, do)
    if device == "auto" or device.startswith("cuda"):
        import torch

        if device != "auto" and not torch.cuda.is_available():
            raise RecipeError(f"there is no GPU for `{device}`", where, "set device: auto, or use a machine with one")
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if fault := _fault(device):
        do = "set quantise to null, or use a machine that bitsandbytes supports: an NVIDIA GPU, or a CPU with AVX2"
        raise RecipeError(f"bitsandbytes cannot quantise on this machine ({device}): {fault}", where, do)


@cache
def _fault(device: str) -> str:
    """Why bitsandbytes cannot bring a small matrix to 4 bits and back on a device; empty if it can."""
    import torch

    # It warns that it lacks a kernel for packed weights, which are not used here: see `one_way`.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        from bitsandbytes.functional import (  # pyright: ignore[reportMissingImports]
            dequantize_4bit,
            quantize_4bit,
        )

        matrix = torch.linspace(-1, 1, 4096, device=device).reshape(64, 64)
        off = float((dequantize_4bit(*quantize_4bit(matrix, quant_type="nf4")) - matrix).abs().max())
    except (ImportError, RuntimeError, AttributeError, OSError, ValueError) as error:  # its version decides which
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return "" if off < 0.2 else f"a number of 1 comes back as one that is off by {off:.2f}"


def loading(
    quantise: Quantise | None, folder: Path, dtype: str | torch.dtype, device: str, trust_remote_code: bool = False
) -> dict[str, Any]:
    """Arguments with which Transformers loads the model in ``folder``: its type, and quantised or whole.

    Quantised weights go straight to ``device``, and the model computes in ``dtype``. ``auto`` is the checkpoint's own
    type.
    """
    if quantise is None or stored_quantised(folder):
        return {"dtype": dtype}
    import torch
    from transformers import AutoConfig, BitsAndBytesConfig

    if dtype == "auto":
        dtype = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).dtype or torch.float32
    computes: Any = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantise,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computes,
    )
    return {"dtype": computes, "quantization_config": config, "device_map": {"": device}}


def one_way(model: torch.nn.Module) -> None:
    """Have a quantised model compute alike in training and in evaluation.

    On CPUs with AVX512-BF16, bitsandbytes packs the weights anew when a model is first evaluated. It then rounds their
    scales to bfloat16, so answers would differ from those of training, and it fails on widths that no block divides.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 (a module's type knows no such attribute)


def stored_quantised(folder: Path) -> str | None:
    """The way in which a folder's own weights are quantised, by its config.json; None if they are whole."""
    if not (folder / "config.json").is_file():
        return None
    config = object_in(folder / "config.json", AS_IT_CAME)
    given = config.get("quantization_config")
    return str(given.get("quant_method", "unknown")) if isinstance(given, dict) else None


__all__ = ["BITS", "Quantise", "loading", "need_quantiser", "one_way", "stored_quantised"]
