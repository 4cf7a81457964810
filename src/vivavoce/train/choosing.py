"""A trial, before training begins, that finds how a model can be trained: packed, row by row, or not at all.

It is measured and not looked up, because the features that rule packing out (states that run along the row, positions
that the model counts itself, scaled or capped logits) have many names. The model's own log-probabilities of rows by
themselves are compared with ours, in float32, in training mode, on short rows and on one as long as the longest of the
training. ``docs/architectures.md`` lists the outcome for many architectures. Features that a trial cannot show are
looked up: windows shorter than the longest row, positions that depend on the longest row of a pass, and FlexAttention
off CUDA.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from vivavoce.errors import RecipeError
from vivavoce.train import attention
from vivavoce.train.packing import Packed, pack
from vivavoce.train.scoring import Attention, Method, attending, bare, in_place_of_head, learning, logprobs
from vivavoce.train.tokens import ScoredRow

logger = logging.getLogger(__name__)

_TOLERANCE = {4: 2e-4, 2: 0.1}
"""Nats a token by which two ways to compute the same may differ, by the bytes of a weight."""
_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers that look at each token by itself."""
_TAIL = 64
"""Tokens at the end of the long row that are compared."""
_CANNOT = (AssertionError, ImportError, NotImplementedError, RuntimeError, TypeError, ValueError)


def choose(model: torch.nn.Module, wanted: str, longest: int, compile: bool = True) -> Method:
    """The first way to score that gives this model's own log-probabilities; in training mode and in evaluation mode.

    ``longest`` is the most tokens of a row. A model that cannot be packed is announced and scored row by row; dropout
    and noise of its own are announced and switched off. ``compile`` has the layers compiled if FlexAttention is used.
    Raises RecipeError for a model whose log-probabilities depend on more than the row.
    """
    inner: PreTrainedModel = bare(model)
    flags = {module: module.training for module in model.modules()}
    devices = [inner.device] if inner.device.type == "cuda" else []
    try:
        exactly = torch.autocast(inner.device.type, enabled=False)
        with torch.no_grad(), exactly, torch.random.fork_rng(devices), _in_float32(inner) as size:
            method = _Trial(inner, wanted, longest, size).method()
            return replace(method, compiled=compile and method.attention == "flex")
    finally:
        for module, training in flags.items():
            module.training = training


class _Trial:
    """One model under trial."""

    def __init__(self, inner: PreTrainedModel, wanted: str, longest: int, size: int) -> None:
        self.inner, self.wanted, self.longest = inner, wanted, longest
        self.tolerance = _TOLERANCE[size]
        self.name = type(inner).__name__
        self.config: Any = inner.config.get_text_config()
        self.short = _toy(self.config.vocab_size, 0)
        self.long = _toy(self.config.vocab_size, longest) if longest > len(self.short) else None

    def method(self) -> Method:
        """The first method that passes. Raises RecipeError if there is none."""
        self._positions_of_their_own()
        rows = Method("rows", self._head_is_last(), quiet=self._noisy())
        self._ready(rows)
        own = self._own_logprobs(self.short)
        if not self._like(logprobs(self.inner, self.short, rows), own, self.short):
            rows = replace(rows, chunked=False)
            if not self._like(logprobs(self.inner, self.short, rows), own, self.short):
                what = f"{self.name} gives other logits if only those of answers are asked for"
                raise RecipeError(what, "student", "train another model")
        if self.wanted == "rows":
            return rows
        reasons = list(self._known_reasons())
        for way in [] if reasons else self._candidates():
            method = replace(rows, attention=way)
            reason = self._failure_of(method, rows, own)
            if reason is None:
                return method
            reasons.append(f"{way}: {reason}")
        warning = "%s cannot share prefixes, so every answer gets a row of its own (%s)"
        logger.warning(warning, self.name, "; ".join(reasons))
        return rows

    def _candidates(self) -> Sequence[Attention]:
        if self.wanted != "auto":
            return ["flex" if self.wanted == "flex" else "blocks"]
        return ["flex", "blocks"] if self.inner.device.type == "cuda" else ["blocks"]

    def _ready(self, method: Method) -> None:
        """Put the model into the mode of training, but for an adapter's dropout."""
        learning(self.inner, method)
        for name, module in self.inner.named_modules():
            if ".lora_dropout" in name:
                module.training = False

    def _own_logprobs(self, packed: Packed) -> Tensor:
        """The model's own log p of each row of ``packed``, one by one and without our code."""
        sums = []
        for row in packed.answers:
            path = _path(packed, int(row[-1]))
            ids = torch.from_numpy(packed.input_ids[path])[None].to(self.inner.device)
            logits = self.inner(input_ids=ids, use_cache=False).logits[0].float()
            scores = torch.log_softmax(logits[-len(row) - 1 : -1], -1)
            sums.append(scores.gather(1, ids[0, -len(row) :, None]).sum())
        return torch.stack(sums)

    def _like(self, values: Tensor, wanted: Tensor, packed: Packed) -> bool:
        return bool((self._apart(values, wanted, packed) <= self.tolerance).all())

    def _apart(self, values: Tensor, wanted: Tensor, packed: Packed) -> Tensor:
        """The difference in nats a token. Two values that are no numbers count as equal; training itself will tell
        of them.
        """
        apart = torch.where(values.isnan() & wanted.isnan(), 0.0, (values - wanted).abs())
        return apart / torch.tensor([len(row) for row in packed.answers], device=values.device)

    def _failure_of(self, method: Method, rows: Method, own: Tensor) -> str | None:
        """The reason why ``method`` fails, None if it works. It is tried with short runs alone, with all runs alone,
        and on a row of real length.
        """
        try:
            with attending(self.inner, method), _block_calls() as calls:
                packed = [logprobs(self.inner, self.short, method)]
                if method.attention == "blocks":
                    with _each_run_alone():
                        packed.append(logprobs(self.inner, self.short, method))
                long = None if self.long is None else logprobs(self.inner, self.long, method)
        except _CANNOT as error:
            return str(error).splitlines()[0] if str(error) else type(error).__name__
        if method.attention == "blocks" and not calls:
            return "the model does not use the attention that it is given"
        off = max(float(self._apart(values, own, self.short).max()) for values in packed)
        if not off <= self.tolerance:
            return f"a packed toy tree scores differently by {off:.2g} nats a token"
        if self.long is not None and long is not None:
            alone = logprobs(self.inner, self.long, rows)
            off = float(self._apart(long, alone, self.long).max())
            if not off <= self.tolerance:
                return (
                    f"beside a row of {self.longest} tokens, packed answers score differently by {off:.2g} nats a token"
                )
        return None

    def _head_is_last(self) -> bool:
        """Whether the model's logits are the outputs of its output embedding, unchanged.

        Tried with logits so large that a cap, a scale or a shift shows.
        """
        seen: list[Tensor] = []

        def large(states: Tensor, head: torch.nn.Module) -> Tensor:
            made = head(states)
            seen.append(made * (100 / made.float().abs().max().clamp(min=1e-6)).to(made.dtype))
            return seen[-1]

        ids = torch.from_numpy(self.short.input_ids)[None].to(self.inner.device)
        self.inner.eval()
        with in_place_of_head(self.inner, large):
            logits = self.inner(input_ids=ids, use_cache=False).logits[0]
        return len(seen) == 1 and seen[0].shape == logits.shape and torch.allclose(logits.float(), seen[0].float())

    def _noisy(self) -> bool:
        """Whether the model has dropout or noise of its own. Switches off what has a name; announces it.

        Raises RecipeError if some of it stays.
        """
        named = _silence(self.inner)
        packed = self.short if self.long is None else self.long
        self.inner.eval()
        still = self._own_logprobs(packed)
        self._ready(Method("rows"))
        if not named and self._like(self._own_logprobs(packed), still, packed):
            return False
        self._ready(Method("rows", quiet=True))
        for module in self.inner.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.training = True  # as they are if activations are computed again
        if not self._like(self._own_logprobs(packed), still, packed):
            what = f"{self.name} adds noise in training that cannot be switched off"
            raise RecipeError(
                what, "student", "train another model: what an answer scores must depend on its row alone"
            )
        warning = "%s has dropout or noise of its own, which is switched off in training (%s)"
        logger.warning(warning, self.name, ", ".join(named) or "in its layers")
        return True

    def _positions_of_their_own(self) -> None:
        """Raise RecipeError for positions that depend on what went through the model before."""
        first = getattr(self.config, "max_position_embeddings", None)
        if first and self.longest > first and any("dynamic" in kind for kind, _ in _ropes(self.config)):
            what = f"{self.name} changes its positions with the longest row so far (dynamic RoPE) beyond {first} tokens"
            raise RecipeError(f"{what}, and rows have up to {self.longest}", "max_length", f"set it to {first} or less")

    def _known_reasons(self) -> Iterator[str]:
        """Reasons that a trial cannot show, or not surely."""
        kinds = set(getattr(self.config, "layer_types", None) or ())
        if along := ", ".join(sorted(kinds - _KINDS)):
            yield f"its layers of the kind {along} carry something along the row"
        window = _window(self.config)
        if window and window < self.longest:
            yield f"its attention window of {window} tokens is shorter than the longest row, {self.longest}"
        for kind, options in _ropes(self.config):
            first = options.get("original_max_position_embeddings") or getattr(
                self.config, "original_max_position_embeddings", None
            )
            if kind == "longrope" and first and self.longest > first:
                yield f"a row of more than {first} tokens changes the positions of all rows in its pass (longrope)"
        if getattr(self.config, "attn_temperature_tuning", False) and getattr(self.config, "floor_scale", None):
            yield "it counts positions along the whole pass itself (attention temperature)"


def _toy(vocabulary: int, longest: int) -> Packed:
    """A trie that branches twice and whose branches differ in length; with one row of ``longest`` tokens, if that is
    more.
    """

    def token(i: int) -> int:
        return (i * 7919 + 13) % vocabulary

    first = tuple(token(i) for i in range(9))
    padded = (*first, *(token(20 + i) for i in range(4)))
    rows = [(*padded, token(31), token(32)), (*padded, token(41)), (*first, *(token(50 + i) for i in range(7)))]
    scored = [ScoredRow(row, len(first)) for row in rows]
    if longest > len(rows[-1]):
        long = (*first, *(token(60 + 3 * i) for i in range(longest - len(first))))
        scored.append(ScoredRow(long, max(len(first), longest - _TAIL)))
    return pack(scored)


def _path(packed: Packed, last: int) -> list[int]:
    """The indices of the tokens of the row that ends in ``last``."""
    path = [last]
    while packed.parents[path[-1]] >= 0:
        path.append(int(packed.parents[path[-1]]))
    return path[::-1]


@contextmanager
def _block_calls() -> Iterator[list[None]]:
    """A list that grows with every call of block attention."""
    calls: list[None] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return attention.block_attention(*args, **kwargs)

    AttentionInterface.register(attention.BLOCKS, counted)
    try:
        yield calls
    finally:
        AttentionInterface.register(attention.BLOCKS, attention.block_attention)


@contextmanager
def _each_run_alone() -> Iterator[None]:
    """Have each run of block attention take a call of its own, as long ones do."""
    before = attention.SHORT
    attention.SHORT = 0
    try:
        yield
    finally:
        attention.SHORT = before


@contextmanager
def _in_float32(inner: PreTrainedModel) -> Iterator[int]:
    """``inner`` with its weights in float32, if there is memory for that; yields the bytes of a weight.

    Back in half precision the weights are the same as before, bit by bit.
    """
    half = [p for p in (*inner.parameters(), *inner.buffers()) if p.is_floating_point() and p.dtype.itemsize == 2]
    others = [p for p in inner.parameters() if not p.is_floating_point() or p.dtype.itemsize < 2]  # quantised
    room = inner.device.type != "cuda" or torch.cuda.mem_get_info(inner.device)[0] > 3 * sum(p.numel() for p in half)
    if others or (half and not room):
        logger.info("%s is tried in its own precision: there is no memory for float32", type(inner).__name__)
        yield 2
        return
    kept = [(p, p.dtype) for p in half]
    try:
        for p in half:
            p.data = p.data.float()
        yield 4
    finally:
        for p, dtype in kept:
            p.data = p.data.to(dtype)


def _silence(inner: PreTrainedModel) -> list[str]:
    """Set every dropout that has a name to 0, an adapter's apart; returns the names of those that were more.

    Jitter keeps its value: it may be a threshold too, in evaluation mode as well.
    """
    rates: dict[str, float] = {}
    for path, module in inner.named_modules():
        if ".lora_dropout" in path:
            continue
        if isinstance(module, torch.nn.Dropout) and module.p:
            rates["dropout"] = module.p
            module.p = 0.0
        for name, value in vars(module).items():
            noise = any(word in name for word in ("dropout", "pdrop", "layerdrop"))
            if noise and isinstance(value, float) and value > 0:
                rates[name] = value
                setattr(module, name, 0.0)
    return [f"{name} {value:g}" for name, value in rates.items()]


def _ropes(config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The kinds of rotary positions of a model with their options, one for each kind of layer."""
    options = getattr(config, "rope_parameters", None) or {}
    for one in [options, *options.values()]:
        if isinstance(one, Mapping) and isinstance(one.get("rope_type"), str):
            yield one["rope_type"], one


def _window(config: Any) -> int | None:
    """Tokens that a windowed or chunked layer of this model sees, None if every layer sees all."""
    kinds = cast("Sequence[str] | None", getattr(config, "layer_types", None))
    if kinds is not None and all(kind == "full_attention" for kind in kinds):
        return None
    sizes = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((size for size in sizes if size), default=None)


__all__ = ["choose"]
