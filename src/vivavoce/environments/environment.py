"""The protocol of environments, and the record of an episode in one.

An episode is a prompt, then steps: the agent's action and the environment's answer. ``Episode.before(m)`` is the state
of step m: the agent's own earlier actions, the real observations, and nothing that came later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from vivavoce.records import Message, Node, Status, Tool, ToolCall, Usage, digest, node

Ended = Literal["done", "turns", "time", "no_action"]
"""The environment said so, a limit was met, or the agent's call failed for good."""


@dataclass(frozen=True, slots=True)
class Action:
    """An agent's action: its words, which are trained, and the calls read from them, in order."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    malformed: str = ""
    """The fault of calls that cannot be read; the environment tells the agent, and goes on."""
    status: Status = "ok"
    call: str | None = None
    """Journal key of the model call."""
    usage: Usage = Usage()  # noqa: RUF009 (frozen)
    """Tokens of that call."""
    ids: tuple[int, ...] = ()
    """The drawn token ids, as in ``Reply.ids``."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The messages that the agent reads next. ``done``: the episode is over, and there may be no messages."""

    messages: tuple[Message, ...]
    done: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits at which an episode ends though the goal was not reached."""

    turns: int = 30
    time_s: float = 600.0

    def __post_init__(self) -> None:
        assert min(self.turns, self.time_s) > 0, self


@runtime_checkable
class Environment(Protocol):
    """One world in which one episode at a time runs. Methods are async, because a simulated user may be a model.

    Equal tasks, seeds and actions give equal observations, so that an episode can be replayed.
    """

    name: str
    tools: tuple[Tool, ...]
    """On offer now; a reset may change them, and a step may add some."""
    tells_tools: bool
    """Whether the messages say what the tools are; otherwise they are offered beside the messages."""
    limits: Limits

    async def reset(self, task: str, seed: int) -> Observation:
        """Begin the task of this id. The first messages tell the agent all that it is to know of it."""
        ...

    async def step(self, action: Action) -> Observation:
        """Do the action. An action that makes no sense is answered with what is wrong, never with an exception."""
        ...

    def state(self) -> Any:
        """Everything that decides what happens next, as JSON."""
        ...

    def succeeded(self) -> bool | None:
        """Whether the goal is reached now; None if it cannot be told."""
        ...


@runtime_checkable
class Leavable(Protocol):
    """An environment that holds something open for each episode: a session, a process."""

    async def leave(self) -> None:
        """Let it go: the episode is over, be it by a limit of which the environment does not know."""
        ...


@runtime_checkable
class Guide(Protocol):
    """An environment that knows the best action. Nothing of it reaches a prompt: it is for measuring, and for
    reference episodes.
    """

    def best(self) -> tuple[str, ...]:
        """The actions that lead to the goal fastest from here, as text; the first one is the reference's."""
        ...


@runtime_checkable
class Demonstrator(Protocol):
    """An environment that can show one good way, if others may be as good. It is for reference episodes alone,
    because it does not say whether another action is worse. Nothing of it reaches a prompt before it was done.
    """

    def demonstrate(self) -> str:
        """The reference's next action, as text."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One action, its result, and the digest of the environment's state before it."""

    action: Action
    observation: Observation
    state: str
    best: tuple[str, ...] = ()
    """The actions that a :class:`Guide` would have taken."""


@dataclass(frozen=True, slots=True)
class Episode:
    """The record from a reset to the end."""

    environment: str
    task: str
    seed: int
    agent: str
    prompt: tuple[Message, ...]
    steps: tuple[Step, ...] = ()
    ended: Ended = "turns"
    success: bool | None = None

    def before(self, step: int) -> tuple[Message, ...]:
        """The messages that the agent had before its action ``step``: the state, and the prompt to train it on."""
        assert 0 <= step <= len(self.steps), f"step {step} of {len(self.steps)}"
        return tuple(message for message, _ in self._masked(step))

    def masked(self) -> tuple[tuple[Message, bool], ...]:
        """All messages in order; True for the agent's own actions, which alone are trained."""
        return tuple(self._masked(len(self.steps)))

    def key(self, step: int) -> str:
        """A key that is equal for two visits to the same state: the messages so far, and the world behind them."""
        return digest([self.environment, self.task, list(self.before(step)), self.steps[step].state])

    def nodes(self, sample: int = 0) -> tuple[Node, ...]:
        """The episode as nodes of a graph: ``round`` is the step, parents are what the agent had read.

        ``correct`` of the last one says whether the episode succeeded. The prompt is no node: it is the problem's.
        """
        nodes: list[Node] = []
        for index, step in enumerate(self.steps):
            earlier = tuple(n.id for n in nodes)
            action = step.action
            nodes.append(
                node(
                    "action",
                    self.task,
                    self.agent,
                    index,
                    action.text,
                    sample=sample,
                    parents=earlier,
                    status=action.status,
                    call=action.call,
                )
            )
            if (seen := "\n".join(m["content"] for m in step.observation.messages)) or step.observation.done:
                parents = (*earlier, nodes[-1].id)
                nodes.append(
                    node("observation", self.task, self.environment, index, seen, sample=sample, parents=parents)
                )
        if nodes:
            nodes[-1] = replace(nodes[-1], correct=self.success)
        return tuple(nodes)

    def _masked(self, end: int) -> list[tuple[Message, bool]]:
        masked = [(message, False) for message in self.prompt]
        for step in self.steps[:end]:
            masked.append(({"role": "assistant", "content": step.action.text}, True))
            masked += [(message, False) for message in step.observation.messages]
        return masked


__all__ = [
    "Action",
    "Demonstrator",
    "Ended",
    "Environment",
    "Episode",
    "Guide",
    "Leavable",
    "Limits",
    "Observation",
    "Step",
    "Tool",
    "ToolCall",
]
