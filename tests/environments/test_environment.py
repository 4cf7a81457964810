from __future__ import annotations

from dataclasses import replace

from vivavoce.environments.environment import Action, Episode, Observation, Step
from vivavoce.graph import Graph
from vivavoce.graph.graph import graph_of
from vivavoce.records import Problem, from_json, to_json


def episode() -> Episode:
    def step(text: str, seen: str, state: str, done: bool = False) -> Step:
        return Step(Action(text), Observation(({"role": "tool", "content": seen},), done), state)

    steps = (step("look()", "a door", "s0"), step("open()", "it opens", "s1", done=True))
    return Episode("house", "t1", 3, "student", ({"role": "user", "content": "go"},), steps, "done", True)


def test_the_state_of_a_step_holds_what_came_before_and_nothing_later() -> None:
    e = episode()
    assert [m["content"] for m in e.before(0)] == ["go"]
    assert [m["content"] for m in e.before(1)] == ["go", "look()", "a door"]


def test_only_the_agents_own_actions_are_trained() -> None:
    assert [m["content"] for m, trained in episode().masked() if trained] == ["look()", "open()"]


def test_what_comes_later_does_not_change_the_key_of_a_state_and_the_world_behind_it_does() -> None:
    e = episode()
    other = replace(e, steps=(e.steps[0], replace(e.steps[1], action=Action("wait()"))))
    assert e.key(1) == other.key(1) != e.key(0)
    assert e.key(1) != replace(e, steps=(e.steps[0], replace(e.steps[1], state="s2"))).key(1)


def test_an_episode_becomes_nodes_of_the_graph_and_survives_a_file() -> None:
    graph = Graph(Problem("t1", "go", ""), ()).with_nodes(episode().nodes()).with_nodes(episode().nodes(sample=1))
    graph.check()
    assert [(n.kind, n.round, n.correct) for n in graph.nodes[:4]] == [
        ("action", 0, None),
        ("observation", 0, None),
        ("action", 1, None),
        ("observation", 1, True),
    ]
    assert len(graph.nodes) == 8
    assert graph_of(graph.to_json(), "here") == graph
    assert from_json(Episode, to_json(episode())) == episode()
