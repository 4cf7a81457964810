"""A conversation of BFCL as an environment.

::

    action with calls ──▶ functions of the services ──▶ their results
    action of words   ──▶ the turn is judged        ──▶ the user's next message, or there is none: done
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from pydantic_core import to_json

from vivavoce.agents.call_text import write_call
from vivavoce.agents.replies import spoken
from vivavoce.environments.bfcl.conversations import Conversation
from vivavoce.environments.bfcl.service import call_service, judged_part, states_of
from vivavoce.environments.environment import Action, Limits, Observation
from vivavoce.errors import DataError
from vivavoce.plugins import near
from vivavoce.records import Message, Tool, ToolCall

_MORE = "You can call more functions now. Please do it with them."


@dataclass(frozen=True, slots=True)
class ExpectedTurn:
    """The state that a turn's expected calls leave, and their results."""

    states: dict[str, Any]
    results: list[Any]


class SeveralTurns:
    """Conversations as an :class:`~vivavoce.environments.environment.Environment` that shows one way through each.

    The functions on offer change: each conversation has those of its own services, and in ``miss_func`` some are given
    only in a later turn. A turn ends when the agent says something without a call. It is right if the judged state of
    every service equals the one that the expected calls leave, and the results of the turn's expected calls are among
    those that the agent has had so far. If calls are expected, at least one has to be made. An episode succeeds if
    every turn is right.

    Args:
        conversations: Conversations by their ids, which are the tasks
            (:func:`~vivavoce.environments.bfcl.conversations.read_conversations`).
        limits: Limits of an episode.
        actions: The largest number of actions in one turn; after them the episode is over. Upstream has 20.
    """

    name = "bfcl_multi_turn"
    tells_tools = False

    def __init__(
        self,
        conversations: Mapping[str, Conversation],
        limits: Limits = Limits(turns=200),  # noqa: B008 (frozen)
        actions: int = 20,
    ) -> None:
        self.conversations, self.limits, self._most = conversations, limits, actions
        self.tools: tuple[Tool, ...] = ()
        self._outcomes: dict[str, list[ExpectedTurn]] = {}

    async def reset(self, task: str, seed: int) -> Observation:
        """The user's first message. Raises DataError if there is no such conversation."""
        if task not in self.conversations:
            hint = near(task, list(self.conversations)[:20])
            raise DataError(f"there is no task {task!r}{hint}", self.name, "take an id of the official file")
        self._talk = self.conversations[task]
        self._services, self._results, self._amiss = self._talk.fresh_services(), list[Any](), list[str]()
        self._turn = -1
        return self._next()

    async def step(self, action: Action) -> Observation:
        """Call the functions, or end the turn."""
        self._taken += 1
        if action.malformed or action.calls:
            answers = [f"Error: {action.malformed}"] if action.malformed else [*map(self._answer, action.calls)]
            return Observation(tuple(map(_tool, answers)), done=self._taken >= self._most)
        self._judge(spoken(action.text))
        return self._next()

    def state(self) -> Any:
        """The services, and how far the conversation is."""
        states = states_of(self._services)
        return {"turn": self._turn, "actions": self._taken, "services": states, "amiss": self._amiss}

    def succeeded(self) -> bool | None:
        """Whether every turn is over, and nothing :meth:`amiss`."""
        return self._turn == len(self._talk.turns) and not self._amiss

    def demonstrate(self) -> str:
        """The next of the turn's expected calls, those of one function in a row together; else words. Other orders, and
        other ways to the same results, are as good."""
        turn = self._talk.turns[self._turn]
        if wanted := turn.expected[self._ahead :]:
            return "\n".join(write_call(call) for call in takewhile(lambda one: one.name == wanted[0].name, wanted))
        return "It is done." if turn.expected else "For that something is missing."

    def amiss(self) -> list[str]:
        """The faults of each turn."""
        return list(self._amiss)

    def outcomes(self, talk: Conversation) -> list[ExpectedTurn]:
        """The outcomes of each turn's expected calls."""
        if talk.id not in self._outcomes:
            services, outcomes = talk.fresh_services(), list[ExpectedTurn]()
            for turn in talk.turns:
                results = [call_service(services, call) for call in turn.expected]
                outcomes.append(ExpectedTurn(judged_part(states_of(services)), results))
            self._outcomes[talk.id] = outcomes
        return self._outcomes[talk.id]

    def _next(self) -> Observation:
        self._turn, self._taken, self._called, self._ahead = self._turn + 1, 0, False, 0
        if self._turn == len(self._talk.turns):
            return Observation((), done=True)
        self.tools = self._talk.functions_in(self._turn)
        text = self._talk.turns[self._turn].text or _MORE
        return Observation(({"role": "user", "content": text},))

    def _answer(self, call: ToolCall) -> str:
        if call.name not in {tool.name for tool in self.tools}:
            return to_json({"error": f"there is no function {call.name!r}"}).decode()
        self._called = True
        self._ahead += call in self._talk.turns[self._turn].expected[self._ahead : self._ahead + 1]
        self._results.append(result := call_service(self._services, call))
        return to_json(result).decode()

    def _judge(self, words: str) -> None:
        outcome = self.outcomes(self._talk)[self._turn]
        calls = self._talk.turns[self._turn].expected
        off = [
            f"{name} is not as it should be"
            for name, state in judged_part(states_of(self._services)).items()
            if state != outcome.states[name]
        ]
        if calls and not self._called:
            off.append("nothing was called")
        if not calls and not words.strip():  # a thought that was cut off says of nothing that it is missing
            off.append("nothing was said")
        unmatched = list(self._results)
        for call, result in zip(calls, outcome.results, strict=True):
            if result in unmatched:
                unmatched.remove(result)
            else:
                off.append(f"nothing returned what {call.name} was to return")
        self._amiss += [f"turn {self._turn + 1}: {one}" for one in off]


def _tool(content: str) -> Message:
    return {"role": "tool", "content": content}


__all__ = ["ExpectedTurn", "SeveralTurns"]
