"""A small run that a test kills: several hundred scripted calls, each noted in an append-only file when it is made.

Usage: drive.py JOURNAL LOG
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.errors import AgentError
from vivavoce.records import Message, Sampling

CALLS, IN_FLIGHT = 400, 24


async def drive(journal: Journal, log: int) -> None:
    async def respond(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        await asyncio.sleep(0.001 * (seed % 7))
        os.write(log, f"{seed}\n".encode())
        if seed % 10 == 9:
            raise AgentError("server", f"no answer to {seed}")
        return f"{messages[-1]['content']}, said {seed}. " * 20

    agent = Scripted("ada", respond)
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(seed: int) -> None:
        async with slots:
            await journal.call(agent, [{"role": "user", "content": f"question {seed}"}], Sampling(), seed, stage="run")

    await asyncio.gather(*map(one, range(CALLS)))


if __name__ == "__main__":
    with Journal(sys.argv[1]) as opened:
        asyncio.run(drive(opened, os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)))
