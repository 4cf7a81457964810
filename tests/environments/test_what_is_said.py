"""Environments act on what an agent says, and whatever a world shows can be stored."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vivavoce.agents.call_text import write_call
from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.environments.environment import Episode
from vivavoce.environments.episodes import play, read
from vivavoce.environments.functions import Functions
from vivavoce.environments.words import for_agent
from vivavoce.records import Reply, Sampling, ToolCall, from_json, to_json

NOTE = write_call(ToolCall("note", {"text": "a"}))


@dataclass
class Book:
    """A world whose tool answers what a test wants."""

    answer: Any = "noted"
    notes: list[str] = field(default_factory=list)


def note(book: Book, text: str) -> Any:
    """Write a note.

    Args:
        text: What.
    """
    book.notes.append(text)
    return book.answer


def played(folder: Path, reply: str, answer: Any = "noted", prompt: str = "Write two notes.") -> Episode:
    """An episode of an agent that always says the same."""
    world = Functions("book", lambda task, seed: (Book(answer), prompt), [note], lambda book: len(book.notes) >= 2)

    async def inside() -> Episode:
        with Journal(folder / "journal.sqlite") as journal:
            agent = Scripted("ada", lambda *_: reply)
            return await play(for_agent(world, agent), agent, "t", 1, Sampling(), journal)

    return asyncio.run(inside())


@pytest.mark.parametrize(
    "thought", ["<think>Hm.</think>", "<think>" + NOTE + "</think>\n", "Hm.\n</think>\n\n", "[THINK]Hm.[/THINK]"]
)
def test_an_action_is_what_follows_the_thought(tmp_path: Path, thought: str) -> None:
    episode = played(tmp_path, f"{thought}I write. {NOTE}")
    assert episode.success
    assert [step.action.text for step in episode.steps] == [f"I write. {NOTE}"] * 2
    assert [len(step.action.calls) for step in episode.steps] == [1, 1]
    assert "Hm." not in str(episode.masked())


def test_a_call_that_is_only_thought_of_is_not_made(tmp_path: Path) -> None:
    episode = played(tmp_path, f"<think>{NOTE}")
    assert (episode.success, [step.action.text for step in episode.steps]) == (False, [""])
    assert read(Reply(f"<think>{NOTE}</think>No."), ()).text == "No."


@pytest.mark.parametrize(
    ("answer", "message"),
    [("half: \ud83d", "?"), ({"half": ["\ud83d"]}, "?"), ("noted", "half: \ud83d"), ("\ud83d\ude00", "?")],
)
def test_half_a_surrogate_pair_from_a_world_ends_no_episode(tmp_path: Path, answer: Any, message: str) -> None:
    episode = played(tmp_path, NOTE, answer, message)
    assert episode.success
    line = to_json(episode)
    assert from_json(Episode, line.encode()) == episode
    assert all(to_json(node).encode() for node in episode.nodes())
    assert ("😀" in line) == (answer == "\ud83d\ude00")


def test_half_a_surrogate_pair_from_an_agent_ends_no_episode(tmp_path: Path) -> None:
    text = NOTE.replace('"a"', '"\\ud83d"')
    assert played(tmp_path, f"{text} \ud83d").success
