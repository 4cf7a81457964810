"""The names that a recipe can use: each with a line about it and its needs, and for recipes their time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vivavoce import plugins
from vivavoce.authoring.keys import ROOMS, first_line
from vivavoce.committee.prompting import prompt_sets
from vivavoce.finding import recipes
from vivavoce.tasks.benchmark import Official


class ListedName(NamedTuple):
    """One thing that can be named."""

    name: str
    about: str
    needs: str = ""
    takes: str = ""


_EXTRAS = {
    "hf_local": "vivavoce[train]",
    "openai_chat": "vivavoce[endpoints]",
    "vllm": "vivavoce[endpoints]",
    "anthropic_messages": "vivavoce[anthropic]",
    "math": "vivavoce[math]",
    "reasoning_gym": "vivavoce[reasoning-gym]",
    "textarena": "vivavoce[textarena]",
    "methods": "vivavoce[train]",
}
"""What has to be installed beside the core of the package, by module or room. A module may say all that it needs
itself: ``NEEDS``."""


def entries_of(what: str) -> list[ListedName]:
    """The tasks, agents, methods, protocols, recipes or prompts that there are. Raises KeyError for any other word."""
    if what in ROOMS:
        return [_module(what, name) for name in plugins.names(what)]
    return {"recipes": _recipes, "prompts": _prompts}[what]()


def _module(room: str, name: str) -> ListedName:
    module = plugins.load(room, name, room)
    about = _sentence(first_line(module.__doc__))
    if needs := getattr(module, "NEEDS", ""):
        return ListedName(name, about, needs)
    installed = _EXTRAS.get(name) or _EXTRAS.get(room, "")
    data = _data(module.Options) if room == "tasks" else ""
    return ListedName(name, about, ", ".join(filter(None, [data, installed])))


def _data(options: type) -> str:
    """Whether a task's questions come from files or from the Hub."""
    fields = getattr(options, "model_fields", {})
    if issubclass(options, Official):
        hub = fields["hub_id"].default
        return f"files, or {hub} of the Hub" if hub else "official files"
    if "path" in fields:
        return "official files" if fields["path"].is_required() else "a file of yours"
    return ""


def _recipes() -> list[ListedName]:
    return [ListedName(name, *header_of(path)) for name, path in recipes().items()]


def header_of(path: Path) -> tuple[str, str, str]:
    """A recipe's first comment: its first sentence, and the lines ``Needs: …`` and ``Takes: …``."""
    about, parts = list[str](), {"needs": "", "takes": ""}
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        if match := re.fullmatch(r"(Needs|Takes): (.+)", text):
            parts[match[1].lower()] = match[2].rstrip(".")
        elif not text.startswith("yaml-language-server"):
            about.append(text)
    return _sentence(" ".join(about)), parts["needs"], parts["takes"]


def _prompts() -> list[ListedName]:
    names = []
    for name in prompt_sets():
        path = Path(__file__).parent.parent / "committee" / "prompts" / name / "set.yaml"
        first = path.read_text("utf-8").splitlines()[0] if path.is_file() else ""
        names.append(ListedName(name, _sentence(first.removeprefix("#").strip()) if first.startswith("#") else ""))
    return names


def _sentence(text: str) -> str:
    """The first sentence, without what stands in brackets at its end."""
    first = re.split(r"(?<=[^.][.:])\s+(?=[A-Z\"`])", text + " ", maxsplit=1)[0].strip().rstrip(".:")
    return re.sub(r":\w+:`~?([\w.]+)`", r"\1", first)


def listing_lines(entries: list[ListedName]) -> Iterator[str]:
    """Lines for a terminal: a name, and indented below it what is said of it."""
    for one in entries:
        yield one.name
        for words in (one.about, one.needs and f"needs {one.needs}", one.takes and f"takes {one.takes}"):
            if words:
                yield f"    {words}"


__all__ = ["ListedName", "entries_of", "header_of", "listing_lines"]
