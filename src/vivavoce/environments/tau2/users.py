"""The customer of a service: one with a few fixed sentences, or a model that plays one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from vivavoce.agents import Agent
from vivavoce.agents.journal import Journal
from vivavoce.environments.tau2.scenario import Scenario, Wishes
from vivavoce.errors import AgentError
from vivavoce.records import Message, Reply, Sampling, seed_of


class Said(NamedTuple):
    """A customer's next words; ``ends``: and then hangs up."""

    text: str
    ends: bool = False


class User(Protocol):
    """A customer. Equal arguments give equal words, as far as a model allows."""

    async def says(self, scenario: Scenario, talk: Sequence[Message], seed: int) -> Said:
        """The next words after ``talk``: the customer's own words in it are ``user``, the agent's are ``assistant``.

        Raises AgentError if a model plays the customer and its call failed for good.
        """
        ...


@dataclass(frozen=True)
class ScriptedUser:
    """A customer of fixed sentences. They say why they call and their name; then, after any question, their
    preferences; then they agree to everything that is asked. They hang up when nothing is asked.

    It is no conversation of people, but it costs nothing and is the same each time.
    """

    agrees: str = "Yes, please go ahead."
    thanks: str = "Thank you, that is all."

    async def says(self, scenario: Scenario, talk: Sequence[Message], seed: int) -> Said:
        """The next sentence."""
        turn = sum(message["role"] == "user" for message in talk)
        if turn == 0:
            return Said(opening(scenario))
        if "?" not in talk[-1]["content"]:
            return Said(self.thanks, ends=True)
        if turn == 1 and (words := _join(scenario.unknown, scenario.instructions)):
            return Said(in_first_person(words))
        return Said(self.agrees)


def opening(scenario: Wishes) -> str:
    """The first words of a scripted customer: why they call, and what they know of themselves."""
    return in_first_person(_join(scenario.reason, scenario.known))


TRANSFER = "transfer_to_human_agents"
"""The tool by which an agent hands the customer to another person."""
WELCOME = "Certainly. Is there anything else that I should know?"
"""The first words of an agent that shows how a task is solved."""
END = "<hangs up>"
"""The words by which a model that plays a customer hangs up."""
_PLAYED = f"""\
You play a customer who talks to the service of a company. Somebody else plays the agent of that service.

- Say one thing at a time, in your own words, as a person would; never recite what stands below.
- Answer what you are asked. Do not tell everything at once.
- You know what stands below and nothing else. What does not stand there you do not know; never invent it.
- Stay with what you want until it is done or clearly refused. When it is, or you are handed to another person, end with
  {END} on a line of its own.
"""


class Player:
    """A model that plays a customer, by any backend. Each call is in the journal, under the stage ``user``."""

    def __init__(self, agent: Agent, journal: Journal, sampling: Sampling | None = None) -> None:
        self._agent, self._journal, self._sampling = agent, journal, sampling or Sampling(temperature=0.0)

    async def reply_to(self, messages: Sequence[Message], task: str, turn: int, seed: int) -> Reply:
        """The model's reply in the customer's ``turn`` of a task. Raises AgentError if the call failed for good."""
        seed = seed_of(seed, task, "user", turn)
        answered = await self._journal.call(self._agent, messages, self._sampling, seed, stage="user", problem=task)
        if answered.reply is None:
            raise answered.error or AgentError("server", "no reply and no reason")
        return answered.reply


def begin(system: str) -> list[Message]:
    """The first messages for a model that plays a customer: its part, and the greeting of the service."""
    return [{"role": "system", "content": system}, {"role": "user", "content": "Hello, how can I help you?"}]


def until_end(text: str, reply: Reply) -> Said:
    """The words of a reply's text before :data:`END`.

    A customer that thinks and says nothing has not hung up: that is a failed call, which raises AgentError.
    """
    words, end, _ = text.partition(END)
    if not words.strip() and not end and reply.thought:
        raise AgentError("empty", "the customer thought until their words were used up")
    return Said(words.strip(), bool(end))


class PlayedUser(Player):
    """A customer whom a model plays."""

    async def says(self, scenario: Scenario, talk: Sequence[Message], seed: int) -> Said:
        """The model's words before :data:`END`, without its thought."""
        messages = begin(f"{_PLAYED}\n{part_text(scenario)}")
        other = {"user": "assistant", "assistant": "user"}
        messages += [Message(role=other[message["role"]], content=message["content"]) for message in talk]
        reply = await self.reply_to(messages, scenario.id, len(talk), seed)
        return until_end(reply.text, reply)


def part_text(scenario: Wishes) -> str:
    """The part that a model plays, as its system message has it."""
    parts = {
        "Who you are": scenario.persona,
        "Why you call": scenario.reason,
        "What you know": scenario.known,
        "What you do not know": scenario.unknown,
        "How you behave": scenario.instructions,
    }
    return "\n\n".join(f"{title}:\n{text}" for title, text in parts.items() if text)


def _join(*texts: str) -> str:
    return " ".join(filter(None, texts))


_PERSONS = [
    (r"\byou are\b", "I am"),
    (r"\byou were\b", "I was"),
    (r"\byou're\b", "I'm"),
    (r"\byou(?='(?:ve|d|ll)\b)", "I"),
    (r"\b(to|for|with|from|of|at|about|give|tell|let|help|charge|ask|asks|tells|gives) you\b", r"\1 me"),
    (r"\byou\b", "I"),
    (r"\byours\b", "mine"),
    (r"\byourself\b", "myself"),
    (r"\byour\b", "my"),
]


def in_first_person(text: str) -> str:
    """A customer's instructions in the first person, as well as a few patterns can: 'you are Ada' as 'I am Ada'."""
    for pattern, replacement in _PERSONS:
        text = re.sub(pattern, replacement, text, flags=re.IGNORECASE)
    return re.sub(r"(^|[.!?]\s+)([a-z])", lambda match: match[1] + match[2].upper(), text)


__all__ = ["END", "PlayedUser", "Said", "ScriptedUser", "User", "in_first_person", "opening", "part_text"]
