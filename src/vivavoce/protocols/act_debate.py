"""A debate over an agent's next action: the committee reads what the agent had read, and proposes actions.

Paper: arXiv:2605.01347 (OPAD). It proceeds like the debate over a state, with another template.
"""

from __future__ import annotations

from typing import ClassVar

from vivavoce.committee.table import Table
from vivavoce.protocols import state_debate
from vivavoce.records import Problem


class Options(state_debate.Options):
    """Settings of the debate (defaults are the paper's)."""

    templates: ClassVar[tuple[str, ...]] = ("act",)
    turn: ClassVar[str] = "act"
    protocol: str = "act_debate"


async def run(question: Problem, table: Table) -> str:
    return await state_debate.run(question, table)
