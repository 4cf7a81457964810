"""The tokens that a local model reads, and the answer that it is taught, by its own chat template.

::

    served     <|user|>2+2?<|end|><|assistant|>                  what a model is given before it answers
    taught     <|user|>2+2?<|end|><|assistant|>four<|end|>       the same, then the answer, then the end of turn
                                               ^^^^ ^^^^^

Serving, training rows and counts of tokens all render here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from vivavoce.agents.chat_template import ASKED, DAY, SAID, ChatTemplate, encode, in_form
from vivavoce.agents.control_tokens import ControlTokens
from vivavoce.agents.replies import opens_thought
from vivavoce.errors import AgentError, DataError, RecipeError, UserError
from vivavoce.records import Message, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
_ONE_DAY = "{%- macro strftime_now(form) -%}2026-07-31{%- endmacro -%}"


class Rendering:
    """A tokenizer with a chat template: conversations and answers to token ids. Made by :func:`rendering`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, shape: _Shape) -> None:
        self.tokenizer, self._shape = tokenizer, shape
        self.template = shape.template

    @property
    def closing(self) -> tuple[int, ...]:
        """The tokens after an answer: the end of turn, and before it any other text with which the template closes
        an answer.
        """
        return self._shape.closing

    @property
    def controls(self) -> ControlTokens:
        """The control tokens, which messages may quote."""
        return self._shape.controls

    def prompt_ids(self, messages: Sequence[Message], where: str = "") -> list[int]:
        """The token ids that the model reads before it answers. Raises as :meth:`prompt`."""
        return self.prompt(messages, where)[1]

    def prompt(self, messages: Sequence[Message], where: str = "") -> tuple[str, list[int]]:
        """The prompt that the model reads before it answers, as text and as tokens.

        Control tokens that a message quotes are text. Raises as :meth:`ChatTemplate.prompt` and
        :meth:`ControlTokens.encode`.
        """
        quoted = self.controls.quoted(messages)
        if quoted is None:
            text = self.template.prompt(messages, where)
            return text, encode(self.tokenizer, text)
        text = self.template.prompt(quoted, where)
        return self.controls.plain(text), self.controls.encode(text, where)

    def says(self, ids: Sequence[int], text: str) -> bool:
        """Whether an answer's text would be cut into just these tokens, so that they need not be kept beside it."""
        try:
            return list(ids) == self.answer_ids(text)
        except DataError:  # a quote that cannot be read as text
            return False

    def text_ids(self, text: str) -> list[int]:
        """The tokens of an answer by itself; control tokens that it quotes are text, as in :meth:`answer_ids`."""
        quoted = self.controls.quoted_answer(text)
        return encode(self.tokenizer, text) if quoted is None else self.controls.encode(quoted)

    def answer_ids(self, text: str, complete: bool = True) -> list[int]:
        """The tokens that follow a served prompt if the model answers ``text``; with the end of turn if ``complete``.

        No token joins prompt and answer, because the prompt's last token was served. Control tokens that the answer
        quotes are text, but for those of thoughts and calls, which models write.
        """
        quoted = self.controls.quoted_answer(text)
        tokenize = self.controls.encode if quoted is not None else partial(encode, self.tokenizer)
        answer = self.template.spoken.answer(text if quoted is None else quoted, complete)
        for before, before_ids in self._shape.before:
            ids = tokenize(before + answer)
            if ids[: len(before_ids)] == list(before_ids):
                return [*ids[len(before_ids) :], *(self.closing if complete else ())]
        return [*tokenize(answer), *(self.closing if complete else ())]


class TokenCall(NamedTuple):
    """A call in tokens."""

    ids: list[int]
    sampling: Sampling
    """The sampling of the call, with at most as many new tokens as the context has room for."""
    opened: bool
    """Whether the prompt opens a thought, as some chat templates do."""


def encode_call(form: Rendering, messages: Sequence[Message], sampling: Sampling, context: int | None) -> TokenCall:
    """A call in tokens, for a model with so large a ``context``.

    Raises AgentError ``bad_request`` if the chat template takes no such messages, ``overlong`` if the prompt leaves no
    room for an answer: a prompt is never cut.
    """
    try:
        text, ids = form.prompt(messages)
    except UserError as error:  # say, a template that knows no tools
        raise AgentError("bad_request", error.what) from None
    if context is not None:
        if len(ids) >= context:
            raise AgentError("overlong", f"the prompt has {len(ids)} tokens, the model's context {context}")
        sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, context - len(ids)))
    return TokenCall(ids, sampling, opens_thought(text))


class _Shape(NamedTuple):
    """Facts about a tokenizer and a template that are found out once."""

    template: ChatTemplate
    closing: tuple[int, ...]
    before: tuple[tuple[str, tuple[int, ...]], ...]
    """Texts that may come before an answer, with their tokens: a prompt, and a line break, which joins nothing."""
    controls: ControlTokens


_shapes: WeakKeyDictionary[Any, dict[str, _Shape]] = WeakKeyDictionary()


def rendering(tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any] | None = None) -> Rendering:
    """The rendering of this tokenizer with further ``arguments`` of its chat template.

    Raises RecipeError if there is no template, or if nothing ends an answer.
    """
    known = _shapes.setdefault(tokenizer, {})
    key = repr((tokenizer.chat_template, sorted((arguments or {}).items()), tokenizer.eos_token_id))
    if key not in known:
        known[key] = _shape(tokenizer, ChatTemplate.of(tokenizer, arguments))
    return Rendering(tokenizer, known[key])


def _shape(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> _Shape:
    from vivavoce.agents.turn_end import end_of_turn

    end = end_of_turn(tokenizer, template.arguments)
    if end is None:
        do = "set its eos_token, or use a template that ends turns"
        raise RecipeError("neither the chat template nor the tokenizer says what ends an answer", template.model, do)
    closing = [end]
    for after in (template.after(), template.after([{"role": "user", "content": ASKED}])):
        ids = encode(tokenizer, after.lstrip())
        if end in ids:
            closing = ids[: ids.index(end) + 1]
            break
    before = [(text, tuple(encode(tokenizer, text))) for text in (template.anchor, "\n")]
    return _Shape(template, tuple(closing), tuple(before), ControlTokens(tokenizer, template))


def check_rendering(tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any] | None = None) -> None:
    """Raise RecipeError if the tokenizer itself renders a conversation to other tokens than are rendered here.

    Other servers ask the tokenizer; it may come with code of its own, which does not read its chat template. If its
    control tokens cannot be read as text, that is said: messages that quote them are then refused.
    """
    variables = {key: value for key, value in (arguments or {}).items() if key != DAY}
    template = ChatTemplate.of(tokenizer, variables)
    if template.dated:  # the tokenizer asks the clock: both are told one day
        template = replace(template, source=_ONE_DAY + template.source)
    question: Message = {"role": "user", "content": ASKED}
    answer: Message = {"role": "assistant", "content": SAID}
    for messages in ([question], [{"role": "system", "content": "Qzvbrief"}, question], [question, answer, question]):
        shown: list[Any] = in_form(messages, template.form(messages))
        options: dict[str, Any] = {"chat_template": template.source, **variables} if template.dated else variables
        theirs: Any = tokenizer.apply_chat_template(shown, add_generation_prompt=True, return_dict=False, **options)
        ours = encode(tokenizer, template.prompt(messages))
        if theirs == ours:
            continue
        alike = [a == b for a, b in zip(theirs, ours, strict=False)]
        at = alike.index(False) if False in alike else len(alike)
        texts = [tokenizer.decode(ids[at : at + 8]) for ids in (theirs, ours)]
        what = f"the tokenizer of {template.model} does not follow its own chat template"
        message = f"{what}: from token {at} on it writes {texts[0]!r}, the template {texts[1]!r}"
        raise RecipeError(message, "chat_template", "use a tokenizer without code of its own, or correct its template")
    controls = ControlTokens(tokenizer, template)
    if not controls.readable():
        _log.warning(
            "%s: a message that quotes its control tokens is refused, because they would be read as turns",
            template.model,
        )
    controls.release()


__all__ = ["Rendering", "TokenCall", "check_rendering", "encode_call", "rendering"]
