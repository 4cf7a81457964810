"""LoRA adapters in training: started afresh or on top of one that was trained before, saved as adapters.

::

    base (frozen, bfloat16 if asked for)                    base
      + the adapter that training starts from (frozen)  ─▶    + one adapter, in float32, of both ranks together
      + the adapter that is trained (float32)               in PEFT's form, with the base named in it

An adapter is not merged into its base: in bfloat16 most of a small update is rounded away. Two adapters one after the
other are one adapter whose ranks are the sum, exactly: B1 A1 + B2 A2 = (B1 B2) (A1 over A2).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from vivavoce.agents import weights
from vivavoce.agents.quantised import stored_quantised
from vivavoce.errors import DataError, RecipeError
from vivavoce.train.settings import LoRASettings

if TYPE_CHECKING:
    from peft import PeftModel

START, TRAINED = "start", "trained"
"""Names of the adapter that training starts from, and of one that is trained on top of it."""
_ALONE = "default"
_HELD = ("lora_A.weight", "lora_embedding_A"), ("lora_B.weight", "lora_embedding_B")


def start_from(base: PreTrainedModel, folder: Path) -> PeftModel:
    """``base`` with the adapter of ``folder`` beside it, frozen.

    Raises RecipeError for an adapter that another one cannot be added to.
    """
    adapted = weights.add_adapter(base, folder, START)
    config: Any = adapted.peft_config[START]
    plain = config.peft_type == "LORA" and not (
        config.use_dora
        or config.bias != "none"
        or config.modules_to_save
        or getattr(config, "target_parameters", None)
        or getattr(config, "trainable_token_indices", None)
    )
    if not plain or not all(_simple(layer, START) for layer in _layers(adapted).values()):
        what = "an adapter cannot be trained on top of this one, which is more than plain LoRA on layers"
        do = "make it a model with `viva train merge` and start from that, or set lora to null"
        raise RecipeError(what, str(folder), do)
    adapted.requires_grad_(False)
    return adapted


def add_lora(model: Any, lora: LoRASettings, dropout: float) -> Any:
    """``model`` with a fresh adapter, which changes nothing yet, on top of its weights and adapters.

    Raises RecipeError if no target exists.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    targets, alpha = list(lora.targets), cast(Any, lora.alpha)  # declared whole there, and only ever divided
    config = LoraConfig(task_type="CAUSAL_LM", r=lora.r, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
    try:
        with weights.peft_unheard():
            if not isinstance(model, PeftModel):
                return get_peft_model(model, config)
            model.add_adapter(TRAINED, config)
    except ValueError as error:
        raise RecipeError(f"cannot add the adapter: {error}", "lora.targets", "name modules of this model") from error
    activate(model)
    return model


def activate(model: Any) -> None:
    """Use both adapters of a student, and train only the second one. Loading a checkpoint undoes that.

    Does nothing to a model with fewer adapters.
    """
    if TRAINED in getattr(model, "peft_config", {}):
        model.base_model.set_adapter([START, TRAINED])
        for name, parameter in model.named_parameters():
            if f".{START}" in name:
                parameter.requires_grad_(False)


def save(model: PeftModel, out: Path, whole: Mapping[str, Tensor] | None = None) -> None:
    """Write the student's adapter into ``out``, in PEFT's own form. ``whole`` are its weights if they are sharded."""
    from peft import LoraConfig, get_peft_model_state_dict

    def tensors(name: str) -> dict[str, Tensor]:
        state = get_peft_model_state_dict(
            model, state_dict=cast(Any, whole), adapter_name=name, save_embedding_layers=False
        )
        return {key: value.detach().float().cpu().contiguous() for key, value in state.items()}

    if TRAINED in model.peft_config:
        first, second = (cast("LoraConfig", model.peft_config[name]) for name in (START, TRAINED))
        held, rank = _together(model, tensors(START), tensors(TRAINED))
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=rank,
            lora_alpha=rank,
            lora_dropout=second.lora_dropout,
            target_modules=_targets(model, first, second),
        )
        config.base_model_name_or_path, config.revision = first.base_model_name_or_path, first.revision
    else:
        config = cast("LoraConfig", copy.deepcopy(model.peft_config[_ALONE]))
        held = tensors(_ALONE)
    config.inference_mode = True
    _name_base(config)
    config.save_pretrained(str(out))
    save_file(held, out / "adapter_model.safetensors", metadata={"format": "pt"})


def merge(folder: Path, out: Path) -> None:
    """Write the whole model that an adapter and its base make, in float32, with its tokenizer, into ``out``.

    An adapter that was trained beside weights in 4 bits is added to the whole weights, which it names as its base.
    Raises DataError if ``folder`` holds no adapter, its base holds no whole weights, or ``out`` holds something.
    """
    base = weights.base_folder(folder)
    if base is None:
        raise DataError("there is no adapter to merge", str(folder), "give a folder with adapter_config.json")
    if (stored := stored_quantised(base)) is not None:
        what = f"the adapter's base is stored in few bits ({stored}): a sum rounded to them loses what was learnt"
        do = "name the folder of the same model's whole weights as base_model_name_or_path in adapter_config.json"
        raise DataError(what, str(base), do)
    if out.exists() and any(out.iterdir()):
        raise DataError("the folder is not empty", str(out), "choose another one for the merged model")
    with weights.LOADING:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = weights.merge_adapter(weights.add_adapter(model, folder))
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(weights.tokenizer_folder(folder)).save_pretrained(out)


def _layers(model: torch.nn.Module) -> dict[str, Any]:
    """The layers of a model that hold adapters, by name."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _simple(layer: Any, adapter: str) -> bool:
    """Whether an adapter's part of a layer is two matrices and nothing else."""
    from peft.tuners.lora import Embedding, Linear

    # PEFT's layer over a matrix in 4 bits is no `Linear`, and exists only if bitsandbytes is there.
    plain = isinstance(layer, Linear | Embedding) or type(layer).__name__ == "Linear4bit"
    return plain and not layer.lora_variant.get(adapter)


def _together(
    model: torch.nn.Module, start: Mapping[str, Tensor], trained: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], int]:
    """Both adapters as one with scale 1, and its rank; layers with less are filled up with zeros."""
    halves: dict[str, list[Tensor]] = {}
    for name, layer in _layers(model).items():
        for adapter, held in ((START, start), (TRAINED, trained)):
            for down, up in zip(*_HELD, strict=True):
                if f"{name}.{down}" in held:
                    halves.setdefault(f"{name}.{down}", []).append(held[f"{name}.{down}"])
                    halves.setdefault(f"{name}.{up}", []).append(held[f"{name}.{up}"] * layer.scaling[adapter])
    joined = {key: torch.cat(parts, 0 if key.endswith(_HELD[0]) else 1) for key, parts in halves.items()}
    rank = max(value.shape[0] for key, value in joined.items() if key.endswith(_HELD[0]))
    return {key: _fill(value, 0 if key.endswith(_HELD[0]) else 1, rank) for key, value in joined.items()}, rank


def _fill(value: Tensor, dim: int, size: int) -> Tensor:
    shape = list(value.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([value, value.new_zeros(shape)], dim).contiguous()


def _targets(model: torch.nn.Module, first: Any, second: Any) -> list[str]:
    """Names of the modules that either adapter changes: as short as they were given, if no more is meant by that."""
    names = [name.removeprefix("base_model.model.") for name in _layers(model)]
    if isinstance(first.target_modules, set | list | tuple):
        short = sorted({*first.target_modules, *second.target_modules})
        modules = [name.removeprefix("base_model.model.") for name, _ in model.named_modules()]
        inner = [n for n in modules if any(n == s or n.endswith(f".{s}") for s in short)]
        if sorted(inner) == sorted(names):
            return short
    return sorted(names)


def _name_base(config: Any) -> None:
    """Name the base so that it is found from anywhere: by its id and revision on the hub, or by a whole path."""
    path = Path(config.base_model_name_or_path)
    cached = path.parent.parent.name
    if path.parent.name == "snapshots" and cached.startswith("models--"):
        config.base_model_name_or_path, config.revision = cached.removeprefix("models--").replace("--", "/"), path.name
    elif path.is_dir():
        config.base_model_name_or_path = str(path.resolve())


__all__ = ["START", "TRAINED", "activate", "add_lora", "merge", "save", "start_from"]
