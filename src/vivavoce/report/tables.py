"""A table of questions as a page reads it: ids, groups, and a column of letters for each agent that answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vivavoce.report.comparison import final_arm
from vivavoce.report.sources import Sources


def table_of(
    of: str,
    ids: Sequence[str],
    groups: Sequence[str],
    columns: Sequence[tuple[Mapping[str, Any], str]],
    tokens: Sequence[int],
) -> dict[str, Any]:
    """The set ``of``: of each column what it is, and its letters (:mod:`vivavoce.report.verdicts`)."""
    names = list(dict.fromkeys(groups))
    at = {name: i for i, name in enumerate(names)}
    return {
        "of": of,
        "ids": list(ids),
        "groups": names,
        "group": [at[g] for g in groups],
        "tokens": list(tokens) if any(tokens) else None,
        "columns": [{"label": label, "letters": letters} for label, letters in columns],
    }


def about(sources: Sources, sets: Mapping[str, int]) -> dict[str, Any]:
    """The sets of a run by their sizes, and what is known of its arms."""
    results = sources.results or {"arms": [], "paired": []}
    also = {arm["name"]: arm for other in results.get("also", {}).values() for arm in other["arms"]}
    arms = {**{arm["name"]: arm for arm in results["arms"]}, **also}
    return {
        "sets": [{"key": of, "n": n} for of, n in sets.items()],
        "student": sources.student,
        "main": final_arm(results, sources.recipe.get("method")),
        "arms": [{key: arm.get(key) for key in ("name", "family", "accuracy")} for arm in arms.values()],
    }


def head_of(question: str, characters: int = 240) -> str:
    """The beginning of a question in one line."""
    return " ".join(question[: 2 * characters].split())[:characters]


__all__ = ["about", "head_of", "table_of"]
