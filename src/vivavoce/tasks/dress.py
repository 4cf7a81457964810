"""Marks around an answer that are no part of it: Markdown, tags, and the commands of LaTeX that set type or space."""

from __future__ import annotations

import html
import re

from vivavoce.tasks.characters import alike, clean_text

LONGEST = 1000
"""The largest number of characters of a line that are read; no answer is longer, and the expressions here stay quick
on any input.
"""

_EMPHASIS = [
    re.compile(r"(?<![\w*)])(\*{1,3})(?=[^\s*])([^*\n]*[^*\s])\1(?![\w*])"),
    re.compile(r"(?<![\w_])(_{1,3})(?=[^\s_])([^\n]*?[^_\s])\1(?![\w_])"),
]
_LOOSE = re.compile(r"^[\s>]*\*{1,3}(?!\s*[0-9.]*\s*\*)\s*|\s*\*{1,3}(?=[\s.]*$)")
"""Emphasis whose other half is outside the line."""
_TAG = re.compile(
    r"</?(?:b|strong|em|i|u|p|br|span|div|code|font|center|answer|ans|mark|big|math|mn|final_answer)\b[^<>]*>", re.I
)
_STRUCK = re.compile(r"~~.*?~~|<(s|del|strike)>.*?</\1>", re.I)
_TEXT = re.compile(
    r"\\(?:text(?:rm|bf|it|sf|tt|normal|up|md)?|math(?:rm|bf|it|sf|tt|normal)|[mhf]box|emph|underline"
    r"|operatorname\*?|bm|"
    r"boldsymbol|boxed)\s*\{([^{}]*)\}"
)
SPACE = re.compile(
    r"(?<!\\)\\[,;:> ]|~|\\(?:q?quad|enspace|(?:thin|med|thick)?space)(?![a-zA-Z])|\\h(?:space|skip)\*?\{[^{}]*\}"
)
"""LaTeX's commands for space."""
_SET = [
    (re.compile(r"\\(?:left|right|displaystyle|textstyle|[bB]igg?[lrm]?|rm|bf|it|bfseries|mathstrut)(?![a-zA-Z])"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=[0-9]),\\[!,](?=[0-9])"), ","),
    (re.compile(r"(?<=[0-9])\\[!,](?=[0-9])"), ""),
    (re.compile(r"\\!"), ""),
    (SPACE, " "),
    (re.compile(r"\\([$%&#_])"), r"\1"),
    (re.compile(r"\\[()\[\]]|\\\\"), " "),
]  # fmt: skip


def undress(line: str) -> str:
    """The line without markdown, tags and LaTeX's type and space, its characters made alike; no longer than an answer
    can be. An operator stays: ``9*2`` is no 92."""
    line = alike(clean_text(line[: 4 * LONGEST])[:LONGEST]).replace("`", "")
    if "&" in line and ";" in line:
        line = alike(html.unescape(line))
    if "~~" in line or "<" in line:
        line = _TAG.sub(" ", _STRUCK.sub(" ", line))
    if "\\" in line or "{" in line or "~" in line:
        for _ in range(3):  # dress in dress
            line = _TEXT.sub(r" \1 ", line)
        for pattern, replacement in _SET:
            line = pattern.sub(replacement, line)
    if "*" in line or "_" in line:
        for pattern in _EMPHASIS * 2:
            line = pattern.sub(r"\2", line)
        line = _LOOSE.sub("", line)
    return line.strip()


__all__ = ["LONGEST", "SPACE", "undress"]
