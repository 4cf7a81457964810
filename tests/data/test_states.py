"""Supervision of states as views of a debate: what is shown to whom, how confidences weigh, controls, leaks."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest

from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Wording
from vivavoce.data.states import Supervised, Supervision, states, winner
from vivavoce.errors import RecipeError
from vivavoce.graph import Graph
from vivavoce.protocols.state_debate import Options
from vivavoce.records import Node, Problem, State, node
from vivavoce.tasks import open_task

TASK = open_task("gsm8k", {})
PROMPTS = prompt_set("general")
SPEAKERS = ("a", "b", "c")


def said(problem: str, agent: str, round: int, confidence: float | None, probability: float | None = None) -> Node:
    text = f"{agent} speaks of {problem} in round {round}.\nFinal answer: 4"
    if confidence is not None:
        text += f"\nConfidence: {round_(confidence)}"
    known = None if confidence is None else min(1.0, confidence)
    return node(
        "answer", problem, agent, round, text, answer="4", correct=True, confidence=known, probability=probability
    )


def round_(confidence: float) -> int:
    return int(100 * confidence)


def debate(problem: str, confidences: list[dict[str, float | None]]) -> Graph:
    """A debate of as many rounds as there are dicts of agents' stated confidences."""
    nodes = [said(problem, agent, r, c) for r, turns in enumerate(confidences) for agent, c in turns.items()]
    return Graph(Problem(problem, f"What is {problem}?", "4"), tuple(nodes))


TWO: list[dict[str, float | None]] = [{"a": 0.2, "b": 0.9, "c": 0.5}, {"a": 0.9, "b": 0.8, "c": 0.1}]


WORDING = Wording(Options(), PROMPTS, TASK)


def view(graphs: list[Graph], scorers: tuple[str, ...] = SPEAKERS, **how: Any) -> tuple[list[State], Supervised]:
    return states(graphs, Supervision.model_validate(how), scorers, WORDING, 0)


def texts(state: State) -> list[str]:
    return ["\n".join(m["content"] for m in v.messages) for v in state.views]


def test_scorers_read_every_round_and_the_student_none_of_it() -> None:
    (state,), _ = view([debate("2 + 2", TWO)])
    for text in texts(state):
        for agent in SPEAKERS:
            for r in (0, 1):
                assert text.count(f"{agent} speaks of 2 + 2 in round {r}.") == 1
    assert "speaks" not in "".join(m["content"] for m in state.prompt)
    assert "Confidence" not in "".join(m["content"] for m in state.prompt)
    assert len(state.source) == 6


def test_identity_stands_last_and_differs_while_the_transcript_is_the_same_for_all() -> None:
    (state,), _ = view([debate("2 + 2", TWO)])
    before = [text.partition("You are Agent")[0] for text in texts(state)]
    assert before[0] == before[1] == before[2]
    assert len({text.partition("You are Agent")[2] for text in texts(state)}) == 3


def test_a_later_round_only_adds_to_the_text_of_the_one_before() -> None:
    g = debate("2 + 2", TWO)
    first, _ = view([g], rounds=1)
    both, _ = view([g])
    for short, long in zip(texts(first[0]), texts(both[0]), strict=True):
        assert long.startswith(short.partition("You are Agent")[0].rstrip())


def test_weights_are_the_softmax_of_what_was_said_after_the_last_round_shown() -> None:
    g = debate("2 + 2", TWO)
    cases: list[tuple[dict[str, Any], dict[str, float | None]]]
    cases = [({}, TWO[1]), ({"rounds": 1}, TWO[0]), ({"tau": 0.1}, TWO[1])]
    for how, said_last in cases:
        (state,), _ = view([g], **how)
        tau = how.get("tau", 1.0)
        grown = [math.exp(float(said_last[a] or 0) / tau) for a in SPEAKERS]
        assert [v.weight for v in state.views] == pytest.approx([x / sum(grown) for x in grown])


def test_equal_weights_where_asked_for_and_ninety_five_against_eighty_is_nearly_equal_too() -> None:
    (state,), counts = view([debate("q", TWO)], weights="uniform")
    assert [v.weight for v in state.views] == pytest.approx([1 / 3] * 3)
    assert counts.facts()["weight_entropy"] == pytest.approx(math.log(3), abs=1e-4)
    pair = Graph(Problem("q", "q?", "4"), (said("q", "a", 0, 0.95), said("q", "b", 0, 0.80)))
    (state,), _ = view([pair], scorers=("a", "b"))
    assert [round(v.weight, 3) for v in state.views] == [0.537, 0.463]


@pytest.mark.parametrize(
    ("missing", "weights"),
    [
        ("uniform", [1 / 3] * 3),
        ("mean", [math.exp(0.9), math.exp(0.7), math.exp(0.5)]),
        ("zero", [math.exp(0.9), 1.0, math.exp(0.5)]),
        ("drop", [math.exp(0.9), 0.0, math.exp(0.5)]),
    ],
)
def test_a_missing_confidence_is_met_as_the_recipe_says_and_weights_still_sum_to_one(
    missing: str, weights: list[float]
) -> None:
    g = debate("q", [{"a": 0.9, "b": None, "c": 0.5}])
    (state,), counts = view([g], missing=missing)
    assert [v.weight for v in state.views] == pytest.approx([w / sum(weights) for w in weights])
    assert counts.without_confidence == 1


@pytest.mark.parametrize("missing", ["uniform", "mean", "zero"])
def test_where_nobody_states_anything_all_count_alike(missing: str) -> None:
    (state,), _ = view([debate("q", [{"a": None, "b": None, "c": None}])], missing=missing)
    assert [v.weight for v in state.views] == pytest.approx([1 / 3] * 3)
    assert sum(v.weight for v in state.views) == pytest.approx(1)


def test_a_confidence_beyond_the_scale_counts_as_its_end_and_is_counted() -> None:
    assert PROMPTS.confidence("Final answer: 4\nConfidence: 1000") == 1.0
    assert PROMPTS.stated_confidence("Final answer: 4\nConfidence: 1000") == 10.0
    (state,), counts = view([debate("q", [{"a": 10.0, "b": 1.0, "c": 0.5}])])
    assert counts.beyond_scale == 1
    assert state.views[0].weight == pytest.approx(state.views[1].weight)


def test_controls_show_another_debate_filler_of_the_same_length_or_the_right_answer() -> None:
    graphs = [debate(f"{i} + {i}", TWO) for i in range(4)]
    plain, _ = view(graphs)
    for state, base in zip(view(graphs, context="shuffled")[0], plain, strict=True):
        assert all(f"speaks of {state.problem}" not in t and "speaks of" in t for t in texts(state))
        assert all(f"What is {state.problem}?" in t for t in texts(state))
        assert len(texts(state)[0]) == pytest.approx(len(texts(base)[0]), abs=12)
    for state, base in zip(view(graphs, context="filler")[0], plain, strict=True):
        assert all("speaks of" not in t for t in texts(state))
        assert len(texts(state)[0]) == pytest.approx(len(texts(base)[0]), abs=12)
    for state in view(graphs, context="gold")[0]:
        assert all("The right answer is 4" in t for t in texts(state))
    for state in view(graphs, context="none")[0]:
        assert all(v.messages == state.prompt for v in state.views)


def test_marks_can_be_left_out_and_a_transcript_shown_to_some() -> None:
    g = debate("q", TWO)
    (hidden,), _ = view([g], hide_confidence=True)
    assert all("Confidence: " not in t.partition("You are")[0] for t in texts(hidden))
    (some,), _ = view([g], shown_to=["b"])
    assert [v.messages == some.prompt for v in some.views] == [True, False, True]


def test_who_did_not_debate_reads_as_a_stranger() -> None:
    (state,), counts = view([debate("q", TWO)], scorers=("student",))
    assert "You are" not in texts(state)[0]
    assert "speaks of q" in texts(state)[0]
    assert [v.weight for v in state.views] == [1.0]
    assert counts.without_confidence == 1


def test_a_state_of_which_nothing_was_said_is_left_out_and_counted() -> None:
    silent = Graph(Problem("s", "s?", "4"), (node("answer", "s", "a", 0, "", status="error", error="dead"),))
    found, counts = view([silent, debate("q", TWO)], weights="uniform")
    assert [s.problem for s in found] == ["q"]
    assert (counts.states, counts.dropped) == (1, 1)


def test_rounds_that_were_not_debated_cannot_be_shown() -> None:
    with pytest.raises(RecipeError, match="3 rounds are to be shown and 2 were debated"):
        view([debate("q", TWO)], rounds=3)


def test_recorded_answers_are_taught_without_talk_to_the_committee() -> None:
    g = debate("q", TWO)
    (plain,), _ = states([g], Supervision(), SPEAKERS, WORDING, 0)
    assert plain.recorded == ()
    (rich,), _ = states([g], Supervision(), SPEAKERS, WORDING, 0, partial(winner, task=TASK))
    assert len(rich.recorded) == 1
    assert "Confidence" not in rich.recorded[0].text
    assert rich.recorded[0].source in g.by_id
