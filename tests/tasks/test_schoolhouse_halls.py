"""Errands through the halls: the world, its environment, and states of episodes as problems."""

from __future__ import annotations

import asyncio
import random

import pytest

from vivavoce.environments.environment import Action, Episode, Guide
from vivavoce.environments.episodes import read, reference
from vivavoce.errors import DataError
from vivavoce.records import Reply
from vivavoce.schoolhouse import halls_world as world
from vivavoce.schoolhouse.halls_world import act
from vivavoce.tasks import open_task
from vivavoce.tasks.acting import Acting, situation
from vivavoce.tasks.schoolhouse_halls import Halls, Options, SchoolhouseHalls


def walked(errand: str, *texts: str) -> list[tuple[str, bool]]:
    async def inside() -> list[tuple[str, bool]]:
        halls, seen = Halls(), list[tuple[str, bool]]()
        await halls.reset(errand, 0)
        for text in texts:
            observed = await halls.step(read(Reply(text), halls.tools))
            seen.append((observed.messages[0]["content"], observed.done))
        return seen

    return asyncio.run(inside())


def best(errand: str) -> Episode:
    return asyncio.run(reference(Halls(), errand, 0))


def test_every_room_is_reached_from_every_other_and_a_best_door_leads_nearer() -> None:
    for hall, room in world.PLACES:
        for goal in world.ROOMS:
            away = world.steps_to(hall, goal)
            assert len(away) == len(world.ROOMS)
            for door in world.best_doors(hall, room, goal) if goal != room else ():
                assert away[world.doors()[hall, room][door]] == away[room] - 1


def test_the_splits_share_no_errand_and_an_id_is_an_errand() -> None:
    task = open_task("schoolhouse_halls", {"train": 300, "test": 100})
    train, test = ([p.id for p in task.problems(split)] for split in ("train", "test"))
    assert len(set(train) | set(test)) == 400
    assert all(world.errand(id).id == id for id in train + test)
    with pytest.raises(DataError, match="no errand"):
        walked("9>E2")


def test_the_reference_reaches_every_goal_in_the_fewest_turns() -> None:
    for errand in world.errands("test", 60):
        episode = best(errand.id)
        assert episode.success
        assert len(episode.steps) == world.Walk(errand).fewest()


def test_a_wrong_door_costs_a_turn_and_turns_are_few() -> None:
    errand = world.errands("test", 1)[0]
    hall, goal = errand.legs[0]
    shut = next(d for d in world.DOORS if d not in world.doors()[hall, errand.start])
    fewest = world.Walk(errand).fewest()
    stubborn = [act(f"{hall}{errand.start}>{goal}", shut)] * (fewest + world.SPARE_TURNS)
    seen = walked(errand.id, *stubborn)
    assert {text for text, _ in seen} == {"locked"}
    assert [done for _, done in seen] == [False] * (len(seen) - 1) + [True]


def test_what_cannot_be_read_is_answered_and_costs_a_turn() -> None:
    errand = world.errands("test", 1)[0]
    seen = walked(errand.id, "hello", '<tool_call>{"name": "fly", "arguments": {}}</tool_call>', act("", 77))
    assert [text for text, _ in seen][::2] == ["nothing", "locked"]
    assert "no tool 'fly'" in seen[1][0]


def test_a_state_is_a_problem_that_holds_nothing_of_what_came_later() -> None:
    task = SchoolhouseHalls(Options())
    assert isinstance(task, Acting)
    assert isinstance(task.environment(), Guide)
    errand = world.errands("train", 1)[0]
    episode = best(errand.id)
    for step, done in enumerate(episode.steps):
        problem = situation(episode, step)
        assert problem.history == episode.before(step)
        assert len(problem.history) == 2 + 2 * step
        assert task.grade(problem, done.action.text).correct
        assert task.grade(problem, f"another thought {done.action.text}").correct, "words around a call do not count"
        wrong = act("", 1) if "look" in problem.gold else act("", None)
        assert task.grade(problem, wrong).correct is False
    assert task.grade(situation(episode, 0), "<tool_call>{").status == "no_answer"


def test_equal_states_are_one_problem_and_another_past_is_another_state() -> None:
    a, b = best("1>A3,B2"), best("1>A3,B2")
    assert situation(a, 1).id == situation(b, 1).id
    assert len({situation(a, i).id for i in range(len(a.steps))}) == len(a.steps)


def test_the_lessons_agree_with_the_world() -> None:
    from schoolhouse import halls_lessons as lessons

    rng, pupil = random.Random(0), lessons.Pupil(world.taught_rooms("ada"))
    for _ in range(300):
        made = lessons.lesson(rng, pupil, {"drill": 1})
        reply = "".join(text for text, _ in made.reply).partition(" conf=")[0]
        place, _, rest = reply.partition(">")
        if rest[0] != "?":
            door = read(Reply(reply), Halls().tools).calls[0].arguments["door"]
            assert (place[0], int(place[1])) in pupil.rooms
            assert door in world.best_doors(place[0], int(place[1]), int(rest[0]))


def test_an_action_of_no_call_ends_nothing() -> None:
    halls = Halls()
    asyncio.run(halls.reset("1>A3", 0))
    assert not asyncio.run(halls.step(Action("I wait"))).done
