"""A check of the values that a prompt template uses, and the error for one that it is not given."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from types import TracebackType

import jinja2
from jinja2 import meta, nodes

_EVERY = frozenset({"question", "answer_format", "word_limit", "ask_confidence"})
VALUES: dict[str, frozenset[str]] = {
    "answer": _EVERY,
    "debate": _EVERY | {"statements"},
    "discuss": _EVERY | {"statements", "scoring", "gold"},
    "act": _EVERY | {"statements", "scoring", "gold"},
    "reflection": _EVERY | {"text", "gold", "known_wrong"},
    "critique": _EVERY | {"text", "own", "known_wrong"},
    "rationale": _EVERY | {"gold"},
    "feedback": _EVERY | {"text", "gold"},
    "review": _EVERY | {"text", "gold"},
    "correction": _EVERY | {"text", "gold"},
    "feedback_review": _EVERY | {"text", "own", "gold"},
    "summary": _EVERY | {"statements"},
    "confidence": frozenset(),
}
"""The values of each template; those of a set have the names of its files."""
_OWN = frozenset().union(*VALUES.values())


def values_of(ask: str, more: Iterable[str] = ()) -> list[str]:
    """The values that a template may use, sorted. A template that only one protocol knows may use all values of all
    templates.

    ``more`` names the values that the protocol itself gives to its templates.
    """
    return sorted({*VALUES.get(ask, _OWN), *more})


def unknown_value(env: jinja2.Environment, template: str, known: Collection[str]) -> tuple[str, int] | None:
    """The first name that a template uses and that is not ``known``, and its line from 1; None if there is none.

    A name that the template asks about (``is defined``) may be missing.
    """
    parsed = env.parse(template)
    asked_about = {
        test.node.name
        for test in parsed.find_all(nodes.Test)
        if test.name in ("defined", "undefined") and isinstance(test.node, nodes.Name)
    }
    unknown = meta.find_undeclared_variables(parsed) - set(known) - asked_about
    used = [(n.lineno, n.name) for n in parsed.find_all(nodes.Name) if n.name in unknown and n.ctx == "load"]
    return (min(used)[1], min(used)[0]) if used else None


def line_in_template(trace: TracebackType | None) -> int:
    """The line of a template, from 1, at which rendering failed."""
    line = 1
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


__all__ = ["line_in_template", "unknown_value", "values_of"]
