"""The gate: never more at once than it is wide, mixed kinds first, nothing lost where a wait or the work is stopped."""

from __future__ import annotations

import asyncio
from itertools import accumulate

import pytest

from vivavoce.train.gate import Gate


async def passing(gate: Gate, kind: str, name: str, log: list[str], until: asyncio.Event | None = None) -> None:
    async with gate.enter(kind):
        log.append(f"+{name}")
        await (until.wait() if until else asyncio.sleep(0))
        log.append(f"-{name}")


@pytest.mark.parametrize("width", [1, 2, 3])
def test_never_more_than_its_width_and_everyone_once(width: int) -> None:
    async def all_of_them() -> list[str]:
        gate, log = Gate(width), list[str]()
        await asyncio.gather(*(passing(gate, "ab"[i % 2], str(i), log) for i in range(9)))
        return log

    log = asyncio.run(all_of_them())
    assert max(accumulate(1 if entry[0] == "+" else -1 for entry in log)) == width
    assert sorted(log) == sorted(f"{sign}{i}" for sign in "+-" for i in range(9))


def test_kinds_are_mixed_and_a_kind_goes_by_age() -> None:
    async def in_turn() -> list[str]:
        gate, log = Gate(2), list[str]()
        doors = {name: asyncio.Event() for name in ("t1", "t2", "t3", "a1", "a2")}
        tasks = [asyncio.create_task(passing(gate, name[0], name, log, door)) for name, door in doors.items()]
        await asyncio.sleep(0.01)
        assert log == ["+t1", "+t2"], "nothing else was there when they came"
        for name in ("t1", "a1", "t2", "a2", "t3"):
            doors[name].set()
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        return log

    assert asyncio.run(in_turn()) == ["+t1", "+t2", "-t1", "+a1", "-a1", "+a2", "-t2", "+t3", "-a2", "-t3"]


def test_who_is_stopped_leaves_its_place() -> None:
    async def stopped() -> list[str]:
        gate, log = Gate(1), list[str]()
        never = asyncio.Event()
        first, second, third = (
            asyncio.create_task(passing(gate, "t", name, log, None if name == "third" else never))
            for name in ("first", "second", "third")
        )
        await asyncio.sleep(0)
        second.cancel()  # while it waits
        await asyncio.sleep(0)
        first.cancel()  # while it works
        await third
        fourth = asyncio.create_task(passing(gate, "t", "fourth", log, never))
        fifth = asyncio.create_task(passing(gate, "t", "fifth", log))
        await asyncio.sleep(0)
        never.set()
        await asyncio.sleep(0)
        fifth.cancel()  # let in, or about to be
        await fourth
        await passing(gate, "t", "sixth", log)
        return log

    log = asyncio.run(stopped())
    assert log[:4] == ["+first", "+third", "-third", "+fourth"]
    assert log[-2:] == ["+sixth", "-sixth"]


def test_a_failure_inside_lets_the_next_in() -> None:
    async def fails() -> list[str]:
        gate, log = Gate(1), list[str]()
        with pytest.raises(ZeroDivisionError):
            async with gate.enter("t"):
                raise ZeroDivisionError
        await passing(gate, "t", "next", log)
        return log

    assert asyncio.run(fails()) == ["+next", "-next"]
