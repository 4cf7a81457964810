"""Characters that look like others or are invisible: they are replaced or removed before a reply is read.

Nothing here changes a value: a superscript stays a superscript, and a fraction in one character stays one.
"""

from __future__ import annotations

import re
import unicodedata

# A mark of a chat template, which a server leaks or a model writes as text. What follows one is another turn.
_MARK = re.compile(
    r"<[|｜][\w▁ ]{1,40}[|｜]>|</?s>|<(?:eos|bos|pad|unk|end_of_turn|start_of_turn|end_of_utterance|EOT|EOD"
    r"|eod)>|<turn\|>"
    r"|\[/?INST\]|\[/?(?:EOS|PAD)\]|\[\|\w+\|\]"
)
# The head of the assistant's own turn, which may stand before a reply.
_HEAD = re.compile(rf"\s*(?:{_MARK.pattern})(?:[ \t]*(?:assistant|model)\b)?", re.IGNORECASE)
_INVISIBLE = dict.fromkeys(
    [0xAD, 0x34F, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF, 0x20E3,
     0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800, *range(0xFE00, 0xFE10), *range(0xFFF9, 0xFFFC), *range(0xE0001, 0xE0080),
     *range(0xE0100, 0xE01F0)],
    "",
)  # fmt: skip
_BREAKS = {0x0B: "\n", 0x0C: "\n", 0x85: "\n", 0x2028: "\n", 0x2029: "\n"}
_UNSEEN = _INVISIBLE | _BREAKS

DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u207b\u208b\u02d7\u2796\ufe58\ufe63\uff0d\u2043\u30fc\u1806"
"""Characters that are typed for a minus sign or a hyphen."""
_WIDE = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_ALIKE = {
    **_WIDE,
    **{ord(dash): "-" for dash in DASHES if dash not in "\u207b\u208b\u30fc"},
    **dict.fromkeys(map(ord, "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u205f\u3000"), " "),
    **dict.fromkeys(map(ord, "‘’‛ʼ´′"), "'"),
    **dict.fromkeys(map(ord, "“”„‟″"), '"'),
    **dict.fromkeys(map(ord, "\u2044\u2215"), "/"),
    **dict.fromkeys(map(ord, "\u2236\ufe55"), ":"),
    ord("∣"): "|",
    ord("。"): ".",
    ord("、"): ",",
    ord("٪"): "%",
    ord("﹪"): "%",
    ord("٫"): ".",
    ord("٬"): ",",
    ord("﹩"): "$",
}


def blank(text: str) -> bool:
    """Whether a text shows nothing: it is empty, or has only spaces and invisible characters."""
    first = text.lstrip()[:1]
    if not first or ord(first) not in _UNSEEN:
        return not first
    return len(text) < 1000 and not text.translate(_UNSEEN).strip()


def clean_text(text: str) -> str:
    """The reply without invisible characters, without text after its end of turn, and in Unicode's form NFC."""
    if "<" in text or "[" in text:
        while head := _HEAD.match(text):
            text = text[head.end() :]
        if mark := _MARK.search(text):
            text = text[: mark.start()]
    if text.isascii() and "\v" not in text and "\f" not in text:  # so it is for most replies: a tenth of the time
        return text
    text = text.translate(_UNSEEN)
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def alike(text: str) -> str:
    """The text in which characters that mean the same are the same: dashes, quotes, spaces, digits and letters of
    other widths and alphabets of digits."""
    if text.isascii():
        return text
    text = text.translate(_ALIKE)
    return "".join(map(_ascii, text))


def _ascii(character: str) -> str:
    """A decimal digit or a styled letter as ASCII; every other character as it is."""
    if character.isascii():
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if 0x1D400 <= ord(character) <= 0x1D7FF or 0x249C <= ord(character) <= 0x24E9:  # 𝐂, ⒞, Ⓒ
        plain = unicodedata.normalize("NFKC", character)
        return plain if plain.isascii() else character
    return character


__all__ = ["DASHES", "alike", "blank", "clean_text"]
