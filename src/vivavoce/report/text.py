"""Models' texts, made safe to show: nothing in them may steer a terminal or turn the text around it."""

from __future__ import annotations

import re

# C0 controls become their pictures (ESC becomes ␛), so that an escape sequence is seen instead of obeyed.
_CONTROLS = {i: chr(0x2400 + i) for i in range(32) if chr(i) not in "\n\t"}
_UNSAFE = _CONTROLS | dict.fromkeys(
    [*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)],
    "\N{REPLACEMENT CHARACTER}",
)
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def clean(text: str) -> str:
    """``text`` with control characters, direction overrides and lone surrogates made visible instead of obeyed."""
    return _LINE_ENDS.sub("\n", text).translate(_UNSAFE)


__all__ = ["clean"]
