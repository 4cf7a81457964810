"""Token ids to text, and to the part of the text that each token added."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"


class Detokeniser:
    """Texts and pieces of texts, with a memory of the text that single tokens add."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, keep: frozenset[str] = frozenset()) -> None:
        self._tokenizer = tokenizer
        self._keep = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.content in keep}
        # Tokens are read after a letter: at the start of a text, some tokenizers drop a leading space.
        self._anchor = list(tokenizer("a", add_special_tokens=False).input_ids)
        self._anchor_text = self.text(self._anchor)
        self._alone = dict[int, str]()

    def text(self, ids: Sequence[int]) -> str:
        """The text of ``ids`` without special tokens, but for those that are kept."""
        if self._keep.keys().isdisjoint(ids):
            return cast(str, self._tokenizer.decode(list(ids), skip_special_tokens=True))
        pieces, start = list[str](), 0
        for at in [i for i, token in enumerate(ids) if token in self._keep]:
            pieces += [self.text(ids[start:at]), self._keep[ids[at]]]
            start = at + 1
        return "".join([*pieces, self.text(ids[start:])])

    def pieces(self, ids: Sequence[int], text: str) -> list[str]:
        """The text that each id adds to ``text`` = ``self.text(ids)``. Joined, the pieces are ``text``.

        A character that several tokens spell belongs to the last of them; the others add nothing.
        """
        pieces = [""] * len(ids)
        held = list[int]()
        for i, token in enumerate(ids):
            held.append(token)
            piece = self._addition(held) if i or not self._anchor else self.text(held)
            if not piece.endswith(_UNFINISHED) or i == len(ids) - 1:
                pieces[i] = piece
                held.clear()
        return pieces if "".join(pieces) == text else self._slowly(ids, text)

    def _addition(self, ids: list[int]) -> str:
        """The text that ``ids`` add behind other text."""
        if len(ids) > 1:
            return self.text([*self._anchor, *ids]).removeprefix(self._anchor_text)
        piece = self._alone.get(ids[0])
        if piece is None:
            piece = self._alone[ids[0]] = self.text([*self._anchor, *ids]).removeprefix(self._anchor_text)
        return piece

    def _slowly(self, ids: Sequence[int], text: str) -> list[str]:
        """The pieces for tokenizers whose tokens change the text before them: each id adds the part that agrees with
        ``text`` by then.
        """
        ends = [0]
        for i in range(1, len(ids) + 1):
            part = self.text(ids[:i]) if i < len(ids) else text
            agreed = next((at for at, (a, b) in enumerate(zip(part, text, strict=False)) if a != b), None)
            ends.append(max(ends[-1], min(len(part), len(text)) if agreed is None else agreed))
        return [text[a:b] for a, b in itertools.pairwise(ends)]
