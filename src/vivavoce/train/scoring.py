"""Log-probabilities of answers under a model: packed if the model can take it, otherwise row by row.

The vocabulary's logits exist only for tokens that are scored, a chunk at a time, and are computed again in the backward
pass if they are many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from vivavoce.errors import RecipeError
from vivavoce.train.attention import BLOCKS, flex_mask, plan
from vivavoce.train.packing import Packed, pack
from vivavoce.train.tokens import ScoredRow

Attention = Literal["flex", "blocks", "rows"]
CHUNK = {"cpu": 2**22, "cuda": 2**27}
"""Logits that exist at a time, by device. For a tensor above 32 MiB the C library asks the kernel for new pages every
time: on a CPU, the same work then takes twice as long. On a GPU every chunk adds a gradient of the whole head."""
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


OnStates = Callable[[Tensor, torch.nn.Module], Tensor]
"""A function of hidden states (N, H) and of the output embedding that would turn them into logits."""


@dataclass(frozen=True, slots=True)
class Method:
    """The way to score a model's answers; found by :func:`vivavoce.train.choosing.choose`."""

    attention: Attention
    chunked: bool = True
    """Project hidden states with the output embedding, chunk by chunk; False asks the model for its own logits."""
    compiled: bool = False
    """Whether the decoder layers are compiled: with FlexAttention on a GPU, half of the time would else go by
    between small kernels.
    """
    quiet: bool = False
    """Whether the model has dropout or noise of its own, which training keeps switched off: see :func:`learning`."""


def bare(model: torch.nn.Module) -> Any:
    """The transformers model inside a PEFT or data-parallel wrapper."""
    inner = cast(Any, getattr(model, "module", model))
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """bfloat16 arithmetic if it is asked for. The forward pass here goes round the trainer's own wrapper."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def logprobs(model: torch.nn.Module, packed: Packed, method: Method) -> Tensor:
    """log pi(answer | context) of every answer of ``packed``, shape (answers,), float32, in nats, with gradient."""
    if method.attention == "rows":
        *others, last = _unpack(packed)
        before = [_score(_unwrap(model), alone, None, method) for alone in others]
        return torch.cat([*before, _score(model, last, None, method)])
    return _score(model, packed, method.attention, method)


def _unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside a data-parallel wrapper, whose forward pass the other devices wait for.

    Devices have different numbers of rows, so each goes through the wrapper once for a packed row, and through the
    model itself for all rows of it but the last.
    """
    return cast(torch.nn.Module, getattr(model, "module", model))


def _score(model: torch.nn.Module, packed: Packed, attention: Attention | None, method: Method) -> Tensor:
    inner: PreTrainedModel = bare(model)
    device = inner.device
    # Tokens that several answers share are scored once.
    scored, where = np.unique(np.concatenate(packed.answers), return_inverse=True)
    targets = torch.from_numpy(packed.input_ids[scored]).to(device)
    pick = _compiled_pick() if method.compiled else _pick
    top = cast(torch.nn.Module, inner.get_output_embeddings())
    size = chunk_rows(int(getattr(top, "out_features", 0) or cast(Tensor, top.weight).shape[0]), device)

    def project(states: Tensor, head: torch.nn.Module) -> Tensor:
        return _project(head, states, targets, size, pick) if method.chunked else _pick(states, targets)

    values = _forward(model, packed, attention, method, packed.parents[scored], project)
    # Sums by gathering into a padded table: deterministic on every device, unlike a scatter.
    lengths = [len(answer) for answer in packed.answers]
    table = np.full((len(lengths), max(lengths)), len(scored), np.int64)
    table[np.arange(table.shape[1]) < np.array(lengths)[:, None]] = where
    padded = torch.cat([values, values.new_zeros(1)])
    return padded[torch.from_numpy(table).to(device)].sum(1)


def predictions(model: torch.nn.Module, packed: Packed, method: Method) -> Tensor:
    """The states that predict each token of each answer of ``packed``, answer after answer: shape (tokens, H).

    :func:`head` turns them into logits. If several answers share a token, its state is there for each.
    """
    return on_predictions(model, packed, method, _as_they_are)


def on_predictions(model: torch.nn.Module, packed: Packed, method: Method, of: OnStates) -> Tensor:
    """The result of ``of`` for :func:`predictions` and the output embedding, computed inside the model's forward pass.

    A wrapper that shards weights has them whole there, and one that exchanges gradients sees their sources.
    """
    if method.attention != "rows":
        return _forward(model, packed, method.attention, method, packed.parents[np.concatenate(packed.answers)], of)
    *others, last = _unpack(packed)

    def whole(states: Tensor, head: torch.nn.Module) -> Tensor:
        return of(torch.cat([*before, states]), head)

    inner = _unwrap(model)
    before = [_forward(inner, one, None, method, one.parents[one.answers[0]], _as_they_are) for one in others]
    return _forward(model, last, None, method, last.parents[last.answers[0]], whole)


OnTexts = Callable[[Tensor, torch.nn.Module, list[np.ndarray]], Tensor]
"""A function of hidden states (N, H), of the output embedding, and of the indices of each text's tokens in the
states.
"""


def on_texts(model: torch.nn.Module, packed: Packed, method: Method, of: OnTexts) -> Tensor:
    """The result of ``of`` for the hidden states of whole texts, context and answer, of every answer of ``packed``;
    inside the forward pass as :func:`on_predictions`.

    Raises RecipeError if only the model itself can turn its hidden states into logits.
    """
    if not method.chunked:
        what = "this model does not give its hidden states: its logits are more than their product with an embedding"
        raise RecipeError(what, "student.model", "take another student for arms that read its hidden states")
    if method.attention != "rows":
        where = [_path(packed, answer) for answer in packed.answers]
        every = np.arange(len(packed))
        return _forward(model, packed, method.attention, method, every, lambda states, head: of(states, head, where))
    *others, last = _unpack(packed)
    inner = _unwrap(model)
    before = [_forward(inner, one, None, method, np.arange(len(one)), _as_they_are) for one in others]
    ends = np.cumsum([len(states) for states in before] + [len(last)])
    where = [np.arange(end - n, end) for end, n in zip(ends, [*map(len, before), len(last)], strict=True)]

    def whole(states: Tensor, head: torch.nn.Module) -> Tensor:
        return of(torch.cat([*before, states]), head, where)

    return _forward(model, last, None, method, np.arange(len(last)), whole)


def _as_they_are(states: Tensor, head: torch.nn.Module) -> Tensor:
    return states


def head(model: torch.nn.Module, method: Method) -> torch.nn.Module:
    """The output embedding that turns :func:`predictions` into logits; the identity if the model gave logits itself."""
    return bare(model).get_output_embeddings() if method.chunked else torch.nn.Identity()


def chunk_rows(vocabulary: int, device: torch.device) -> int:
    """Positions whose logits may exist at a time."""
    return max(1, CHUNK.get(device.type, CHUNK["cuda"]) // vocabulary)


def _forward(
    model: torch.nn.Module, packed: Packed, attention: Attention | None, method: Method, at: np.ndarray, of: OnStates
) -> Tensor:
    """The result of ``of`` for the hidden states at positions ``at`` and the output embedding; for the model's own
    logits alone if the method is not chunked.

    The whole model is called, wrappers and all, and ``of`` takes the place of its output embedding.
    """
    inner: PreTrainedModel = bare(model)
    device = inner.device
    inputs: dict[str, Any] = {"input_ids": torch.from_numpy(packed.input_ids)[None].to(device), "use_cache": False}
    if attention == "flex":
        inputs["attention_mask"] = flex_mask(packed, device)
    elif attention == "blocks":
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else inner.dtype
        inputs["trie"] = plan(packed, dtype, device, inner.config.get_text_config().hidden_size)
    if attention:
        inputs["position_ids"] = torch.from_numpy(packed.position_ids)[None].to(device)
    inputs["logits_to_keep"] = torch.from_numpy(at).to(device)
    if not method.chunked:
        return of(model(**inputs).logits[0], torch.nn.Identity())
    with in_place_of_head(inner, of):
        return model(**inputs).logits[0]


@contextmanager
def in_place_of_head(inner: PreTrainedModel, of: OnStates) -> Iterator[None]:
    """Put ``of`` in the place of the output embedding, given hidden states (N, H) and that embedding."""
    head = cast(torch.nn.Module, inner.get_output_embeddings())
    own, plain = vars(head).get("forward"), _Plain(head)
    head.forward = lambda hidden: of(hidden[0], plain)[None]
    try:
        yield
    finally:
        del head.forward  # and the class's shows again
        if own:
            head.forward = own


class _Plain(torch.nn.Module):
    """An output embedding: its parameters and its function, whatever takes its place."""

    def __init__(self, head: torch.nn.Module) -> None:
        super().__init__()
        self.head, self._does = head, head.forward

    def forward(self, hidden: Tensor) -> Tensor:
        return self._does(hidden)


def _pick(logits: Tensor, targets: Tensor) -> Tensor:
    logits = logits.float()
    return logits.gather(1, targets[:, None])[:, 0] - torch.logsumexp(logits, 1)


@cache
def _compiled_pick() -> Callable[[Tensor, Tensor], Tensor]:
    """:func:`_pick` in one pass over the logits, for a GPU: eagerly, float32 copies of them take a sixth of a step."""
    return torch.compile(_pick, dynamic=True)


def _project(
    head: torch.nn.Module, hidden: Tensor, targets: Tensor, size: int, pick: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """log softmax(head(hidden))[targets], shape (N,), float32, from (N, H) and (N,); ``size`` rows of logits exist."""
    if len(targets) <= size:
        return pick(head(hidden), targets)

    def one(part: Tensor, wanted: Tensor) -> Tensor:
        return pick(head(part), wanted)

    parts = zip(hidden.split(size), targets.split(size), strict=True)
    return torch.cat([checkpoint(one, part, wanted, use_reentrant=False) for part, wanted in parts])


def _unpack(packed: Packed) -> Iterator[Packed]:
    """Every answer as a trie of its own."""
    for answer in packed.answers:
        ids = packed.input_ids[_path(packed, answer)]
        yield pack([ScoredRow(tuple(ids.tolist()), len(ids) - len(answer))])


def _path(packed: Packed, answer: np.ndarray) -> np.ndarray:
    """The indices of the tokens of an answer's whole text, from its first one on."""
    path = [int(answer[-1])]
    while packed.parents[path[-1]] >= 0:
        path.append(int(packed.parents[path[-1]]))
    return np.array(path[::-1])


def token_logprobs(head: torch.nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    """log p of each of ``targets`` (N,), float32, predicted by ``states`` (N, H) through the output embedding."""
    top: Any = head
    top = getattr(top, "head", top)
    size = chunk_rows(int(getattr(top, "out_features", 0) or cast(Tensor, top.weight).shape[0]), states.device)
    return _project(head, states, targets, size, _pick)


def learning(model: torch.nn.Module, method: Method) -> None:
    """Put ``model`` into training mode, but without dropout or noise of its own if it has any.

    It is in evaluation mode then, but for an adapter's dropout, which is a setting of ours, and for layers that compute
    their activations again in the backward pass, which they do in training mode only.
    """
    model.train(not method.quiet)
    for name, module in model.named_modules() if method.quiet else ():
        if ".lora_dropout" in name or (
            isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
        ):
            module.training = True


@contextmanager
def attending(model: torch.nn.Module, method: Method) -> Iterator[None]:
    """Switch ``model`` to the attention that ``method`` needs, and back."""
    inner: PreTrainedModel = bare(model)
    before = inner.config._attn_implementation
    wanted = {"flex": "flex_attention", "blocks": BLOCKS}.get(method.attention)
    if wanted:
        inner.set_attn_implementation(wanted)
    # cuDNN's attention prepares itself again for every shape, and runs and their contexts have all shapes
    kernels = sdpa_kernel(_KERNELS) if method.attention == "blocks" and inner.device.type == "cuda" else nullcontext()
    try:
        with kernels, compiled_layers(inner) if method.compiled else nullcontext():
            yield
    finally:
        if wanted and before:
            inner.set_attn_implementation(before)


@contextmanager
def compiled_layers(inner: PreTrainedModel) -> Iterator[None]:
    """``inner`` with its layers compiled one by one; all alike, they share what the first one made."""
    import torch._dynamo  # compiling takes seconds, which is too long on a CPU

    layers = [module for module in inner.modules() if isinstance(module, GradientCheckpointingLayer)]
    if inner not in _COMPILED:
        for layer in layers:
            layer.compile()
        _COMPILED[inner] = [layer._compiled_call_impl for layer in layers]
    try:
        for layer, call in zip(layers, _COMPILED[inner], strict=True):
            layer._compiled_call_impl = call
        with torch._dynamo.config.patch(recompile_limit=32):  # with and without gradients, student and teachers, dtypes
            yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


# To make these takes milliseconds a layer, and on-policy training comes back to them at every update.
_COMPILED: WeakKeyDictionary[PreTrainedModel, list[Any]] = WeakKeyDictionary()


__all__ = [
    "CHUNK",
    "Attention",
    "Method",
    "attending",
    "autocast",
    "bare",
    "chunk_rows",
    "compiled_layers",
    "head",
    "in_place_of_head",
    "learning",
    "logprobs",
    "on_predictions",
    "on_texts",
    "predictions",
    "token_logprobs",
]
