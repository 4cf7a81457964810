"""Preference losses from summed log-probabilities: pure functions, without models or tokens.

Notation: for an answer y to a context x, ``policy`` = log pi(y|x) and ``reference`` = log pi_ref(y|x), both summed over
the answer's tokens, in nats; r(y) = beta (policy - reference) is its implicit reward. T-DPO (arXiv:2506.03541) is DPO
with the debate in x; ``C`` right and ``R`` wrong answers of one branching make C x R pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def rewards(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Implicit rewards r(y) = beta (log pi(y|x) - log pi_ref(y|x)). All shapes (N,), in nats.

    Paper: arXiv:2305.18290, below Eq. 6, without the partition function of x, which cancels.
    """
    return beta * (policy - reference)


def margins(chosen: Tensor, rejected: Tensor) -> Tensor:
    """r(y_w) - r(y_l) for every pair, shape (C, R), from rewards of shapes (C,) and (R,)."""
    return chosen[:, None] - rejected[None, :]


def dpo(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The sigmoid DPO loss of every pair, shape (C, R), from rewards of shapes (C,) and (R,).

        L(y_w, y_l) = -log sigmoid(r(y_w) - r(y_l))

    Paper: arXiv:2305.18290, Eq. 7; the published T-DPO is its mean over all pairs.

    By hand: rewards 1 and 0 against 0 give -log sigmoid(1) = 0.3133 and -log sigmoid(0) = ln 2 = 0.6931.

    >>> dpo(torch.tensor([1.0, 0.0]), torch.tensor([0.0])).round(decimals=4).tolist()
    [[0.31330001354217529], [0.6930999755859375]]
    """
    return -logsigmoid(margins(chosen, rejected))


def listwise(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Softmax over all alternatives of one branching; a scalar, from rewards of shapes (C,) and (R,).

        L = -log( sum_{w in chosen} exp r(w) / sum_{y in chosen and rejected} exp r(y) )

    Ours, not the paper's. One term for a branching instead of C x R; for one right and one wrong answer it is the
    sigmoid loss. A wrong answer that has become likely is pushed down more than one that is hardly ever given. The
    mean over pairs pushes both alike.

    By hand: rewards 1, 0 against 0: -log((e + 1) / (e + 2)) = 0.2385; at zero margin -log(C / (C + R)), so ln 2 for
    two against two.

    >>> round(listwise(torch.tensor([1.0, 0.0]), torch.tensor([0.0])).item(), 4)
    0.2385
    """
    return torch.logsumexp(torch.cat([chosen, rejected]), 0) - torch.logsumexp(chosen, 0)


def orpo(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The odds-ratio loss of every pair, shape (C, R), from *mean* log-probabilities of shapes (C,) and (R,).

        L(y_w, y_l) = -log sigmoid( log odds(y_w) - log odds(y_l) ),   odds(y) = P / (1 - P),  P = exp(mean log pi)

    Paper: arXiv:2403.07691, Eq. 7; the whole loss adds the NLL of the right answer and weighs this term by lambda, here
    ``beta``. No reference takes part. By hand: P of 1/2 and 1/3 have odds 1 and 1/2, so -log sigmoid(ln 2) = ln 1.5.

    >>> round(orpo(torch.tensor([0.5]).log(), torch.tensor([1 / 3]).log()).item(), 4)
    0.4055
    """
    odds = [mean - torch.log1p(-mean.exp().clamp(max=1 - 1e-7)) for mean in (chosen, rejected)]
    return -logsigmoid(margins(*odds))


def simpo(chosen: Tensor, rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """The reference-free loss of every pair, shape (C, R), from *mean* log-probabilities of shapes (C,) and (R,).

        L(y_w, y_l) = -log sigmoid( beta (mean log pi(y_w) - mean log pi(y_l)) - gamma )

    Paper: arXiv:2405.14734, Eq. 6. By hand: means -1 and -2 with beta 2, gamma 1 give -log sigmoid(1) = 0.3133.

    >>> round(simpo(torch.tensor([-1.0]), torch.tensor([-2.0]), 2.0, 1.0).item(), 4)
    0.3133
    """
    return -logsigmoid(beta * margins(chosen, rejected) - gamma)


def kto(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """The value of each answer alone lost, shape (C + R,), from log-ratios to the reference of shapes (C,) and (R,).

        L(y_w) = 1 - sigmoid(beta (r - z)),   L(y_l) = 1 - sigmoid(beta (z - r)),   r = log(pi(y|x) / pi_ref(y|x))

    Paper: arXiv:2402.01306, Eq. 8 with lambda 1. z is the paper's KL estimate, at least 0 and without gradient.
    Differs: it is the mean of the answers at hand; the paper takes answers to other questions.

    >>> kto(torch.tensor([0.0]), torch.tensor([0.0]), 0.1).tolist()
    [0.5, 0.5]
    """
    z = torch.cat([chosen, rejected]).mean().clamp(min=0).detach()
    return torch.cat([1 - torch.sigmoid(beta * (chosen - z)), 1 - torch.sigmoid(beta * (z - rejected))])


def nll(policy: Tensor, tokens: Tensor, average: str) -> Tensor:
    """-log pi(y_w|x) of right answers, shape (C,): divided by the number of its tokens (``token``) or not (``answer``).

    Paper: arXiv:2404.19733 (RPO), Eq. 1, the second term, which divides by the length. The mean over a tree's right
    answers is the mean over its pairs, as each right answer is in equally many of them.

    >>> nll(torch.tensor([-6.0]), torch.tensor([3]), "token").tolist()
    [2.0]
    """
    return -policy / tokens if average == "token" else -policy


__all__ = ["dpo", "kto", "listwise", "margins", "nll", "orpo", "rewards", "simpo"]
