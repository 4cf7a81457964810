"""The keys of recipes as text: one section in a terminal, and all of them as the page docs/recipe.md."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from pydantic import BaseModel

from vivavoce import plugins
from vivavoce.authoring.keys import WORDS, Key, Room, Section, first_line, keys, sections
from vivavoce.config import Recipe

_HEAD = """# The keys of a recipe

Made from the models that check recipes, by `make docs`; do not edit. `viva keys` shows the same in a terminal:
`viva keys sft`, `viva keys opd.objective`, `viva keys hf_local`, or one key wherever it stands, `viva keys beta`.

A recipe is one YAML file. `method` decides which sections it has; a backend, task or protocol decides which options. A
key that is not given has its default; a key that is not known is refused, with its line. `--set section.key=value`
changes one for a run. "paper" and "authors" in a description say whose number a default is: the method's paper, or its
authors' code; "ours" is a choice of this project.

An editor with a YAML language server completes and explains keys with this first line, and a copy of the schema beside
the recipe (`viva keys --schema > recipe.schema.json`; `viva init` writes both):

```yaml
# yaml-language-server: $schema=recipe.schema.json
```
"""
_INTRO: dict[Room, str] = {
    "methods": "What `method:` may name, and the sections that it adds to those of every recipe.",
    "protocols": "What `debate.protocol` and `review.protocol` may name: who speaks when.",
    "agents": "What `backend:` of an agent may name. Their keys stand beside those of every agent.",
    "tasks": "What `task.name` may name. Their keys stand beside it.",
}
_TITLES: dict[Room, str] = {"methods": "Methods", "protocols": "Protocols", "agents": "Backends", "tasks": "Tasks"}


def section_text(section: Section, shown: Sequence[Key], width: int = 80) -> str:
    """A section for a terminal."""
    about = first_line(section.model.__doc__)
    lines = [section.title, *textwrap.wrap(about, width - 2, initial_indent="  ", subsequent_indent="  "), ""]
    for key in shown:
        lines += textwrap.wrap(f"{key.name}: {_value(key)}", width, subsequent_indent="    ")
        lines += textwrap.wrap(key.description, width - 4, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def overview() -> Iterator[tuple[str, str, str]]:
    """Every section once: its name, its place, its content."""
    seen: dict[tuple[str, type[BaseModel]], list[str]] = {}
    for s in sections():
        if s.path:
            seen.setdefault((_plain(s.path), s.model), []).append(s.of)
    for (path, model), of in seen.items():
        yield path, ", ".join(filter(None, of)) or "every recipe", first_line(model.__doc__)


def page() -> str:
    """The whole of docs/recipe.md."""
    return "\n".join([_HEAD, *_every_recipe(), *_methods(), *_rooms()]).rstrip() + "\n"


def _every_recipe() -> Iterator[str]:
    yield "## Every recipe\n"
    yield from _table(keys(Recipe))
    yield from _group_sections([s for s in sections() if not s.of and s.path])


def _group_sections(sections_read: Iterable[Section], of: str = "") -> Iterator[str]:
    """The models of sections, each once, under the names of all its places; ``of`` says whose they are."""
    places: dict[type[BaseModel], list[Section]] = {}
    for s in sections_read:
        places.setdefault(s.model, []).append(s)
    for model, all_ in places.items():
        title = ", ".join(f"`{path}`" for path in dict.fromkeys(_plain(s.path) for s in all_))
        methods = dict.fromkeys(s.of for s in all_ if s.of and s.room == "methods")
        yield from _section(title + (of or (f" of {', '.join(methods)}" if methods else "")), model)
    for parent in _parents(places):
        if parent not in places:
            yield from _section(f"Shared: {parent.__name__}", parent)


def _methods() -> Iterator[str]:
    yield f"## {_TITLES['methods']}\n\n{_INTRO['methods']}\n"
    common = set(Recipe.model_fields)
    shown = {s.model for s in sections() if not s.of}
    shown |= {plugins.load("protocols", name, "").Options for name in plugins.names("protocols")}
    later = list[Section]()
    for name in plugins.names("methods"):
        of = [s for s in sections() if s.room == "methods" and s.of == name]
        yield f"### method: {name}\n\n{_doc(of[0].model)}\n"
        yield from _table([key for key in keys(of[0].model) if key.name not in common])
        later += [s for s in of[1:] if s.model not in shown]
    yield "## Sections of methods\n"
    yield from _group_sections(later)


def _rooms() -> Iterator[str]:
    for room in ("protocols", "agents", "tasks"):
        yield f"## {_TITLES[room]}\n\n{_INTRO[room]}\n"
        models = {name: plugins.load(room, name, room).Options for name in plugins.names(room)}
        for name, model in models.items():
            module = plugins.load(room, name, room)
            yield from _section(f"{WORDS[room]} `{name}`", model, first_line(module.__doc__))
        for parent in _parents(models.values()):
            if parent not in models.values():
                yield from _section(f"Shared: {parent.__name__}", parent)
        yield from _group_sections([s for s in sections() if s.room == room and s.path], f" of a {WORDS[room]}")


def _parents(models: Iterable[type[BaseModel]]) -> list[type[BaseModel]]:
    """The models that these extend, the nearest first, without those that every model extends."""
    parents: dict[type[BaseModel], None] = {}
    for model in models:
        for parent in model.__mro__[1:]:
            if issubclass(parent, BaseModel) and parent not in (BaseModel, Recipe) and parent.model_fields:
                parents[parent] = None
    return list(parents)


def _section(title: str, model: type[BaseModel], doc: str = "") -> Iterator[str]:
    yield f"### {title}\n\n{doc or _doc(model)}\n"
    own = [key for key in keys(model) if key.own]
    if own:
        yield from _table(own)
    if parent := next((p for p in _parents([model]) if any(not key.own for key in keys(model))), None):
        yield f"{'And' if own else 'It takes'} the keys of {_page_name(parent)}.\n"


def _page_name(model: type[BaseModel]) -> str:
    """A model that others extend, as the page calls it."""
    for room in ("protocols", "agents"):
        for name in plugins.names(room):
            if plugins.load(room, name, room).Options is model:
                return f"{WORDS[room]} `{name}`"
    for s in sections():
        if s.model is model and s.path:
            return f"`{_plain(s.path)}`"
    return f"[{model.__name__}](#shared-{model.__name__.lower()})"


def _doc(model: type[BaseModel]) -> str:
    return first_line(re.sub(r":\w+:`~?\.?([\w.]+)`", r"`\1`", model.__doc__ or ""))


def _table(shown: Sequence[Key]) -> Iterator[str]:
    yield "| key | value | default | |"
    yield "| --- | --- | --- | --- |"
    for key in shown:
        default = "required" if key.default is None else f"`{key.default}`" if key.default else ""
        cells = (f"`{key.name}`", key.kind.replace("|", "\\|"), default, key.description.replace("|", "\\|"))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _value(key: Key) -> str:
    if key.default is None:
        return f"{key.kind}, required"
    return f"{key.kind}, default {key.default}" if key.default else key.kind


def _plain(path: str) -> str:
    return path.replace(".NAME", "").replace(".N", "")


__all__ = ["overview", "page", "section_text"]
