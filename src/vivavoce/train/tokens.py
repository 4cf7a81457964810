"""From messages and answers to token ids with a boundary: the one tokenisation of SFT, T-DPO and serving.

::

    rendering of the prompt      <|user|>2+2?<|assistant|>            what a server feeds before it samples
    rendering of prompt + answer <|user|>2+2?<|assistant|>four<|end|>  what is trained on
    scored                                                ^^^^ ^^^^^^  from the first token that differs
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from vivavoce.agents.turn_end import end_of_turn
from vivavoce.errors import DataError
from vivavoce.records import Message

logger = logging.getLogger(__name__)


class Scored(NamedTuple):
    """One row: token ids, of which those from ``start`` on are predicted and scored. ``start`` is at least 1."""

    ids: tuple[int, ...]
    start: int

    @property
    def completion(self) -> tuple[int, ...]:
        return self.ids[self.start :]


def shared(left: Sequence[int] | str, right: Sequence[int] | str) -> int:
    """How many leading items two sequences have in common."""
    for i, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return i
    return min(len(left), len(right))


def score_rows(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    completions: Sequence[str],
    *,
    prefix: str = "",
    complete: bool = True,
    where: str = "",
) -> list[Scored]:
    """Tokenise the alternatives of one branching, with one boundary for all of them.

    The context is the chat template's rendering of ``prompt`` with the generation prompt, then ``prefix`` where there
    is one; each row is the rendering of the whole answer ``prefix + completion``, tokenised as one text. Where the
    answer is ``complete``, what the template writes after it (end of turn, often a newline) belongs to it.

    The boundary is where context and rows first differ in any row. A token that straddles it, as byte-pair merges and
    sentencepiece's space markers make them, therefore belongs to the completions: every token in which two
    alternatives differ is scored in both, and tokens scored in all of them cancel from a preference.

    Differs: the authors' code tokenised prompt and answer apart and without template, so that training and serving
    saw different tokens. TRL's trainers draw the boundary as we do, pair by pair.

    Raises DataError where nothing would be scored, where the template loses or changes the prompt, or without one.
    """
    if not tokenizer.chat_template:
        raise DataError("the tokenizer has no chat template", where, "set tokenizer.chat_template and save it")
    for i, text in enumerate(completions):
        if not text.strip():
            raise DataError(f"completion {i} is empty", where, "leave it out of the training rows")
    context = _render(tokenizer, prompt, prefix or None, whole=False)
    texts = [_render(tokenizer, prompt, prefix + text, whole=complete) for text in completions]
    _check_prompt(prompt, context, texts, where)
    context_ids = _encode(tokenizer, context)
    rows = [_encode(tokenizer, text) for text in texts]
    start = min(shared(context_ids, row) for row in rows)
    if start == 0:
        raise DataError("no token precedes the completion", where, "the prompt must render to at least one token")
    if start < len(context_ids):
        logger.debug("the boundary straddles %r", tokenizer.decode(context_ids[start:]))
    for i, row in enumerate(rows):
        if len(row) <= start:
            raise DataError(f"completion {i} adds no token to its context", where, "leave it out of the training rows")
    return [Scored(tuple(row), start) for row in rows]


def context_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    where: str = "",
    template: Mapping[str, Any] | None = None,
) -> list[int]:
    """What a model is given before it answers ``prompt``: the rendering that serving and :func:`score_rows` use.

    ``template`` holds further arguments of the chat template. Raises DataError without one, and where it loses a
    message.
    """
    if not tokenizer.chat_template:
        raise DataError("the tokenizer has no chat template", where, "set tokenizer.chat_template and save it")
    text = _render(tokenizer, prompt, None, whole=False, template=template)
    _check_prompt(prompt, text, [], where)
    return _encode(tokenizer, text)


def answer_ids(tokenizer: PreTrainedTokenizerBase, text: str, template: Mapping[str, Any] | None = None) -> list[int]:
    """A whole answer as the model itself would have said it: its tokens, and the end of turn.

    ``template`` holds further arguments of the chat template. Raises DataError if neither the chat template nor the
    tokenizer names a token that ends a turn.
    """
    end = end_of_turn(tokenizer, template)
    if end is None:
        do = "set tokenizer.eos_token and save it"
        raise DataError("no token ends a turn: the chat template shows none, and eos_token is not set", "tokenizer", do)
    return [*_encode(tokenizer, text), end]


def _render(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    answer: str | None,
    *,
    whole: bool,
    template: Mapping[str, Any] | None = None,
) -> str:
    """The template's text: up to where an answer starts (None), after an unfinished answer, or after a whole one."""
    messages = cast("list[dict[str, str]]", [dict(message) for message in prompt])
    if answer is None:
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **(template or {})
        )
        return str(rendered)
    messages.append({"role": "assistant", "content": answer})
    return str(tokenizer.apply_chat_template(messages, tokenize=False, continue_final_message=not whole))


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # The template writes the special tokens itself. verbose=False: a row over model_max_length is our own business.
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _check_prompt(prompt: Sequence[Message], context: str, texts: Sequence[str], where: str) -> None:
    end = 0
    for message in prompt:
        content = message["content"].strip()
        if message["role"] != "assistant":  # templates may drop the reasoning of earlier answers
            found = context.rfind(content)
            if found < 0:
                raise DataError(f"the chat template loses the {message['role']} message", where, "use another template")
            end = max(end, found + len(content))
    if any(shared(context, text) < end for text in texts):
        raise DataError("the chat template writes the prompt differently before an answer", where, "use another one")


__all__ = ["Scored", "answer_ids", "context_ids", "score_rows", "shared"]
