"""Checks for texts that must not be published: keys, and personal data.

Patterns find data that has a form: an address for mail, a telephone number in international form, a bank account or a
card with a right check digit, a folder of a person's home. A name or an address in prose has none: a person has to
look.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["key", "email", "phone", "iban", "card", "path"]
PERSONAL: tuple[Kind, ...] = ("email", "phone", "iban", "card", "path")
_READ = (".jsonl", ".json", ".md", ".yaml", ".yml", ".html", ".txt", ".jinja", ".csv")
_VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json")
"""Files of a tokenizer: they hold words of the whole web, and nothing of the run."""
_KEY_LIKE = {
    mark: re.compile(pattern)
    for mark, pattern in (
        ("sk-", r"\bsk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{16,}"),  # OpenAI, Anthropic, OpenRouter
        ("hf_", r"\bhf_[A-Za-z0-9]{20,}"),  # Hugging Face
        ("AKIA", r"\bAKIA[0-9A-Z]{16}\b"),  # AWS
        ("ASIA", r"\bASIA[0-9A-Z]{16}\b"),
        ("gh", r"\bgh[pousr]_[A-Za-z0-9]{30,}"),  # GitHub
        ("github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{30,}"),
        ("glpat-", r"\bglpat-[A-Za-z0-9_-]{20,}"),  # GitLab
        ("AIza", r"\bAIza[0-9A-Za-z_-]{30,}"),  # Google
        ("ya29.", r"\bya29\.[0-9A-Za-z_-]{20,}"),
        ("xox", r"\bxox[abprs]-[0-9A-Za-z-]{10,}"),  # Slack
        ("gsk_", r"\bgsk_[A-Za-z0-9]{30,}"),  # Groq
        ("xai-", r"\bxai-[A-Za-z0-9]{40,}"),
        ("pplx-", r"\bpplx-[A-Za-z0-9]{32,}"),  # Perplexity
        ("r8_", r"\br8_[A-Za-z0-9]{30,}"),  # Replicate
        ("npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),
        ("pypi-AgEI", r"\bpypi-AgEI[A-Za-z0-9_-]{30,}"),
        ("k_", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),  # Stripe
        ("SG.", r"\bSG\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{40,}"),  # SendGrid
        ("PRIVATE KEY", r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"),
        ("eyJ", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),  # JSON web tokens
        (  # a password in an address
            "://",
            r"(?<=://)[^\s/:@\"'<>]+:(?!(?:pass(?:word|wd)?|pwd|secret|x+|\*+|\.+)@)"
            r"[^\s/:@\"'<>]{3,}@(?!localhost|(?:[\w-]+\.)*example\b)[\w.-]+",
        ),
    )
}
"""What keys look like, by a part that each of a form has: to look for that part alone is quick."""
_NAMED_KEY = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD)S?$")
_EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+'-]{1,64}@((?:[\w-]{1,63}\.)+[^\W\d_]{2,24})\b")
_MADE_UP = re.compile(r"(?:^|\.)(?:example(?:\.[a-z]+)?|test|invalid|localhost)$", re.IGNORECASE)
_PHONE = re.compile(
    r"(?<![\w.+*/=-])(?<![\d=*/] )(?:\+|\(\+|00(?=[1-9][0-9]{0,2}[ \-/(]))[1-9][0-9]{0,2}\)?"  # +49, (+49), 0049
    r"(?:[0-9]{7,12}|[ \-/.]?(?:\(0\)[ ]?)?\(?[0-9]{1,5}\)?(?:[ \-/.][0-9]{2,9}){1,5})(?![\w*/=])"
)
_IBAN = re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(
    r"(?<![\w.])(?:[3-6][0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}|[3-6][0-9]{15}"
    r"|3[47][0-9]{2}([ -])[0-9]{6}\2[0-9]{5}|3[47][0-9]{13})(?![\w.])"
)
_HOME = re.compile(r"(?:/home/|/Users/|[A-Z]:\\+Users\\+)([A-Za-z0-9._-]+)")
_NOBODY = ("user", "username", "you", "me", "USER", "runner", "ubuntu")


class Hit(NamedTuple):
    """A text that must not be published."""

    kind: Kind
    file: str
    line: int
    shown: str
    """A part of it, enough to find it by."""

    def __str__(self) -> str:
        return f"{self.kind} in {self.file}, line {self.line}: {self.shown}"


def hits_in(folder: Path, environment: Mapping[str, str] = os.environ) -> Iterator[Hit]:
    """Such texts in the text files below a folder, file by file."""
    secrets = {value for name, value in environment.items() if _NAMED_KEY.search(name) and len(value) >= 12}
    for file in sorted(folder.rglob("*")):
        if file.suffix not in _READ or file.name in _VOCABULARY:
            continue
        name = file.relative_to(folder).as_posix()
        for number, line in enumerate(file.read_text("utf-8", "replace").split("\n"), 1):
            for kind, text in in_text(line, secrets):
                yield Hit(kind, name, number, _excerpt(kind, text))


def in_text(text: str, secrets: Collection[str] = ()) -> Iterator[tuple[Kind, str]]:
    """Keys and personal data in a text, each by its kind."""
    for secret in secrets:
        if secret in text:
            yield "key", secret
    for mark, pattern in _KEY_LIKE.items():
        if mark in text:
            for match in pattern.finditer(text):
                yield "key", match[0]
    for match in _EMAIL.finditer(text):
        if not _MADE_UP.search(match[1]):
            yield "email", match[0]
    for kind, pattern, right in _CHECKED:
        for match in pattern.finditer(text):
            if right(match[0]):
                yield kind, match[0]
    for match in _HOME.finditer(text):
        if match[1] not in _NOBODY:
            yield "path", match[0]


def _phone(text: str) -> bool:
    return 8 <= sum(c.isdigit() for c in text) <= 15


def _iban(text: str) -> bool:
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _luhn(text: str) -> bool:
    digits = [int(c) for c in reversed(text) if c.isdigit()]
    doubled = [sum(divmod(2 * d, 10)) if i % 2 else d for i, d in enumerate(digits)]
    return sum(doubled) % 10 == 0


_CHECKED: tuple[tuple[Kind, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("phone", _PHONE, _phone),
    ("iban", _IBAN, _iban),
    ("card", _CARD, _luhn),
)


def _excerpt(kind: Kind, text: str) -> str:
    """Enough to find it by; of a key no more than its beginning."""
    return f"{text[:6]}…" if kind in ("key", "card", "iban") else text[:60]


__all__ = ["PERSONAL", "Hit", "Kind", "hits_in", "in_text"]
