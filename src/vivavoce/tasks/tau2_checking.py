"""A check that a domain is judged right: every task's expected calls accepted, and every mutation of them rejected."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vivavoce.environments.environment import Action
from vivavoce.environments.tau2.airline import AIRLINE
from vivavoce.environments.tau2.alternatives import OVERWRITING, other_values, unasked_call
from vivavoce.environments.tau2.desk import Tau2
from vivavoce.environments.tau2.domain import Domain
from vivavoce.environments.tau2.records import Records
from vivavoce.environments.tau2.retail import RETAIL
from vivavoce.environments.tau2.scenario import Scenario
from vivavoce.records import ToolCall
from vivavoce.tasks.checking import Checked

DOMAINS = (AIRLINE, RETAIL)
Calls = tuple[ToolCall, ...]


def check_tau2(data: Path, names: Sequence[str] = ()) -> Iterator[Checked]:
    """Check the domains whose files are in ``tau2/`` below the data folder, or those of these names.

    Raises DataError if the files of a named one are not there.
    """
    for domain in DOMAINS:
        there = (data / "tau2" / domain.folder / "tasks.json").is_file()
        if domain.name in names or (not names and there):
            yield check_domain(domain, data / "tau2")


def check_domain(domain: Domain, data: Path) -> Checked:
    """Play every task of the domain's folder below ``data``: its expected calls, and each mutation of them."""
    desk = Tau2(domain, data)
    checked = Checked(domain.name, ["tasks.json"])
    for scenario in desk.scenarios.values():
        checked.rows += 1
        missed = faults_of(desk, scenario, scenario.expected)
        checked.accepted += not missed
        checked.off += [f"task {scenario.id}: {one}" for one in missed]
        passed = [
            what for what, calls, final in mutations(desk, scenario) if not faults_of(desk, scenario, calls, final)
        ]
        checked.rejected += not passed
        checked.off += [f"task {scenario.id}: accepted though {what}" for what in passed]
        checked.odd += [f"task {scenario.id}: {one}" for one in _odd(desk, scenario)]
    return checked


def faults_of(desk: Tau2, scenario: Scenario, calls: Sequence[ToolCall], final: bool = True) -> list[str]:
    """The faults after an episode of these calls, one an action, and then words that tell all that is to be told."""

    async def play() -> list[str]:
        await desk.reset(scenario.id, 0)
        for call in calls:
            await desk.step(Action("", (call,)))
        end = await desk.step(Action(f"Done. {'; '.join(scenario.to_tell)}" if final else "Done."))
        assert end.done, scenario.id
        return desk.amiss()

    return asyncio.run(play())


def mutations(desk: Tau2, scenario: Scenario) -> Iterator[tuple[str, Calls, bool]]:
    """Other calls than those expected, none of which may pass, with the change; False: and nothing is told.

    Every call that changes the database, unless a later one overwrites its effect, is left out, and each of its
    arguments is given another value that the tool takes, if there is one. A change of an unrelated record is added. The
    final words leave out what is to be told.
    """
    records, calls = desk.records(), scenario.expected
    for at, call in enumerate(calls):
        before = records.changes()
        earlier = calls[:at]
        changed = desk.try_call(records, call) is None and records.changes() != before
        if not changed or _overwritten(call, calls[at + 1 :]):
            continue
        yield f"{call.name} is left out", (*earlier, *calls[at + 1 :]), True
        for argument in call.arguments:
            other = _other(desk, earlier, call, argument)
            yield f"{argument} of {call.name} is {_short(other, argument)}", (*earlier, other, *calls[at + 1 :]), True
    yield "a record is changed that nobody spoke of", (*calls, unasked_call(desk.name, desk.records())), True
    if scenario.to_tell:
        yield "nothing is told", calls, False


def _other(desk: Tau2, earlier: Calls, call: ToolCall, argument: str) -> ToolCall:
    """The call with another value, which the tool takes after the earlier calls, if there is one."""
    for value in other_values(desk.name, desk.records(), call, argument):
        other = ToolCall(call.name, {**call.arguments, argument: value})
        if desk.try_call(_after(desk, earlier), other) is None:
            return other
    return ToolCall(call.name, {**call.arguments, argument: "no such value"})


def _after(desk: Tau2, calls: Calls) -> Records:
    records = desk.records()
    for call in calls:
        desk.try_call(records, call)
    return records


def _overwritten(call: ToolCall, later: Calls) -> bool:
    def on(one: ToolCall) -> tuple[str, Any]:
        return one.name, next(iter(one.arguments.values()), None)

    return call.name in OVERWRITING and any(on(call) == on(other) for other in later)


def _odd(desk: Tau2, scenario: Scenario) -> Iterator[str]:
    changes, failed = desk.expected_changes(scenario)
    yield from (f"an expected call fails, and changes nothing: {one}" for one in failed)
    for at, call in enumerate(scenario.expected):
        if _overwritten(call, scenario.expected[at + 1 :]):
            yield f"a later call overwrites what {call.name} did first: who leaves out the first passes"
    if not changes:
        yield "no expected call changes anything: " + (
            "what is told decides" if scenario.to_tell else "whoever changes nothing passes"
        )


def _short(call: ToolCall, argument: str) -> str:
    return json.dumps(call.arguments[argument], ensure_ascii=False)[:80]


__all__ = ["DOMAINS", "check_domain", "check_tau2", "faults_of", "mutations"]
