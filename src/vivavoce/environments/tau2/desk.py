"""A service desk of τ²-bench as an environment.

::

    action with calls ──▶ tools over the records ──▶ their answers
    action of words   ──▶ the customer            ──▶ their words, or they hang up: done
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

from vivavoce.agents.call_text import write_call
from vivavoce.agents.replies import spoken
from vivavoce.environments.environment import Action, Limits, Observation, ToolCall
from vivavoce.environments.functions import Toolbox
from vivavoce.environments.tau2.domain import Domain
from vivavoce.environments.tau2.records import Records, Tables
from vivavoce.environments.tau2.scenario import Scenario, one_of, read_scenarios, read_splits, untold
from vivavoce.environments.tau2.users import TRANSFER, WELCOME, ScriptedUser, User
from vivavoce.errors import AgentError, DataError
from vivavoce.records import Message


class Tau2:
    """One domain as an :class:`~vivavoce.environments.environment.Environment`.

    The policy is the system message; the customer opens. The customer hears an action's words only if it calls no tool,
    as the policies demand. The episode ends when the customer hangs up, or when the agent has spoken after handing them
    to a human; before that it has no success, as upstream has it.

    It shows one way (:class:`~vivavoce.environments.environment.Demonstrator`): a question, the task's expected calls
    in their order, the customer asked before each that changes something, and at the end the facts to be told. That way
    may know things that the customer has not said yet.

    Args:
        domain: :data:`~vivavoce.environments.tau2.retail.RETAIL` or
            :data:`~vivavoce.environments.tau2.airline.AIRLINE`.
        data: Folder of the official data, which holds ``retail/`` and ``airline/``.
        user: The customer; None: :class:`~vivavoce.environments.tau2.users.ScriptedUser`.
        limits: Limits of an episode.

    Raises DataError if a file cannot be read.
    """

    tells_tools = False

    def __init__(
        self,
        domain: Domain,
        data: Path,
        user: User | None = None,
        limits: Limits = Limits(turns=100),  # noqa: B008 (frozen)
    ) -> None:
        folder = data / domain.folder
        self.name, self.domain, self.limits = domain.name, domain, limits
        self.scenarios = read_scenarios(folder)
        self.splits = read_splits(folder)
        self._tables: Tables = domain.tables(folder)
        self.policy = _read_text(folder / "policy.md")
        self._user: User = user or ScriptedUser()
        self._toolbox = Toolbox[Records](domain.functions)
        self.tools = self._toolbox.tools
        self._expected: dict[str, tuple[dict[str, Any], list[str]]] = {}

    def beside(self, user: User | None = None) -> Tau2:
        """Another desk over the same data, so that two episodes run at once; ``user``: with another customer."""
        other = copy(self)
        other._user = user or self._user
        return other

    async def reset(self, task: str, seed: int) -> Observation:
        """The policy, and the customer's first words. Raises DataError if there is no such task."""
        self._scenario, self._seed = one_of(self.scenarios, task, self.name), seed
        self._records, self._talk, self._made = Records(self._tables), list[Message](), list[ToolCall]()
        self._transferred = self._unplayed = self._over = False
        opening = await self._customer_speaks()
        return Observation(({"role": "system", "content": self.policy}, *opening.messages), opening.done)

    async def step(self, action: Action) -> Observation:
        """Call the tools, or speak to the customer."""
        if answers := self._toolbox.answers(self._records, action):
            self._made += action.calls
            self._transferred |= any(call.name == TRANSFER for call in action.calls)
            return Observation(answers)
        self._talk.append({"role": "assistant", "content": spoken(action.text)})
        if not self._transferred:
            return await self._customer_speaks()
        self._over = True
        return Observation((), done=True)

    def state(self) -> Any:
        """The changes of the database, and the talk."""
        return {"changes": self._records.changes(), "talk": self._talk, "transferred": self._transferred}

    def succeeded(self) -> bool | None:
        """Whether the talk is over and nothing is :meth:`amiss`; None if the customer's model failed."""
        return None if self._unplayed else self._over and not self.amiss()

    def demonstrate(self) -> str:
        """The next expected call, or the words that go before it; after all of them, the facts to be told."""
        spoken_texts = [m["content"] for m in self._talk if m["role"] == "assistant"]
        if not spoken_texts:
            return WELCOME
        expected, done = self._scenario.expected, 0
        for call in self._made:
            done += done < len(expected) and call == expected[done]
        if done == len(expected):
            return " ".join(["Done.", *self._scenario.to_tell])
        question, call = _confirmation(expected[done]), expected[done]
        return write_call(call) if question in spoken_texts[-1:] or not self._changes(expected, done) else question

    def _changes(self, calls: Sequence[ToolCall], at: int) -> bool:
        """Whether a call, after those before it, changes the database."""
        records = self.records()
        for call in calls[:at]:
            self.try_call(records, call)
        before = records.changes()
        return self.try_call(records, calls[at]) is None and records.changes() != before

    def amiss(self) -> list[str]:
        """The faults: records that differ, and facts that were not told."""
        wanted, _ = self.expected_changes(self._scenario)
        changed = self._records.changes()
        off = [
            f"{table.removesuffix('s')} {id} is not as it should be"
            for table in sorted(wanted.keys() | changed.keys())
            for id in sorted(wanted.get(table, {}).keys() | changed.get(table, {}).keys())
            if wanted.get(table, {}).get(id) != changed.get(table, {}).get(id)
        ]
        spoken_text = "\n".join(message["content"] for message in self._talk if message["role"] == "assistant")
        return off + [f"{one!r} was not told" for one in untold(self._scenario.to_tell, spoken_text)]

    def expected_changes(self, scenario: Scenario) -> tuple[dict[str, Any], list[str]]:
        """The changes that the expected calls make, and which of the calls fail and so change nothing."""
        if scenario.id not in self._expected:
            records, failed = Records(self._tables), list[str]()
            for call in scenario.expected:
                if (error := self.try_call(records, call)) is not None:
                    failed.append(f"{call.name}: {error}")
            self._expected[scenario.id] = records.changes(), failed
        return self._expected[scenario.id]

    def try_call(self, records: Records, call: ToolCall) -> str | None:
        """Make a call; returns what is wrong with it, if anything."""
        try:
            self._toolbox.call(records, call)
        except (ValueError, LookupError, ArithmeticError) as error:
            return str(error)
        return None

    def records(self) -> Records:
        """The database as it is at first."""
        return Records(self._tables)

    async def _customer_speaks(self) -> Observation:
        try:
            reply = await self._user.says(self._scenario, self._talk, self._seed)
        except AgentError:  # the failure is in the journal; there is no customer to talk to
            self._unplayed = True
            return Observation((), done=True)
        message: Message = {"role": "user", "content": reply.text}
        self._talk.append(message)
        self._over = reply.ends or not reply.text  # who says nothing has gone
        return Observation((message,) if reply.text else (), done=self._over)


def _confirmation(call: ToolCall) -> str:
    """What a customer is asked before a call is made."""
    arguments = (
        f"{name.replace('_', ' ')}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in call.arguments.items()
    )
    return f"I would {call.name.replace('_', ' ')} ({'; '.join(arguments)}). Shall I go ahead?"


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror}", str(path), "give the official data") from error


__all__ = ["Tau2"]
