"""The losses by hand, by property, and at the point where training starts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.train.students import cases

from vivavoce.train.losses import dpo, kto, listwise, margins, nll, orpo, rewards, simpo

reward = st.floats(-20, 20, width=32)
side = st.lists(reward, min_size=1, max_size=5)


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@cases
@given(side, side, st.floats(-5, 5))
def test_equal_policy_and_reference_give_ln_2_for_every_pair(chosen: list[float], rejected: list[float], at: float):
    r = rewards(tensor(chosen), tensor(chosen), 0.1), rewards(tensor(rejected), tensor(rejected), 0.1)
    assert torch.equal(dpo(*r), torch.full((len(chosen), len(rejected)), math.log(2), dtype=torch.float64))


@cases
@given(side, side)
def test_there_are_as_many_losses_as_right_times_wrong(chosen: list[float], rejected: list[float]):
    assert dpo(tensor(chosen), tensor(rejected)).shape == (len(chosen), len(rejected))
    assert margins(tensor(chosen), tensor(rejected)).numel() == len(chosen) * len(rejected)


@cases
@given(side, side, st.randoms())
def test_the_order_of_answers_does_not_matter(chosen: list[float], rejected: list[float], random):
    shuffled = random.sample(chosen, len(chosen)), random.sample(rejected, len(rejected))
    for loss in (lambda c, r: dpo(c, r).mean(), listwise):
        torch.testing.assert_close(loss(tensor(chosen), tensor(rejected)), loss(*map(tensor, shuffled)))


@cases
@given(side, side, reward)
def test_a_constant_in_all_rewards_cancels(chosen: list[float], rejected: list[float], shift: float):
    for loss in (dpo, listwise):
        torch.testing.assert_close(
            loss(tensor(chosen) + shift, tensor(rejected) + shift),
            loss(tensor(chosen), tensor(rejected)),
            rtol=1e-6,
            atol=1e-6,
        )


@cases
@given(reward, reward)
def test_one_right_and_one_wrong_answer_make_listwise_the_sigmoid_loss(chosen: float, rejected: float):
    torch.testing.assert_close(
        listwise(tensor([chosen]), tensor([rejected])), dpo(tensor([chosen]), tensor([rejected]))[0, 0]
    )


@pytest.mark.parametrize(("right", "wrong"), [(1, 1), (2, 2), (3, 1)])
def test_listwise_starts_at_the_share_of_right_answers(right: int, wrong: int):
    loss = listwise(torch.zeros(right, dtype=torch.float64), torch.zeros(wrong, dtype=torch.float64))
    assert loss.item() == pytest.approx(-math.log(right / (right + wrong)))


def test_listwise_pushes_hardest_on_the_likeliest_wrong_answer():
    rejected = torch.tensor([2.0, -2.0], requires_grad=True)
    listwise(torch.tensor([0.0]), rejected).backward()
    assert rejected.grad is not None
    assert rejected.grad[0] > 10 * rejected.grad[1] > 0


def test_gradients_are_those_of_the_equation():
    policy, reference = torch.randn(3, dtype=torch.float64, requires_grad=True), torch.randn(3, dtype=torch.float64)

    def loss(values: torch.Tensor) -> torch.Tensor:
        r = rewards(values, reference, 0.7)
        return dpo(r[:1], r[1:]).mean() + listwise(r[:1], r[1:]) + nll(values[:1], torch.tensor([4]), "token").sum()

    assert torch.autograd.gradcheck(loss, (policy,))


def test_nll_is_a_mean_over_tokens_or_a_sum():
    assert nll(torch.tensor([-6.0, -2.0]), torch.tensor([3, 1]), "token").tolist() == [2.0, 2.0]
    assert nll(torch.tensor([-6.0, -2.0]), torch.tensor([3, 1]), "answer").tolist() == [6.0, 2.0]


def test_the_odds_ratio_is_of_the_probabilities_and_not_of_their_logarithms() -> None:
    """P = .6 and .5 against .2: odds 1.5 and 1 against .25, ratios 6 and 4."""
    loss = orpo(tensor([0.6, 0.5]).log(), tensor([0.2]).log())
    assert loss[:, 0].tolist() == pytest.approx([math.log1p(1 / 6), math.log1p(1 / 4)])
    assert orpo(tensor([0.0]), tensor([-1.0])).isfinite().all(), "an answer that is certain has odds all the same"


@cases
@given(side, side, st.floats(0.1, 5), st.floats(0, 3))
def test_simpo_is_dpo_without_a_reference_and_with_a_margin(
    chosen: list[float], rejected: list[float], beta: float, gamma: float
) -> None:
    loss = simpo(tensor(chosen), tensor(rejected), beta, gamma)
    shifted = dpo(beta * tensor(chosen) - gamma, beta * tensor(rejected))
    torch.testing.assert_close(loss, shifted, rtol=1e-5, atol=1e-5)


def test_kto_by_hand() -> None:
    """Log-ratios 2 and 1 against 0: z = 1, so 1 - s(.1), 1 - s(0), 1 - s(.1) with beta .1; below 0, z is 0."""
    s = 1 - 1 / (1 + math.exp(-0.1))
    assert kto(tensor([2, 1]), tensor([0]), 0.1).tolist() == pytest.approx([s, 0.5, s])
    low = kto(tensor([-1]), tensor([-3]), 1.0).tolist()
    assert low == pytest.approx([1 - 1 / (1 + math.exp(1)), 1 - 1 / (1 + math.exp(-3))])


def test_every_preference_term_raises_right_answers_against_wrong_ones() -> None:
    for loss in (
        lambda c, r: orpo(c, r).mean(),
        lambda c, r: simpo(c, r, 2.0, 0.5).mean(),
        lambda c, r: kto(c, r, 0.5).mean(),
    ):
        c, r = tensor([-1.0, -1.2]).requires_grad_(), tensor([-1.1]).requires_grad_()
        loss(c, r).backward()
        assert (c.grad < 0).all()  # type: ignore[operator]
        assert (r.grad > 0).all()  # type: ignore[operator]
