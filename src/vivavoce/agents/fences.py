"""Fenced blocks in a model's reply, and the parts of Python code that are text rather than code.

Models fence code in more ways than CommonMark allows: a fence is indented in a list, quoted, or behind words, has four
backticks or tildes, holds another fence, or is never closed. Nothing here parses the code: lines and quotation marks
are enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class FencedBlock(NamedTuple):
    """One fenced block."""

    info: str
    """The text behind the opening fence: ``python``, or nothing."""
    text: str
    """The content, without the indentation and the quotation marks of its fence."""
    start: int
    """The index at which the opening fence begins."""
    end: int
    """The index at which the line of the closing fence ends; the end of the text if there is none."""


_LEAD = r"(?P<lead>[ \t]*+(?:(?:>|[-*+]|\d{1,3}[.)])[ \t]++|>)*+)"
_OPENS = re.compile(_LEAD + r"(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)\Z")
_OPENS_BEHIND = re.compile(r"(?P<lead>[^`\n]*)(?P<fence>`{3,})(?P<info>[\w+#.-]*)[ \t]*\Z")
_ONE_LINE = re.compile(
    _LEAD + r"(?P<fence>`{3,})(?:(?P<info>i?python\d?|py\d?)[ \t]+)?(?P<text>[^`]+?)(?P=fence)[ \t]*\Z"
)
_QUOTE = re.compile(r"(?:[ \t]*>[ \t]?)+")
_LITERAL = re.compile(
    r"(?P<comment>#[^\n]*)|(?P<triple>\"\"\"|''')|'(?:\\.|[^'\\\n]){0,2000}+'|\"(?:\\.|[^\"\\\n]){0,2000}+\"",
    re.DOTALL,
)


class _Open(NamedTuple):
    """A block whose end is not found yet."""

    start: int
    inside: int
    """The index at which its first line begins."""
    lead: str
    fence: str
    info: str


def blocks(text: str) -> list[FencedBlock]:
    """The fenced blocks of a text in order, the outermost ones: a block inside a block is part of its text.

    A line that opens another block ends a block that says its language and was not closed. A closing fence inside a
    docstring does not end the program around it.
    """
    blocks_read, at, depth = list[FencedBlock](), 0, 0
    open_: _Open | None = None
    for line in text.split("\n"):
        begin, at = at, at + len(line) + 1
        bare = line.rstrip()
        if open_ is None:
            if one := _ONE_LINE.match(bare):
                blocks_read.append(
                    FencedBlock(
                        one["info"] or "", one["text"].strip() + "\n", begin + one.start("fence"), begin + len(line)
                    )
                )
            else:
                open_, depth = _opening(bare, begin, at), 0
            continue
        inner = _OPENS.match(bare)
        if inner and inner["info"].strip() and inner["fence"].startswith(open_.fence):
            if not open_.info or open_.info in _WRAPPERS:
                depth += 1
            elif open_triple(text[open_.inside : begin]) is None:
                blocks_read.append(_block(text, open_, begin, begin))
                open_, depth = _opening(bare, begin, at), 0
            continue
        end = _closing_length(bare, open_)
        if end is None or _in_docstring(text, open_, begin, at):
            continue
        if depth:
            depth -= 1
            continue
        blocks_read.append(_block(text, open_, begin + end, begin + len(line)))
        open_ = None
    if open_ is not None:
        blocks_read.append(_block(text, open_, len(text), len(text)))
    return blocks_read


_WRAPPERS = ("markdown", "md", "text", "txt", "plaintext")
"""Languages whose blocks may hold other blocks."""


def without_literals(code: str) -> str:
    """Python code of the same length and lines, with blanks for its strings and comments."""
    pieces, at = list[str](), 0
    for start, end in _literals(code):
        pieces += [code[at:start], re.sub(r"[^\n]", " ", code[start:end])]
        at = end
    return "".join([*pieces, code[at:]])


def open_triple(code: str) -> str | None:
    """The quotation marks of the long string that the code ends in, if it ends in one."""
    for start, end in _literals(code):
        quotes = code[start : start + 3]
        if end == len(code) and quotes in ('"""', "'''") and not (end - start >= 6 and code.endswith(quotes)):
            return quotes
    return None


def _literals(code: str) -> Iterator[tuple[int, int]]:
    """The spans of strings and comments in Python code. A long string that is not closed reaches to the end."""
    at = 0
    while literal := _LITERAL.search(code, at):
        start, at = literal.span()
        if literal["triple"]:
            end = code.find(literal["triple"], at)
            while end > 0 and code[end - 1] == "\\" and code[end - 2] != "\\":
                end = code.find(literal["triple"], end + 1)
            at = len(code) if end < 0 else end + 3
        yield start, at


def _opening(line: str, begin: int, inside: int) -> _Open | None:
    opens = _OPENS.match(line) or _OPENS_BEHIND.match(line)
    if opens is None:
        return None
    lead = opens["lead"] if opens.re is _OPENS else ""
    info = (opens["info"].strip().strip("{}").lstrip(".").split() or [""])[0].lower()
    return _Open(begin + opens.start("fence"), inside, lead, opens["fence"], info)


def _closing_length(line: str, open_: _Open) -> int | None:
    """The number of leading characters of a line that belong to the block that it closes; None if it closes none."""
    inside = _unquote(line, open_)
    if (rest := inside.strip()) and not rest.strip(open_.fence[0]) and len(rest) >= len(open_.fence):
        return 0 if len(inside) - len(inside.lstrip()) <= len(open_.lead) + 3 else None
    if open_.fence[0] == "`" and line.endswith(open_.fence) and line.count("`") == len(open_.fence):
        return len(line) - len(open_.fence)  # behind the last line of code
    return None


def _in_docstring(text: str, open_: _Open, begin: int, after: int) -> bool:
    """Whether a fence stands inside a long string that ends later in the same block."""
    quotes = open_triple(text[open_.inside : begin])
    if quotes is None:
        return False
    ends = text.find(quotes, after)
    if ends < 0:
        return False
    between = text[after:ends].split("\n")
    return not any((opens := _OPENS.match(line.rstrip())) and opens["info"].strip() for line in between)


def _unquote(line: str, open_: _Open) -> str:
    if ">" not in open_.lead:
        return line
    quote = _QUOTE.match(line)
    return line[quote.end() :] if quote else line


def _block(text: str, open_: _Open, inside: int, end: int) -> FencedBlock:
    lines = [_unquote(line, open_) for line in text[open_.inside : inside].split("\n")]
    width = 0 if ">" in open_.lead else len(open_.lead)
    width = min([width, *(len(line) - len(line.lstrip()) for line in lines if line.strip())])
    content = "\n".join(line[width:] if line.strip() else "" for line in lines)
    return FencedBlock(open_.info, content, open_.start, end)


__all__ = ["FencedBlock", "blocks", "open_triple", "without_literals"]
