"""τ²-bench as a task of episodes: the splits, what an agent is told, reference episodes, who plays the customer."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.environments.environment import Demonstrator, Episode, Guide
from vivavoce.environments.episodes import play, read, reference
from vivavoce.environments.tau2.desk import Tau2
from vivavoce.environments.words import InWords
from vivavoce.errors import AgentError, DataError
from vivavoce.methods.episode_lengths import episode_lengths
from vivavoce.records import Message, Reply, Sampling
from vivavoce.tasks import open_task
from vivavoce.tasks.acting import Acting, Peopled, situation
from vivavoce.tasks.tau2 import Options, Tau2Task


def company(tau2: Path, domain: str = "retail", **options: object) -> Tau2Task:
    return Tau2Task(Options.model_validate({"path": tau2, "domain": domain, **options}))


def shown(task: Tau2Task, id: str) -> Episode:
    return asyncio.run(reference(InWords(task.environment()), id, 0))


@pytest.mark.parametrize(("domain", "train", "test"), [("retail", 74, 20), ("airline", 30, 10)])
def test_the_splits_are_the_official_ones_and_share_no_task(domain: str, train: int, test: int, tau2: Path) -> None:
    task = company(tau2, domain)
    first, second = ([p.id for p in task.problems(split)] for split in ("train", "test"))
    official = json.loads((tau2 / domain / "split_tasks.json").read_text("utf-8"))
    assert (first, second) == (official["train"], official["test"])
    assert (len(first), len(second), len(set(first) | set(second))) == (train, test, train + test)
    few = company(tau2, domain, train_limit=3, limit_takes="first").problems("train")
    assert [p.id for p in few] == first[:3]
    drawn = [p.id for p in company(tau2, domain, train_limit=3).problems("train")]
    assert len(drawn) == 3
    assert drawn != first[:3]
    assert drawn == sorted(drawn, key=first.index)


@pytest.mark.parametrize("domain", ["retail", "airline"])
def test_every_reference_episode_succeeds_and_begins_as_the_problem_says(domain: str, tau2: Path) -> None:
    task = company(tau2, domain)
    for problem in (*task.problems("train"), *task.problems("test")):
        episode = shown(task, problem.id)
        assert (episode.success, episode.ended) == (True, "done"), problem.id
        assert episode.prompt == problem.history
        assert not any(step.action.malformed or step.best for step in episode.steps)


def test_a_reference_asks_before_it_changes_anything_and_not_before_it_looks(tau2: Path) -> None:
    task = company(tau2)
    steps = shown(task, "0").steps
    actions = [step.action.calls[0].name if step.action.calls else step.action.text for step in steps]
    assert actions[1:5] == [
        "find_user_id_by_name_zip",
        "get_order_details",
        "get_product_details",
        "get_product_details",
    ]
    assert actions[5].startswith("I would exchange delivered order items (order id: #W2378156; item ids: [")
    assert steps[5].observation.messages[0]["content"] == "Yes, please go ahead."
    assert actions[6:] == ["exchange_delivered_order_items", "Done."]


def test_it_shows_one_way_and_does_not_pretend_to_know_what_is_best(tau2: Path) -> None:
    world = company(tau2).environment()
    assert isinstance(world, Demonstrator)
    assert isinstance(InWords(world), Demonstrator)
    assert not isinstance(world, Guide)
    assert not isinstance(InWords(world), Guide)
    episode = shown(company(tau2), "0")
    graded = company(tau2).grade(situation(episode, 1), episode.steps[1].action.text)
    assert graded.correct is None, "another action may be as good"
    assert graded.answer is not None
    assert "find_user_id_by_name_zip" in graded.answer, "but actions can be counted"


def test_episodes_run_side_by_side_over_one_database(tau2: Path) -> None:
    task = company(tau2)
    ids = [p.id for p in task.problems("train")[:12]]

    async def both() -> list[Episode]:
        return list(await asyncio.gather(*(reference(task.environment(), id, 0) for id in ids)))

    assert asyncio.run(both()) == [asyncio.run(reference(task.environment(), id, 0)) for id in ids]


def test_who_is_cut_off_has_not_succeeded_though_nothing_is_amiss(tau2: Path, tmp_path: Path) -> None:
    task = company(tau2, turns=2)
    world = task.environment()
    talkative = Scripted("agent", lambda messages, sampling, seed: "Is there anything else?")
    with Journal(tmp_path / "journal.sqlite") as journal:
        episode = asyncio.run(play(InWords(world), talkative, "10", 0, Sampling(), journal))
    assert (episode.ended, episode.success) == ("turns", False), "task 10 wants nothing changed"
    assert isinstance(world, Tau2)
    assert world.amiss() == []


def test_a_model_may_play_the_customer(tau2: Path, tmp_path: Path) -> None:
    task = company(tau2)
    assert isinstance(task, Acting)
    assert isinstance(task, Peopled)

    def respond(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        return "Bye. <hangs up>" if len(messages) > 2 else f"I call, and say at most {sampling.max_new_tokens} tokens."

    async def inside() -> Episode:
        with Journal(tmp_path / "journal.sqlite") as journal:
            world = InWords(task.peopled(Scripted("customer", respond), Sampling(max_new_tokens=77), journal))
            return await reference(world, "0", 3)

    episode = asyncio.run(inside())
    assert episode.prompt[1]["content"] == "I call, and say at most 77 tokens."
    assert (episode.ended, episode.success) == ("done", False), "who hangs up was not served"


def test_without_a_customer_there_is_no_episode_and_no_success_to_speak_of(tau2: Path, tmp_path: Path) -> None:
    def fails(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        raise AgentError("refused")

    agent = Scripted("agent", lambda messages, sampling, seed: "Hello?")

    async def inside() -> Episode:
        with Journal(tmp_path / "journal.sqlite") as journal:
            world = company(tau2).peopled(Scripted("customer", fails), Sampling(), journal)
            return await play(InWords(world), agent, "0", 0, Sampling(), journal)

    episode = asyncio.run(inside())
    assert (episode.steps, episode.ended, episode.success, agent.calls) == ((), "done", None, 0)


def test_lengths_are_those_of_the_episodes_that_are_shown(tau2: Path) -> None:
    task = company(tau2)
    problems = task.problems("train")[:10]
    lengths = episode_lengths(task, problems, lambda messages: sum(len(m["content"]) for m in messages))
    episodes = [shown(task, p.id) for p in problems]
    assert lengths is not None
    assert lengths.turns == sum(len(e.steps) for e in episodes) / 10
    assert lengths.spoken == sum(not s.action.calls for e in episodes for s in e.steps) / 10
    assert lengths.longest in [e.before(len(e.steps) - 1) for e in episodes]
    assert lengths.seen_most > lengths.seen > 0


def test_what_is_missing_is_said(tau2: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the file"):
        company(tmp_path).problems("train")
    with pytest.raises(DataError, match="split"):
        company(tau2).problems("dev")
    shutil.copytree(tau2 / "retail", tmp_path / "retail")
    for file in (tmp_path / "retail").iterdir():
        file.chmod(0o644)
    tasks = json.loads((tmp_path / "retail" / "tasks.json").read_text("utf-8"))
    (tmp_path / "retail" / "tasks.json").write_text(json.dumps(tasks[1:]), "utf-8")
    with pytest.raises(DataError, match="lacks the train tasks 0"):
        company(tmp_path).problems("train")


def test_a_recipe_names_it(tau2: Path) -> None:
    assert open_task("tau2", {"path": str(tau2), "domain": "airline"}).name == "tau2_airline"
    assert read(Reply("Hello"), company(tau2).environment().tools).calls == ()
