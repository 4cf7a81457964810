"""A check of function calls against the wanted ones, if each argument may have one of several values.

The form is that of the Berkeley Function-Calling Leaderboard (BFCL): ``{function: {argument: [allowed, …]}}`` for each
wanted call. An allowed ``""`` says that the argument may be left out. The values of an allowed object are lists of
allowed values again. No allowed value at all stands for an empty list (so in one official row). Text counts without
case, spaces and light punctuation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vivavoce.records import ToolCall

Wanted = Mapping[str, Mapping[str, Sequence[Any]]]
_LIGHT = str.maketrans("'", '"', " ,./-_*^")


def wrong_calls(functions: Sequence[Mapping[str, Any]], wanted: Sequence[Wanted], calls: Sequence[ToolCall]) -> str:
    """The faults of ``calls``; empty if they are right. No ``wanted``: no call is right.

    Calls may come in any order; each has to meet another of the wanted ones. ``functions`` are the schemas that were
    offered, whose ``required`` arguments may not be left out whatever the answers allow.
    """
    if len(calls) != len(wanted):
        return f"{len(calls)} calls, and {len(wanted)} were wanted"
    required = {f["name"]: set(f["parameters"].get("required", ())) for f in functions}
    faults = [[_fault(call, want, required) for want in wanted] for call in calls]
    if _can_assign(faults, 0, frozenset()):
        return ""
    return next((row[0] for row in faults if all(row)), "two calls meet the same one that was wanted")


def an_answer(functions: Sequence[Mapping[str, Any]], wanted: Sequence[Wanted]) -> list[ToolCall]:
    """Calls that are right: the first allowed value of each argument that may not be left out, or has one."""
    required = {f["name"]: set(f["parameters"].get("required", ())) for f in functions}
    calls = list[ToolCall]()
    for ((name, arguments),) in (want.items() for want in wanted):
        chosen = {argument: _first(allowed) for argument, allowed in arguments.items()}
        calls.append(ToolCall(name, {k: v for k, v in chosen.items() if v != "" or k in required[name]}))
    return calls


def _first(allowed: Sequence[Any]) -> Any:
    return _value(next((a for a in allowed if a != ""), "" if allowed else []))


def _value(allowed: Any) -> Any:
    """An allowed value with one value chosen for each key of each object in it."""
    if isinstance(allowed, Mapping):
        chosen = {key: _first(value) if isinstance(value, list) else value for key, value in allowed.items()}
        return {key: value for key, value in chosen.items() if value != "" or "" not in allowed[key]}
    return [_value(one) for one in allowed] if isinstance(allowed, list) else allowed


def _can_assign(faults: Sequence[Sequence[str]], at: int, matched: frozenset[int]) -> bool:
    """Whether the calls from ``at`` on can each have a wanted one of their own."""
    if at == len(faults):
        return True
    free = (i for i, fault in enumerate(faults[at]) if not fault and i not in matched)
    return any(_can_assign(faults, at + 1, matched | {i}) for i in free)


def _fault(call: ToolCall, want: Wanted, required: Mapping[str, set[str]]) -> str:
    ((name, arguments),) = want.items()
    # endpoints allow no dot in the name of a tool
    if call.name.replace(".", "_") != name.replace(".", "_"):
        return f"{call.name} was called, not {name}"
    if unknown := call.arguments.keys() - arguments.keys():
        return f"{name} has no argument {sorted(unknown)[0]!r} here"
    for argument, allowed in arguments.items():
        if argument not in call.arguments:
            if "" not in allowed or argument in required.get(name, ()):
                return f"{name} lacks {argument!r}"
        elif not any(_same(call.arguments[argument], a) for a in allowed or [[]]):
            return f"{name}: {argument} is {call.arguments[argument]!r}, not one of {list(allowed)}"
    return ""


def _same(value: Any, allowed: Any) -> bool:
    if isinstance(allowed, str):
        return isinstance(value, str) and value.translate(_LIGHT).lower() == allowed.translate(_LIGHT).lower()
    if isinstance(allowed, bool) or allowed is None:
        return value is allowed
    if isinstance(allowed, int | float):
        # 5 passes for 5.0, and 5.0 not for 5: an integer may stand for a float, as in Python
        return type(value) in (int, type(allowed)) and value == allowed
    if isinstance(allowed, Mapping):
        return isinstance(value, Mapping) and _same_object(value, allowed)
    return (
        isinstance(value, list | tuple)
        and len(value) == len(allowed)
        and all(_same(s, a) for s, a in zip(value, allowed, strict=True))
    )


def _same_object(call: Mapping[str, Any], allowed: Mapping[str, Any]) -> bool:
    values = {key: value if isinstance(value, list) else [value] for key, value in allowed.items()}
    return call.keys() <= values.keys() and all(
        any(_same(call[key], a) for a in value) if key in call else "" in value for key, value in values.items()
    )


__all__ = ["Wanted", "an_answer", "wrong_calls"]
