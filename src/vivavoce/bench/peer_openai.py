"""A bare loop over the openai package, as people write it: a client, a semaphore, gather. No journal, no resume.

Run by ``viva bench engine`` as a process of its own; imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time

from openai import AsyncOpenAI

TEXT = "First we look at what is given, and then at what the others say. " * 40


async def ask(settings: dict) -> int:
    slots = asyncio.Semaphore(settings["in_flight"])
    async with AsyncOpenAI(base_url=settings["address"], api_key="none") as client:

        async def one(i: int) -> None:
            earlier = ""
            for step in range(settings["steps"]):
                async with slots:
                    content = f"{TEXT}What is 2 + 2, in world {i}? {step} {earlier}"
                    reply = await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": content}], max_tokens=1000, seed=i
                    )
                earlier = reply.choices[0].message.content or ""

        count = settings["calls"] // settings["steps"]
        await asyncio.gather(*map(one, range(count)))
    return count * settings["steps"]


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    if job["core"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {job["core"]})
    begun = time.process_time()
    made = asyncio.run(ask(job))
    spent = {"calls": made, "cpu_s": time.process_time() - begun}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**spent, "peak_mib": peak}))  # noqa: T201
