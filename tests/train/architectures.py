"""Tiny random models of many architectures, and one update of each training against a plain pass row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tests.train.students import bpe, messages
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from vivavoce.records import Completion, Example, State, Tree, View
from vivavoce.train import updates
from vivavoce.train.objective import Objective, OnPolicySettings, Scorer
from vivavoce.train.on_policy import train_on_policy
from vivavoce.train.scoring import bare
from vivavoce.train.settings import SFTSettings, TreeDPOSettings
from vivavoce.train.sft import train_sft
from vivavoce.train.tokens import answer_ids, context_ids, score_rows
from vivavoce.train.tree_dpo import train_tree_dpo

TOKENIZER = bpe()
VOCABULARY = len(TOKENIZER) + 17
QUESTIONS = ["What is 12 + 30?", "6 * 7? Check each step, then answer.", "Is it 41 or 42?"]
ANSWERS = [
    ["The answer is 42.", "So 42. Check each step, nobody believed it: 42."],
    ["42", "The sum is 48, so the others agreed."],
    ["It is 42.", "It is 41 and not 42, Bob said."],
]
HOW: dict[str, Any] = {
    "lora": None,
    "learning_rate": 1e-6,
    "max_length": 200,
    "log_steps": 1,
    "threads": 1,
    "device": "cpu",
    "max_steps": 1,
    "max_grad_norm": 0.0,
}
TRAININGS = ("SFT", "T-DPO", "on-policy")


def made(kind: str, **changes: Any) -> Any:
    """A config of two small layers."""
    usual = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
    }
    return plain(kind, **{**usual, **changes})


def plain(kind: str, **values: Any) -> Any:
    ids = {"pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}
    return AutoConfig.for_model(kind, vocab_size=VOCABULARY, **ids, **values)


_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
_MLA: dict[str, Any] = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}
_LINEAR: dict[str, Any] = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
_OPT = {
    "hidden_size": 32,
    "ffn_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "word_embed_proj_dim": 32,
    "init_std": 0.2,
}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.3}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0, 5.0, 6.0, 8.0],
    "original_max_position_embeddings": 32,
}
_DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}

ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "apertus": lambda: made("apertus"),
    "arcee": lambda: made("arcee"),
    "bamba": lambda: made("bamba", **_MAMBA, attn_layer_indices=[1], mamba_expand=2),
    "bloom": lambda: plain(
        "bloom", hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2, hidden_dropout=0.0, attention_dropout=0.0
    ),
    "cohere": lambda: made("cohere", logit_scale=0.0625),
    "cohere2": lambda: made("cohere2", logit_scale=0.25, sliding_window=512),
    "deepseek_v3": lambda: made("deepseek_v3", **_MLA, v_head_dim=8),
    "deepseek_v3, values as wide as keys": lambda: made("deepseek_v3", **_MLA, v_head_dim=16),
    "ernie4_5": lambda: made("ernie4_5"),
    "exaone4": lambda: made("exaone4", sliding_window=512),
    "falcon": lambda: plain(
        "falcon", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.2, multi_query=True
    ),
    "falcon_h1": lambda: made("falcon_h1", **_MAMBA, mamba_d_ssm=64, lm_head_multiplier=0.5),
    "gemma": lambda: made("gemma"),
    "gemma2": lambda: made("gemma2", sliding_window=512, query_pre_attn_scalar=8),
    "gemma3_text": lambda: made("gemma3_text", sliding_window=512, query_pre_attn_scalar=8),
    "gemma3_text, window shorter than rows": lambda: made("gemma3_text", sliding_window=8, query_pre_attn_scalar=8),
    "gemma4_text": lambda: made(
        "gemma4_text", vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=8
    ),  # by default 134 million weights
    "glm4": lambda: made("glm4"),
    "gpt2": lambda: plain("gpt2", **_GPT2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0),
    "gpt2, dropout 0.1": lambda: plain("gpt2", **_GPT2),
    "gpt_neox": lambda: made("gpt_neox", rotary_pct=0.25),
    "gpt_oss": lambda: made("gpt_oss", **_LOCAL, sliding_window=512),
    "granite": lambda: made(
        "granite", logits_scaling=8.0, embedding_multiplier=12.0, attention_multiplier=0.1, residual_multiplier=0.22
    ),
    "granitemoe": lambda: made(
        "granitemoe",
        **_LOCAL,
        logits_scaling=6.0,
        embedding_multiplier=12.0,
        attention_multiplier=0.1,
        residual_multiplier=0.22,
    ),
    "helium": lambda: made("helium"),
    "hunyuan_v1_dense": lambda: made("hunyuan_v1_dense"),
    "lfm2": lambda: made("lfm2", layer_types=["conv", "full_attention"]),
    "llama": lambda: made("llama"),
    "llama, dynamic RoPE": lambda: made("llama", rope_parameters=_DYNAMIC),
    "llama4_text": lambda: made(
        "llama4_text",
        num_local_experts=2,
        num_experts_per_tok=1,
        attention_chunk_size=512,
        intermediate_size_mlp=64,
        use_qk_norm=True,
        no_rope_layers=[1, 0],
        floor_scale=16,
    ),
    "mamba2": lambda: plain(
        "mamba2", hidden_size=32, num_hidden_layers=2, num_heads=8, head_dim=8, state_size=8, n_groups=1, expand=2
    ),
    "minimax": lambda: made("minimax", **_LOCAL),
    "ministral3": lambda: made("ministral3", sliding_window=None),
    "mistral": lambda: made("mistral", sliding_window=500),
    "mistral, window shorter than rows": lambda: made("mistral", sliding_window=8),
    "mixtral": lambda: made("mixtral", **_LOCAL, sliding_window=None),
    "mpt": lambda: plain("mpt", d_model=32, n_layers=2, n_heads=4, max_seq_len=512, initializer_range=0.2),
    "nemotron": lambda: made("nemotron"),
    "olmo2": lambda: made("olmo2"),
    "olmo3, window shorter than rows": lambda: made("olmo3", sliding_window=8),
    "olmoe": lambda: made("olmoe", num_experts=4, num_experts_per_tok=2),
    "opt": lambda: plain("opt", **_OPT, dropout=0.0, attention_dropout=0.0),
    "opt, dropout 0.1": lambda: plain("opt", **_OPT),
    "phi": lambda: made("phi"),
    "phi3": lambda: made("phi3", sliding_window=None),
    "phi3, longrope, rows beyond the first length": lambda: made(
        "phi3", sliding_window=None, original_max_position_embeddings=32, rope_parameters=_LONGROPE
    ),
    "phimoe": lambda: made("phimoe", **_LOCAL, sliding_window=None, router_jitter_noise=0.2, input_jitter_noise=0.2),
    "qwen2": lambda: made("qwen2"),
    "qwen2_moe": lambda: made("qwen2_moe", **_MOE, shared_expert_intermediate_size=32),
    "qwen3": lambda: made("qwen3", tie_word_embeddings=False),
    "qwen3, embeddings tied": lambda: made("qwen3", tie_word_embeddings=True),
    "qwen3_5_text": lambda: made("qwen3_5_text", **_LINEAR),
    "qwen3_moe": lambda: made("qwen3_moe", **_MOE, decoder_sparse_step=1),
    "qwen3_next": lambda: made("qwen3_next", **_MOE, **_LINEAR, shared_expert_intermediate_size=32),
    "seed_oss": lambda: made("seed_oss"),
    "smollm3": lambda: made("smollm3"),
    "stablelm": lambda: made("stablelm"),
    "starcoder2": lambda: made("starcoder2", sliding_window=None),
    "vaultgemma": lambda: made("vaultgemma", sliding_window=512, query_pre_attn_scalar=8),
    "xglm": lambda: plain(
        "xglm", d_model=32, ffn_dim=64, num_layers=2, attention_heads=4, max_position_embeddings=512, init_std=0.2
    ),
}


def save(config: Any, seed: int, folder: Path) -> Path:
    """A model of ``config`` with random weights, norms and biases included, and a tokenizer."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or "norm" in name or "sink" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


@dataclass
class Update:
    """One update: its loss, its gradients by parameter, and whether answers were packed or had rows of their own."""

    loss: float
    gradients: dict[str, torch.Tensor]
    way: str = ""


def trained(training: str, student: Path, teacher: Path, out: Path, **changes: Any) -> Update:
    """One update as our training makes it."""
    weights: dict[str, torch.Tensor] = {}
    way: list[str] = []
    learn = updates.UpdateTrainer.learn

    def watched(self: updates.UpdateTrainer, model: torch.nn.Module, parts: Any, over: float = 1.0) -> torch.Tensor:
        done = learn(self, model, parts, over)
        weights.update({n: p.grad.clone() for n, p in bare(model).named_parameters() if p.grad is not None})
        way.append("rows" if self.method.attention == "rows" else "packed")
        return done

    how = {**HOW, **changes}
    asked = list(zip(QUESTIONS, ANSWERS, strict=True))
    updates.UpdateTrainer.learn = watched
    try:
        if training == "SFT":
            rows = [Example(q, messages(q), a, ("n",)) for q, answers in asked for a in answers]
            done = train_sft(student, rows, SFTSettings(rows_per_step=6, **how), out, seed=0)
        elif training == "T-DPO":
            trees = [
                Tree(q, q, messages(q), (Completion(right, "c"),), (Completion(wrong, "r"),))
                for q, (right, wrong) in asked
            ]
            done = train_tree_dpo(student, trees, TreeDPOSettings(trees_per_step=3, **how), out, seed=0)
        else:
            states = [
                State(q, messages(q), (View(messages(f"Think. {q}"), 1.0),), (Completion(answers[0], "n"),))
                for q, answers in asked
            ]
            settings = OnPolicySettings(
                states_per_step=3,
                on_policy=0.0,
                max_new_tokens=8,
                objective=Objective(divergence="jsd"),
                scorers=(Scorer(name="t", model=str(teacher)),),
                **how,
            )
            done = train_on_policy(student, states, settings, out, seed=0)
    finally:
        updates.UpdateTrainer.learn = learn
    return Update(done.first_loss, weights, way[0])


def by_hand(training: str, student: Path, teacher: Path) -> Update:
    """The same update from the model's own logits of every row by itself, in evaluation mode."""
    model: Any = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(student)  # of the class that the architecture asks for

    def logits(of: Any, ids: Any) -> torch.Tensor:
        return of(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float()

    def output(row: Any) -> torch.Tensor:
        at = torch.tensor(row.ids[row.start :])[:, None]
        return logits(model, row.ids).log_softmax(-1)[row.start - 1 : -1].gather(1, at).sum()

    asked = list(zip(QUESTIONS, ANSWERS, strict=True))
    if training == "SFT":
        rows = [score_rows(tokenizer, messages(q), [a])[0] for q, answers in asked for a in answers]
        loss = -torch.stack([output(row) for row in rows]).sum() / sum(len(row.completion) for row in rows)
    elif training == "T-DPO":
        losses = []
        for q, answers in asked:
            right, wrong = (output(row) for row in score_rows(tokenizer, messages(q), answers))
            margin = 0.1 * (right - right.detach()) - 0.1 * (wrong - wrong.detach())
            losses.append(-torch.nn.functional.logsigmoid(margin))
        loss = torch.stack(losses).mean()
    else:
        other: Any = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32).eval()
        size, losses = max(tokenizer.get_vocab().values()) + 1, []
        for q, answers in asked:
            own, shown = (context_ids(tokenizer, messages(text)) for text in (q, f"Think. {q}"))
            ids = answer_ids(tokenizer, answers[0])
            s = logits(model, [*own, *ids])[len(own) - 1 : -1, :size].log_softmax(-1)
            with torch.no_grad():
                t = logits(other, [*shown, *ids])[len(shown) - 1 : -1, :size].log_softmax(-1)
            mean = torch.logsumexp(torch.stack([s, t]), 0) - torch.log(torch.tensor(2.0))
            losses.append((0.5 * t.exp() * (t - mean) + 0.5 * s.exp() * (s - mean)).sum(-1).mean())
        loss = torch.stack(losses).mean()
    loss.backward()
    return Update(float(loss), {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
