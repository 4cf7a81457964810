"""The date that chat templates of local models print: one day for the whole run.

Some chat templates write today's date into every prompt (Llama 3.1, Granite 3, gpt-oss). A run that goes on after
midnight would ask and train with other prompts than it began with. All of a run's prompts therefore hold the day on
which it was begun, which its manifest keeps.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any, TypeVar

from vivavoce.agents import weights
from vivavoce.agents.chat_template import DAY, ChatTemplate
from vivavoce.config import AgentSpec, Recipe
from vivavoce.methods.token_count import local_folder

_STRING = "date_string"
_WRITTEN = re.compile(rf"""{_STRING}\s*=\s*strftime_now\(["']([^"']+)["']\)""")
R = TypeVar("R", bound=Recipe)


def on_day(recipe: R, day: str) -> R:
    """The recipe with ``day`` among the template's arguments of every local model whose template asks for it.

    A day that the recipe gives stays.
    """
    changes: dict[str, Any] = {}
    for key in ("student", "user"):
        if (spec := getattr(recipe, key, None)) is not None:
            changes[key] = with_day(spec, day)
    for key in ("teachers", "scorers"):
        if (specs := getattr(recipe, key, None)) is not None:
            changes[key] = [with_day(spec, day) for spec in specs]
    return recipe.model_copy(update=changes)


def with_day(spec: AgentSpec, day: str) -> AgentSpec:
    """One agent, told ``day`` if it is a local model whose chat template asks for it.

    A vLLM server renders by itself. It is told the day if its model's template lies on this machine and takes one as
    ``date_string`` (Llama 3.2).
    """
    if spec.backend == "vllm":
        return _set_day(spec, day)
    if spec.backend != "hf_local":
        return spec
    arguments = dict(spec.options.get("chat_template_kwargs") or {})
    options, own = spec.options, spec.options.get("chat_template")
    folder = weights.folder(str(options["model"]), options.get("revision"), tokenizer_only=True, template=own)
    template = ChatTemplate.within(weights.tokenizer_folder(folder))
    if DAY in arguments or template is None or not template.dated:
        return spec
    return spec.model_copy(update={"chat_template_kwargs": {DAY: day, **arguments}})


def _set_day(spec: AgentSpec, day: str) -> AgentSpec:
    name = str(spec.options.get("tokenizer") or spec.options.get("model") or "")
    arguments = dict(spec.options.get("chat_template_kwargs") or {})
    folder = local_folder(spec.model_copy(update={"backend": "hf_local", "model": name}))
    template = ChatTemplate.within(folder) if folder else None
    written = _WRITTEN.search(template.source) if template else None
    if written is None or _STRING in arguments or DAY in arguments:
        return spec
    shown = date.fromisoformat(day).strftime(written[1])
    return spec.model_copy(update={"chat_template_kwargs": {_STRING: shown, **arguments}})


__all__ = ["on_day", "with_day"]
