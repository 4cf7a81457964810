"""Alignment of student and teacher that cut one text into different tokens: the parts that can be compared.

::

    same tokenizer             ids are ids; rows that only pad an embedding matrix are cut off on both sides
    another tokenizer, places  student   caf | é        byte ends  3 5      groups: both lists are cut
                               teacher   c | afé                   1 5      where their byte ends coincide
    another tokenizer, rows    student   q(tok 1) ... q(tok M) | everything else      M tokens that spell the same
                               teacher   p(tok 1) ... p(tok M) | everything else      bytes, and one rest bucket

The groups give log p(span) on each side, each under its own segmentation: enough for a log-ratio of the drawn text. The
vocabulary map gives two distributions over the same M + 1 outcomes, so that KL and JSD keep their meaning.

Differs: the reference code of arXiv:2605.01347 cuts both vocabularies to the smaller width and never asks whether an id
means the same on both sides. TRL's GOLD compares matched tokens without renormalising and sorts the others by
probability; with a rest bucket nothing is lost and nothing is paired that does not belong together.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vivavoce.agents.detokenise import Detokeniser
from vivavoce.errors import DataError
from vivavoce.train.tokens import common_prefix

FLOOR = math.log(1e-30)
"""Stands for log 0: small enough to add nothing to any sum, finite so that no gradient becomes NaN."""

SAMPLES = (
    "The answer is forty-two, isn't it?",
    "  two spaces,   three and one at the end ",
    "\n\n\ta tab\r\n\n\n",
    "12345 + 6.78 = 12,351.78; x_1^2 <= 9e-10",
    "def f(x: list[int]) -> str:\n    return f'{x!r}'  # camelCase, snake_case",
    "née, Ångström, e\u0301, ﬁ, 汉字かな, Привет, नमस्ते, 🙂👩‍👩‍👧",
    "https://example.org/a?b=c&d=%20 <b>&amp;</b> \\frac{1}{2} $x$",
)
"""Texts that show the steps before the merges: normalisation, and the splitting of digits, spaces and code."""
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def same_tokenizer(
    student: PreTrainedTokenizerBase,
    teacher: PreTrainedTokenizerBase,
    ends: tuple[int | None, int | None] | None = None,
) -> list[str]:
    """The reason why ids of the one do not mean the same to the other; empty if the two are the same tokenizer.

    Compared are: token to id, added tokens included; the token that ends a sequence; the merges of byte-pair encoding,
    all of them; and the ids of a few texts, which show the steps before the merges (normalisation, splitting of digits,
    spaces and code). Chat templates and the sides of padding may differ.

    ``ends`` are student's and teacher's ids of the end of turn; by default the tokenizers' ``eos_token_id``. Give them
    if the chat templates end turns with other tokens.
    """
    reasons = list[str]()
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours != theirs:
        reasons.append(f"vocabulary: {_difference(ours, theirs)}")
    one, other = ends or cast("tuple[int | None, int | None]", (student.eos_token_id, teacher.eos_token_id))
    named = [(None if i is None else t.convert_ids_to_tokens(i), i) for t, i in ((student, one), (teacher, other))]
    if named[0] != named[1]:
        in_student, in_teacher = (f"{token!r} (id {i})" for token, i in named)
        reasons.append(f"end of sequence: {in_student} in the student, {in_teacher} in the teacher")
    merges, other = _merges(student), _merges(teacher)
    if merges != other:
        at = common_prefix(merges, other)
        in_student, in_teacher = (repr(side[at]) if at < len(side) else "none" for side in (merges, other))
        reasons.append(f"merges: number {at} is {in_student} in the student, {in_teacher} in the teacher")
    for text in SAMPLES:
        in_student, in_teacher = (
            list(t(text, add_special_tokens=False, verbose=False).input_ids) for t in (student, teacher)
        )
        if in_student != in_teacher:
            at = common_prefix(in_student, in_teacher)
            reasons.append(
                f"sample: {text!r} differs from token {at} on: {in_student[at:][:4]} and {in_teacher[at:][:4]}"
            )
            break
    return reasons


def _difference(ours: Mapping[str, int], theirs: Mapping[str, int]) -> str:
    alone = [(sorted(a.keys() - b.keys(), key=a.__getitem__), a) for a, b in ((ours, theirs), (theirs, ours))]
    parts = [
        f"{len(tokens)} of {len(side)} tokens only in the {name}, such as {tokens[0]!r} (id {side[tokens[0]]})"
        for (tokens, side), name in zip(alone, ("student", "teacher"), strict=True)
        if tokens
    ]
    if moved := [token for token, i in ours.items() if theirs.get(token, i) != i]:
        token = min(moved, key=ours.__getitem__)
        parts.append(f"{len(moved)} with other ids, such as {token!r} ({ours[token]} and {theirs[token]})")
    return "; ".join(parts)


def _merges(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """The merges by rank; none if the model is not byte-pair encoding. The vocabulary does not show their order."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    return json.loads(_state(model)).get("merges", []) if model is not None else []


def _state(part: Any) -> str:
    """A part of a tokenizer as JSON. Serialising the whole tokenizer would take its vocabulary along."""
    return part.__getstate__().decode()


def rows_kept(rows: int, tokenizer: PreTrainedTokenizerBase, owner: str) -> int:
    """The number of leading rows of its output embedding that a model keeps: the tokenizer's highest id + 1.

    ``rows`` is the width of its logits, which is often rounded up for the hardware. No text has a token beyond the
    highest id, and logits of such rows are whatever training left there. Nothing of the real vocabulary is cut off, and
    two models with one tokenizer keep as many.

    Raises DataError, which names ``owner``, if there are fewer rows than the tokenizer has ids.
    """
    size = max(tokenizer.get_vocab().values()) + 1
    if rows < size:
        raise DataError(
            f"the {owner} has {rows} rows of vocabulary, the tokenizer ids up to {size - 1}",
            f"{owner} model",
            "use the tokenizer that belongs to the model, or resize its embeddings to the tokenizer",
        )
    return size


def token_bytes(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[bytes]:
    """The UTF-8 bytes that each of ``ids`` adds to the text. Special tokens and ids without a token add none.

    Joined, they are exactly the text that the ids decode to without special tokens, so they are always valid UTF-8.
    They are read from the strings of the tokens (the byte alphabet of GPT-2; ▁ and <0xE4> of sentencepiece), so a
    character may be split over several tokens. A space that the tokenizer drops at the start of a text is dropped here
    too.

    The strings may not give the text, for example if bytes are no UTF-8 and decode to U+FFFD, as after a cut in the
    middle of a character, or with other kinds of tokenizers. A character then belongs to the last of its tokens and the
    others add nothing, as in :class:`~vivavoce.agents.detokenise.Detokeniser`.
    """
    special = _special_ids(tokenizer)
    strings = tokenizer.convert_ids_to_tokens(list(ids))
    kept = [i for i, token in enumerate(ids) if token not in special and strings[i] is not None]
    answer_ids = [ids[i] for i in kept]
    detokeniser = Detokeniser(tokenizer)
    text = detokeniser.text(answer_ids)
    pieces = _read(tokenizer, [strings[i] for i in kept], text.encode())
    if pieces is None:
        pieces = [piece.encode() for piece in detokeniser.pieces(answer_ids, text)]
    result = [b""] * len(ids)
    for i, piece in zip(kept, pieces, strict=True):
        result[i] = piece
    return result


def _read(tokenizer: PreTrainedTokenizerBase, strings: Sequence[str], text: bytes) -> list[bytes] | None:
    """The bytes that the strings of the tokens spell, or None if they do not spell ``text``."""
    spelled = _spelling(tokenizer)
    if spelled is None:
        return None
    pieces = [spelled(string) for string in strings]
    surplus = sum(map(len, pieces)) - len(text)
    for i, piece in enumerate(pieces):  # sentencepiece marks the first word as if a space came before it
        if surplus <= 0:
            break
        dropped = min(surplus, len(piece) - len(piece.lstrip(b" ")))
        pieces[i] = piece[dropped:]
        surplus -= dropped
    return pieces if b"".join(pieces) == text else None


def _spelling(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], bytes] | None:
    """A function from a token's string to its bytes, away from the start of a text; None if only decoding tells.

    The decoder is asked and not the vocabulary: Ġ is a letter to a sentencepiece tokenizer that has seen Maltese.
    """
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    state = _state(decoder) if decoder is not None else ""
    if '"ByteLevel"' in state:
        return _from_alphabet
    if "▁" in state:
        return _from_marks_and_bytes if '"ByteFallback"' in state else _from_marks
    return None


def _alphabet() -> dict[str, int]:
    """The 256 characters that stand for bytes in byte-level BPE: printable ones for themselves, others from Ā on.

    Source: encoder.py of GPT-2, ``bytes_to_unicode``.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _alphabet()


def _from_alphabet(token: str) -> bytes:
    try:
        return bytes(map(_ALPHABET.__getitem__, token))
    except KeyError:  # an added token is spelled as it is
        return token.encode()


def _from_marks(token: str) -> bytes:
    return token.replace("▁", " ").encode()


def _from_marks_and_bytes(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes.fromhex(byte[1]) if byte else _from_marks(token)


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    # Decoding skips what was added as special, whether or not the tokenizer has a name for its role.
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring tokens of the two lists that cover the same bytes; both ranges are non-empty."""

    student: range
    """Indices into the student's tokens."""
    teacher: range
    """Indices into the teacher's tokens."""


def groups(student: Sequence[bytes], teacher: Sequence[bytes]) -> list[Group]:
    r"""Cut two lists of tokens into the smallest groups that cover the same bytes; arguments as of :func:`token_bytes`.

    A group is closed as soon as both lists have come to the same byte. Tokens without bytes join the group that is open
    at their place. Those after the last byte (end of turn) form a group of their own if both lists have some, and
    belong to the last group if only one has. Every token of both lists is in exactly one group, in order.

    Source: ``_align_by_byte_offsets`` of TRL's GOLD trainer. Differs: its offsets come from the characters of a text
    that was tokenised again; ours from the tokens that the student drew.

    Raises DataError if the joined bytes differ, and if a list without any bytes faces an empty one.

    >>> for group in groups([b"caf", b"\xc3\xa9", b"!", b""], [b"c", b"af\xc3", b"\xa9", b"!", b""]):
    ...     print(group.student, group.teacher)
    range(0, 2) range(0, 3)
    range(2, 3) range(3, 4)
    range(3, 4) range(4, 5)
    """
    ours, theirs = b"".join(student), b"".join(teacher)
    if ours != theirs:
        at = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        around = slice(max(0, at - 20), at + 20)
        raise DataError(
            f"student and teacher spell different texts: {ours[around]!r} and {theirs[around]!r}",
            f"byte {at} of {len(ours)} and {len(theirs)}",
            "tokenise for the teacher what the student's token bytes spell, and cut both after the end of turn",
        )
    left, right = _ends(student), _ends(teacher)
    result = list[Group]()
    a = b = 0
    for end, i in left.items():
        if j := right.get(end):
            result.append(Group(range(a, i), range(b, j)))
            a, b = i, j
    if a < len(student) and b < len(teacher):
        result.append(Group(range(a, len(student)), range(b, len(teacher))))
    elif a < len(student) or b < len(teacher):
        if not result:
            raise DataError("one side has tokens, the other none", "", "end both answers with the end of turn")
        last = result.pop()
        result.append(Group(range(last.student.start, len(student)), range(last.teacher.start, len(teacher))))
    return result


def _ends(pieces: Sequence[bytes]) -> dict[int, int]:
    """Per byte at which a token ends: how many tokens it takes to come there. Tokens without bytes wait for more."""
    ends = dict[int, int]()
    total = 0
    for count, piece in enumerate(pieces, 1):
        if piece:
            total += len(piece)
            ends[total] = count
    return ends


class _Token(NamedTuple):
    string: str
    spelled: bytes | None
    """The bytes of the token; None if none are known: special tokens, and parts of characters if only decoding
    tells.
    """
    special: bool


@dataclass(frozen=True, slots=True, eq=False)
class VocabularyMap:
    """The tokens that two vocabularies have in common: pair m is ``student_ids[m]`` and ``teacher_ids[m]``.

    No id occurs twice on its side. Build it with :meth:`of`, once per pair of tokenizers.
    """

    student_ids: Tensor
    """Shape (M,), int64, ascending, on the CPU."""
    teacher_ids: Tensor
    """Shape (M,), int64, on the CPU."""

    @classmethod
    def of(
        cls, student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, *, ends: tuple[int, int] | None = None
    ) -> VocabularyMap:
        """Pair the ids with identical bytes, the two ends of turn, and special tokens with identical strings.

        ``ends`` are student's and teacher's ids of the end of turn; by default the tokenizers' ``eos_token_id``. Give
        them if the chat template ends a turn with another token.

        If several ids of one vocabulary spell the same bytes (``a`` and ``<0x61>``), those with identical strings are
        paired first, then in order of ids, whole tokens before byte tokens; the others are in the rest.

        Raises DataError if no bytes are in common.
        """
        ours, theirs = _tokens(student), _tokens(teacher)
        eos = ends or (student.eos_token_id, teacher.eos_token_id)
        pairs = dict[int, int]()
        if isinstance(eos[0], int) and isinstance(eos[1], int):
            pairs[eos[0]] = eos[1]
            ours.pop(eos[0], None)
            theirs.pop(eos[1], None)
        known = {token: i for i, token in theirs.items()}
        for i, token in ours.items():
            if (j := known.get(token)) is not None:
                pairs[i] = j
        paired = set(pairs.values())
        left, right = _by_bytes(ours, pairs.keys()), _by_bytes(theirs, paired)
        for spelled, left_ids in left.items():
            pairs.update(zip(left_ids, right.get(spelled, ()), strict=False))
        if all(i not in ours or ours[i].special for i in pairs):
            raise DataError("the vocabularies of student and teacher have no text in common", "", "use another teacher")
        order = sorted(pairs)
        return cls(torch.tensor(order), torch.tensor([pairs[i] for i in order]))

    def shared(self, logits_student: Tensor, logits_teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the M pairs and of everything else, both (N, M+1), float32, in nats.

        They come from logits of shapes (N, Vs) and (N, Vt), any floating dtype, any device. Every row is a
        distribution: its logsumexp is 0 up to rounding. The last column is log of the summed probability of the
        unpaired ids, taken by logsumexp over them and not as 1 - sum, which would cancel. It is ``FLOOR`` if there are
        none, as is every log 0. Differentiable in both; the gradients are finite for finite logits and for masked ones
        (-inf).

        With the same tokenizer on both sides the pairs are the vocabulary and the rest is empty.
        """
        return _lump(logits_student, self.student_ids), _lump(logits_teacher, self.teacher_ids)


def _lump(logits: Tensor, ids: Tensor) -> Tensor:
    width = logits.shape[-1]
    assert width > int(ids.max()), f"{width} columns of logits, but ids up to {int(ids.max())}"
    logprobs = logits.float().log_softmax(-1)
    # The gradient of logsumexp over nothing but -inf would be NaN, and so would be 0 * -inf in a divergence.
    logprobs = logprobs.masked_fill(logprobs == -torch.inf, FLOOR)
    unpaired = torch.ones(width, dtype=torch.bool)
    unpaired[ids] = False
    others = unpaired.nonzero()[:, 0].to(logits.device)
    if len(others):
        rest = logprobs.index_select(-1, others).logsumexp(-1, keepdim=True)
    else:
        rest = logprobs.new_full((*logprobs.shape[:-1], 1), FLOOR)
    return torch.cat([logprobs.index_select(-1, ids.to(logits.device)), rest], -1)


def _tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, _Token]:
    """The whole vocabulary, by ascending id."""
    special = _special_ids(tokenizer)
    strings = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    spelling = _spelling(tokenizer)
    spelled = (
        [spelling(string) for string, _ in strings] if spelling else _added_texts(tokenizer, [i for _, i in strings])
    )
    return {
        i: _Token(string, None if i in special else what, i in special)
        for (string, i), what in zip(strings, spelled, strict=True)
    }


def _added_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[bytes | None]:
    """The text that each id alone adds behind a letter; None for parts of characters, and if no letter is at hand."""
    anchor = list(tokenizer("a", add_special_tokens=False).input_ids)
    before, *texts = tokenizer.batch_decode([anchor, *([*anchor, i] for i in ids)], skip_special_tokens=True)
    return [
        text.removeprefix(before).encode() if before and text.startswith(before) and "\ufffd" not in text else None
        for text in texts
    ]


def _by_bytes(tokens: Mapping[int, _Token], but: Any) -> dict[bytes, list[int]]:
    """Ids by the bytes that they spell, whole tokens before byte tokens, without those in ``but``."""
    ids = defaultdict[bytes, list[int]](list)
    for i in sorted(tokens, key=lambda i: (bool(_BYTE_TOKEN.fullmatch(tokens[i].string)), i)):
        spelled = tokens[i].spelled
        if spelled and i not in but:
            ids[spelled].append(i)
    return ids


def span_logprobs(token_logprobs: Tensor, ranges: Sequence[range]) -> Tensor:
    """log p of spans, shape (G,): the sum of ``token_logprobs``, shape (T,), in nats, over each of G ranges.

    Of an empty range it is 0. Differentiable, and bit-equal on every call.

    >>> span_logprobs(torch.tensor([-1.0, -2.0, -4.0]), [range(0, 1), range(1, 3)]).tolist()
    [-1.0, -6.0]
    """
    size = len(token_logprobs)
    assert all(not r or 0 <= min(r) <= max(r) < size for r in ranges), f"{ranges} are not all within {size} tokens"
    width = max(map(len, ranges), default=0)
    # Sums by gathering into a padded table: deterministic on every device, unlike a scatter.
    table = torch.tensor([[*r, *[size] * (width - len(r))] for r in ranges], dtype=torch.int64)
    padded = torch.cat([token_logprobs, token_logprobs.new_zeros(1)])
    return padded[table.view(len(ranges), width).to(padded.device)].sum(1)


__all__ = [
    "FLOOR",
    "SAMPLES",
    "Group",
    "VocabularyMap",
    "groups",
    "rows_kept",
    "same_tokenizer",
    "span_logprobs",
    "token_bytes",
]
