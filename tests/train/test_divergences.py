"""Divergences by hand, by property, by their definitions in float64, and against TRL's two implementations."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.train.students import cases
from torch import Tensor
from torch.testing import assert_close
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from vivavoce.train.divergences import (
    FLOOR,
    by_token,
    distillation_loss,
    policy_gradient,
    silence,
    sureness,
)
from vivavoce.train.objective import Objective

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

DIVERGENCES = ["forward_kl", "reverse_kl", "jsd", "clipped_reverse_kl", "log_ratio"]
MERGED: list[dict[str, Any]] = [
    {"aggregate": "arithmetic"},
    {"aggregate": "geometric"},
    *({"aggregate": "max", "max_by": by} for by in ("probability", "entropy", "nearest", "elementwise")),
]
AGGREGATES: list[dict[str, Any]] = [{"aggregate": "sum"}, *MERGED]

divergences = pytest.mark.parametrize("divergence", DIVERGENCES)
aggregates = pytest.mark.parametrize("aggregate", AGGREGATES, ids=lambda a: a.get("max_by", a["aggregate"]))


class Case(NamedTuple):
    student: Tensor
    teachers: list[Tensor]
    weights: Tensor
    sampled: Tensor


def case(seed: int, tokens: int, vocabulary: int, teachers: int, scale: float = 1.0) -> Case:
    g = torch.Generator().manual_seed(seed)
    student, *others = scale * torch.randn(teachers + 1, tokens, vocabulary, generator=g)
    weights = 0.1 + torch.rand(tokens, teachers, generator=g)
    sampled = torch.randint(vocabulary, (tokens,), generator=g)
    return Case(student, others, weights / weights.sum(1, keepdim=True), sampled)


generated = st.builds(
    case, st.integers(0, 2**32), st.integers(1, 3), st.integers(2, 12), st.integers(1, 4), st.sampled_from([0.1, 1, 6])
)


def apart(
    student: Tensor,
    teachers: Sequence[Tensor],
    weights: Tensor | None = None,
    sampled: Tensor | None = None,
    **how: Any,
) -> tuple[Tensor, Tensor]:
    """The loss at every token and its gradient to the student's logits."""
    z = student.detach().clone().requires_grad_()
    n, k = len(z), len(teachers)
    weights = torch.full((n, k), 1 / k) if weights is None else weights
    sampled = torch.zeros(n, dtype=torch.long) if sampled is None else sampled
    loss = distillation_loss(z, teachers, weights, sampled, Objective(**how))
    assert loss.shape == (n,)
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), gradient


def logits(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(-1)


def definition(p: Tensor, q: Tensor, divergence: str, beta: float = 0.5, clip: float = 2.0) -> Tensor:
    """The textbook's formula of probabilities."""
    if divergence == "forward_kl":
        return kl(p, q)
    if divergence == "reverse_kl":
        return kl(q, p)
    if divergence == "clipped_reverse_kl":
        return (q * (q / p).log().clamp(max=clip)).sum(-1)
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def defined(student: Tensor, teacher: Tensor, divergence: str, temperature: float = 1.0, **how: float) -> list[Tensor]:
    """The definition's value and gradient to the student's logits, in float64."""
    z = student.double().requires_grad_()
    loss = definition((teacher.double() / temperature).softmax(-1), (z / temperature).softmax(-1), divergence, **how)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    return [loss.detach(), gradient]


def assert_near(actual: Sequence[Tensor], expected: Sequence[Tensor], rtol: float = 1e-5, atol: float = 1e-5) -> None:
    for left, right in zip(actual, expected, strict=True):
        assert_close(left, right, rtol=rtol, atol=atol, check_dtype=False)


def trl_jsd(student: Tensor, teacher: Tensor, beta: float, temperature: float = 1.0) -> Tensor:
    """TRL's first implementation, at every token."""
    from trl.experimental.gkd import GKDTrainer  # warns that it may change, where warnings are let through

    loss = GKDTrainer.generalized_jsd_loss(
        student[None], teacher[None], beta=beta, temperature=temperature, reduction="none"
    )
    return loss[0].sum(-1)


def gap(left: Tensor, right: Tensor) -> float:
    return float((left - right).norm() / left.norm())


# By hand: p = (1/4, 3/4) and q = (1/2, 1/2), so that log(q/p) is ln 2 and -ln 3/2.


@pytest.mark.parametrize(
    ("how", "value", "slope"),
    [
        ({"divergence": "forward_kl"}, 0.75 * math.log(3) - math.log(2), 0.25),
        ({"divergence": "reverse_kl"}, math.log(2) - 0.5 * math.log(3), 0.25 * math.log(3)),
        (
            {"divergence": "jsd", "beta": 0.25},
            0.25 * (0.25 * math.log(4 / 7) + 0.75 * math.log(4 / 3)) + 0.75 * 0.5 * math.log(8 / 7 * 8 / 9),
            0.75 * 0.25 * math.log(9 / 7),
        ),
        ({"divergence": "clipped_reverse_kl", "clip": 0.5}, 0.25 - 0.5 * math.log(1.5), 0.25 * (math.log(1.5) - 0.5)),
        ({"divergence": "clipped_reverse_kl", "clip": 0.7}, math.log(2) - 0.5 * math.log(3), 0.25 * math.log(3)),
        ({"divergence": "log_ratio"}, math.log(2), 0.5 * math.log(2)),
    ],
)
def test_two_tokens_by_hand(how: dict[str, Any], value: float, slope: float):
    loss, gradient = apart(logits(0.5, 0.5), [logits(0.25, 0.75)], **how)
    assert loss.item() == pytest.approx(value, abs=1e-6)
    assert gradient[0].tolist() == pytest.approx([slope, -slope], abs=1e-6)


def test_the_log_ratio_is_that_of_the_sampled_token():
    loss, gradient = apart(
        logits(0.5, 0.5), [logits(0.25, 0.75)], sampled=torch.tensor([1]), divergence="log_ratio", clip=0.1
    )
    assert loss.item() == pytest.approx(-math.log(1.5), abs=1e-6)
    assert gradient[0].tolist() == pytest.approx([0.5 * math.log(1.5), -0.5 * math.log(1.5)], abs=1e-6)


def test_a_policy_gradient_is_the_log_ratio_times_that_of_the_log_probability():
    log_q, log_p = torch.tensor([-1.0, -3.0], requires_grad=True), torch.tensor([-2.0, -1.0], requires_grad=True)
    loss = policy_gradient(log_q, log_p)
    assert loss.tolist() == [1.0, -2.0]
    loss.sum().backward()
    assert log_q.grad is not None
    assert log_q.grad.tolist() == [1.0, -2.0]
    assert log_p.grad is None
    assert policy_gradient(log_q, 0).tolist() == [-1.0, -3.0]


# By definition


@cases
@given(generated, st.sampled_from([0.7, 1.0, 3.0]))
@pytest.mark.parametrize(
    "how",
    [
        {"divergence": "forward_kl"},
        {"divergence": "reverse_kl"},
        {"divergence": "jsd", "beta": 0.5},
        {"divergence": "jsd", "beta": 0.1},
        {"divergence": "clipped_reverse_kl", "clip": 0.3},
    ],
)
def test_values_and_gradients_are_those_of_the_definition(how: dict[str, Any], c: Case, temperature: float):
    expected = defined(c.student, c.teachers[0], temperature=temperature, **how)
    assert_near(apart(c.student, c.teachers[:1], temperature=temperature, **how), expected, atol=3e-5)


@cases
@given(generated)
def test_jsd_at_its_ends_is_forward_and_reverse_kl(c: Case):
    for beta, name in ((0.0, "forward_kl"), (1.0, "reverse_kl")):
        for form in ("gkd", "continuous"):
            end = apart(c.student, c.teachers, c.weights, divergence="jsd", beta=beta, form=form)
            assert_near(end, apart(c.student, c.teachers, c.weights, divergence=name), rtol=1e-6, atol=1e-6)


ends = pytest.mark.parametrize(("beta", "end"), [(1e-4, "forward_kl"), (1 - 1e-4, "reverse_kl")])


@ends
def test_the_continuous_form_meets_both_ends_where_gkd_s_fades(beta: float, end: str):
    student, teacher = torch.randn(2, 4, 50, generator=torch.Generator().manual_seed(0))
    whole = apart(student, [teacher], divergence=end)
    near = apart(student, [teacher], beta=beta, form="continuous")
    faded = apart(student, [teacher], beta=beta, form="gkd")
    for left, right in zip(whole, near, strict=True):
        assert gap(left, right) < 0.01
    assert (faded[0] < 1e-3 * whole[0]).all()
    assert faded[1].norm() < 1e-3 * whole[1].norm()


@ends
def test_the_continuous_form_still_measures_small_divergences_close_to_its_ends(beta: float, end: str):
    student, noise = torch.randn(2, 4, 2000, generator=torch.Generator().manual_seed(0))
    teacher = student + 0.03 * noise  # about 4e-4 apart; divided by beta, what float32 loses would be more than that
    value, gradient = apart(student, [teacher], beta=beta, form="continuous")
    exact, slope = defined(student, teacher, end)
    assert_close(value, exact, rtol=0.02, atol=0, check_dtype=False)
    assert gap(slope, gradient) < 0.02


@cases
@given(generated, st.floats(0.01, 0.99))
def test_the_continuous_form_is_gkd_s_over_beta_times_its_complement(c: Case, beta: float):
    plain, divided = (apart(c.student, c.teachers, c.weights, beta=beta, form=form) for form in ("gkd", "continuous"))
    assert_near([x * beta * (1 - beta) for x in divided], plain, atol=1e-6)


# Against TRL


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
def test_it_is_the_loss_of_trl_s_two_distillation_trainers(beta: float, temperature: float):
    g = torch.Generator().manual_seed(3)
    hidden, head = torch.randn(5, 8, generator=g).requires_grad_(), torch.randn(40, 8, generator=g).requires_grad_()
    other, other_head = torch.randn(5, 6, generator=g), torch.randn(40, 6, generator=g)
    teacher = other @ other_head.T
    factor = torch.rand(5, generator=g)

    def gradients(loss: Tensor) -> list[Tensor]:
        return [loss.detach(), *torch.autograd.grad(loss @ factor, [hidden, head], retain_graph=True)]

    student = hidden @ head.T
    objective = Objective(divergence="jsd", beta=beta, temperature=temperature)
    ours = distillation_loss(student, [teacher], torch.ones(5, 1), torch.zeros(5, dtype=torch.long), objective)
    gkd = trl_jsd(student, teacher, beta, temperature)
    chunked, _ = ChunkedDivergenceFunction.apply(hidden, head, None, other, other_head, None, beta, temperature)  # pyright: ignore[reportGeneralTypeIssues]
    assert ours.min() > 0.01
    assert_near(gradients(ours), gradients(gkd), rtol=1e-4)
    assert_near(gradients(ours), gradients(chunked), rtol=1e-4)


# Bounds


@cases
@given(generated, st.sampled_from([1, 10]))
def test_jsd_lies_between_0_and_ln_2(c: Case, sharper: int):
    loss, _ = apart(sharper * c.student, [sharper * t for t in c.teachers], c.weights)
    assert loss.min() >= -1e-6
    assert loss.max() <= math.log(2) + 1e-6


def test_jsd_is_0_for_the_teacher_s_own_distribution_and_ln_2_where_nothing_is_shared():
    own = torch.tensor([[0.3, -1.0, 2.0, 5.0]])
    assert apart(own, [own + 7])[0].item() == pytest.approx(0, abs=1e-6)
    assert apart(torch.tensor([[0.0, 90]]), [torch.tensor([[90.0, 0]])])[0].item() == pytest.approx(math.log(2))


SUP = max(0.5 * x * (1 - x) * math.log((2 - x) / (1 - x)) for x in torch.linspace(0.01, 0.99, 9801).tolist())
"""Largest slope of JSD_0.5: the teacher never says the one token, the student says it with probability x."""


@pytest.mark.parametrize("vocabulary", [2, 3, 10, 50])
def test_no_logit_s_gradient_of_jsd_exceeds_0_1543_even_where_it_is_sought(vocabulary: int):
    g = torch.Generator().manual_seed(vocabulary)
    start = torch.cat([scale * torch.randn(2, 32, vocabulary, generator=g) for scale in (1, 4, 12)], 1)
    sought = start.double().requires_grad_()
    climber = torch.optim.Adam([sought], lr=0.2)
    for _ in range(150):
        p, q = sought.softmax(-1)
        ratio = (2 * q / (p + q)).log()
        slope = 0.5 * q * (ratio - (q * ratio).sum(-1, keepdim=True))
        climber.zero_grad()
        (-slope.abs().amax(-1).sum()).backward()
        climber.step()
    _, random = apart(start[1], [start[0]])
    _, adversarial = apart(sought[1], [sought[0]])
    assert random.abs().max() <= 0.1543
    assert 0.15 < adversarial.abs().max() <= 0.1543
    assert adversarial.abs().max().item() == pytest.approx(SUP, abs=1e-4)


@pytest.mark.parametrize(("p", "slope"), [(1e-2, 1.15), (1e-4, 2.30), (1e-8, 4.61), (1e-16, 9.21)])
def test_reverse_kl_pushes_without_bound_where_the_teacher_never_goes_and_clipped_does_not(p: float, slope: float):
    teacher = torch.tensor([[math.log(p), math.log1p(-p)]], dtype=torch.float64)
    student = torch.zeros(1, 2, dtype=torch.float64)
    _, whole = apart(student, [teacher], divergence="reverse_kl")
    _, clipped = apart(student, [teacher], divergence="clipped_reverse_kl", clip=2.0)
    _, bounded = apart(student, [teacher], divergence="jsd")
    assert whole[0, 0].item() == pytest.approx(slope, rel=0.01)
    assert clipped[0, 0].item() == pytest.approx(0.25 * (2 - (1 - math.log(2) - math.log1p(-p))), rel=1e-4)
    assert 0 < bounded[0, 0].item() <= 0.1543


@cases
@given(generated, st.floats(0.1, 4), st.sampled_from([1, 20]))
def test_clipped_reverse_kl_has_bounded_gradients_and_never_more_than_reverse_kl(c: Case, clip: float, sharper: int):
    student, teacher = sharper * c.student, sharper * c.teachers[0]
    loss, gradient = apart(student, [teacher], divergence="clipped_reverse_kl", clip=clip)
    assert gradient.abs().max() <= clip + 1 + 1 / math.e  # q_i f_i - q_i E_q[f], both terms in [-1/e, clip + 1]
    assert (loss <= apart(student, [teacher], divergence="reverse_kl")[0] + 1e-5).all()


@cases
@given(generated)
def test_forward_kl_s_gradient_is_q_minus_the_mean_of_p(c: Case):
    mean = sum(c.weights[:, k, None] * t.softmax(-1) for k, t in enumerate(c.teachers))
    _, gradient = apart(c.student, c.teachers, c.weights, divergence="forward_kl")
    assert_near([gradient], [c.student.softmax(-1) - mean])


# Several teachers


def geometric(c: Case) -> Tensor:
    """Normalised weighted geometric mean of the teachers' probabilities, in float64."""
    product = torch.stack([t.double().softmax(-1) ** c.weights[:, k, None] for k, t in enumerate(c.teachers)]).prod(0)
    return product / product.sum(-1, keepdim=True)


def arithmetic(c: Case) -> Tensor:
    return sum((c.weights[:, k, None] * t.double().softmax(-1) for k, t in enumerate(c.teachers)), torch.zeros(1))


@cases
@given(generated)
def test_a_sum_of_divergences_is_the_weighted_sum_of_single_ones(c: Case):
    for divergence in DIVERGENCES:
        fused = apart(c.student, c.teachers, c.weights, c.sampled, divergence=divergence)
        single = [apart(c.student, [t], sampled=c.sampled, divergence=divergence) for t in c.teachers]
        values = sum(c.weights[:, k] * value for k, (value, _) in enumerate(single))
        gradients = sum(c.weights[:, k, None] * gradient for k, (_, gradient) in enumerate(single))
        assert_near(fused, [torch.as_tensor(values), torch.as_tensor(gradients)], atol=3e-5)


@pytest.mark.parametrize(("divergence", "mean"), [("reverse_kl", geometric), ("forward_kl", arithmetic)])
def test_a_sum_of_kls_pulls_towards_one_mean_and_differs_from_it_by_a_constant(divergence: str, mean: Any):
    c, other = case(5, 6, 20, 3, scale=3), case(6, 6, 20, 3, scale=3)
    one = [mean(c).log()]
    summed, towards = apart(c.student, c.teachers, c.weights, divergence=divergence)
    merged, same = apart(c.student, one, divergence=divergence)
    assert gap(towards, same) < 1e-5
    assert (summed - merged).min() > 0.1
    elsewhere, _ = apart(other.student, c.teachers, c.weights, divergence=divergence)
    assert_near([elsewhere - apart(other.student, one, divergence=divergence)[0]], [summed - merged], atol=1e-4)


@pytest.mark.parametrize("divergence", ["jsd", "clipped_reverse_kl"])
def test_a_sum_of_the_others_pulls_towards_no_mean(divergence: str):
    c = case(5, 6, 20, 3, scale=3)
    _, towards = apart(c.student, c.teachers, c.weights, divergence=divergence)
    for mean in (geometric, arithmetic):
        _, merged = apart(c.student, [mean(c).log()], divergence=divergence)
        assert gap(towards, merged) > 0.1


@cases
@given(generated)
def test_reverse_kl_to_equal_teachers_pulls_towards_the_mean_of_their_logits(c: Case):
    _, summed = apart(c.student, c.teachers, divergence="reverse_kl")
    aggregated = apart(c.student, c.teachers, divergence="reverse_kl", aggregate="geometric")
    by_hand = apart(c.student, [torch.stack(c.teachers).mean(0)], divergence="reverse_kl")
    assert_near([summed], [by_hand[1]])
    assert_near(aggregated, by_hand)


@cases
@given(generated)
@divergences
@pytest.mark.parametrize("aggregate", ["arithmetic", "geometric"])
def test_a_mean_of_teachers_is_one_teacher(aggregate: str, divergence: str, c: Case):
    mean = {"arithmetic": arithmetic, "geometric": geometric}[aggregate](c)
    merged = apart(c.student, c.teachers, c.weights, c.sampled, divergence=divergence, aggregate=aggregate)
    assert_near(merged, apart(c.student, [mean.log()], sampled=c.sampled, divergence=divergence), atol=3e-5)


@cases
@given(generated)
@pytest.mark.parametrize("by", ["probability", "entropy", "nearest", "elementwise"])
def test_the_maximum_is_one_teacher_at_every_token(by: str, c: Case):
    chosen = []
    students = c.student.double().softmax(-1)
    for q, row in zip(students, torch.stack(c.teachers).double().softmax(-1).unbind(1), strict=True):  # a token: (K, V)
        if by == "nearest":
            chosen.append(min(row, key=lambda p: definition(p, q, "jsd").item()))
        elif by == "probability":
            chosen.append(max(row, key=lambda p: p.max().item()))
        elif by == "entropy":
            chosen.append(min(row, key=lambda p: -(p * p.log()).sum().item()))
        else:
            most = torch.tensor([max(column) for column in row.T.tolist()], dtype=torch.float64)
            chosen.append(most / most.sum())
    how: dict[str, Any] = {"divergence": "forward_kl"}
    maximum = apart(c.student, c.teachers, c.weights, aggregate="max", max_by=by, **how)
    assert_near(maximum, apart(c.student, [torch.stack(chosen).log()], **how), atol=3e-5)


def test_the_surest_by_top_probability_need_not_be_the_one_of_lowest_entropy():
    flat_tail, two_way = logits(0.55, 0.15, 0.15, 0.15), logits(0.498, 0.5, 0.001, 0.001)
    student = torch.zeros(1, 4)
    for by, expected in (("probability", flat_tail), ("entropy", two_way)):
        value, _ = apart(student, [two_way, flat_tail], aggregate="max", max_by=by)
        assert value.item() == pytest.approx(apart(student, [expected])[0].item(), abs=1e-6)


@divergences
@aggregates
def test_teachers_who_agree_are_one_teacher(divergence: str, aggregate: dict[str, Any]):
    c = case(8, 5, 30, 3)
    same = [c.teachers[0]] * 3
    for top_k in (None, 4):
        how: dict[str, Any] = {"divergence": divergence, "top_k": top_k}
        committee = apart(c.student, same, c.weights, c.sampled, **how, **aggregate)
        assert_near(committee, apart(c.student, same[:1], sampled=c.sampled, **how))


@divergences
@aggregates
def test_the_order_of_teachers_does_not_matter(divergence: str, aggregate: dict[str, Any]):
    c, order = case(9, 5, 30, 4, scale=2), [2, 0, 3, 1]
    for top_k in (None, 4):
        how: dict[str, Any] = {"divergence": divergence, "top_k": top_k, **aggregate}
        shuffled = apart(c.student, [c.teachers[k] for k in order], c.weights[:, order], c.sampled, **how)
        assert_near(shuffled, apart(c.student, c.teachers, c.weights, c.sampled, **how))
        unequal = apart(c.student, c.teachers, c.weights[:, order], c.sampled, **how)
        if aggregate["aggregate"] != "max":
            assert gap(shuffled[1], unequal[1]) > 0.01


@divergences
@aggregates
@pytest.mark.parametrize("wild", [1.0, 1e3, 1e30])
def test_a_teacher_of_weight_0_changes_nothing(divergence: str, aggregate: dict[str, Any], wild: float):
    _unchanged_by_weight_0(wild, divergence=divergence, **aggregate)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd", "clipped_reverse_kl"])
@aggregates
def test_a_teacher_of_weight_0_changes_nothing_of_a_cut_off_support(divergence: str, aggregate: dict[str, Any]):
    _unchanged_by_weight_0(1.0, divergence=divergence, top_k=3, **aggregate)


def _unchanged_by_weight_0(wild: float, **how: Any) -> None:
    """It weighs nothing at some tokens only: at each of them another one."""
    c = case(10, 6, 30, 3, scale=2)
    absent = torch.arange(6) % 3
    weights = c.weights.scatter(1, absent[:, None], 0)
    weights = weights / weights.sum(1, keepdim=True)
    noise = wild * torch.randn(3, 6, 30, generator=torch.Generator().manual_seed(11))
    there = [torch.where((absent == k)[:, None], noise[k], t) for k, t in enumerate(c.teachers)]
    value, gradient = apart(c.student, there, weights, c.sampled, **how)
    for row, gone in enumerate(absent.tolist()):
        left = [k for k in range(3) if k != gone]
        one = slice(row, row + 1)
        without = apart(c.student[one], [c.teachers[k][one] for k in left], weights[one, left], c.sampled[one], **how)
        assert_near([value[one], gradient[one]], without)


def test_the_maximum_of_one_present_teacher_is_that_teacher_however_unlikely_a_token():
    present, absent = torch.tensor([[0.0, -100.0]]), torch.tensor([[3.0, 1.0]])
    for by in ("probability", "entropy", "elementwise"):
        how: dict[str, Any] = {"divergence": "reverse_kl", "aggregate": "max", "max_by": by}
        value, _ = apart(torch.zeros(1, 2), [present, absent], torch.tensor([[1.0, 0.0]]), **how)
        assert value.item() == pytest.approx(50 - math.log(2), abs=1e-4), by


# Temperature and precision


@divergences
def test_temperature_divides_both_sides_logits_and_counts(divergence: str):
    c = case(12, 4, 20, 2)
    cooled, warm = (
        apart(c.student, c.teachers, c.weights, c.sampled, divergence=divergence, temperature=t) for t in (0.5, 1)
    )
    value, gradient = apart(c.student / 0.5, [t / 0.5 for t in c.teachers], c.weights, c.sampled, divergence=divergence)
    assert_near(cooled, [value, gradient / 0.5])
    assert gap(warm[0], cooled[0]) > 0.1


def test_the_gradient_survives_bfloat16_logits_close_to_the_teacher_s():
    g = torch.Generator().manual_seed(13)
    teacher = 2 * torch.randn(2, 20_000, generator=g)
    teacher[torch.arange(2), torch.tensor([17, 4711])] = 14.0
    student, teacher = (teacher + 0.16 * torch.randn(2, 20_000, generator=g)).bfloat16(), teacher.bfloat16()
    value, gradient = apart(student, [teacher])
    exact, slope = defined(student, teacher, "jsd")
    assert exact.mean().item() == pytest.approx(3.6e-4, rel=0.1)
    assert_close(value, exact, rtol=0.01, atol=0, check_dtype=False)
    for ours, theirs in zip(gradient.double(), slope, strict=True):
        assert torch.cosine_similarity(ours, theirs, dim=0) > 0.99
        assert float(ours.norm()) == pytest.approx(float(theirs.norm()), rel=0.01)
    assert trl_jsd(student, teacher, 0.5).max() < 0  # the same formula in the logits' own precision


# Cut-off support


def lumped(c: Case, k: int) -> list[list[Tensor]]:
    """Probabilities of the tokens that are kept and of the rest, for every token the student's and the teachers'."""
    rows = []
    for row in range(len(c.student)):
        sides = [s[row].double().softmax(-1) for s in (c.student, *c.teachers)]
        kept = {int(c.sampled[row])}.union(*(sorted(range(len(p)), key=p.tolist().__getitem__)[-k:] for p in sides))
        at, rest = sorted(kept), [i for i in range(len(sides[0])) if i not in kept]
        rows.append([torch.cat([p[at], p[rest].sum()[None]] if rest else [p[at]]) for p in sides])
    return rows


@cases
@given(generated, st.integers(1, 14))
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd", "clipped_reverse_kl"])
def test_a_cut_off_support_compares_the_kept_tokens_and_the_rest_as_one(divergence: str, c: Case, k: int):
    expected = [
        sum(w * definition(p, q, divergence) for w, p in zip(c.weights[row].double(), ps, strict=True))
        for row, (q, *ps) in enumerate(lumped(c, k))
    ]
    value, gradient = apart(c.student, c.teachers, c.weights, c.sampled, divergence=divergence, top_k=k)
    assert value.tolist() == pytest.approx([float(x) for x in expected], rel=1e-4, abs=3e-5)
    assert gradient.isfinite().all()


@cases
@given(generated)
def test_a_cut_off_support_sees_no_more_than_the_whole_vocabulary_and_all_of_it_the_same(c: Case):
    size = c.student.shape[1]
    for divergence in ("forward_kl", "reverse_kl", "jsd", "clipped_reverse_kl"):
        whole, *cut = (
            apart(c.student, c.teachers, c.weights, c.sampled, divergence=divergence, top_k=k)
            for k in (None, 1, size - 1 or 1, size, size + 5)
        )
        assert_near(cut[-2], whole)
        assert_near(cut[-1], whole)
        for value, gradient in cut:
            assert gradient.isfinite().all()
            assert divergence == "clipped_reverse_kl" or (value <= whole[0] + 3e-5).all()


def test_a_student_outside_the_teacher_s_support_is_far_from_it():
    inside = torch.tensor([0.6, 0.4])  # on these two tokens alone both sides are the same distribution
    rare = 1e-7
    student = torch.cat([rare * inside, torch.full((8,), (1 - rare) / 8)]).log()[None]
    teacher = torch.cat([(1 - rare) * inside, torch.full((8,), rare / 8)]).log()[None]
    sampled = torch.tensor([9])
    for divergence, far in (("jsd", math.log(2)), ("reverse_kl", math.log(1e7)), ("forward_kl", math.log(1e7))):
        value, gradient = apart(student, [teacher], sampled=sampled, divergence=divergence, top_k=2)
        assert value.item() == pytest.approx(far, rel=1e-3)
        assert gradient.isfinite().all()
        assert gradient[0, :2].max() < 0


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd", "clipped_reverse_kl"])
def test_gradients_stay_finite_where_almost_nothing_is_left_for_the_rest(divergence: str):
    student, teacher = torch.zeros(3, 6), torch.zeros(3, 6)
    student[:, 0], teacher[:, 1] = 200.0, 300.0
    value, gradient = apart(student, [teacher], divergence=divergence, top_k=1)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert value.min() > 0.1


def test_the_sampled_token_is_always_compared_by_itself():
    student, teacher = logits(0.7, 0.1, 0.1, 0.1), logits(0.7, 0.02, 0.18, 0.1)
    how: dict[str, Any] = {"divergence": "reverse_kl", "top_k": 1}
    blind, seeing = (apart(student, [teacher], sampled=torch.tensor([y]), **how)[0].item() for y in (0, 1))
    assert blind == pytest.approx(0, abs=1e-6)
    assert seeing == pytest.approx(0.1 * math.log(0.1 / 0.02) + 0.2 * math.log(0.2 / 0.28), abs=1e-6)


# One sample of reverse KL


@cases
@given(generated, st.sampled_from([0.7, 1.0]))
def test_the_log_ratio_s_mean_over_the_student_s_tokens_is_reverse_kl(c: Case, temperature: float):
    size = c.student.shape[1]
    for row in range(len(c.student)):
        one = slice(row, row + 1)
        every = [side[one].expand(size, -1) for side in (c.student, *c.teachers)]
        q = (c.student[row] / temperature).softmax(-1)
        weights, y = c.weights[one].expand(size, -1), torch.arange(size)
        values, gradients = apart(every[0], every[1:], weights, y, divergence="log_ratio", temperature=temperature)
        whole = apart(
            c.student[one],
            [t[one] for t in c.teachers],
            c.weights[one],
            divergence="reverse_kl",
            temperature=temperature,
        )
        assert_near([(q @ values)[None], (q @ gradients)[None]], whole, atol=1e-5 * (1 + float(values.abs().max())))


# Talk that is for the committee only


def test_silenced_talk_is_shared_out_or_ends_the_answer():
    quiet = silence(logits(0.4, 0.3, 0.2, 0.06, 0.04), never=[3], as_end=[2, 4], end=1)
    rest = 0.94
    expected = [0.4 / rest, (0.3 + 0.2 + 0.04) / rest, 1e-8, 1e-8, 1e-8]
    assert quiet.exp()[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(quiet[0, 2:], torch.full((3,), FLOOR))


def test_silence_can_be_of_either_kind_alone_or_none():
    z = logits(0.4, 0.3, 0.2, 0.1)
    assert silence(z, [3], [], 0).exp()[0].tolist() == pytest.approx([4 / 9, 3 / 9, 2 / 9, 1e-8], rel=1e-5)
    assert silence(z, [], [3], 0).exp()[0].tolist() == pytest.approx([0.5, 0.3, 0.2, 1e-8], rel=1e-5)
    assert silence(z, [], [], 0) is z


@cases
@given(generated, st.data())
def test_a_silenced_teacher_is_a_distribution_up_to_the_floor(c: Case, data: st.DataObject):
    teacher, size = c.teachers[0], c.student.shape[1]
    end, *others = data.draw(st.permutations(range(size)))
    gone = data.draw(st.integers(0, size - 1))
    never, as_end = others[: gone // 2], others[gone // 2 : gone]
    free = [i for i in range(size) if i not in {*never, *as_end}]
    quiet, spoken = silence(teacher, never, as_end, end).softmax(-1).double(), teacher.double().softmax(-1)
    left = spoken[:, [*free, *as_end]].sum(1)
    p = silence(teacher, never, as_end, end).double().exp() if gone else spoken
    assert_near([p.sum(1)], [torch.ones(len(p)) + gone * 1e-8], atol=1e-6)
    assert_near([p[:, end]], [spoken[:, [end, *as_end]].sum(1) / left], atol=1e-6)
    for i in {*free} - {end}:
        assert_near([p[:, i]], [spoken[:, i] / left], atol=1e-6)
    assert_near([quiet], [p], atol=1e-6)


def test_a_student_that_says_what_is_silenced_is_corrected_by_finite_gradients():
    teacher = silence(logits(0.1, 0.1, 0.8), never=[2], as_end=[], end=0)
    student = logits(0.01, 0.01, 0.98).float()
    for divergence in DIVERGENCES:
        value, gradient = apart(student, [teacher], sampled=torch.tensor([2]), divergence=divergence)
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        assert gradient[0, 2] > 0


# Who is moved


@divergences
@aggregates
def test_teachers_get_no_gradient_and_the_student_does(divergence: str, aggregate: dict[str, Any]):
    c = case(14, 4, 10, 2)
    outspoken = [t.requires_grad_() for t in c.teachers]
    quiet = [silence(t, [1], [2], 0) for t in outspoken]
    z = c.student.requires_grad_()
    for teachers in (outspoken, quiet):
        objective = Objective.model_validate({"divergence": divergence, **aggregate})
        distillation_loss(z, teachers, c.weights, c.sampled, objective).sum().backward()
    assert all(t.grad is None for t in outspoken)
    assert z.grad is not None
    assert z.grad.abs().min() > 0


@divergences
@aggregates
def test_the_weights_get_no_gradient(divergence: str, aggregate: dict[str, Any]):
    c = case(14, 4, 10, 2)
    weights = c.weights.requires_grad_()
    objective = Objective.model_validate({"divergence": divergence, **aggregate})
    distillation_loss(c.student.requires_grad_(), c.teachers, weights, c.sampled, objective).sum().backward()
    assert weights.grad is None


# The objective


@pytest.mark.parametrize("kind", ["probability", "entropy"])
def test_a_scorer_counts_as_much_as_it_is_sure_of_each_token(kind: Any) -> None:
    """By hand: one scorer is sure of the first token, the other one of the second."""
    sharp, flat = logits(0.98, 0.01, 0.01), logits(0.4, 0.3, 0.3)
    ones = [torch.cat([sharp, flat]), torch.cat([flat, sharp])]
    how = Objective(by_token=kind, tau_token=0.25)
    sure = torch.stack([sureness(one, how) for one in ones], -1)
    expected = {"probability": (0.98, 0.4), "entropy": (-0.1119, -1.0889)}[kind]
    assert sure[0].tolist() == pytest.approx(expected, abs=1e-4)
    weights = torch.tensor([[0.6, 0.4], [0.6, 0.4]])
    spread = by_token(weights, sure, how)
    grown = [0.6 * math.exp(expected[0] / 0.25), 0.4 * math.exp(expected[1] / 0.25)]
    assert spread[0].tolist() == pytest.approx([g / sum(grown) for g in grown], abs=1e-3)
    assert spread[1, 1] > spread[1, 0], "the other one is sure there"
    assert spread.sum(-1).tolist() == pytest.approx([1, 1])
    absent = by_token(torch.tensor([[0.0, 0.5], [0.0, 0.0]]), sure, how)
    assert absent.tolist() == [[0.0, 0.5], [0.0, 0.0]], (
        "who has not read an answer has no say; its weight is not shared"
    )


def test_the_objective_names_the_ends_of_jsd_and_refuses_what_means_nothing():
    kinds = [Objective.model_validate({"beta": beta}).kind for beta in (0, 0.5, 1)]
    assert kinds == ["forward_kl", "jsd", "reverse_kl"]
    assert Objective(divergence="clipped_reverse_kl", beta=1).kind == "clipped_reverse_kl"
    assert Objective() == Objective(divergence="jsd", beta=0.5, form="gkd", temperature=1, aggregate="sum", top_k=None)
    for wrong in ({"beta": 1.1}, {"beta": -0.1}, {"clip": 0}, {"temperature": 0}, {"top_k": 0}, {"divergence": "tv"}):
        with pytest.raises(ValidationError):
            Objective.model_validate(wrong)
    with pytest.raises(ValidationError):
        Objective.model_validate({"tau": 1})


@given(generated)
def test_a_fixed_sign_keeps_the_direction_of_the_log_ratio_and_nothing_of_its_size(c: Case) -> None:
    ratio, moved = apart(c.student, c.teachers, c.weights, c.sampled, divergence="log_ratio")
    value, gradient = apart(c.student, c.teachers, c.weights, c.sampled, divergence="fixed_sign", advantage=-0.3)
    assert_close(value, 0.3 * ratio.sign())
    clear = ratio.abs() > 1e-3
    assert_close(gradient[clear], 0.3 * moved[clear] / ratio[clear, None].abs(), atol=1e-4, rtol=1e-3)


@given(generated)
def test_a_fixed_negative_advantage_makes_every_sampled_token_less_likely_whatever_teachers_say(c: Case) -> None:
    value, gradient = apart(c.student, c.teachers, c.weights, c.sampled, divergence="fixed_negative", advantage=-0.3)
    q, one = c.student.softmax(-1), torch.nn.functional.one_hot(c.sampled, c.student.shape[1])
    assert_close(value, torch.full_like(value, 0.3))
    assert_close(gradient, 0.3 * (one - q), atol=1e-6, rtol=1e-5)
    nobody = distillation_loss(c.student, [], c.weights[:, :0], c.sampled, Objective(divergence="fixed_negative"))
    assert_close(nobody, torch.ones(len(nobody)))
