"""A debate of agents that hold keys: journal, graphs, report and log for a test to search, and a crash at the end.

Usage: keyed_run.py RECIPE OUT
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from vivavoce.agents import open_agent
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.table import Member, Setting, hold_all
from vivavoce.config import load_recipe
from vivavoce.errors import AgentError
from vivavoce.protocols import debate_reflect
from vivavoce.records import Problem
from vivavoce.report import write_report
from vivavoce.run import Run, open_run
from vivavoce.tasks import open_task


async def hold(run: Run) -> None:
    recipe = run.recipe
    agents = [open_agent(spec.name, spec.backend, spec.options) for spec in recipe.teachers]
    members = tuple(Member(a, "teacher", s.sampling()) for a, s in zip(agents, recipe.teachers, strict=True))
    task = open_task(recipe.task.name, recipe.task.options)
    rules = debate_reflect.Options(max_rounds=2, ask_confidence=False)
    setting = Setting(debate_reflect.run, members, rules, prompt_set("general"), task, run.journal)
    graphs = await hold_all([Problem(f"q-{n}", f"What is {n} + 1?", str(n + 1)) for n in range(4)], setting)
    run.keep(run.path / "graphs" / "train.jsonl.gz", "test", graphs.write)
    try:
        await agents[0].reply([{"role": "user", "content": "crash"}], recipe.teachers[0].sampling(), 0)
    finally:
        for agent in agents:
            await agent.aclose()


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG)
    with open_run(Path(sys.argv[2]), load_recipe(Path(sys.argv[1]))) as opened:
        failure: AgentError | None = None
        try:
            asyncio.run(hold(opened))
        except AgentError as error:
            failure = error
        write_report(opened.path)
    if failure is not None:
        raise RuntimeError(f"{failure!r} {vars(failure)}") from failure
