"""The progress of a run that a cap stopped, and the expected cost of the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vivavoce.committee.rehearsal import Planned
from vivavoce.methods.measured import Measured, measured_run
from vivavoce.run import Run, Standing


def missing(run: Run, plan: Callable[[Any, Measured], list[Planned]]) -> dict[str, Any]:
    """The progress and spend of the run, and the expected rest, by the measured calls so far."""
    at, account = run.standing or Standing("", 0), run.journal.ledger.run
    planned, lent = plan(run.recipe, measured_run(run.path)), run.journal.lent()

    def left(of: str, spent: float) -> float:
        return max(0.0, sum(getattr(p, of).expected for p in planned) - spent)

    tokens = sum(p.prompt_tokens.expected + p.completion_tokens.expected for p in planned)
    tokens -= sum(one.usage.prompt + one.usage.completion for one in lent)
    saved = sum(run.journal.ledger.cost(one.agent, one.usage) for one in lent)
    return {
        "stage": at.title,
        "done": at.done,
        "of": at.total,
        "spent": {"money": account.money, "tokens": account.tokens, "calls": account.calls},
        "left": {
            "money": left("money", account.money + saved),
            "tokens": round(max(0.0, tokens - account.tokens)),
            "calls": round(left("calls", account.calls + sum(one.calls for one in lent))),
        },
        "seconds": round(account.seconds(), 1),
    }
