"""Answers from the tokens that a model drew, whichever program ran the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from vivavoce.agents.detokenise import Detokeniser
from vivavoce.agents.replies import kept_special
from vivavoce.agents.turn_end import end_of_turn
from vivavoce.records import Sampling, Token, Usage


@dataclass(frozen=True, slots=True)
class Decoded:
    """The reply of one row."""

    text: str
    finish: Literal["stop", "length"]
    usage: Usage
    """Completion tokens count the end-of-sequence token, as servers do."""
    tokens: tuple[Token, ...] | None = None
    """Tokens without the end-of-sequence token; None unless ``sampling.logprobs``."""
    ids: tuple[int, ...] = ()
    """The drawn ids, the end-of-sequence token included; empty if the text was cut at a limit or a stop string."""


class TokenReader:
    """Reads drawn tokens.

    Args:
        tokenizer: The model's.
        config: Its generation config, if it has one. Only its end-of-sequence ids count.

    Attributes:
        eos: The tokens that end an answer, the end of turn of the chat template among them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: Any = None) -> None:
        ends = [getattr(config, "eos_token_id", None), tokenizer.eos_token_id, end_of_turn(tokenizer)]
        self.eos = sorted({i for end in ends for i in (end if isinstance(end, list) else [end]) if i is not None})
        special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._detokeniser = Detokeniser(tokenizer, kept_special(special))

    def text(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, without special tokens that add no text."""
        return self._detokeniser.text(ids)

    def read(self, sampling: Sampling, size: int, ids: list[int], logprobs: list[float]) -> Decoded:
        """The text that was drawn after a prompt of ``size`` tokens, cut at a stop string."""
        ended = bool(ids) and ids[-1] in self.eos
        own_ids, count = ids[:-1] if ended else ids, len(ids)
        text = self.text(own_ids)
        pieces = None
        stops = [(text.find(stop), len(stop)) for stop in sampling.stop if stop in text]
        if sampling.logprobs or stops:
            pieces = self._detokeniser.pieces(own_ids, text)
        if stops and pieces is not None:
            start, length = min(stops)
            text, ended = text[:start], True
            pieces, count = _split_pieces(pieces, start, start + length)
        tokens = None
        if sampling.logprobs and pieces is not None:
            # zip stops at the last kept piece
            tokens = tuple(Token(piece, logprob) for piece, logprob in zip(pieces, logprobs, strict=False))
        exact = tuple(ids) if ended and not stops else ()
        return Decoded(text, "stop" if ended else "length", Usage(size, count), tokens, exact)


def _split_pieces(pieces: list[str], start: int, end: int) -> tuple[list[str], int]:
    """The pieces of the first ``start`` characters, and the number of pieces to reach ``end``."""
    kept, length = list[str](), 0
    for count, piece in enumerate(pieces, 1):
        if length < start:
            kept.append(piece[: start - length])
        length += len(piece)
        if length >= end:
            return kept, count
    return kept, len(pieces)


__all__ = ["Decoded", "TokenReader"]
