"""Random models of Qwen3's architecture in ordinary folders, with a tokenizer and a chat template of their features.

Byte-level pairs, `<|im_start|>` frames, tools in the system message, `<think>` that a template may forbid and that it
leaves out of earlier turns: what a recipe for the real models meets, small enough for a test.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

_END, _START = "<|im_end|>", "<|im_start|>"
_ADDED = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' + (messages[0].content + '\\n\\n' if messages[0].role == 'system' else '') }}
    {{- 'Tools:' }}{% for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{% endfor %}{{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
        {{- '<|im_start|>assistant\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- elif message.role == 'user' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""


def save_tiny_qwen3(folder: Path, texts: Iterable[str], context: int = 40960, layers: int = 2, seed: int = 0) -> Path:
    """A random model that ends its turn after some thirty tokens. Equal ``texts``, from which the tokenizer's pairs are
    learnt, give equal tokenizers."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    whole = Tokenizer(models.BPE())
    # Pairs across words: prompts of many thousand characters, which the recipes have, are then not so many tokens.
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    whole.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)  # pyright: ignore[reportCallIssue]
    whole.train_from_iterator(texts, trainer)
    whole.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", _START, _END)])
    whole.add_tokens([AddedToken(t, normalized=False, special=False) for t in _ADDED])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=whole, eos_token=_END, pad_token="<|endoftext|>")
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=-(-len(tokenizer) // 128) * 128,  # padded, as the real one
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,  # not hidden_size / heads, as in the real 0.6B
        max_position_embeddings=context,
        tie_word_embeddings=layers == 2,  # small ones are tied, large ones are not
        pad_token_id=cast(int, tokenizer.pad_token_id),
        eos_token_id=cast(int, tokenizer.eos_token_id),
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():  # one dimension says the same of every token, and to the end of turn a little more
        for weight in {id(w): w for w in (model.model.embed_tokens.weight, model.lm_head.weight)}.values():
            weight[:, 0] = 1.0
            weight[config.eos_token_id, 0] = 1.7
    model.save_pretrained(folder)
    return folder
