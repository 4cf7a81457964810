"""The token with which a model ends its turn. The chat template decides it, not the tokenizer's ``eos_token``.

::

    template       after an answer                eos_token        end of turn
    ChatML         <|im_end|>\\n                   <|endoftext|>    <|im_end|>
    Gemma          <end_of_turn>\\n                <eos>            <end_of_turn>
    Phi-4 mini     <|end|><|endoftext|>           <|endoftext|>    <|end|>
    Mistral        </s>                           </s>             </s>
    GLM-4          nothing, or <|user|>           <|endoftext|>    <|user|>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import dropwhile, takewhile
from typing import Any, cast
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from vivavoce.agents.chat_template import ChatTemplate, encode
from vivavoce.records import Message

_ENDS = WeakKeyDictionary[PreTrainedTokenizerBase, dict[str, int | None]]()


def end_of_turn(tokenizer: PreTrainedTokenizerBase, template: Mapping[str, Any] | None = None) -> int | None:
    """The id of the token that ends an answer: the last token that a model should write, and the one that ends
    sampling.

    The chat template is rendered with an answer as the last message, and with another message after it. The end of turn
    is the last of the special tokens that directly follow the answer in both. Some templates close the whole text with
    ``eos_token``, which a model does not write (Phi-4 mini): it follows in one only. If the two have no such token in
    common, the end of turn is the one that follows an answer at the end of the text (gpt-oss: ``<|return|>``), or else
    the token that opens the next turn (GLM-4). If the template shows none of these, or cannot be rendered, it is the
    tokenizer's ``eos_token_id``.

    ``template`` holds further arguments of the chat template.
    """
    if not tokenizer.chat_template:
        return cast("int | None", tokenizer.eos_token_id)
    known = _ENDS.setdefault(tokenizer, {})
    key = repr((tokenizer.chat_template, sorted((template or {}).items()), tokenizer.eos_token_id))
    if key not in known:
        known[key] = _look(tokenizer, template or {})
    return known[key]


def _look(tokenizer: PreTrainedTokenizerBase, template: Mapping[str, Any]) -> int | None:
    special = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    eos = cast("int | None", tokenizer.eos_token_id)
    openers = [i for i in (tokenizer.bos_token_id, tokenizer.pad_token_id) if i != eos]
    further: Message = {"role": "user", "content": "Why?"}
    last, inside = (_after(tokenizer, more, template) for more in ((), (further,)))
    pairs = list(zip(last, inside, strict=False))
    common = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    for tail in (last[:common], last, inside):
        if run := list(takewhile(special.__contains__, dropwhile(lambda i: i not in special, tail))):
            end = run[-1] if tail is not inside else run[0]
            return end if end not in openers else eos
    return eos


def _after(tokenizer: PreTrainedTokenizerBase, more: Sequence[Message], template: Mapping[str, Any]) -> list[int]:
    """The template's text after an answer, in tokens; empty if it cannot be rendered or loses the answer."""
    return encode(tokenizer, ChatTemplate.of(tokenizer, template).after(more))


__all__ = ["end_of_turn"]
