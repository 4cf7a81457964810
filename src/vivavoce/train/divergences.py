"""Divergences of a student from its teachers at every token: pure functions of logits, without models or data.

Notation: p_k is teacher k's next-token distribution, q the student's, w_k the teachers' weights, which sum to 1::

    forward_kl          KL(p || q) = sum p log(p / q)                       covers all that the teacher may say
    reverse_kl          KL(q || p) = sum q log(q / p)                       keeps to what the teacher would say
    jsd                 b KL(p || m) + (1 - b) KL(q || m),  m = b p + (1 - b) q
    clipped_reverse_kl  sum q min(log(q / p), c)                            reverse_kl with bounded gradients
    log_ratio           log q(y) - log p(y) at the sampled token y          reverse_kl, one sample of it
    fixed_sign          c or -c, as the sign of log_ratio is                what is left of it without its size
    fixed_negative      c, whatever the teachers say                        no teacher at all

Paper: arXiv:2605.01347, Eqs. 2 to 4 and 8. Differs: everything is computed in float32, whatever the models run in (in
bfloat16 a divergence of 4e-4 has no gradient left). Forward and reverse KL to K teachers are fused into one pass, which
changes neither value nor gradient. Gradients are closed forms. A cut-off support keeps a bucket for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vivavoce.train.objective import Objective

FLOOR = math.log(1e-8)
"""Log-probability of a token that a teacher must not use (see :func:`silence`). It is finite, so that a student
that writes the token is corrected and not broken.
"""
NOTHING = math.log(1e-30)
"""The log-probability that adds nothing to any sum, and is finite."""


def distillation_loss(
    student: Tensor, teachers: Sequence[Tensor], weights: Tensor, sampled: Tensor, objective: Objective
) -> Tensor:
    """The objective at every token, shape (N,), float32, in nats, with gradient to the student alone.

    ``student`` holds logits (N, V), ``teachers`` K tensors of logits or log-probabilities (N, V), ``weights`` (N, K)
    sums to 1 in every row (a teacher of weight 0 may hold anything finite), ``sampled`` (N,) the student's tokens.

    With one teacher every aggregate is the plain divergence. By hand, p = (.5, .5) and q = (.9, .1):

    >>> p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    >>> one, y = torch.ones(1, 1), torch.tensor([0])
    >>> [round(distillation_loss(q, [p], one, y, Objective(divergence=d)).item(), 4)
    ...  for d in ("forward_kl", "reverse_kl", "jsd", "log_ratio")]
    [0.5108, 0.3681, 0.1017, 0.5878]
    """
    z, weights = _temper(student, objective), weights.detach()
    if not objective.asks_teachers:
        log_q = torch.log_softmax(z, -1).gather(1, sampled[:, None])[:, 0]
        return at_ratio(log_q, torch.full_like(log_q, -objective.advantage))
    with torch.no_grad():
        ts = [torch.log_softmax(_temper(t, objective), -1) for t in teachers]
        if objective.aggregate != "sum" and len(ts) > 1:
            ts, weights = [_merge(z, ts, weights, objective)], weights.new_ones(len(weights), 1)
    if objective.divergence in ("log_ratio", "fixed_sign"):
        return _log_ratio(torch.log_softmax(z, -1), ts, weights, sampled, objective)
    if objective.top_k is not None:
        s = torch.log_softmax(z, -1)
        kept = _support(s, ts, weights, sampled, objective.top_k)
        z, ts = with_rest(s, kept), [with_rest(t, kept) for t in ts]
    return _Divergence.apply(z, ts, weights, objective)  # type: ignore[no-any-return]


def _temper(logits: Tensor, objective: Objective) -> Tensor:
    return logits.float() if objective.temperature == 1 else logits.float() / objective.temperature


class _Divergence(torch.autograd.Function):
    """Divergences of softmax(z), shape (N, V), from K teachers: values (N,), with their gradients while all is at hand.

    With autograd, each takes twice as many passes over (N, V) numbers and three times as much memory.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, ts: Sequence[Tensor], weights: Tensor, objective: Objective) -> Tensor:
        form = {"reverse_kl": _reverse_kl, "forward_kl": _forward_kl, "clipped_reverse_kl": _clip_gaps}
        value, gradient = form.get(objective.kind, _jsd)(torch.log_softmax(z, -1), ts, weights, objective)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.saved_tensors[0] * outer[0][:, None], None, None, None


# Each form takes log q (N, V), which it may overwrite, log p_k (N, V), weights (N, K) and the objective; it gives the
# value (N,) and its gradient with respect to the logits of q (N, V), by d q_j / d z_i = q_i (1[i = j] - q_j).


def _reverse_kl(s: Tensor, ts: Sequence[Tensor], weights: Tensor, _: Objective) -> tuple[Tensor, Tensor]:
    gap = s - _mean(ts, weights)
    q = s.exp_()
    value = _dot(q, gap)
    return value, gap.sub_(value[:, None]).mul_(q)


def _forward_kl(s: Tensor, ts: Sequence[Tensor], weights: Tensor, _: Objective) -> tuple[Tensor, Tensor]:
    ps = [t.exp() for t in ts]
    entropy = sum(w * _dot(p, t) for w, p, t in zip(weights.T, ps, ts, strict=True))
    p = _mean(ps, weights)
    value = entropy - _dot(p, s)
    return value, s.exp_().sub_(p)


def _clip_gaps(s: Tensor, ts: Sequence[Tensor], weights: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    value, slope = s.new_zeros(len(s)), torch.zeros_like(s)
    q = s.exp()
    for w, t in zip(weights.T, ts, strict=True):
        gap = s - t
        free = gap <= objective.clip
        gap = gap.clamp_(max=objective.clip)
        value += w * _dot(q, gap)
        slope += w[:, None] * gap.add_(free)
    return value, slope.sub_(_dot(q, slope)[:, None]).mul_(q)


def _jsd(s: Tensor, ts: Sequence[Tensor], weights: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    b = objective.beta
    scale = 1 / (b * (1 - b)) if objective.form == "continuous" else 1.0
    value, slope = s.new_zeros(len(s)), torch.zeros_like(s)
    q = s.exp()
    for w, t in zip(weights.T, ts, strict=True):
        # log p/m and log q/m from log p/q alone: m itself is so near to either near the ends that their difference is
        # noise. Beyond 80 nats one of the two has no mass there, and exp would overflow.
        gap = (t - s).clamp_(-80, 80)
        to_t = torch.neg(gap).expm1_().mul_(1 - b).log1p_().neg_()
        to_s = gap.expm1_().mul_(b).log1p_().neg_()
        apart = _dot(q, to_s)
        value += scale * w * (b * _dot(t.exp(), to_t) + (1 - b) * apart)
        slope += (scale * (1 - b) * w)[:, None] * to_s.sub_(apart[:, None])
    return value, slope.mul_(q)


def _mean(xs: Sequence[Tensor], weights: Tensor) -> Tensor:
    """sum_k w_k x_k, shape (N, V); of one, itself."""
    if len(xs) == 1:  # its weight is 1
        return xs[0]
    return torch.stack([w[:, None] * x for w, x in zip(weights.T, xs, strict=True)]).sum(0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Row by row, (N, V) and (N, V) to (N,), without their product in between."""
    return torch.einsum("nv,nv->n", a, b)


def _log_ratio(s: Tensor, ts: Sequence[Tensor], weights: Tensor, sampled: Tensor, objective: Objective) -> Tensor:
    """log q(y) - sum_k w_k log p_k(y), whose gradient is that of the policy gradient: ratio x grad log q(y).

    Over tokens drawn from q its mean is reverse KL, in value and in gradient.
    """
    at = sampled[:, None]
    log_q = s.gather(1, at)[:, 0]
    log_p = sum(w * t.gather(1, at)[:, 0] for w, t in zip(weights.T, ts, strict=True))
    if objective.divergence == "fixed_sign":
        return at_ratio(log_q, -objective.advantage * (log_q - log_p).detach().sign())
    return policy_gradient(log_q, log_p)


def policy_gradient(log_q: Tensor, log_p: Tensor | int) -> Tensor:
    """``log_q - log_p``, shape (N,), with the gradient (log_q - log_p) grad log_q: a drawn token becomes as much
    more likely as the teachers find it likelier.
    """
    return at_ratio(log_q, (log_q - log_p).detach())


def at_ratio(log_q: Tensor, ratio: Tensor) -> Tensor:
    """``ratio``, shape (N,), with the gradient ratio x grad log_q: minus the ratio is the advantage of the token."""
    return ratio + ratio * (log_q - log_q.detach())


def _merge(z: Tensor, ts: Sequence[Tensor], weights: Tensor, objective: Objective) -> Tensor:
    """One distribution for all teachers, log-probabilities (N, V); ``z`` are the student's logits (N, V)."""
    stacked = torch.stack(list(ts))
    w = weights.T[:, :, None]
    if objective.aggregate == "arithmetic":
        return torch.logsumexp(stacked + w.log(), 0)
    if objective.aggregate == "geometric":
        return torch.log_softmax((stacked * w).sum(0), -1)
    present = (w > 0).expand_as(stacked)
    if objective.max_by == "elementwise":
        return torch.log_softmax(stacked.masked_fill(~present, -math.inf).amax(0), -1)
    if objective.max_by == "nearest":
        one = weights.new_ones(len(weights), 1)
        sure = torch.stack([-_jsd(torch.log_softmax(z, -1), [t], one, Objective(beta=0.5))[0] for t in ts])
    else:
        sure = (stacked.exp() * stacked).sum(-1) if objective.max_by == "entropy" else stacked.amax(-1)
    best = sure.masked_fill(~present[..., 0], -math.inf).argmax(0)
    return stacked[best, torch.arange(stacked.shape[1], device=best.device)]


def sureness(logits: Tensor, objective: Objective) -> Tensor:
    """A scorer's sureness of its next token, shape (N,): its largest probability, or minus its entropy in nats."""
    log_p = torch.log_softmax(logits.float(), -1)
    return log_p.amax(-1).exp() if objective.by_token == "probability" else _dot(log_p.exp(), log_p)


def by_token(weights: Tensor, sure: Tensor, objective: Objective) -> Tensor:
    """The weights (N, K) of scorers at every token, from those of its answer and how ``sure`` each is there, (N, K)::

        w_kt = W_t w_k exp(s_kt / tau) / sum_j w_j exp(s_jt / tau),   W_t = sum_k w_k

    By hand, two scorers of equal weight, one of them sure (s = 1) and one not (s = 0), at tau 1: e / (e + 1) = .731.

    >>> how = Objective(by_token="probability")
    >>> [round(w, 3) for w in by_token(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]]), how)[0].tolist()]
    [0.731, 0.269]
    """
    grown = (weights.log() + sure / objective.tau_token).softmax(-1)  # a weight of 0 stays 0
    return torch.where(weights > 0, grown, 0.0) * weights.sum(-1, keepdim=True)


def _support(s: Tensor, ts: Sequence[Tensor], weights: Tensor, sampled: Tensor, k: int) -> Tensor:
    """Tokens to compare one by one, shape (N, V), bool."""
    k = min(k, s.shape[1])
    kept = torch.zeros_like(s, dtype=torch.bool).scatter_(1, s.topk(k, 1).indices, True)
    for w, t in zip(weights.T, ts, strict=True):
        kept |= torch.zeros_like(kept).scatter_(1, t.topk(k, 1).indices, True) & (w > 0)[:, None]
    return kept.scatter_(1, sampled[:, None], True)


def with_rest(logp: Tensor, kept: Tensor) -> Tensor:
    """Log-probabilities (N, V + 1): those kept, nothing for the others, and the others' mass at the end.

    Without that bucket, what is left is no distribution: a student with all its mass elsewhere would seem perfect.
    """
    all_kept = kept.all(1, keepdim=True)  # no rest: its logsumexp would be -inf, with NaN for a gradient
    rest = logp.masked_fill(kept & ~all_kept, -math.inf).logsumexp(1, keepdim=True)
    rest = torch.where(all_kept, rest.new_tensor(NOTHING), rest)
    return torch.cat([logp.masked_fill(~kept, NOTHING), rest], 1)


def silence(logits: Tensor, never: Sequence[int], as_end: Sequence[int], end: int) -> Tensor:
    """A teacher's log-probabilities (N, V) without talk that is meant for the committee only.

    ``never`` are tokens of such talk inside an answer (marks of doubt): their mass is shared out among the others.
    ``as_end`` begin such talk after an answer (a stated confidence): to begin it is to end the answer, so their mass is
    that of the token ``end``.
    """
    if not never and not as_end:
        return logits
    logits = logits.float()
    if never:
        logits = logits.index_fill(1, torch.tensor(list(never), device=logits.device), -math.inf)
    logp = torch.log_softmax(logits, -1)
    if as_end:
        ends = torch.tensor([end, *as_end], device=logits.device)
        logp = logp.index_copy(1, ends[:1], logp[:, ends].logsumexp(1, keepdim=True))
    gone = torch.tensor([*never, *as_end], device=logits.device)
    return logp.index_fill(1, gone, FLOOR)


__all__ = [
    "FLOOR",
    "NOTHING",
    "by_token",
    "distillation_loss",
    "policy_gradient",
    "silence",
    "sureness",
    "with_rest",
]
