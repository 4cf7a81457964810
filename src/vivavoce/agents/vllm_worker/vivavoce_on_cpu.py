"""Faster parts for vLLM's worker on a CPU: LoRA in one product for all tokens of an adapter, a float32 head in blocks.

vLLM's own LoRA functions for CPUs (`vllm.lora.ops.torch_ops.lora_ops`, version 0.32) copy an adapter's weights once for
each token, and give the adapter in the last slot to tokens that use none. Its float32 head turns the whole output
embedding into float32 for every token that is drawn. The results here are the same numbers: those of the head bit by
bit, those of LoRA in float32 until they are added.

The module runs in vLLM's worker and in vLLM's environment, so it imports nothing of vivavoce. `engines.py` puts this
folder on the worker's path and names the class below (`--worker-extension-cls`); to import it replaces the functions.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.lora.ops.torch_ops import lora_ops  # pyright: ignore[reportMissingImports]
from vllm.lora.punica_wrapper import punica_cpu  # pyright: ignore[reportMissingImports]
from vllm.model_executor.layers import logits_processor  # pyright: ignore[reportMissingImports]

_BLOCK = 1024
"""Rows of the output embedding that are in float32 at once: they stay in a core's cache."""


def _times(inputs: torch.Tensor, weights: torch.Tensor, slots: torch.Tensor) -> torch.Tensor | None:
    """Each token's input (tokens × in) times its adapter's weights (slots × 1 × out × in), in float32.

    ``slots`` holds each token's adapter, -1 for none: its product is zero. None stands for zero everywhere, as in the
    layers that an adapter leaves alone: vLLM asks for the products of all layers, the output embedding too.
    """
    stacked = weights.squeeze(1) if weights.dim() == 4 else weights
    used = [slot for slot in slots.unique().tolist() if slot >= 0 and stacked[slot].any()]
    if not used or not inputs.any():
        return None
    rows = inputs.float()
    if len(used) == 1 and bool((slots == used[0]).all()):
        return rows @ stacked[used[0]].float().T
    products = rows.new_zeros(rows.shape[0], stacked.shape[1])
    for slot in used:
        members = slots == slot
        products[members] = rows[members] @ stacked[slot].float().T
    return products


def bgmv_shrink(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, slots: torch.Tensor, scaling: float = 1.0
) -> None:
    """Write the product with the first matrix of each token's adapter into ``output``."""
    products = _times(inputs, weights, slots)
    output[:, : weights.shape[-2]] = 0.0 if products is None else scaling * products


def bgmv_expand(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, slots: torch.Tensor, add_inputs: bool = True
) -> None:
    """Add the product with the second matrix to ``output``, or write it there; columns of padding stay."""
    bgmv_expand_slice(inputs, weights, output, slots, 0, min(weights.shape[-2], output.shape[1]), add_inputs)


def bgmv_expand_slice(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    output: torch.Tensor,
    slots: torch.Tensor,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    """The same for columns ``slice_offset`` to ``slice_offset + slice_size`` of ``output``."""
    products = _times(inputs, weights, slots)
    columns = output[:, slice_offset : slice_offset + slice_size]
    if products is None:
        if not add_inputs:
            columns.zero_()
        return
    products = products[:, :slice_size]
    columns.copy_(columns + products if add_inputs else products)


_apply_head = logits_processor.LogitsProcessor._apply_head


def apply_head(processor: Any, head: Any, hidden: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Logits of ``hidden`` (rows × width) by a bfloat16 head in float32; any other kind goes to vLLM's own function."""
    weight = getattr(head, "weight", None)
    plain = (logits_processor.UnquantizedEmbeddingMethod, logits_processor.UnquantizedLinearMethod)
    if not isinstance(weight, torch.Tensor) or not isinstance(head.quant_method, plain):
        return _apply_head(processor, head, hidden, bias)
    if processor.head_dtype != torch.float32 or not (weight.dtype == hidden.dtype == torch.bfloat16):
        return _apply_head(processor, head, hidden, bias)
    return float32_product(hidden, weight, bias)


def float32_product(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``linear(hidden, weight, bias)`` in float32, with few of the rows of ``weight`` in float32 at once."""
    rows = hidden.reshape(-1, hidden.shape[-1]).float()
    logits = rows.new_empty(rows.shape[0], weight.shape[0])
    for first in range(0, weight.shape[0], _BLOCK):
        logits[:, first : first + _BLOCK] = rows @ weight[first : first + _BLOCK].float().T
    if bias is not None:
        logits += bias.float()
    return logits.reshape(*hidden.shape[:-1], -1)


logits_processor.LogitsProcessor._apply_head = apply_head
for _function in (bgmv_shrink, bgmv_expand, bgmv_expand_slice):
    for _module in (lora_ops, punica_cpu):  # the functions for prompts look them up in the first
        setattr(_module, _function.__name__, _function)


class Extension:
    """An empty class that vLLM adds to its worker; to import its module is what counts."""
