"""Debates among scripted agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.debate.scripts import SUM, Script

from vivavoce.agents.journal import Call, Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.table import Member, Setting
from vivavoce.committee.table import hold as hold_one
from vivavoce.graph import Graph
from vivavoce.protocols import debate_reflect
from vivavoce.records import Problem, Sampling
from vivavoce.tasks import open_task

Debate = Callable[..., Graph]


@pytest.fixture
def calls() -> list[Call]:
    """Every call of every debate that the test held."""
    return []


@pytest.fixture
def hold(tmp_path: Path, calls: list[Call]) -> Debate:
    """``hold({"a": script, …}, script of the student, **rules)``: the graph of one debate about 2 + 2."""

    def hold(
        teachers: dict[str, Script],
        pupil: Script | None = None,
        problem: Problem = SUM,
        samples: int = 1,
        **rules: object,
    ) -> Graph:
        members = [Member(Scripted(n, s), "teacher", Sampling()) for n, s in teachers.items()]
        if pupil is not None:
            members.append(Member(Scripted("student", pupil), "student", Sampling(), samples))
        checked = debate_reflect.Options.model_validate(rules)
        with Journal(tmp_path / f"journal-{len(calls)}.sqlite") as journal:
            setting = Setting(
                debate_reflect.run,
                tuple(members),
                checked,
                prompt_set(checked.prompts),
                open_task("gsm8k", {}),
                journal,
                count=lambda text: len(text.split()),
            )
            graph = asyncio.run(hold_one(problem, setting))
            calls.extend(journal)
        graph.check()
        return graph

    return hold
