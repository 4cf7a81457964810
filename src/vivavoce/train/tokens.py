"""Messages and answers to token ids with a boundary, for SFT, T-DPO, two tasks and on-policy distillation.

::

    context      <|user|>2+2?<|assistant|>            exactly the tokens that are served before the model answers
    row          <|user|>2+2?<|assistant|>four<|end|>
    scored                                ^^^^^^^^^^^  the answer and the end of turn

The texts are decided in :mod:`vivavoce.agents.rendering`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from transformers import PreTrainedTokenizerBase

from vivavoce.agents.chat_template import DAY, ChatTemplate, day
from vivavoce.agents.rendering import check_rendering, rendering
from vivavoce.errors import DataError
from vivavoce.records import Message
from vivavoce.train.settings import TrainSettings

logger = logging.getLogger(__name__)
S = TypeVar("S", bound=TrainSettings)


def fitted_settings(settings: S, student: Any, tokenizer: PreTrainedTokenizerBase, out: Path) -> S:
    """Settings that fit the student and do not depend on the clock, for a training into ``out``.

    Rows may be as long as the student's context at most, whatever ``max_length`` says. If the student's chat template,
    or a scorer's, asks for today's date and the settings give none, it is told the day on which this training was
    begun, kept in ``out``: a training that goes on after midnight has the same rows. Raises RecipeError if the
    tokenizer renders otherwise than its chat template says.
    """
    check_rendering(tokenizer, settings.template)
    context = getattr(student.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and context < settings.max_length:
        logger.info(
            "the student's context is %d tokens, so rows have at most as many: max_length is %d",
            context,
            settings.max_length,
        )
        settings = settings.model_copy(update={"max_length": context})
    scorers: Sequence[Any] = getattr(settings, "scorers", ())
    asks = [(ChatTemplate.of(tokenizer), settings.template)]
    asks += [(ChatTemplate.within(Path(s.model)), s.chat_template_kwargs) for s in scorers if s.model]
    if not any(template and template.dated and DAY not in given for template, given in asks):
        return settings
    file = out / "day.txt"
    if not file.is_file():
        out.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")  # several processes may train together
        part.write_text(day().isoformat(), "utf-8")
        part.replace(file)
    template_day = {DAY: file.read_text("utf-8")}
    changes: dict[str, Any] = {"template": {**template_day, **settings.template}}
    if scorers:
        changes["scorers"] = tuple(
            s.model_copy(update={"chat_template_kwargs": {**template_day, **s.chat_template_kwargs}}) for s in scorers
        )
    return settings.model_copy(update=changes)


class ScoredRow(NamedTuple):
    """One row: token ids, of which those from ``start`` on are predicted and scored. ``start`` is at least 1."""

    ids: tuple[int, ...]
    start: int

    @property
    def completion(self) -> tuple[int, ...]:
        return self.ids[self.start :]


def common_prefix(left: Sequence[int] | str, right: Sequence[int] | str) -> int:
    """The number of leading items that two sequences have in common."""
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
    template: Mapping[str, Any] | None = None,
) -> list[ScoredRow]:
    """Tokenise the alternatives of one branching, with one boundary for all of them.

    Each row is the tokens that are served before an answer to ``prompt``, then the answer ``prefix + completion``,
    tokenised as one text, then the end of turn if the answer is ``complete``. ``template`` holds further arguments of
    the chat template.

    The boundary is behind the prompt; behind ``prefix`` if there is one, or before the first token in which a row
    differs from it. A token that straddles the end of ``prefix`` therefore belongs to the completions: every token in
    which two alternatives differ is scored in both, and tokens scored in all of them cancel from a preference.

    Differs: the authors' code tokenised prompt and answer apart and without template, so that training and serving saw
    different tokens. TRL's trainers tokenise the whole conversation: they also train the template's text after the end
    of turn, and if its rendering of a past turn is not the served prompt, they train that.

    Raises DataError if nothing would be scored, and as :func:`context_ids`.
    """
    for i, text in enumerate(completions):
        if not text.strip():
            raise DataError(f"completion {i} is empty", where, "leave it out of the training rows")
    form = rendering(tokenizer, template)
    context = form.prompt_ids(prompt, where)
    if not context:
        raise DataError("no token precedes the completion", where, "the prompt must render to at least one token")
    before = [*context, *form.answer_ids(prefix, complete=False)] if prefix else context
    rows = [[*context, *form.answer_ids(prefix + text, complete)] for text in completions]
    start = min(common_prefix(before, row) for row in rows)
    for i, row in enumerate(rows):
        if len(row) <= start:
            raise DataError(f"completion {i} adds no token to its context", where, "leave it out of the training rows")
    return [ScoredRow(tuple(row), start) for row in rows]


def context_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    where: str = "",
    template: Mapping[str, Any] | None = None,
) -> list[int]:
    """The token ids that a model reads before it answers ``prompt``, served or in training.

    ``template`` holds further arguments of the chat template. Raises RecipeError without one, and if it takes no such
    conversation.
    """
    return rendering(tokenizer, template).prompt_ids(prompt, where)


def answer_ids(tokenizer: PreTrainedTokenizerBase, text: str, template: Mapping[str, Any] | None = None) -> list[int]:
    """A whole answer in the tokens that the model itself would write behind a served prompt, with the end of turn.

    ``template`` holds further arguments of the chat template. Raises RecipeError if neither the chat template nor the
    tokenizer names a token that ends a turn.
    """
    return rendering(tokenizer, template).answer_ids(text)


__all__ = ["ScoredRow", "answer_ids", "common_prefix", "context_ids", "fitted_settings", "score_rows"]
