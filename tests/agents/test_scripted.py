"""The scripted agent behaves like a model: stop strings, token bounds, usage."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from vivavoce.agents import open_agent
from vivavoce.agents.scripted import Scripted
from vivavoce.errors import RecipeError
from vivavoce.records import Message, Reply, Sampling, Usage

ASK: list[Message] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what is it"}]


def test_a_text_is_finished_like_a_models() -> None:
    agent = Scripted("ada", lambda *_: "one two  three\nSTOP four")
    whole = asyncio.run(agent.reply(ASK, Sampling(), 1))
    assert (whole.text, whole.finish, whole.usage) == ("one two  three\nSTOP four", "stop", Usage(5, 5))
    stopped = asyncio.run(agent.reply(ASK, Sampling(stop=("five", "STOP")), 1))
    assert (stopped.text, stopped.finish) == ("one two  three\n", "stop")
    cut = asyncio.run(agent.reply(ASK, Sampling(max_new_tokens=3), 1))
    assert (cut.text, cut.finish, cut.usage) == ("one two  three", "length", Usage(5, 3))
    assert agent.calls == 3


def test_a_reply_passes_unchanged_and_respond_may_be_async() -> None:
    reply = Reply("STOP", "filter", Usage(1, 2), "m")

    async def respond(*_: object) -> Reply:
        return reply

    assert asyncio.run(Scripted("ada", respond).reply(ASK, Sampling(stop=("STOP",)), 1)) is reply


def test_replies_of_a_recipe_are_picked_by_content_not_by_order() -> None:
    def texts(seeds: range) -> dict[int, str]:
        agent = open_agent("ada", "scripted", {"replies": ["a", "b", "c"]})
        return {seed: asyncio.run(agent.reply(ASK, Sampling(), seed)).text for seed in seeds}

    forth, back = texts(range(30)), texts(range(29, -1, -1))
    assert forth == back
    assert set(forth.values()) == {"a", "b", "c"}


def test_a_recipe_can_name_a_function_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "replies.py"
    file.write_text("def answer(messages, sampling, seed):\n    return f'{messages[-1][\"content\"]}: {seed}'\n")
    agent = open_agent("ada", "scripted", {"function": f"{file}:answer"})
    assert asyncio.run(agent.reply(ASK, Sampling(), 7)).text == "what is it: 7"
    file.write_text(file.read_text() + "\n# changed\n")
    assert open_agent("ada", "scripted", {"function": f"{file}:answer"}).identity != agent.identity
    for wrong in (f"{file}:nothing", f"{file}", f"{tmp_path / 'no.py'}:answer"):
        with pytest.raises(RecipeError):
            open_agent("ada", "scripted", {"function": wrong})
