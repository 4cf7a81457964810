"""The padding that makes the conversations of ``long_context`` long.

Their questions and starting states are those of ``base``; upstream adds the length in its code. Its additions to the
file system show in the expected calls, which name them, and are taken from there. They are a long text at the end of
every file, except those whose ends an expected call looks at, and pictures in every directory that holds no other. So
the expected calls follow from what an agent sees.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vivavoce.environments.bfcl.file_system import FileSystem
from vivavoce.records import ToolCall

_PICTURE = re.compile(r"\bimage_\d{12,}\.jpg\b")
_LONG = 500
"""Characters that a text has at least."""


@dataclass(frozen=True, slots=True)
class Padding:
    """The additions to one row's files."""

    text: str = ""
    pictures: tuple[str, ...] = ()
    spared: frozenset[str] = frozenset()
    """Names of files that stay as they are."""


def padding_of(
    configs: Mapping[str, Mapping[str, Any]], expected: Mapping[str, Sequence[ToolCall]]
) -> dict[str, Padding]:
    """The padding of each row, from the starting states and the expected calls of all. A row whose calls name no
    pictures has those of the first one that does.
    """
    texts = Counter[str]()
    pictures = dict[str, tuple[str, ...]]()
    for id, calls in expected.items():
        arguments = [value for call in calls for value in call.arguments.values() if isinstance(value, str)]
        files = [file for file in _files(configs[id]) if file]
        ends = (one.rpartition(file)[2].strip() for one in arguments for file in files if file in one)
        texts.update(end for end in ends if len(end) >= _LONG)
        if named := tuple(dict.fromkeys(picture for one in arguments for picture in _PICTURE.findall(one))):
            pictures[id] = named
    text = max(texts, key=lambda one: (texts[one], -len(one)), default="")
    others = next(iter(pictures.values()), ())
    spared = frozenset(
        str(call.arguments.get("file_name")) for calls in expected.values() for call in calls if call.name == "tail"
    )
    return {id: Padding(text, pictures.get(id, others), spared) for id in expected}


def pad_config(config: Mapping[str, Any], padding: Padding) -> Mapping[str, Any]:
    """The starting state with it."""
    files = config.get(FileSystem.NAME)
    if not files or "root" not in files:
        return config
    return {**config, FileSystem.NAME: {**files, "root": {n: _pad(n, d, padding) for n, d in files["root"].items()}}}


def _pad(name: str, node: Mapping[str, Any], padding: Padding) -> Mapping[str, Any]:
    if "contents" not in node:
        return node if name in padding.spared else {**node, "content": node["content"] + padding.text}
    contents = {n: _pad(n, inner, padding) for n, inner in node["contents"].items()}
    if not any("contents" in inner for inner in contents.values()):
        contents |= {picture: {"type": "file", "content": ""} for picture in padding.pictures}
    return {**node, "contents": contents}


def _files(config: Mapping[str, Any]) -> Iterator[str]:
    def below(node: Mapping[str, Any]) -> Iterator[str]:
        if "contents" in node:
            for inner in node["contents"].values():
                yield from below(inner)
        else:
            yield node["content"]

    for node in ((config.get(FileSystem.NAME) or {}).get("root") or {}).values():
        yield from below(node)


__all__ = ["Padding", "pad_config", "padding_of"]
