"""A loss of chunks is the loss of the whole, to every parameter, and no more logits exist than one chunk's."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.train.students import cases, tiny_model
from torch import Tensor, nn
from torch.testing import assert_close
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from vivavoce.train.chunks import chunked_loss
from vivavoce.train.divergences import distillation_loss
from vivavoce.train.objective import Objective

N, H, V = 7, 5, 11

sizes = pytest.mark.parametrize("size", [1, 3, N, N + 5])


class Adapted(nn.Module):
    """A frozen projection with a low-rank update that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(H, V).requires_grad_(False)
        self.down, self.up = nn.Linear(H, 2, bias=False), nn.Linear(2, V, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.base(hidden) + self.up(self.down(hidden))


def _weight_frozen() -> nn.Module:
    head = nn.Linear(H, V)
    head.weight.requires_grad_(False)
    return head


HEADS: dict[str, Callable[[], nn.Module]] = {
    "weight and bias": lambda: nn.Linear(H, V),
    "weight": lambda: nn.Linear(H, V, bias=False),
    "bias": _weight_frozen,
    "frozen": lambda: nn.Linear(H, V).requires_grad_(False),
    "adapted": Adapted,
    "identity": nn.Identity,
}
heads = pytest.mark.parametrize("kind", HEADS)

Loss = Callable[[nn.Module, Tensor], Tensor]


def of(logits: Tensor, part: slice) -> Tensor:
    """Not linear in the logits, and another function at every position."""
    at = torch.arange(1, 100, dtype=logits.dtype)[part, None]
    return ((at * logits).sin() + at.sqrt() * logits.logsumexp(-1, keepdim=True)).sum()


def whole(head: nn.Module, hidden: Tensor) -> Tensor:
    return of(head(hidden), slice(0, len(hidden)))


def chunks(size: int) -> Loss:
    return lambda head, hidden: chunked_loss(head, hidden, size, of)


def problem(kind: str = "weight and bias", positions: int = N) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return HEADS[kind]().double(), torch.randn(positions, H, dtype=torch.float64, requires_grad=True)


def results(loss: Loss, head: nn.Module, hidden: Tensor) -> dict[str, Tensor]:
    """The loss, and the gradients that its backward pass leaves."""
    value = loss(head, hidden)
    value.backward()
    left = {name: p.grad for name, p in [("hidden", hidden), *head.named_parameters()]}
    return {"loss": value.detach().double(), **{name: g for name, g in left.items() if g is not None}}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The value is a float32 number; gradients have the precision of what they belong to."""
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        tolerance = 1e-6 if name == "loss" else 1e-10
        assert_close(actual[name], tensor, rtol=tolerance, atol=tolerance)


@sizes
@heads
def test_value_and_gradients_are_those_of_the_whole(kind: str, size: int):
    expected = results(whole, *problem(kind))
    trained = {name for name, p in problem(kind)[0].named_parameters() if p.requires_grad}
    assert expected.keys() == {"loss", "hidden", *trained}
    assert min(g.abs().max() for g in expected.values()) > 0.01
    assert_same(results(chunks(size), *problem(kind)), expected)


@cases
@given(st.integers(1, 9), st.integers(1, 12))
def test_no_number_of_positions_and_no_size_makes_a_difference(positions: int, size: int):
    expected = results(whole, *problem(positions=positions))
    assert_same(results(chunks(size), *problem(positions=positions)), expected)


def test_no_positions_cost_nothing_and_leave_gradients_of_0():
    left = results(chunks(3), *problem(positions=0))
    assert left.keys() == {"loss", "hidden", "weight", "bias"}
    assert not any(tensor.any() for tensor in left.values())


@sizes
def test_it_is_differentiable_with_one_side_alone(size: int):
    head, hidden = problem()
    expected = results(whole, *problem())
    _ = expected.pop("hidden")
    assert_same(results(chunks(size), head, hidden.detach()), expected)


@sizes
def test_the_gradient_from_outside_scales_and_adds_up(size: int):
    def twice(loss: Loss) -> Loss:
        return lambda head, hidden: 2.5 * loss(head, hidden.tanh()) ** 2 - loss(head, 2 * hidden) + hidden.sum()

    assert_close(results(twice(chunks(size)), *problem()), results(twice(whole), *problem()), rtol=1e-5, atol=1e-5)


def test_gradients_accumulate_over_backward_passes():
    head, hidden = problem()
    once = results(chunks(3), head, hidden)
    once = {name: tensor.clone() for name, tensor in once.items()}
    second = results(chunks(3), head, hidden)
    assert_same(second, {name: tensor if name == "loss" else 2 * tensor for name, tensor in once.items()})


@sizes
def test_a_weight_that_is_the_embedding_too_gets_the_sum_of_both_gradients(size: int):
    ids = torch.tensor([3, 1, 4, 1, 5, 9, 2])

    def gradient(loss: Loss) -> Tensor:
        torch.manual_seed(1)
        embedding, head = nn.Embedding(V, H, dtype=torch.float64), nn.Linear(H, V, bias=False)
        head.weight = embedding.weight
        loss(head, embedding(ids).tanh()).backward()
        assert embedding.weight.grad is not None
        return embedding.weight.grad

    assert_close(gradient(chunks(size)), gradient(whole), rtol=1e-10, atol=1e-10)


def test_a_whole_model_with_a_tied_head_learns_the_same():
    ids = torch.arange(3, 40)[None]

    def nll(logits: Tensor, part: slice) -> Tensor:
        return nn.functional.cross_entropy(logits, ids[0, 1:][part], reduction="sum")

    def gradients(chunked: bool) -> dict[str, Tensor]:
        model = tiny_model(seed=2)
        head = model.get_output_embeddings()
        assert head is not None
        assert head.weight is model.get_input_embeddings().weight
        if chunked:
            loss = chunked_loss(head, model.model(ids).last_hidden_state[0, :-1], 5, nll)
        else:
            loss = nll(model(ids).logits[0, :-1], slice(0, 36))
        loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    ours, plain = gradients(chunked=True), gradients(chunked=False)
    assert ours.keys() == plain.keys()
    for name, gradient in plain.items():
        assert (gradient - ours[name]).norm() <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@sizes
def test_divergences_of_chunks_are_those_of_trl_s_chunks(size: int, beta: float):
    torch.manual_seed(3)
    head, teacher = nn.Linear(H, V), nn.Linear(4, V)
    hidden, theirs, factor = torch.randn(N, H, requires_grad=True), torch.randn(N, 4), torch.rand(N)
    objective = Objective(divergence="jsd", beta=beta, temperature=0.8)

    def divergence(logits: Tensor, part: slice) -> Tensor:
        one, sampled = torch.ones(len(logits), 1), torch.zeros(len(logits), dtype=torch.long)
        return (distillation_loss(logits, [teacher(theirs[part])], one, sampled, objective) * factor[part]).sum()

    per_token, _ = ChunkedDivergenceFunction.apply(
        hidden, head.weight, head.bias, theirs, teacher.weight, teacher.bias, beta, 0.8
    )  # pyright: ignore[reportGeneralTypeIssues]
    losses = chunked_loss(head, hidden, size, divergence), per_token @ factor
    inputs = [hidden, head.weight, head.bias]
    ours, trl = ([loss.detach(), *torch.autograd.grad(loss, inputs)] for loss in losses)
    assert ours[0] > 0.1
    assert_close(ours, trl, rtol=1e-4, atol=1e-5)


@sizes
@pytest.mark.parametrize("training", [True, False])
def test_no_more_rows_than_a_chunk_s_are_ever_projected_and_none_twice(size: int, training: bool):
    head, hidden = problem()
    projected: list[int] = []
    seen: list[tuple[int, int]] = []
    head.register_forward_hook(lambda module, inputs, logits: projected.append(len(logits)))

    def noting(logits: Tensor, part: slice) -> Tensor:
        assert logits.shape == (part.stop - part.start, V)
        seen.append((part.start, part.stop))
        return of(logits, part)

    with torch.set_grad_enabled(training):
        loss = chunked_loss(head, hidden, size, noting)
    if training:
        loss.backward()
    assert max(projected) <= size
    assert projected == [stop - start for start, stop in seen]
    assert [i for start, stop in seen for i in range(start, stop)] == list(range(N))


@heads
@sizes
def test_without_gradients_the_value_is_the_same(size: int, kind: str):
    head, hidden = problem(kind)
    with torch.no_grad():
        loss = chunked_loss(head, hidden, size, of)
    assert not loss.requires_grad
    assert_close(loss.double(), whole(head, hidden).detach(), rtol=1e-6, atol=1e-6)
    still = chunked_loss(head.requires_grad_(False), hidden.detach(), size, of)
    assert not still.requires_grad
    assert still == loss


@pytest.mark.parametrize("how", ["no_grad", "nothing to train"])
def test_where_no_gradient_is_wanted_none_is_computed(how: str):
    head, hidden = problem()
    if how == "nothing to train":
        head, hidden = head.requires_grad_(False), hidden.detach()
    recorded: list[bool] = []

    def noting(logits: Tensor, part: slice) -> Tensor:
        recorded.append(logits.requires_grad)
        return of(logits, part)

    with torch.set_grad_enabled(how != "no_grad"):
        chunked_loss(head, hidden, 3, noting)
    assert recorded == [False] * 3


def test_gradients_reach_the_logits_alone():
    head, hidden = problem()
    factor = torch.ones(N, dtype=torch.float64, requires_grad=True)
    chunked_loss(head, hidden, 3, lambda logits, part: (logits.square().sum(-1) * factor[part]).sum()).backward()
    assert factor.grad is None
    assert hidden.grad is not None


@sizes
def test_in_mixed_precision_gradients_are_as_near_as_those_of_the_whole(size: int):
    exact = results(whole, *problem())

    def rough(logits: Tensor, part: slice) -> Tensor:
        assert logits.dtype == torch.bfloat16
        return of(logits.float(), part)

    def mixed(loss: Loss) -> dict[str, float]:
        head, hidden = problem()
        with torch.autocast("cpu", torch.bfloat16):
            left = results(loss, head.float(), hidden.detach().float().requires_grad_())
        assert all(g.dtype == torch.float32 for name, g in left.items() if name != "loss")
        return {name: float((g.double() - exact[name]).norm() / exact[name].norm()) for name, g in left.items()}

    ours = mixed(lambda head, hidden: chunked_loss(head, hidden, size, rough))
    plain = mixed(lambda head, hidden: rough(head(hidden), slice(0, N)))
    assert ours.keys() == plain.keys()
    for name in ours:
        assert ours[name] < 2 * plain[name] + 1e-3, name
