"""The costs of a run so far, from its journal, at the prices of its recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vivavoce.agents.budget import FREE, Price, money
from vivavoce.agents.journal import Cost, Lent
from vivavoce.records import Usage


@dataclass(frozen=True, slots=True)
class CostLine:
    """The spend of one agent in one stage; hits cost nothing, and seconds are summed over calls side by side."""

    stage: str
    agent: str
    calls: int
    hits: int
    failures: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    money: float
    seconds: float


def lines(costs: Iterable[Cost], recipe: Mapping[str, Any]) -> list[CostLine]:
    """The ledger by stage and agent, priced as ``recipe`` (plain values) says."""
    prices = _prices(recipe)
    lines_made = [
        CostLine(
            c.stage,
            c.agent,
            c.calls,
            c.hits,
            c.failures,
            c.usage.prompt,
            c.usage.cached,
            c.usage.completion,
            prices.get(c.agent, FREE).of(c.usage),
            round(c.seconds, 3),
        )
        for c in costs
    ]
    return sorted(lines_made, key=lambda line: (line.stage, line.agent))


def _prices(recipe: Mapping[str, Any]) -> dict[str, Price]:
    agents = [*recipe.get("teachers", ()), *(recipe[key] for key in ("student", "user") if recipe.get(key))]
    agents += (recipe.get("judge") or {}).get("agents", ())
    return {a["name"]: Price.model_validate(a["price"]) for a in agents if a.get("price")}


def unfinished_calls(under_way: Iterable[tuple[str, int, Usage]], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The most that calls took of which no answer is written down: see :meth:`Journal.under_way`."""
    prices, cut = _prices(recipe), list(under_way)
    return {
        "calls": sum(calls for _, calls, _ in cut),
        "tokens": sum(most.prompt + most.completion for *_, most in cut),
        "money": sum(prices.get(agent, FREE).of(most) for agent, _, most in cut),
    }


def caps(recipe: Mapping[str, Any]) -> str:
    """The caps of a run, in words; empty if nothing is capped."""
    run = (recipe.get("budget") or {}).get("run") or {}
    currency = recipe.get("currency", "USD")
    forms = {"money": f"{{:,.2f}} {currency}", "tokens": "{:,} tokens", "calls": "{:,} calls", "seconds": "{:,.0f} s"}
    return ", ".join(form.format(run[kind]) for kind, form in forms.items() if run.get(kind) is not None)


def total(costs: Iterable[CostLine]) -> CostLine:
    """All lines in one."""
    rows = [asdict(line) for line in costs]
    numbers = {key: sum(row[key] for row in rows) for key in CostLine.__slots__ if key not in ("stage", "agent")}
    return CostLine("all", "", **numbers)


def lent_facts(lent: Iterable[Lent], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Calls that earlier runs have paid for, with their tokens, and the money at this recipe's prices."""
    prices, taken = _prices(recipe), list(lent)
    return {
        "calls": sum(one.calls for one in taken),
        "tokens": sum(one.usage.prompt + one.usage.completion for one in taken),
        "money": sum(prices.get(one.agent, FREE).of(one.usage) for one in taken),
    }


def lent_text(lent: Iterable[Lent], recipe: Mapping[str, Any]) -> str:
    """The same in a sentence without its end."""
    of = lent_facts(lent, recipe)
    worth = f" and {money(of['money'])} {recipe.get('currency', 'USD')}" if of["money"] else ""
    return f"{of['calls']:,} more calls were paid by earlier runs: {of['tokens']:,} tokens{worth}"


def facts(costs: Iterable[Cost], recipe: Mapping[str, Any], lent: Iterable[Lent] = ()) -> dict[str, Any]:
    """The ledger as plain values, for scripts and ``results.json``."""
    cost_lines = lines(costs, recipe)
    return {
        "currency": recipe.get("currency", "USD"),
        "lines": [asdict(line) for line in cost_lines],
        "total": {key: value for key, value in asdict(total(cost_lines)).items() if key not in ("stage", "agent")},
        "lent": lent_facts(lent, recipe),
    }


__all__ = ["CostLine", "caps", "facts", "lent_facts", "lent_text", "lines", "money", "total", "unfinished_calls"]
