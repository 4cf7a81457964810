"""A task of τ²-bench: the customer's wishes, and the criteria of success."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from vivavoce.environments.tau2.domain import read_json
from vivavoce.errors import DataError
from vivavoce.plugins import near
from vivavoce.records import ToolCall

R = TypeVar("R", bound=BaseModel)
W = TypeVar("W", bound="Wishes")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@dataclass(frozen=True, slots=True)
class Wishes:
    """The customer of a task."""

    id: str
    """Of the task."""
    reason: str
    """The reason for the call."""
    known: str
    unknown: str
    instructions: str
    """The customer's behaviour."""
    persona: str


@dataclass(frozen=True, slots=True)
class Scenario(Wishes):
    """The customer's wishes, and the expected outcome.

    The success of an episode is judged by the database that ``expected`` calls would leave, and by the facts to be
    ``to_tell`` to the customer. The official criteria state the latter as strings (``communicate_info``), and in retail
    name sentences for a model to judge (``nl_assertions``) in place of them. We take the strings for both, because a
    program can check them, and hand the sentences out in ``assertions``, which nothing here judges.
    """

    expected: tuple[ToolCall, ...]
    to_tell: tuple[str, ...]
    assertions: tuple[str, ...]


def read_scenarios(folder: Path) -> dict[str, Scenario]:
    """The tasks of a domain's folder by id, in their order. Raises DataError if its files cannot be read."""
    return {row.id: row.scenario() for row in read_rows(folder, _ROWS)}


def one_of(scenarios: Mapping[str, W], task: str, domain: str) -> W:
    """The scenario of a task. Raises DataError if the domain has no such task."""
    if task not in scenarios:
        hint = near(task, list(scenarios)[:20])
        raise DataError(f"there is no task {task!r}{hint}", domain, "take an id of tasks.json")
    return scenarios[task]


def read_rows(folder: Path, form: TypeAdapter[list[R]]) -> list[R]:
    """The tasks of a domain's folder, in the form that its domain has. Raises DataError if the file has another."""
    path = folder / "tasks.json"
    try:
        return form.validate_python(read_json(folder, path.name))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{place}: {first['msg']}", str(path), "give the official file") from None


def read_splits(folder: Path) -> dict[str, list[str]]:
    """Ids of tasks by split: ``train``, ``test``."""
    return read_json(folder, "split_tasks.json")


def untold(wanted: Sequence[str], spoken_text: str) -> list[str]:
    """The texts of ``wanted`` that were not said. Case does not count; a number is one however it is written
    (1,628.50 is 1628.5), and is not part of a longer one.
    """
    text = " ".join(_THOUSANDS.sub("", spoken_text).lower().split())
    numbers = {Decimal(number) for number in _NUMBER.findall(text)}
    return [one for one in wanted if not (Decimal(one) in numbers if _NUMBER.fullmatch(one) else one.lower() in text)]


class _Instructions(BaseModel):
    reason_for_call: str
    task_instructions: str
    known_info: str | None = None
    unknown_info: str | None = None


class UserRow(BaseModel):
    """The customer as the official files have them."""

    instructions: _Instructions
    persona: str | None = None

    def wishes(self, id: str) -> Wishes:
        """The customer of the task ``id``."""
        what = self.instructions
        return Wishes(
            id,
            what.reason_for_call.strip(),
            (what.known_info or "").strip(),
            (what.unknown_info or "").strip(),
            what.task_instructions.strip() if what.task_instructions.strip(" .") else "",
            (self.persona or "").strip(),
        )


class _Call(BaseModel):
    name: str
    arguments: dict[str, Any]


class _Criteria(BaseModel):
    actions: list[_Call] | None = None
    communicate_info: list[str] | None = None
    nl_assertions: list[str] | None = None
    reward_basis: list[Literal["DB", "COMMUNICATE", "NL_ASSERTION"]]


class _Row(BaseModel):
    id: str
    user_scenario: UserRow
    initial_state: None = None
    evaluation_criteria: _Criteria

    def scenario(self) -> Scenario:
        criteria, wishes = self.evaluation_criteria, self.user_scenario.wishes(self.id)
        judged = {"COMMUNICATE", "NL_ASSERTION"} & set(criteria.reward_basis)
        return Scenario(
            **asdict(wishes),
            expected=tuple(ToolCall(call.name, call.arguments) for call in criteria.actions or ()),
            to_tell=tuple(criteria.communicate_info or ()) if judged else (),
            assertions=tuple(criteria.nl_assertions or ()),
        )


_ROWS = TypeAdapter(list[_Row])

__all__ = ["Scenario", "UserRow", "Wishes", "one_of", "read_rows", "read_scenarios", "read_splits", "untold"]
