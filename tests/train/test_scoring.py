"""Scoring: chunks change nothing, and a model that cannot be packed is found out and announced."""

import logging
from typing import Any

import pytest
import torch
from tests.train.students import tiny_model
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    PreTrainedModel,
)

from vivavoce.errors import RecipeError
from vivavoce.train import scoring
from vivavoce.train.choosing import choose
from vivavoce.train.packing import pack
from vivavoce.train.scoring import Method, attending, compiled_layers, logprobs
from vivavoce.train.tokens import ScoredRow

PACKED = pack([ScoredRow((*range(20), i, *range(i, i + 30)), 20) for i in range(40, 45)])


def grads(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_projecting_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    model = tiny_model()
    outcomes = []
    for chunk in (scoring.CHUNK["cpu"], 400 * 7):
        monkeypatch.setitem(scoring.CHUNK, "cpu", chunk)
        model.zero_grad()
        with attending(model, Method("blocks")):
            values = logprobs(model, PACKED, Method("blocks"))
            values.sum().backward()
        outcomes.append([values.detach(), *grads(model)])
    for whole, chunked in zip(*outcomes, strict=True):
        torch.testing.assert_close(whole, chunked, rtol=1e-5, atol=1e-5)


def test_the_logits_of_a_whole_row_never_exist(monkeypatch: pytest.MonkeyPatch):
    model = tiny_model()
    monkeypatch.setitem(scoring.CHUNK, "cpu", 400 * 7)
    seen: list[int] = []
    plain = model.lm_head.forward

    def watched(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(hidden.shape[-2])
        return plain(hidden)

    monkeypatch.setattr(model.lm_head, "forward", watched)
    with torch.no_grad(), attending(model, Method("blocks")):
        logprobs(model, PACKED, Method("blocks"))
    assert max(seen) == 7
    assert sum(seen) == 5 * 31
    assert model.lm_head.forward is watched, "what stood in its place is gone"


def test_layers_are_compiled_once_and_left_as_they_were():
    model = tiny_model()
    seen = []
    for _ in range(2):
        with compiled_layers(model):
            seen.append([layer._compiled_call_impl for layer in model.model.layers])
        assert all(layer._compiled_call_impl is None for layer in model.model.layers)
    assert seen[0] == seen[1]
    assert all(seen[0])


def test_attention_is_given_back():
    model = tiny_model()
    before = model.config._attn_implementation
    with attending(model, Method("blocks")):
        assert model.config._attn_implementation != before
    assert model.config._attn_implementation == before


SMALL: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}


def made(config: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("model", [tiny_model(), made(LlamaConfig(**SMALL))], ids=["qwen3", "llama"])
def test_ordinary_models_are_packed(model: PreTrainedModel, caplog: pytest.LogCaptureFixture):
    assert choose(model, "auto", 300) == Method("blocks")
    assert not caplog.records


def test_a_window_shorter_than_the_rows_falls_back(caplog: pytest.LogCaptureFixture):
    model = made(MistralConfig(**SMALL, sliding_window=64))
    with caplog.at_level(logging.WARNING):
        assert choose(model, "auto", 65).attention == "rows"
    assert "window of 64 tokens is shorter than the longest row, 65" in caplog.text
    assert choose(model, "auto", 64).attention == "blocks"


@pytest.mark.filterwarnings("ignore")
def test_a_state_space_model_falls_back_and_still_scores(caplog: pytest.LogCaptureFixture):
    torch.manual_seed(0)
    model = MambaForCausalLM(MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1, state_size=4)).eval()
    with caplog.at_level(logging.WARNING):
        method = choose(model, "auto", 100)
    assert method.attention == "rows"
    assert "cannot share prefixes" in caplog.text
    with torch.no_grad():
        logits = model(torch.tensor([PACKED.input_ids[: len(PACKED.answers[0]) + 20].tolist()])).logits[0]
        wanted = torch.log_softmax(logits[19:-1], -1).gather(1, torch.tensor(PACKED.input_ids[20:51])[:, None]).sum()
        torch.testing.assert_close(logprobs(model, PACKED, method)[0], wanted, rtol=1e-4, atol=1e-3)


def test_logits_that_the_model_scales_itself_are_its_own():
    from transformers import CohereConfig

    model = made(CohereConfig(**SMALL, logit_scale=0.25))
    method = choose(model, "auto", 100)
    assert not method.chunked
    with torch.no_grad(), attending(model, method):
        packed = logprobs(model, PACKED, method)
    torch.testing.assert_close(packed, logprobs(model, PACKED, Method("rows", chunked=False)), rtol=1e-4, atol=1e-3)


def test_row_by_row_can_be_asked_for(caplog: pytest.LogCaptureFixture):
    assert choose(tiny_model(), "rows", 100) == Method("rows")
    assert not caplog.records


def test_positions_that_the_model_cannot_be_given_are_found_out():
    class Counting(GPT2LMHeadModel):
        """Counts positions along the row, whatever it is told."""

        def forward(self, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=4, initializer_range=0.5)
    model = Counting(config).eval()
    inner = model.transformer.forward
    model.transformer.forward = lambda *args, position_ids=None, **kwargs: inner(*args, **kwargs)
    assert choose(model, "auto", 100).attention == "rows"


def test_a_cap_on_logits_is_found_out_though_logits_are_small_yet():
    from transformers import Gemma2Config

    small = {**SMALL, "initializer_range": 0.001, "head_dim": 8, "query_pre_attn_scalar": 8}
    capped = made(Gemma2Config(**small, attn_logit_softcapping=None, final_logit_softcapping=30.0))
    assert choose(capped, "auto", 0) == Method("blocks", chunked=False)
    free = made(Gemma2Config(**small, attn_logit_softcapping=None, final_logit_softcapping=None))
    assert choose(free, "auto", 0) == Method("blocks")


def test_attention_that_asks_for_more_than_we_do_is_not_packed(caplog: pytest.LogCaptureFixture):
    from transformers import Gemma2Config

    small = {**SMALL, "initializer_range": 0.001, "head_dim": 8, "query_pre_attn_scalar": 8}
    model = made(Gemma2Config(**small, attn_logit_softcapping=50.0))
    assert choose(model, "auto", 0).attention == "rows", "a cap changes nothing yet in a model that was not trained"
    assert "its attention needs softcap" in caplog.text


def test_a_state_along_the_row_is_found_out_though_it_does_little_yet(caplog: pytest.LogCaptureFixture):
    from transformers import Lfm2Config

    model = made(Lfm2Config(**{**SMALL, "initializer_range": 0.02}, layer_types=["conv", "full_attention"]))
    assert choose(model, "auto", 0).attention == "rows"
    assert "its layers of the kind conv carry" in caplog.text


def test_weights_in_half_precision_are_tried_in_float32_and_given_back_bit_by_bit():
    model: Any = tiny_model()
    model.to(torch.bfloat16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen: set[torch.dtype] = set()
    model.model.embed_tokens.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    drawn = torch.random.get_rng_state()
    assert choose(model, "auto", 60) == Method("blocks")
    assert seen == {torch.float32}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.dtype == torch.bfloat16
    assert torch.equal(drawn, torch.random.get_rng_state()), "what training draws later does not depend on the trial"


def test_noise_without_a_name_that_cannot_be_switched_off_is_refused():
    model: Any = tiny_model()
    plain = model.model.layers[0].mlp.forward
    model.model.layers[0].mlp.forward = lambda x: plain(x) + 0.1 * torch.randn_like(x)
    with pytest.raises(RecipeError, match="adds noise in training that cannot be switched off"):
        choose(model, "auto", 60)


def test_every_module_is_given_back_in_the_mode_that_it_was_in():
    model: Any = tiny_model()
    model.model.layers[1].train()
    modes = [module.training for module in model.modules()]
    choose(model, "auto", 60)
    assert [module.training for module in model.modules()] == modes


def test_positions_that_depend_on_the_longest_row_so_far_are_refused():
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    model = made(LlamaConfig(**SMALL, max_position_embeddings=32, rope_parameters=rope))
    with pytest.raises(RecipeError, match=r"dynamic RoPE[\s\S]*set it to 32 or less"):
        choose(model, "auto", 41)
    assert choose(model, "auto", 32).attention == "blocks"
