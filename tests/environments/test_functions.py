from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from typing_extensions import TypedDict

from vivavoce.environments.environment import Action, Environment
from vivavoce.environments.functions import Functions, Refused, Toolbox
from vivavoce.records import ToolCall


@dataclass
class Till:
    sum: int = 0


class Coin(TypedDict):
    """A coin."""

    worth: int


def add(till: Till, n: int, times: int = 1, json: Literal["in", "out"] = "in") -> int:
    """Add to
    the sum.

    Args:
        n: How much,
            in cents.
        times: How often.

    Raises ValueError where it is too much.
    """
    if n > 100:
        raise Refused("too much")
    till.sum += n * times if json == "in" else -n
    return till.sum


def put(till: Till, coins: list[Coin], title: str = "") -> Till:
    """Put coins in."""
    till.sum += sum(coin["worth"] for coin in coins)
    return till


def share(till: Till, people: int) -> float:
    """Share it."""
    return till.sum / people


def broken(till: Till) -> None:
    """Has a bug."""
    raise AssertionError("our bug")


def opened() -> Functions[Till]:
    return Functions("till", lambda task, seed: (Till(seed), f"Reach {task}."), [add, put, share], lambda t: t.sum == 5)


def results(world: Functions[Till], *calls: ToolCall) -> tuple[list[str], bool]:
    seen = asyncio.run(world.step(Action("", calls)))
    assert {m["role"] for m in seen.messages} <= {"tool"}
    return [m["content"] for m in seen.messages], seen.done


def test_signature_and_docstring_make_the_schema() -> None:
    tool, other = Toolbox[Till]([add, put]).tools
    assert (tool.name, tool.description) == ("add", "Add to the sum.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "description": "How much, in cents."},
            "times": {"type": "integer", "default": 1, "description": "How often."},
            "json": {"type": "string", "enum": ["in", "out"], "default": "in"},
        },
        "required": ["n"],
        "additionalProperties": False,
    }
    assert other.parameters["properties"]["coins"]["items"] == {
        "type": "object",
        "description": "A coin.",
        "properties": {"worth": {"type": "integer"}},
        "required": ["worth"],
        "additionalProperties": False,
    }
    assert other.parameters["properties"]["title"] == {"type": "string", "default": ""}


def test_functions_make_an_environment_that_ends_at_its_goal() -> None:
    world = opened()
    assert isinstance(world, Environment)
    first = asyncio.run(world.reset("5", 1))
    assert first.messages == ({"role": "user", "content": "Reach 5."},)
    assert results(world, ToolCall("add", {"n": 1})) == (["2"], False)
    assert (world.state(), world.succeeded()) == ({"sum": 2}, False)
    assert results(world, ToolCall("put", {"coins": [{"worth": 2}, {"worth": 1}]})) == (['{"sum":5}'], True)
    assert world.succeeded()
    asyncio.run(world.reset("5", 0))
    assert world.state() == {"sum": 0}


class Bare:
    def __init__(self) -> None:
        self.coins = {"worth": [1, 2]}


def test_the_state_of_any_object_is_its_fields() -> None:
    world = Functions("bare", lambda task, seed: (Bare(), ""), [broken], lambda bare: False)
    asyncio.run(world.reset("", 0))
    assert world.state() == {"coins": {"worth": [1, 2]}}


def test_words_without_a_call_end_the_episode() -> None:
    world = opened()
    asyncio.run(world.reset("5", 1))
    assert asyncio.run(world.step(Action("I give up."))).done
    assert world.succeeded() is False


@pytest.mark.parametrize(
    ("name", "arguments", "wrong"),
    [
        ("add", {"n": 101}, "too much"),
        ("add", {"n": "two"}, "n: Input should be a valid integer"),
        ("add", {"times": 2}, "n: Field required"),
        ("add", {"n": 1, "m": 2}, "m: Extra inputs are not permitted"),
        ("put", {"coins": [{}]}, "coins.0.worth: Field required"),
        ("share", {"people": 0}, "division by zero"),
        ("sub", {}, "there is no tool 'sub'; there are add, put, share"),
    ],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(name: str, arguments: dict[str, Any], wrong: str) -> None:
    world = opened()
    asyncio.run(world.reset("5", 1))
    (answer,), done = results(world, ToolCall(name, arguments))
    assert answer.startswith("Error: ")
    assert wrong in answer
    assert (world.state(), done) == ({"sum": 1}, False)


def test_a_bug_in_a_function_is_not_told_to_the_agent_but_raised() -> None:
    toolbox = Toolbox[Till]([broken])
    with pytest.raises(AssertionError, match="our bug"):
        toolbox.answers(Till(), Action("", (ToolCall("broken", {}),)))
