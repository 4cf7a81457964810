"""BFCL's conversations as a task of episodes: the splits, what an agent is told, reference episodes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from vivavoce.environments.environment import Demonstrator, Guide
from vivavoce.environments.episodes import reference
from vivavoce.environments.words import InWords
from vivavoce.errors import DataError, RecipeError
from vivavoce.tasks import open_task
from vivavoce.tasks.acting import Acting, situation
from vivavoce.tasks.bfcl_multi_turn import BFCLMultiTurn, Options


def conversations(bfcl: Path, **options: object) -> BFCLMultiTurn:
    return BFCLMultiTurn(Options.model_validate({"path": bfcl, **options}))


def test_a_conversation_is_in_one_split_in_all_its_categories(bfcl: Path) -> None:
    task = conversations(bfcl)
    train, test = task.problems("train"), task.problems("test")
    assert (len(train), len(test)) == (150, 150)
    numbers = [{p.id.rpartition("_")[2] for p in part} for part in (train, test)]
    assert numbers[0].isdisjoint(numbers[1])
    assert not {p.question for p in train} & {p.question for p in test}
    assert [p.group for p in test[:4]] == ["base", "miss_func", "miss_param", "base"]
    assert conversations(bfcl, train_limit=4, limit_takes="first").problems("train") == train[:4]
    drawn = conversations(bfcl, train_limit=6).problems("train")
    assert sorted(p.group for p in drawn) == ["base", "base", "miss_func", "miss_func", "miss_param", "miss_param"]
    assert conversations(bfcl, seed=1).problems("train") != train
    assert len(conversations(bfcl, categories=["long_context"], train_share=0).problems("test")) == 100


def test_reference_episodes_succeed_and_begin_as_the_problem_says(bfcl: Path) -> None:
    task = conversations(bfcl)
    assert isinstance(task, Acting)
    for problem in task.problems("train")[::9]:
        episode = asyncio.run(reference(InWords(task.environment()), problem.id, 0))
        assert (episode.success, episode.ended) == (True, "done"), problem.id
        assert episode.prompt == problem.history
        assert '"type": "function"' in problem.history[0]["content"], "functions are told in words"


def test_it_shows_one_way_and_does_not_pretend_to_know_what_is_best(bfcl: Path) -> None:
    task = conversations(bfcl)
    world = InWords(task.environment())
    assert isinstance(world, Demonstrator)
    assert not isinstance(world, Guide)
    episode = asyncio.run(reference(world, "multi_turn_base_0", 0))
    assert task.grade(situation(episode, 0), episode.steps[0].action.text).correct is None


def test_limits_are_the_recipes(bfcl: Path) -> None:
    task = conversations(bfcl, turns=2, actions=1)
    episode = asyncio.run(reference(task.environment(), "multi_turn_base_0", 0))
    assert (episode.ended, len(episode.steps), episode.success) == ("done", 1, False), "one action in a turn"
    episode = asyncio.run(reference(conversations(bfcl, turns=2).environment(), "multi_turn_base_0", 0))
    assert (episode.ended, len(episode.steps), episode.success) == ("turns", 2, False)


def test_what_is_missing_is_said(bfcl: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the file"):
        conversations(tmp_path).problems("train")
    with pytest.raises(DataError, match="split"):
        conversations(bfcl).problems("dev")
    with pytest.raises(RecipeError, match="categories"):
        open_task("bfcl_multi_turn", {"path": bfcl, "categories": ["bass"]})
