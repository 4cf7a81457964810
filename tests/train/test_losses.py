"""The losses by hand, by property, and at the point where training starts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.train.students import cases

from vivavoce.train.losses import dpo, listwise, margins, nll, rewards

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
