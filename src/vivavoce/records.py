"""The nouns that travel between rooms: problems, messages, replies, nodes, graphs, training rows, results.

Frozen standard-library dataclasses; this module imports nothing of ours and nothing heavy. JSON enters and leaves
through :func:`to_json` and :func:`from_json`, which validate every field.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, TypeVar

from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

Status = Literal["ok", "no_answer", "out_of_range", "truncated", "empty", "unjudged", "error", "over_budget"]
"""The outcome of a call. ``error``: it failed for good. ``over_budget``: it was not made, because the cap of its
question left no room. ``unjudged``: no judge gave a verdict on the answer that can be read, so that it is neither right
nor wrong. The other words say how far the text could be read.
"""
GOLD = "gold"
"""Stands for the right answer in a prompt's quotes, in place of a node's id."""
T = TypeVar("T")


class Message(TypedDict):
    """One chat message, in the form that every chat template and endpoint reads."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its checked answer.

    ``gold`` is the canonical final answer. It reaches a prompt only if a recipe asks for it. Every node whose prompt
    held it, even through another node's text, says so (``Node.saw_gold``).
    """

    id: str
    question: str
    gold: str
    group: str = ""
    """Subject or skill, for tables by group."""
    history: tuple[Message, ...] = ()
    """The messages that the agent in an environment had by then, if the question is what to do next."""


@dataclass(frozen=True, slots=True)
class Grade:
    """A grader's verdict on one text. ``correct`` is None if the text cannot be graded: ungradable is never silently
    false.
    """

    answer: str | None
    correct: bool | None
    status: Status = "ok"
    reason: str = ""
    """The reason why ``correct`` is None; for a program that did not pass, how it ended."""
    score: float | None = None
    """The mean of what judges gave the answer; None if none judged it, or half of them cannot be read."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that an agent may call. ``parameters`` is a JSON schema of type ``object``."""

    name: str
    description: str
    parameters: dict[str, Any]

    def schema(self) -> dict[str, Any]:
        """The form of OpenAI's ``tools``, which chat templates read too."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of a draw of a reply. ``temperature`` 0 is greedy."""

    temperature: float = 0.3
    top_p: float = 1.0
    max_new_tokens: int = 1000
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    """Ask for the log-probability of every token of the reply (at temperature 1, in nats)."""
    tools: tuple[Tool, ...] = ()
    """Tools that are offered in the endpoint's own form; only to agents that take them
    (:func:`vivavoce.agents.takes_tools`).
    """
    top_k: int = 0
    """Draw only from so many of the likeliest tokens; 0: from all."""
    repetition_penalty: float = 1.0
    """Logits of tokens that stand in the prompt or reply already are divided by it if positive, else multiplied."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt + other.prompt, self.completion + other.completion, self.cached + other.cached)


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a reply: the text it adds and its log-probability in nats at temperature 1."""

    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Reply:
    """An agent's answer to one call. The texts of ``tokens``, joined, are ``text``."""

    text: str
    """The answer without the thought, which is in ``thought`` (:mod:`vivavoce.agents.replies`)."""
    finish: Literal["stop", "length", "filter"] = "stop"
    usage: Usage = Usage()
    model: str = ""
    """The model as the backend names it. An endpoint may serve another model than was asked for."""
    tokens: tuple[Token, ...] | None = None
    latency_s: float = 0.0
    wasted: Usage = Usage()
    """Tokens of earlier answers to the same call that could not be used. They are paid for, and no part of the reply.
    """
    thought: str = ""
    """The thought before the answer. Only an audit reads it."""
    ids: tuple[int, ...] = ()
    """The tokens that it drew, end of turn included, if ``text`` would be cut into other tokens. A model in this
    process tells them, for training on its own answers.
    """

    @property
    def cut(self) -> bool:
        """Whether its token limit or the endpoint's filter ended it before it was whole."""
        return self.finish != "stop"


@dataclass(frozen=True, slots=True)
class Quote:
    """A part of a prompt that repeats a node, or the right answer (``node`` is then :data:`GOLD`)."""

    node: str
    text: str
    """The text as the prompt prints it: the node's, or the part that a context budget left."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages that an agent was asked with, part by part. Made by :func:`prompt`.

    The parts of a message, joined, are its content. A part is either text of the template and the question, or a
    :class:`Quote`. ``template`` and ``reads`` say how the prompt was made: by which template, and from which nodes (the
    protocol's options may hide some of them from the reader).
    """

    id: str
    template: str
    reads: tuple[str, ...]
    messages: tuple[tuple[str, tuple[str | Quote, ...]], ...]
    """``(role, parts)`` of each message."""

    @property
    def chat(self) -> list[Message]:
        """The messages as an agent reads them."""
        return [
            {"role": role, "content": "".join(p if isinstance(p, str) else p.text for p in parts)}
            for role, parts in self.messages
        ]

    @property
    def quotes(self) -> tuple[str, ...]:
        """Ids of the nodes whose text the prompt prints, in order of first print."""
        shown = (p.node for _, parts in self.messages for p in parts if isinstance(p, Quote) and p.node != GOLD)
        return tuple(dict.fromkeys(shown))

    @property
    def shows_gold(self) -> bool:
        """Whether the right answer itself is printed."""
        return any(isinstance(p, Quote) and p.node == GOLD for _, parts in self.messages for p in parts)


def prompt(template: str, reads: tuple[str, ...], messages: tuple[tuple[str, tuple[str | Quote, ...]], ...]) -> Prompt:
    """A prompt with its content hash: equal prompts are stored once."""
    content = [template, *reads]
    for role, parts in messages:
        content += ("", role)
        for p in parts:  # lengths keep the parts apart; canonical JSON would take ten times as long
            content += ("", str(len(p)), p) if isinstance(p, str) else (p.node, str(len(p.text)), p.text)
    return Prompt(hashlib.sha256("\0".join(content).encode()).hexdigest()[:16], template, reads, messages)


def after_system(whole: Prompt, text: str) -> Prompt:
    """The prompt with ``text`` before it: at the beginning of its system message, or as one if it has none."""
    if not text:
        return whole
    (role, parts), *rest = whole.messages
    system = [("system", (f"{text}\n\n", *parts))] if role == "system" else [("system", (text,)), (role, parts)]
    return prompt(whole.template, whole.reads, (*system, *rest))


@dataclass(frozen=True, slots=True)
class Node:
    """One text that an agent wrote. Made by :func:`node`, which derives ``id`` from the content.

    ``parents`` are exactly the nodes whose text is in its prompt. ``target`` is the answer that a critique, reflection
    or review is about. ``prompt`` names the prompt in the graph (:meth:`vivavoce.graph.Graph.asked`), and ``call`` is
    the journal key of the model call that produced the text. Nothing is keyed by provider.
    """

    id: str
    kind: str
    """``answer``, ``critique``, ``reflection``, ``rationale``, ``review``, ``action``, ``observation``, or a kind that
    a protocol of your own names.
    """
    problem: str
    agent: str
    round: int
    sample: int
    parents: tuple[str, ...]
    text: str
    target: str | None = None
    answer: str | None = None
    correct: bool | None = None
    status: Status = "ok"
    confidence: float | None = None
    """The confidence that the agent stated, 0 to 1; None if it stated none."""
    probability: float | None = None
    """The probability of the answer by the model's own log-probabilities, 0 to 1; None if the backend gives none."""
    score: float | None = None
    saw_gold: bool = False
    """Whether the prompt printed the right answer, or a text whose author saw it."""
    call: str | None = None
    usage: Usage = Usage()
    error: str | None = None
    prompt: str | None = None

    @property
    def absent(self) -> bool:
        """Whether there is no text, because the call failed for good or was not made."""
        return self.status in ("error", "over_budget")


def node(
    kind: str,
    problem: str,
    agent: str,
    round: int,
    text: str,
    *,
    sample: int = 0,
    parents: tuple[str, ...] = (),
    target: str | None = None,
    **rest: Any,
) -> Node:
    """A node with its content hash: equal content gives equal ids, on every machine and in every run."""
    content = [kind, problem, agent, round, sample, sorted(parents), target, text, rest.get("error")]
    return Node(digest(content)[:16], kind, problem, agent, round, sample, parents, text, target=target, **rest)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool, read from an agent's reply."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Completion:
    """One continuation of a context, and the node that it comes from."""

    text: str
    source: str
    ids: tuple[int, ...] = ()
    """The tokens that the student drew for it, as in ``Reply.ids``."""


@dataclass(frozen=True, slots=True)
class Example:
    """A supervised row: after ``prompt`` the student should write ``completion``."""

    problem: str
    prompt: tuple[Message, ...]
    completion: str
    source: tuple[str, ...]
    """Ids of the nodes that it came from."""
    stream: str = "answer"
    """The task that the student learns: to ``answer``, or (peer review) to give ``feedback``."""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Tree:
    """One branching of a preference tree: a context, with right and wrong continuations.

    The context is ``prompt`` and then ``prefix``, the part of the assistant's answer that right and wrong share.
    ``prefix`` is empty if the tree branches at the answer, as published. ``complete`` says that the continuations end
    the answer, so that the end-of-turn token belongs to them; a step in the middle of an answer does not.
    """

    id: str
    problem: str
    prompt: tuple[Message, ...]
    chosen: tuple[Completion, ...]
    rejected: tuple[Completion, ...]
    prefix: str = ""
    complete: bool = True
    round: int = 0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class View:
    """The prompt that one scorer reads in a state in place of the student's, and the weight of its opinion."""

    messages: tuple[Message, ...]
    weight: float
    """0 leaves the scorer out; the weights of a state's views sum to 1."""


@dataclass(frozen=True, slots=True)
class State:
    """One state in which the student acts, and what each of its scorers reads there beyond it.

    The student reads ``prompt`` and nothing else; ``views`` are in the order of the scorers.
    """

    problem: str
    prompt: tuple[Message, ...]
    views: tuple[View, ...]
    recorded: tuple[Completion, ...] = ()
    """Recorded answers to learn from off-policy, from any agent."""
    source: tuple[str, ...] = ()
    """Ids of the nodes that the views quote."""
    weight: float = 1.0
    """The weight of the state among those of an update."""
    group: str = ""
    """States of one group stay together in training: those of an episode begin alike, and are computed as one."""


@dataclass(frozen=True, slots=True)
class Stand:
    """One agent's answer in one round of a discussion, and whether it was right."""

    text: str
    """The answer, empty if none could be read."""
    label: Literal["right", "wrong", "missing"]
    source: str = ""
    """Id of the node."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """A discussion as a graph to learn from (MAGDi): one stand for each agent and round, and which stands each author
    had read.
    """

    problem: str
    prompt: tuple[Message, ...]
    """The plain question, as the student is asked."""
    stands: tuple[Stand, ...]
    edges: tuple[tuple[int, int], ...]
    """``(from, to)``, indices of ``stands``: the author of ``to`` had read ``from``."""
    weight: float = 1.0


def to_json(record: Any) -> str:
    """One line of JSON, keys in declaration order, text unescaped, so that equal records give equal bytes.

    ``content`` may hold records anywhere: in tuples, lists and dictionaries. Texts are :func:`storable`.
    """
    return storable(_line(record))


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


def _by_name(record: Any) -> dict[str, Any]:
    """A record as a dictionary for JSON's encoder, without the deep copy of `asdict`, in a third of its time."""
    return {name: getattr(record, name) for name in _names(type(record))}


def storable(text: str) -> str:
    """The text in a form that any file can hold.

    Halves of a surrogate pair that are neighbours become their character. A half without the other is no character and
    becomes U+FFFD. All other characters are kept.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def all_storable(value: Any) -> Any:
    """Plain JSON content with every text in it made :func:`storable`, keys included."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(key): all_storable(one) for key, one in value.items()}
    return [all_storable(one) for one in value] if isinstance(value, list) else value


_line = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_by_name).encode
canonical = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
"""The one JSON of plain content that is hashed: keys sorted, no spaces, text unescaped."""


@cache
def _adapter(cls: type) -> Any:
    from pydantic import TypeAdapter  # here, so that importing the nouns stays instant

    return TypeAdapter(cls)


def from_json(cls: type[T], line: str | bytes) -> T:
    """The record that ``line`` holds. Raises ``pydantic.ValidationError`` if a field is missing or ill-typed."""
    return _adapter(cls).validate_json(line)


def digest(content: Any) -> str:
    """SHA-256 in hex of the canonical JSON of ``content``."""
    return hashlib.sha256(storable(canonical(content)).encode()).hexdigest()


def seed_of(*parts: str | int) -> int:
    """A seed below 2**31 derived by stable hash, so that no draw depends on what else runs or in which order."""
    return int(digest(list(parts))[:8], 16) >> 1


__all__ = [
    "GOLD",
    "Completion",
    "Example",
    "Grade",
    "Interaction",
    "Message",
    "Node",
    "Problem",
    "Prompt",
    "Quote",
    "Reply",
    "Sampling",
    "Stand",
    "State",
    "Status",
    "Token",
    "Tool",
    "ToolCall",
    "Tree",
    "Usage",
    "View",
    "after_system",
    "all_storable",
    "canonical",
    "digest",
    "from_json",
    "node",
    "prompt",
    "seed_of",
    "storable",
    "to_json",
]
