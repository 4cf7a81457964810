"""The same calls as a pipeline of distilabel (`pip install "distilabel[openai]" requests beautifulsoup4`).

Run by ``viva bench engine --distilabel PYTHON`` as a process of its own; imports nothing of ours. Distilabel has no
limit of calls in flight: a batch is asked for at once, and the next begins when the slowest of it is back. Batches of a
thousand keep the server's slots filled, and went nearly twice as fast as batches of as many as there are slots.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time

from distilabel.models import OpenAILLM  # pyright: ignore[reportMissingImports]
from distilabel.pipeline import Pipeline  # pyright: ignore[reportMissingImports]
from distilabel.steps import LoadDataFromDicts  # pyright: ignore[reportMissingImports]
from distilabel.steps.tasks import TextGeneration  # pyright: ignore[reportMissingImports]

TEXT = "First we look at what is given, and then at what the others say. " * 40
BATCH = 1000


def ask(settings: dict) -> int:
    count = settings["calls"] // settings["steps"]
    rows = [{"instruction": f"{TEXT}What is 2 + 2, in world {i}?"} for i in range(count)]
    with Pipeline(name="peer", cache_dir=tempfile.mkdtemp()) as pipeline:
        last = LoadDataFromDicts(data=rows, batch_size=BATCH)
        for step in range(settings["steps"]):
            model = OpenAILLM(
                model="m",
                base_url=settings["address"],
                api_key="none",
                generation_kwargs={"max_new_tokens": 1000},
            )
            task = TextGeneration(
                name=f"step{step}",
                llm=model,
                input_batch_size=BATCH,
                input_mappings={"instruction": f"said{step - 1}"} if step else {},
                output_mappings={"generation": f"said{step}", "model_name": f"model{step}"},
                add_raw_output=False,
                add_raw_input=False,
            )
            last.connect(task)
            last = task
    made = pipeline.run(use_cache=False)
    answered = sum(row[f"said{settings['steps'] - 1}"] is not None for row in made["default"]["train"])
    assert answered == count, f"{answered} of {count} answered"
    return count * settings["steps"]


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    if job["core"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {job["core"]})
    begun = time.process_time()
    made = ask(job)
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = {"calls": made, "cpu_s": time.process_time() - begun + others.ru_utime + others.ru_stime}
    # of the largest of its processes; their sum is some four times that
    print(json.dumps({**spent, "peak_mib": max(own.ru_maxrss, others.ru_maxrss) / 1024}))  # noqa: T201
