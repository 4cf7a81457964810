"""Qwen3's forward pass with a third of the kernels: at 0.3 M parameters the arithmetic is not what costs the time.

The same function as `Qwen3ForCausalLM` on right-padded batches (a test compares outputs and gradients), in the terms
of its own parameters. Norm weights are folded into the projection behind them, projections that share an input are one
product, and the two norms have a backward pass by hand.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen3ForCausalLM


class _Unit(torch.autograd.Function):
    """y = x / rms(x) over the last axis, without the learned weight."""

    @staticmethod
    def forward(ctx, x: Tensor, eps: float) -> Tensor:  # noqa: ANN001
        r = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_() / x.shape[-1] + eps).rsqrt_()
        y = x * r
        ctx.save_for_backward(y, r)
        return y

    @staticmethod
    def backward(ctx, g: Tensor):  # noqa: ANN001, ANN205  # pyright: ignore[reportIncompatibleMethodOverride]
        y, r = ctx.saved_tensors
        return _unit_backward(g, y, r), None


def _unit_backward(g: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return torch.addcmul(g, y, (g * y).mean(-1, keepdim=True), value=-1).mul_(r)


class _UnitTurned(torch.autograd.Function):
    """Queries and keys: unit norm per head, times the learned weight, turned by the rotary embedding.

    x: (B, T, heads, 32); weight: (heads, 32); cos, sin: (T, 1, 32) with the sign of the half-turn inside `sin`.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:  # noqa: ANN001
        r = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_() / x.shape[-1] + eps).rsqrt_()
        y = x * r
        a = y * weight
        ctx.save_for_backward(y, r, weight, cos, sin)
        return torch.addcmul(a * cos, a.roll(x.shape[-1] // 2, -1), sin)

    @staticmethod
    def backward(ctx, g: Tensor):  # noqa: ANN001, ANN205  # pyright: ignore[reportIncompatibleMethodOverride]
        y, r, weight, cos, sin = ctx.saved_tensors
        ga = torch.addcmul(g * cos, g.roll(g.shape[-1] // 2, -1), sin, value=-1)
        return _unit_backward(ga * weight, y, r), (ga * y).sum((0, 1)), None, None, None


def hidden_states(model: Qwen3ForCausalLM, ids: Tensor) -> Tensor:
    """The last hidden state, final norm included: (B, T) token ids to (B, T, C)."""
    config, body = model.config, model.model
    b, t = ids.shape
    width, heads, eps = config.head_dim, config.num_attention_heads, config.rms_norm_eps
    group = config.num_key_value_heads
    cos, sin = _rotary(model, t)
    x = F.embedding(ids, body.embed_tokens.weight).view(b * t, -1)
    for layer in body.layers:
        at, mlp = layer.self_attn, layer.mlp
        qkv_weight = torch.cat([at.q_proj.weight, at.k_proj.weight, at.v_proj.weight]) * layer.input_layernorm.weight
        qkv = (_unit(x, eps) @ qkv_weight.T).view(b, t, heads + 2 * group, width)
        norms = torch.cat([at.q_norm.weight.expand(heads, -1), at.k_norm.weight.expand(group, -1)])
        qk = _UnitTurned.apply(qkv[:, :, : heads + group], norms, cos, sin, eps).transpose(1, 2)  # (B, heads, T, 32)
        q, k, v = qk[:, :heads], qk[:, heads:], qkv[:, :, heads + group :].transpose(1, 2)
        if group == 1:  # a broadcast view instead of a copy per head
            k, v = k.expand(-1, heads, -1, -1), v.expand(-1, heads, -1, -1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=group > 1)
        x = torch.addmm(x, mixed.transpose(1, 2).reshape(b * t, -1), at.o_proj.weight.T)
        up_weight = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]) * layer.post_attention_layernorm.weight
        gate, up = (_unit(x, eps) @ up_weight.T).chunk(2, -1)
        x = torch.addmm(x, F.silu(gate) * up, mlp.down_proj.weight.T)
    return (_unit(x, eps) * body.norm.weight).view(b, t, -1)


def _unit(x: Tensor, eps: float) -> Tensor:
    return _Unit.apply(x, eps)  # pyright: ignore[reportReturnType]


def _rotary(model: Qwen3ForCausalLM, t: int) -> tuple[Tensor, Tensor]:
    frequencies = model.model.rotary_emb.inv_freq.float()
    angles = torch.arange(t).float()[:, None] * torch.cat([frequencies, frequencies])
    sign = torch.cat([-torch.ones_like(frequencies), torch.ones_like(frequencies)])
    return angles.cos()[:, None], (angles.sin() * sign)[:, None]
