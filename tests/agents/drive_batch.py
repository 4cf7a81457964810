"""A run that a test kills: a few calls through one agent's batches.

Usage: drive_batch.py JOURNAL BACKEND OPTIONS_AS_JSON CALLS
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from vivavoce.agents import open_agent
from vivavoce.agents.journal import Answered, Journal
from vivavoce.records import Sampling


async def drive(journal: Journal, backend: str, options: dict[str, Any], calls: int) -> list[Answered]:
    agent = open_agent("ada", backend, options)
    try:
        return await asyncio.gather(
            *(
                journal.call(agent, [{"role": "user", "content": f"question {n}"}], Sampling(), n, stage="debate")
                for n in range(calls)
            )
        )
    finally:
        await agent.aclose()


def answers(path: Path, backend: str, options: dict[str, Any], calls: int, **how: Any) -> list[Answered]:
    """What comes of the calls."""
    with Journal(path, **how) as journal:
        return asyncio.run(drive(journal, backend, options, calls))


if __name__ == "__main__":
    answers(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4]))
