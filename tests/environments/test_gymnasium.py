from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.environments.playing import observations

from vivavoce.agents.call_text import write_call
from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.environments.environment import Action, Environment, Observation
from vivavoce.environments.episodes import play
from vivavoce.environments.gymnasium import Gymnasium, StepResult
from vivavoce.environments.words import for_agent
from vivavoce.errors import RecipeError
from vivavoce.records import Sampling, ToolCall

gymnasium = pytest.importorskip("gymnasium")
MOVES = ("left", "down", "right", "up")
WAY = ["down", "down", "right", "right", "down", "right"]


def lake(**options: Any) -> Gymnasium:
    world = gymnasium.make("FrozenLake-v1", is_slippery=False)
    given = {"actions": MOVES, "describe": lambda at: f"You are on field {at} of 16.", **options}
    return Gymnasium("lake", world, "Reach field 15.", **given)


def moves(*named: str) -> Action:
    return Action("", tuple(ToolCall("act", {"action": name}) for name in named))


def after(world: Gymnasium, *actions: Action) -> Observation:
    return observations(world, "t", *actions, seed=1)[-1]


def test_frozen_lake_is_crossed_by_calls_of_one_tool(tmp_path: Path) -> None:
    world = lake()
    assert isinstance(world, Environment)
    agent = Scripted("ada", lambda messages, *_: write_call(ToolCall("act", {"action": WAY[len(messages) // 2 - 1]})))

    async def run() -> Any:
        with Journal(tmp_path / "journal.sqlite") as journal:
            return await play(for_agent(world, agent), agent, "t", 1, Sampling(), journal)

    episode = asyncio.run(run())
    assert (episode.ended, episode.success, len(episode.steps)) == ("done", True, len(WAY))
    assert episode.prompt[1]["content"] == "Reach field 15.\n\nYou are on field 0 of 16."
    assert "You are on field 4 of 16." in episode.before(1)[-1]["content"]


def test_a_hole_is_no_success_and_ends_the_episode() -> None:
    world = lake()
    assert after(world, moves("down", "right", "down")).done
    assert world.succeeded() is False
    seen = after(world, moves("down", "right", "down")).messages
    assert seen[-1] == {"role": "tool", "content": "Error: it is over"}


def test_taxi_acts_by_number_and_every_task_and_seed_is_an_episode_of_its_own() -> None:
    world = Gymnasium("taxi", gymnasium.make("Taxi-v4"), "Bring the passenger home.", describe=lambda at: f"at {at}")
    tool = next(iter(world.tools))
    assert tool.parameters["properties"]["action"]["enum"] == ["0", "1", "2", "3", "4", "5"]

    def first(task: str, seed: int) -> str:
        return asyncio.run(world.reset(task, seed)).messages[0]["content"]

    assert first("a", 1) == first("a", 1)
    assert len({first(task, seed) for task in "abcdef" for seed in (1, 2)}) > 6
    wrong = after(world, moves("5"))  # puts down nobody
    assert (wrong.done, world.succeeded()) == (False, False)
    assert world._outcome.total == -10


@pytest.mark.parametrize(
    ("action", "role", "wrong"),
    [
        (Action("I would go right."), "user", "call act"),
        (Action("<tool_call>", malformed="a <tool_call> is not closed"), "tool", "not closed"),
        (moves("north"), "tool", "there is no action 'north'; there are left, down, right, up"),
        (Action("", (ToolCall("act", {}),)), "tool", "there is no action None"),
    ],
)
def test_what_is_no_action_is_told_and_changes_nothing(action: Action, role: str, wrong: str) -> None:
    world = lake()
    (message,) = after(world, action).messages
    assert message["role"] == role
    assert wrong in message["content"]
    assert world.state() == ["t", 1]


def test_the_state_is_what_was_done_or_what_the_env_tells() -> None:
    world, described = lake(), lake(state=lambda env: int(env.unwrapped.s))
    after(world, moves("down"), moves("right"))
    after(described, moves("down"), moves("right"))
    assert world.state() == ["t", 1, 1, 2]
    assert described.state() == 5


def test_success_may_be_judged_by_the_whole_outcome() -> None:
    world = lake(reached=lambda outcome: outcome.total == 0 and not outcome.terminated)
    after(world, moves("down"))
    assert world.succeeded()
    assert world._outcome == StepResult(0.0, 0.0, False, False, world._outcome.info)


class Echo(gymnasium.Env[str, str]):
    """Say 'yes'."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Text(20)
        self.action_space = gymnasium.spaces.Text(5)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        return "Well?", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return f"You say {action}.", float(action == "yes"), action == "yes", False, {}


def test_where_actions_are_text_the_agents_words_are_the_action() -> None:
    world = Gymnasium("echo", Echo(), "Say yes.")
    assert world.tools == ()
    seen = after(world, Action("no"))
    assert (seen.messages[0]["content"], seen.done) == ("You say no.", False)
    assert "that is no action" in after(world, Action("far too long")).messages[0]["content"]
    assert after(world, Action("yes")).done
    assert world.succeeded()


@pytest.mark.parametrize(
    ("env", "actions", "wrong"),
    [
        ("FrozenLake-v1", ("left", "right"), "2 names for 4 actions"),
        ("FrozenLake-v1", ("left", "left", "right", "up"), "3 names for 4 actions"),
        ("Pendulum-v1", (), "discrete or text"),
    ],
)
def test_actions_that_cannot_be_named_are_refused(env: str, actions: tuple[str, ...], wrong: str) -> None:
    with pytest.raises(RecipeError, match=wrong):
        Gymnasium("x", gymnasium.make(env), "", actions=actions)
