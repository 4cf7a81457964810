"""Muon moves the hidden matrices along orthogonal directions, and AdamW all else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.train.students import cases, tiny_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from vivavoce.train import muon
from vivavoce.train.muon import Muon, hidden_matrices, orthogonal
from vivavoce.train.settings import LoRASettings, MuonSettings, SFTSettings


def settings(**changes: object) -> SFTSettings:
    return SFTSettings.model_validate({"lora": None, "learning_rate": 1e-2, "weight_decay": 0.1, "muon": {}, **changes})


def draw_gradients(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn_like(p)


@cases
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**20))
def test_orthogonal_directions_are_about_equally_long_and_those_of_the_gradient(n: int, a: int, b: int, seed: int):
    draw = torch.Generator().manual_seed(seed)
    left, _, right = torch.linalg.svd(torch.randn(n, a, b, generator=draw), full_matrices=False)
    sizes = 10 ** (-torch.rand(n, 1, min(a, b), generator=draw))  # the smallest a tenth of the largest, at least
    made = left.mT @ orthogonal(1e-3 * (left * sizes) @ right) @ right.mT
    lengths = made.diagonal(dim1=1, dim2=2)
    assert ((lengths > 0.6) & (lengths < 1.3)).all()
    torch.testing.assert_close(made, torch.diag_embed(lengths), rtol=0, atol=1e-3)


def test_an_update_is_that_of_torch_in_bfloat16_and_of_adamw():
    ours, theirs = (tiny_model(tie_word_embeddings=False) for _ in range(2))
    how = settings(muon={"learning_rate": 0.02, "momentum": 0.8})
    decays = {name for name, p in ours.named_parameters() if "norm" not in name}
    matrices = hidden_matrices(theirs)
    others = {name: p for name, p in theirs.named_parameters() if name not in matrices}
    groups = [{"params": [p for n, p in others.items() if (n in decays) == d], "weight_decay": 0.1 * d} for d in (0, 1)]
    adam = torch.optim.AdamW(groups, lr=1e-2)
    whole = torch.optim.Muon(matrices.values(), lr=0.02, momentum=0.8, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    both = Muon(ours, how, decays)
    begun = {name: p.detach().clone() for name, p in ours.named_parameters()}
    for seed in range(3):
        for model in (ours, theirs):
            draw_gradients(model, seed)
        for optimizer in (both, whole, adam):
            optimizer.step()
    expected = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        if name in matrices:
            error = (p - expected[name]).norm() / (expected[name] - begun[name]).norm()
            assert error < 0.03, name
        else:
            torch.testing.assert_close(p, expected[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_the_output_layer_are_no_hidden_matrices(tied: bool):
    model = tiny_model(tie_word_embeddings=tied)
    layers = {n for n, p in model.named_parameters() if ".layers." in n and p.ndim == 2}
    assert set(hidden_matrices(model)) == layers != set()
    config = GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, tie_word_embeddings=tied)
    gpt = GPT2LMHeadModel(config)
    kinds = {name.rsplit(".", 2)[1] for name in hidden_matrices(gpt)}
    assert kinds == {"c_attn", "c_proj", "c_fc"}, "neither token nor position table"
    model.model.layers[0].requires_grad_(False)
    assert set(hidden_matrices(model)) == {n for n in layers if ".layers.0." not in n}, "what is frozen stays"


def test_few_at_a_time_is_all_at_once(monkeypatch: pytest.MonkeyPatch):
    ends = []
    for together in (2**24, 1):
        monkeypatch.setattr(muon, "_TOGETHER", together)
        model = tiny_model()
        optimizer = Muon(model, settings(), ())
        for seed in range(2):
            draw_gradients(model, seed)
            optimizer.step()
        ends.append(dict(model.named_parameters()))
    for name, p in ends[0].items():
        torch.testing.assert_close(ends[1][name], p, rtol=1e-5, atol=1e-6)


def test_an_optimiser_goes_on_from_its_state(tmp_path: Path):
    """As from a checkpoint: after a round through a file, the next update is the same bit by bit."""
    model, other = tiny_model(seed=1), tiny_model(seed=2)
    first, second = Muon(model, settings(), ()), Muon(other, settings(), ())
    draw_gradients(model, 0)
    first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    other.load_state_dict(model.state_dict())
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        q.grad = p.grad
    first.step()
    second.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_a_part_that_learns_nothing_stays_and_a_closure_gives_the_loss():
    model = tiny_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    one = "model.layers.0.mlp.up_proj.weight"
    model.get_parameter(one).grad = torch.ones_like(before[one])
    assert Muon(model, settings(), ()).step(lambda: 3.5) == 3.5
    assert [name for name, p in model.named_parameters() if not torch.equal(p, before[name])] == [one]


def test_whole_matrices_and_an_adapter_do_not_go_together():
    with pytest.raises(ValidationError, match="set one of them to null"):
        SFTSettings(lora=LoRASettings(), muon=MuonSettings())
