"""A check that BFCL's conversations are judged right: every row's expected calls accepted, every mutation rejected.

A mutation that leaves no trace (nothing that is judged changes, and no result is missing) cannot be rejected; those are
counted apart, with the reason.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Container, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vivavoce.environments.bfcl.conversations import CATEGORIES, Conversation, read_conversations
from vivavoce.environments.bfcl.service import Service, call_service, judged_part, states_of
from vivavoce.environments.bfcl.several_turns import SeveralTurns
from vivavoce.environments.environment import Action
from vivavoce.records import ToolCall
from vivavoce.tasks.checking import Checked

NAMES = tuple(f"bfcl_multi_turn_{category}" for category in CATEGORIES)
Calls = Sequence[Sequence[ToolCall]]
"""Turn by turn."""


class Mutation(NamedTuple):
    """Other calls than those expected."""

    what: str
    calls: Calls
    traceless: str = ""
    """The reason why nothing distinguishes them from the expected ones, if that is so."""


def check_bfcl_turns(data: Path, names: Sequence[str] = ()) -> Iterator[Checked]:
    """Check the categories whose files are in ``bfcl/`` below the data folder, or those of these names.

    Raises DataError if the files of a named one are not there.
    """
    for category, name in zip(CATEGORIES, NAMES, strict=True):
        there = (data / "bfcl" / f"BFCL_v4_multi_turn_{category}.json").is_file()
        if name in names or (not names and there):
            yield check_category(category, data / "bfcl")


def check_category(category: str, data: Path) -> Checked:
    """Play every conversation of a category: its expected calls, and each mutation of them."""
    world = SeveralTurns(read_conversations(data, category))
    checked = Checked(f"{world.name}_{category}", [f"BFCL_v4_multi_turn_{category}.json"])
    for talk in world.conversations.values():
        checked.rows += 1
        missed = faults_of(world, talk, [turn.expected for turn in talk.turns])
        checked.accepted += not missed
        checked.off += [f"{talk.id}: {one}" for one in missed]
        passed = [one for one in mutations(talk) if not faults_of(world, talk, one.calls)]
        unexplained = [one.what for one in passed if not one.traceless]
        checked.rejected += not unexplained
        checked.off += [f"{talk.id}: accepted though {what}" for what in unexplained]
        checked.apart += len(passed) - len(unexplained)
        checked.odd += [f"{talk.id}: accepted though {one.what}: {one.traceless}" for one in passed if one.traceless]
        checked.odd += [f"{talk.id}: {one} is not on offer there: it is not expected" for one in talk.beyond]
        checked.odd += [f"{talk.id}: {one}" for one in _refused_calls(talk)]
    return checked


def faults_of(world: SeveralTurns, talk: Conversation, calls: Calls) -> list[str]:
    """The faults after a conversation in which these calls were made, those of a turn in one action."""

    async def play() -> list[str]:
        seen = await world.reset(talk.id, 0)
        for turn in calls:
            assert not seen.done, talk.id
            if turn:
                await world.step(Action("", tuple(turn)))
            seen = await world.step(Action("Done."))
        assert seen.done, talk.id
        return world.amiss()

    return asyncio.run(play())


def mutations(talk: Conversation) -> Iterator[Mutation]:
    """Other calls than those expected.

    Every call is left out, and each of its arguments is given another value, one of which the function makes something
    else, if there is one. A call that was not asked for is added. A call that cannot be made yet, because something is
    missing, is made at once and not when it can.
    """
    expected = [turn.expected for turn in talk.turns]
    services, returned = talk.fresh_services(), list[Any]()
    for at, calls in enumerate(expected):
        for n, call in enumerate(calls):
            before = deepcopy(services)
            result = call_service(services, call)
            repeated = result in returned
            idle = judged_part(states_of(services)) == judged_part(states_of(before))
            yield Mutation(
                f"{call.name} of turn {at + 1} is left out",
                _with(expected, at, [*calls[:n], *calls[n + 1 :]]),
                _AGAIN if repeated and idle else "",
            )
            for argument in call.arguments:
                other, trace = _change(call, argument, before, services, result)
                yield Mutation(
                    f"{argument} of {call.name} in turn {at + 1} is {_short(other.arguments[argument])}",
                    _with(expected, at, [*calls[:n], other, *calls[n + 1 :]]),
                    {"none": _NO_OTHER, "result": _AGAIN if repeated else "", "state": ""}[trace],
                )
            returned.append(result)
        if not calls and at + 1 < len(expected):
            early = [*expected[:at], expected[at + 1], (), *expected[at + 2 :]]
            yield Mutation(f"what is asked for in turn {at + 2} is done in turn {at + 1}", early)
    if unasked := _unasked_call(services, {tool.name for tool in talk.functions_in(len(expected) - 1)}):
        yield Mutation(f"{unasked.name} is called, and nobody asked", [*expected[:-1], (*expected[-1], unasked)])


def _with(expected: Calls, at: int, calls: Sequence[ToolCall]) -> Calls:
    return [*expected[:at], calls, *expected[at + 1 :]]


def _change(
    call: ToolCall, argument: str, before: Sequence[Service], after: Sequence[Service], result: Any
) -> tuple[ToolCall, Literal["state", "result", "none"]]:
    """The call with another value, one that makes a difference if there is one, and the difference that it makes at
    once: in the judged state of the services, in its result or elsewhere, or none.
    """
    candidates = list[tuple[bool, ToolCall, Literal["state", "result"]]]()
    values = list(_other_values(call.arguments[argument]))
    for value in values:
        other, services = ToolCall(call.name, {**call.arguments, argument: value}), deepcopy(before)
        returned = call_service(services, other)
        refused = isinstance(returned, dict) and "error" in returned
        if judged_part(states_of(services)) != judged_part(states_of(after)):
            candidates.append((refused, other, "state"))
        elif returned != result or states_of(services) != states_of(after):
            candidates.append((refused, other, "result"))
    if not candidates:
        return ToolCall(call.name, {**call.arguments, argument: values[0]}), "none"
    # rather one that the function takes: that an error is no result is easily told
    return min(candidates, key=lambda one: one[0])[1:]


def _other_values(value: Any) -> Iterator[Any]:
    """Other values of the same type."""
    match value:
        case bool():
            yield not value
        case int() | float():
            yield from (value + 1, value - 1, 1, 0)
        case str():
            yield from (f"{value}2", value[:-1], "no such value")
        case list():
            yield from (
                [*value[:at], other, *value[at + 1 :]] for at, one in enumerate(value) for other in _other_values(one)
            )
            yield from (value[:-1], [*value, "no such value"])
        case dict():
            yield from ({**value, key: other} for key, one in value.items() for other in _other_values(one))
        case _:
            yield "no such value"


def _unasked_call(services: Sequence[Service], offered: Container[str]) -> ToolCall | None:
    """A call that changes the judged state after the last turn."""
    for call in _UNASKED:
        trial = deepcopy(services)
        call_service(trial, call)
        if call.name in offered and judged_part(states_of(trial)) != judged_part(states_of(services)):
            return call
    return None


def _refused_calls(talk: Conversation) -> Iterator[str]:
    services = talk.fresh_services()
    for at, turn in enumerate(talk.turns):
        for call in turn.expected:
            returned = call_service(services, call)
            if isinstance(returned, dict) and "error" in returned:
                yield f"{call.name}, expected in turn {at + 1}, is refused: {returned['error']}"


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:80]


_AGAIN = "what it was to return was returned before, and nothing that is judged changes"
_NO_OTHER = "no other value makes a difference"
_WHO = ("client_id", "client_secret", "refresh_token", "user_first_name", "user_last_name")
_UNASKED = (
    ToolCall("mkdir", {"dir_name": "unasked"}),
    ToolCall("set_navigation", {"destination": "Unasked Road"}),
    ToolCall("trading_logout", {}),
    ToolCall("trading_login", {"username": "nobody", "password": "unasked"}),
    ToolCall("authenticate_travel", {**dict.fromkeys(_WHO, "unasked"), "grant_type": "read"}),
)

__all__ = ["NAMES", "Mutation", "check_bfcl_turns", "check_category", "faults_of", "mutations"]
