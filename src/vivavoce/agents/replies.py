"""The division of a model's reply into its answer and its thought.

Every reply passes :func:`without_marks` before the journal writes it, so that one rule holds for every backend:
the thought goes to ``Reply.thought``, and ``Reply.text`` is the answer after it. Graders, peers, critics, customers,
environments and training rows read the text alone; the thought stays in the journal. Marks that are known::

    <think> … </think>      and <thinking>, <thought>, <seed:think>, ◁think▷       DeepSeek, Qwen, Gemini, Seed, Kimi
    [THINK] … [/THINK]                                                              Mistral
    <|channel>thought … <channel|>                                                  Gemma
    <|channel|>analysis<|message|> … <|end|> … <|channel|>final<|message|>          GPT-OSS
    <|START_THINKING|> … <|END_THINKING|>, <|inner_prefix|> … <|inner_suffix|>      Cohere, Apertus

A mark inside a call, a fenced block or a text in quotes is part of the answer: a program may print ``</think>``. A
thought that is never closed reaches to the end of the reply. A thought that is closed but was never opened begins with
the reply, because some chat templates open it in the prompt.
"""

from __future__ import annotations

import json
import re
import sys
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from vivavoce.agents.fences import blocks
from vivavoce.records import Reply, Token, storable

_PAIRS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
)
_HINT = re.compile(r"<(?:[|｜]|/?(?:seed:|th)|/s>|end_of|eos>|turn\||channel\|)|\[(?:\||e~|EOS\])")
"""The beginnings of nearly all marks: most replies hold none, and are not looked at closely."""
_HARMONY = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>", "<|call|>")
CALL = "<tool_call>"
"""The beginning of a call, as :mod:`vivavoce.agents.call_text` writes it."""


def _any_of(marks: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(marks, key=len, reverse=True)))


_OPEN, _CLOSE = _any_of(pair[0] for pair in _PAIRS), _any_of(pair[1] for pair in _PAIRS)
_MARK = re.compile(rf"(?P<open>(?:{_OPEN})(?:(?<=<\|channel>)thought\b)?)|(?P<close>{_CLOSE})")
LITERALS = tuple(mark for pair in _PAIRS for mark in pair)
"""All marks that open or close a thought, but for GPT-OSS's."""
_OPENED = re.compile(rf"(?:{_OPEN}|<\|channel>thought|<\|channel\|>analysis<\|message\|>)\s*\Z")
_HEADER = re.compile(r"(?:<\|start\|>[^<>|]*)?<\|channel\|>(?P<channel>\w+)[^|]*(?:<\|constrain\|>[^|]*)?<\|message\|>")
_BOUNDARY = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
# GPT-OSS's channels where a server has dropped the marks around their names.
_BARE = re.compile(r"\s*analysis(?=[A-Z])(?![A-Za-z]*\s*[=.(:\[])(?P<thought>.*?)(?:assistantfinal|\Z)", re.DOTALL)

_ENDS = (
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end_of_turn|>", "<end_of_turn>",
    "<|end|>", "<|return|>", "<turn|>", "<eos>", "</s>", "<|endofturn|>", "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>", "<|user|>", "<|observation|>", "<|role_end|>", "<|eot|>", "<|eos|>", "<|END_RESPONSE|>",
    "<|end_of_sentence|>", "<seed:eos>", "[|endofturn|]", "[e~[", "[EOS]",
)  # fmt: skip
"""The texts with which chat templates end a turn. A server may leave one in a reply; it is no part of the answer."""
_STARTS = (
    "<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "<|turn>", "<|start|>", "<|user|>", "<｜User｜>",
    "[INST]", "<|START_OF_TURN_TOKEN|>", "<|begin_of_text|>",
)  # fmt: skip
_BEGINS = "<|START_RESPONSE|>"
"""Command A's beginning of an answer, behind its thought."""
QUOTES = re.compile(_any_of(_ENDS + _STARTS))
"""Marks of turns, which a message may quote."""
_ENDED = re.compile(rf"(?P<end>{_any_of(_ENDS)})\s*(?:\Z|(?:{_any_of(_ENDS + _STARTS)}))")

_LONG = re.compile(r"(\"\"\"|''').*?\1", re.DOTALL)
_QUOTED = re.compile(
    r"(?P<ticks>`{1,2})(?!`).{0,1000}?(?<!`)(?P=ticks)(?!`)|\"(?:\\.|[^\"\\]){0,1000}+\""
    r"|(?<!\w)[rbfuRBFU]{0,2}'(?:\\.|[^'\\]){0,1000}+'(?!\w)"
)
_GAP = re.compile(r"(?:[ \t]*\n)+|[ \t]+")
_ALONE = re.compile(r"[ \t]*(?:\n|\Z)")


class Parted(NamedTuple):
    """A reply in two."""

    text: str
    """The answer."""
    thought: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    """The spans of the text in the whole reply: beginnings and ends of its pieces, in order."""


def without_marks(reply: Reply, opened: bool = False) -> Reply:
    """The reply as all readers are to see it: text that can be stored, with its thought apart. Applied twice, it
    changes nothing more.

    A backend that was told the thought apart has put it into ``thought`` already. ``opened`` says that the prompt opens
    the thought, so that a reply that never closes it is nothing but thought.
    """
    text, apart = storable(reply.text), reply.thought
    cut = split_thought(text, False if apart else opened or None)
    thought = storable("\n\n".join(filter(None, (apart, cut.thought))))
    tokens = None if reply.tokens is None else _tokens(reply.tokens, text, cut)
    model = storable(reply.model)
    if (cut.text, thought, tokens, model) == (reply.text, apart, reply.tokens, reply.model):
        return reply
    ids = reply.ids if cut.text == reply.text else ()
    # again, because the rest may look like a thought now that it begins the text
    return without_marks(replace(reply, text=cut.text, thought=thought, tokens=tokens, model=model, ids=ids))


def spoken(text: str) -> str:
    """The answer in a reply: the text without the author's thought, and without marks that end a turn."""
    return split_thought(text).text


def split_thought(text: str, opened: bool | None = None) -> Parted:
    """Divide a reply into answer and thought.

    Args:
        text: The reply as the model wrote it.
        opened: Whether the reply begins inside a thought because its prompt opens one. None: this is unknown, and a
            thought that is closed but not opened is taken for one. False: it does not, and such a mark is text.
    """
    hinted = ("<" in text or "[" in text) and _HINT.search(text)
    if not opened and not (hinted or "THINK]" in text or "◁" in text):
        if text.lstrip().startswith("analysis") and (bare := _BARE.match(text)):
            return _join(text, [(bare.end(), len(text))], [bare.span("thought")])
        return Parted(text, "", _whole_text(text))
    if opened or any(mark in text for mark in LITERALS):
        kept, thoughts = _by_marks(text, opened)
    elif "<|message|>" in text and _HEADER.match(text.lstrip()):
        kept, thoughts = _by_channels(text, "final")
    else:
        kept, thoughts = [(0, len(text))], []
    if opened and "<|message|>" in text:
        kept, thoughts = _by_channels(text, "analysis")
    kept = _before_end_mark(text, _behind_begin_mark(text, kept))
    return _join(text, kept, thoughts) if thoughts or kept != [(0, len(text))] else Parted(text, "", _whole_text(text))


def opens_thought(prompt: str) -> bool:
    """Whether a rendered prompt ends by opening a thought, so that the reply begins inside it."""
    return _OPENED.search(prompt[-200:]) is not None


def without_end(text: str) -> str:
    """The text without marks that end a turn at its end, for example inside a fenced block."""
    while (end := text.rstrip()).endswith(_ENDS):
        text = end[: -max(len(mark) for mark in _ENDS if end.endswith(mark))]
    return text


def in_chunks(content: Sequence[Any]) -> tuple[str, str]:
    """The answer and the thought in content that an endpoint gives as a list of chunks.

    Raises TypeError for a chunk that is neither text nor thought, LookupError for one without its text.
    """
    texts, thought = list[str](), list[str]()
    for chunk in content:
        if isinstance(chunk, str):
            texts.append(chunk)
        elif (kind := chunk["type"]) in ("text", "output_text"):
            texts.append(chunk["text"])
        elif kind in ("thinking", "reasoning", "reasoning_text", "summary_text"):
            inside = next((chunk[key] for key in ("thinking", "reasoning", "text", "summary") if key in chunk), "")
            thought.append(inside if isinstance(inside, str) else "".join(in_chunks(inside or ())))
        elif kind not in ("redacted_thinking", "reference"):
            raise TypeError(f"a chunk of type {kind!r}")
    return "".join(texts), "".join(thought)


def thought_beside(message: Mapping[str, Any]) -> str:
    """The thought that an endpoint of the OpenAI protocol gives beside a message's content; empty if it gives none."""
    for field in ("reasoning_content", "reasoning", "thinking"):
        text = message.get(field)
        if isinstance(text, str) and text:
            return text
    details = message.get("reasoning_details")
    parts = [d.get("text") or d.get("summary") for d in details if isinstance(d, dict)] if details else []
    return "".join(part for part in parts if isinstance(part, str))


def closing_tokens(tokens: Sequence[Token], text: str) -> tuple[Token, ...] | None:
    """The last of the tokens, which spell ``text``; None if they do not. The tokens before them were thought."""
    whole = "".join(token.text for token in tokens)
    if not whole.endswith(text):
        return None
    if whole == text:
        return tuple(tokens)
    return _tokens_within(tokens, [(len(whole) - len(text), len(whole))])


def kept_special(vocabulary: Iterable[str]) -> frozenset[str]:
    """The special tokens of a tokenizer that mark thoughts, so that they are read and not dropped."""
    known = frozenset(vocabulary)
    marks = {mark for pair in _PAIRS for mark in pair}
    return known & (marks | set(_HARMONY) if "<|channel|>" in known else marks)


def json_end(text: str, at: int) -> int | None:
    """The index at which the JSON value ends that begins at ``at``, white space before it skipped; None if none
    does.
    """
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    try:
        return DECODER.raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        return None


def _constant(text: str) -> float:
    if text == "NaN":
        raise ValueError("NaN is no value")
    return float(text)


DECODER = json.JSONDecoder(strict=False, parse_constant=_constant)
"""Reads JSON as models write it: a text may hold a line feed as it is. NaN, which equals nothing, is refused."""


def _whole_text(text: str) -> tuple[tuple[int, int], ...]:
    return ((0, len(text)),)


def _join(text: str, kept: Sequence[tuple[int, int]], thoughts: Sequence[tuple[int, int]]) -> Parted:
    spans = tuple((a, b) for a, b in kept if b > a)
    thought = "\n\n".join(filter(None, (text[a:b].strip() for a, b in thoughts)))
    return Parted("".join(text[a:b] for a, b in spans), thought, spans)


def _behind(text: str, at: int) -> int:
    """The index at which the answer begins behind a thought: not at the space between, but at a line's own
    indentation.
    """
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


Spans = list[tuple[int, int]]


def _by_marks(text: str, opened: bool | None) -> tuple[Spans, Spans]:
    """The answer and the thought, by marks that open and close."""
    marks = list(_MARK.finditer(text))
    shields = _Shields(text, marks)
    last = max((n for n, mark in enumerate(marks) if mark["close"] and not shields.around(mark.start())), default=-1)
    kept, thoughts = Spans(), Spans()
    start, inside = 0, bool(opened)
    for n, mark in enumerate(marks):
        shield = shields.around(mark.start())
        if inside:
            # the thought may hold half a block, so that its end seems to stand in one
            if mark["close"] and (shield is None or n >= last):
                thoughts.append((start, mark.start()))
                start, inside = _behind(text, mark.end()), False
        elif mark["open"]:
            first = not text[start : mark.start()].strip() and not kept
            line = not text[text.rfind("\n", 0, mark.start()) + 1 : mark.start()].strip()
            if shield is None and (first or line or n < last):
                if not first:
                    kept.append((start, mark.start()))
                start, inside = mark.end(), True
        elif opened is None and (shield is None or _ends_a_half(text, mark, marks[:n], shield)):
            if kept:
                start = kept[0][0]
                thoughts = [thought for thought in thoughts if thought[1] <= start]
            thoughts.append((start, mark.start()))
            kept, start = Spans(), _behind(text, mark.end())
        elif not text[start : mark.start()].strip() and not kept and shield is None:
            start = _behind(text, mark.end())  # the end of a thought that stands apart from the text
    if inside:
        thoughts.append((start, len(text)))
    else:
        kept.append((start, len(text)))
    return kept, thoughts


def _ends_a_half(text: str, mark: re.Match[str], before: Sequence[re.Match[str]], shield: tuple[int, int]) -> bool:
    """Whether a mark in a fenced block ends a thought in which the block was left open: it has a line of its own."""
    if text[text.rfind("\n", 0, mark.start()) + 1 : mark.start()].strip() or not _ALONE.match(text, mark.end()):
        return False
    opens = any(m["open"] and m.start() > shield[0] for m in before)
    return not opens and text.startswith(("```", "~~~"), shield[0])


def _by_channels(text: str, channel: str) -> tuple[Spans, Spans]:
    """The answer and the thought, by GPT-OSS's channels; ``channel`` is the one that the text begins in."""
    kept, thoughts, at = Spans(), Spans(), 0
    while True:
        boundary = _BOUNDARY.search(text, at)
        end = boundary.start() if boundary else len(text)
        if text[at:end].strip():
            (thoughts if channel == "analysis" else kept).append((at, end))
        if boundary is None:
            return kept, thoughts
        header = _HEADER.search(text, end)
        if header is None:
            return kept, thoughts
        at, channel = header.end(), header["channel"]


def _behind_begin_mark(text: str, kept: Spans) -> Spans:
    """The text behind a mark that only says that the answer begins."""
    if not kept or not text.startswith(_BEGINS, kept[0][0]):
        return kept
    (start, end), *others = kept
    return [(_behind(text, start + len(_BEGINS)), end), *others]


def _before_end_mark(text: str, kept: Spans) -> Spans:
    """The text up to a mark that ends the turn, if nothing or another turn follows it."""
    if not any(mark in text for mark in _ENDS):
        return kept
    for n, (start, end) in enumerate(kept):
        for mark in _ENDED.finditer(text, start, end):
            before = text[start : mark.start()].rstrip()
            if mark["end"] == "</s>" and "<s>" in before:  # a text that is struck through
                continue
            if mark.end() < end and _Shields(text, [mark]).around(mark.start()):
                continue
            return [*kept[:n], (start, start + len(before))]
    return kept


class _Shields:
    """The places at which marks are text: calls, fenced blocks, and quotes on their own line or in long strings."""

    def __init__(self, text: str, marks: Sequence[re.Match[str]]) -> None:
        self._spans, at = Spans(), 0
        while (at := text.find(CALL, at)) >= 0:
            end = json_end(text, at + len(CALL))
            self._add([(at, end)] if end else [])
            at = end or at + len(CALL)
        if "```" in text or "~~~" in text:
            self._add((block.start, block.end) for block in blocks(text))
        if '"""' in text or "'''" in text:
            self._add(long.span() for long in _LONG.finditer(text))
        lines = Spans()
        for mark in marks:
            if self.around(mark.start()) is None and (not lines or mark.start() >= lines[-1][1]):
                end = text.find("\n", mark.end())
                lines.append((text.rfind("\n", 0, mark.start()) + 1, end if end >= 0 else len(text)))
        for start, end in lines:
            begin = max((b for _, b in self._spans if start < b <= end), default=start)
            pieces = [(start, begin), (begin, end)] if begin > start else [(start, end)]
            self._add(quoted.span() for piece in pieces for quoted in _QUOTED.finditer(text, *piece))

    def around(self, at: int) -> tuple[int, int] | None:
        """The span that holds this place."""
        before = bisect_right(self._spans, (at, sys.maxsize)) - 1
        return self._spans[before] if before >= 0 and at < self._spans[before][1] else None

    def _add(self, spans: Iterable[tuple[int, int]]) -> None:
        """Add those that begin outside the ones before."""
        self._spans = sorted([*self._spans, *(span for span in list(spans) if self.around(span[0]) is None)])


def _tokens(tokens: Sequence[Token], text: str, cut: Parted) -> tuple[Token, ...] | None:
    """The tokens of the answer; None if they do not spell the reply."""
    tokens = [t if (kept := storable(t.text)) is t.text else Token(kept, t.logprob) for t in tokens]
    if "".join(token.text for token in tokens) != text:
        return None
    return tuple(tokens) if cut.spans == _whole_text(text) else _tokens_within(tokens, cut.spans)


def _tokens_within(tokens: Sequence[Token], spans: Sequence[tuple[int, int]]) -> tuple[Token, ...]:
    """The tokens of these pieces of the text; one that reaches over an edge keeps the part inside."""
    trimmed, at = list[Token](), 0
    for token in tokens:
        end = at + len(token.text)
        inside = [token.text[max(a - at, 0) : b - at] for a, b in spans if a < max(end, at + 1) and b > at]
        if inside:
            trimmed.append(Token("".join(inside), token.logprob))
        at = end
    return tuple(trimmed)


__all__ = [
    "CALL",
    "DECODER",
    "LITERALS",
    "QUOTES",
    "Parted",
    "closing_tokens",
    "in_chunks",
    "json_end",
    "kept_special",
    "opens_thought",
    "split_thought",
    "spoken",
    "thought_beside",
    "without_end",
    "without_marks",
]
