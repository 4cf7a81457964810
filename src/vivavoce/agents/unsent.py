"""Settings of a recipe's sampling that a backend does not send, so that they are told before replies rely on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from vivavoce import plugins
from vivavoce.records import Sampling


class Unsent(NamedTuple):
    """One setting that does not reach the model."""

    field: str
    message: str
    """The consequence, in words."""
    do: str = ""


def unsent(name: str, backend: str, options: Mapping[str, Any], sampling: Sampling) -> list[Unsent]:
    """The settings of ``sampling`` that the agent ``name`` is not sent, those that ask for nothing left out.

    A backend tells them by a function ``unsent(options)``: names of Sampling's fields, and ``seed``, each with what to
    do about it. A backend without that function sends all. Raises RecipeError as :func:`vivavoce.agents.open_agent`
    does.
    """
    where = f"agent {name!r}"
    module = plugins.load("agents", backend, where)
    tell = getattr(module, "unsent", None)
    kept: Mapping[str, str] = tell(plugins.check(module.Options, options, where)) if tell else {}
    follows = {
        "temperature": f"temperature {sampling.temperature:g} is not sent: the model uses its own",
        "top_p": f"top_p {sampling.top_p:g} is not sent: the model uses its own" if sampling.top_p != 1 else "",
        "top_k": f"top_k {sampling.top_k} is not sent: the model uses its own" if sampling.top_k else "",
        "repetition_penalty": f"repetition_penalty {sampling.repetition_penalty:g} is "
        "not sent: repetitions are not penalised"
        if sampling.repetition_penalty != 1
        else "",
        "stop": "the texts of `stop` are not sent: no text ends a reply early" if sampling.stop else "",
        "logprobs": "log-probabilities are not asked for, though the recipe wants them" if sampling.logprobs else "",
        "max_new_tokens": "max_new_tokens is not sent: replies may be longer, and cost more than caps allow for",
        "seed": "no seed is sent: a new run gets other replies; a run that goes on keeps those that it has",
    }
    return [Unsent(field, message, kept[field]) for field, message in follows.items() if message and field in kept]


__all__ = ["Unsent", "unsent"]
