"""Supervision of states as views of a debate: what is shown to whom, how confidences weigh, controls, leaks."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Wording
from vivavoce.data.states import Supervised, Supervision, states, winner
from vivavoce.errors import RecipeError
from vivavoce.graph import Graph
from vivavoce.methods.opd_arms import OnPolicyArm
from vivavoce.protocols import peer_review
from vivavoce.protocols.state_debate import Options
from vivavoce.records import Node, Problem, State, node
from vivavoce.tasks import open_task

TASK = open_task("gsm8k", {})
PROMPTS = prompt_set("general")
SPEAKERS = ("a", "b", "c")


def answer_node(
    problem: str, agent: str, round: int, confidence: float | None, probability: float | None = None
) -> Node:
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
    nodes = [answer_node(problem, agent, r, c) for r, turns in enumerate(confidences) for agent, c in turns.items()]
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
    pair = Graph(Problem("q", "q?", "4"), (answer_node("q", "a", 0, 0.95), answer_node("q", "b", 0, 0.80)))
    (state,), _ = view([pair], scorers=("a", "b"))
    assert [round(v.weight, 3) for v in state.views] == [0.537, 0.463]


@pytest.mark.parametrize(
    ("missing", "weights"),
    [
        ("uniform", [1 / 3] * 3),
        ("mean", [math.exp(0.9), math.exp(0.7), math.exp(0.5)]),
        ("zero", [math.exp(0.9), 1.0, math.exp(0.5)]),
        ("drop", [math.exp(0.9), 0.0, math.exp(0.5)]),
        ("ask_again", [1 / 3] * 3),  # none was stated then either
    ],
)
def test_a_missing_confidence_is_met_as_the_recipe_says_and_weights_still_sum_to_one(
    missing: str, weights: list[float]
) -> None:
    g = debate("q", [{"a": 0.9, "b": None, "c": 0.5}])
    (state,), counts = view([g], missing=missing)
    assert [v.weight for v in state.views] == pytest.approx([w / sum(weights) for w in weights])
    assert counts.without_confidence == 1


@pytest.mark.parametrize("missing", ["uniform", "mean", "zero", "ask_again"])
def test_where_nobody_states_anything_all_count_alike(missing: str) -> None:
    (state,), _ = view([debate("q", [{"a": None, "b": None, "c": None}])], missing=missing)
    assert [v.weight for v in state.views] == pytest.approx([1 / 3] * 3)
    assert sum(v.weight for v in state.views) == pytest.approx(1)


def test_a_confidence_that_was_stated_when_asked_again_weighs_as_any_other() -> None:
    answers = [answer_node("q", "a", 0, 0.9), replace(answer_node("q", "b", 0, None), confidence=0.4)]
    (state,), counts = view([Graph(Problem("q", "q?", "4"), tuple(answers))], scorers=("a", "b"), missing="ask_again")
    assert [v.weight for v in state.views] == pytest.approx([1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(0.5))])
    assert (counts.without_confidence, counts.beyond_scale) == (0, 0)
    arm = OnPolicyArm(missing="ask_again")
    rules = arm.table.rules(Options())
    assert rules.asked_templates == ("answer", "discuss", "confidence")
    assert arm.table.stage("debate") != OnPolicyArm().table.stage("debate")
    with pytest.raises(RecipeError, match=r"has no confidence\.md"):
        prompt_set("schoolhouse").need(rules.asked_templates)
    with pytest.raises(RecipeError, match="cannot hold such a debate"):
        arm.table.rules(peer_review.Options())


def test_a_confidence_beyond_the_scale_counts_as_its_end_and_is_counted() -> None:
    assert PROMPTS.confidence("Final answer: 4\nConfidence: 1000") == 1.0
    for number, value in (
        ("72.5", 0.725),
        ("80 / 100", 0.8),
        ("80 out of 100.", 0.8),
        ("0.8", None),
        (".9", None),
        ("1.0", None),
    ):
        assert PROMPTS.confidence(f"Final answer: 4\n**Confidence:** {number}") == value, number
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


def test_a_wrong_hint_is_the_debates_own_mistake_or_the_tasks_and_answers_may_stand_alone() -> None:
    g = debate("2 + 2", TWO)
    wrong = node("answer", "2 + 2", "b", 1, "b errs here.\nFinal answer: 5", answer="5", correct=False, confidence=0.8)
    erring = Graph(g.problem, (*(n for n in g.nodes if (n.agent, n.round) != ("b", 1)), wrong))
    (state,), counts = view([erring, g], context="wrong")
    assert counts.dropped == 1, "nothing wrong was said of the other state"
    for text in texts(state):
        assert "b errs here." in text
        assert "speaks of" not in text
    assert state.source == ()
    (short,), _ = view([erring], context="wrong", shows="answers")
    assert all("Final answer: 5" in t and "errs" not in t for t in texts(short))
    school = open_task("schoolhouse", {"train": 40, "test": 1})
    problems = [Problem(p.id, p.question, p.gold) for p in school.problems("train")]
    graphs = [Graph(p, debate(p.id, TWO).nodes) for p in problems]
    words = Wording(Options(prompts="schoolhouse"), prompt_set("schoolhouse"), school)
    for context, right in (("gold", True), ("wrong", False)):
        for shows in ("whole", "answers"):
            how = Supervision(context=context, shows=shows, weights="uniform")  # type: ignore[arg-type]
            built, _ = states(graphs, how, ["a"], words, 0)
            assert len(built) == len(problems)
            for problem, one in zip(problems, built, strict=True):
                hints = texts(one)[0].split("\n")[2:]
                assert {school.grade(problem, hint).correct for hint in hints} == {right}
                assert all((hint.count("=") > 1) == (shows == "whole") for hint in hints)


def test_of_a_debate_the_last_turns_the_answers_alone_or_a_summary_may_be_shown() -> None:
    nodes = [
        node("answer", "q", agent, r, f"{agent} reasons at length.\nFinal answer: {x}", answer=x, correct=x == "4")
        for r, said_ in enumerate(("455", "454"))
        for agent, x in zip(SPEAKERS, said_, strict=True)
    ]
    g = Graph(Problem("q", "q?", "4"), tuple(nodes))
    (answers,), _ = view([g], shows="answers", weights="uniform")
    for text in texts(answers):
        assert "reasons" not in text
        assert (text.count("Final answer: 4"), text.count("Final answer: 5")) == (3, 3)
    (last,), _ = view([g], shows="last_round", weights="uniform")
    for text in texts(last):
        assert (text.count("reasons at length"), "turn 1" in text, "turn 2" in text) == (3, False, True)
    (shown_state,), _ = view([g], shows="summary", weights="uniform")
    for text in texts(shown_state):
        assert text.count("Final answer: 4 (2 of 3)") == text.count("Final answer: 5 (1 of 3)") == 1
        assert text.index("Final answer: 4") < text.index("Final answer: 5")


def weights_of(graphs: list[Graph], **how: Any) -> list[list[float]]:
    return [[v.weight for v in state.views] for state in view(graphs, **how)[0]]


def softmax(*values: float) -> Any:
    grown = [math.exp(v) for v in values]
    return pytest.approx([g / sum(grown) for g in grown])


def test_weights_may_come_from_agreement_or_from_what_is_right() -> None:
    answers = {"a": "4", "b": "4", "c": "5"}
    nodes = [
        node("answer", "q", agent, 0, f"Final answer: {x}", answer=x, correct=x == "4", confidence=0.5)
        for agent, x in answers.items()
    ]
    g = Graph(Problem("q", "q?", "4", "sums"), tuple(nodes))
    assert weights_of([g], weights="agreed") == [softmax(0.5, 0.5, 0.0)]
    assert weights_of([g], weights="verified", tau=0.5) == [softmax(2.0, 2.0, 0.0)]
    assert weights_of([g]) == [pytest.approx([1 / 3] * 3)]


def test_a_prior_a_boaster_and_a_route_change_weights_as_they_say() -> None:
    g = Graph(Problem("q", "q?", "4", "sums"), debate("q", TWO).nodes)
    assert weights_of([g], inflated=["c"]) == [softmax(0.9, 0.8, 1.0)]
    (prior,) = weights_of([g], weights="uniform", prior={"a": 2.0})
    assert prior == pytest.approx([0.5, 0.25, 0.25])
    (both,) = weights_of([g], prior={"b": 0.0})
    assert both[1] == 0.0
    assert [both[0], both[2]] == softmax(0.9, 0.1)
    assert weights_of([g], route={"sums": ["b"], "words": ["c"]}) == [[0.0, 1.0, 0.0]]
    assert weights_of([g], route={"words": ["c"]}) == weights_of([g])
    (nobody,), counts = view([g, Graph(Problem("r", "r?", "4", "words"), debate("r", TWO).nodes)], route={"sums": []})
    assert (nobody.problem, counts.dropped) == ("r", 1)


def test_calibrated_weights_go_by_how_often_one_was_right_on_other_questions_when_it_said_so() -> None:
    """a says 90 and is right, b says 90 and is wrong: stated confidence cannot tell them apart, experience can."""
    graphs = [
        Graph(
            Problem(f"q{i}", f"q{i}?", "4"),
            tuple(
                node("answer", f"q{i}", agent, 0, f"Final answer: {x}", answer=x, correct=x == "4", confidence=0.9)
                for agent, x in (("a", "4"), ("b", "5"))
            ),
        )
        for i in range(40)
    ]
    weights = weights_of(graphs, weights="calibrated", tau=0.1, scorers=("a", "b"))
    assert all(weight[0] > 0.99 for weight in weights)
    assert all(weight == pytest.approx([0.5, 0.5]) for weight in weights_of(graphs, scorers=("a", "b")))
    alone = weights_of(graphs[:1], weights="calibrated", scorers=("a", "b"))
    assert alone == [pytest.approx([0.5, 0.5])], "a question's own gold answer says nothing of its weights"


def test_the_tokens_that_a_student_drew_go_with_its_recorded_answer() -> None:
    g = debate("q", TWO)
    last = g.stated(1)[0]
    (state,), _ = states([g], Supervision(), SPEAKERS, WORDING, 0, lambda _: [last], lambda n: (1, 2, 3))
    assert [c.ids for c in state.recorded] == [(1, 2, 3)]


def test_marks_can_be_left_out_and_a_transcript_shown_to_some() -> None:
    g = debate("q", TWO)
    (hidden,), _ = view([g], hide_confidence=True)
    assert all("Confidence: " not in t.partition("You are")[0] for t in texts(hidden))
    (shown_states,), _ = view([g], shown_to=["b"])
    assert [v.messages == shown_states.prompt for v in shown_states.views] == [True, False, True]


def test_who_did_not_debate_reads_as_a_stranger() -> None:
    (state,), counts = view([debate("q", TWO)], scorers=("student",))
    assert "You are" not in texts(state)[0]
    assert "speaks of q" in texts(state)[0]
    assert [v.weight for v in state.views] == [1.0]
    assert counts.without_confidence == 1


def test_a_state_of_which_nothing_was_said_is_left_out_and_counted() -> None:
    silent = Graph(Problem("s", "s?", "4"), (node("answer", "s", "a", 0, "", status="error", error="dead"),))
    built, counts = view([silent, debate("q", TWO)], weights="uniform")
    assert [s.problem for s in built] == ["q"]
    assert (counts.states, counts.dropped) == (1, 1)


def test_rounds_that_were_not_debated_cannot_be_shown() -> None:
    with pytest.raises(RecipeError, match="3 rounds should be shown, but only 2 were debated"):
        view([debate("q", TWO)], rounds=3)


def test_recorded_answers_are_taught_without_talk_to_the_committee() -> None:
    g = debate("q", TWO)
    (plain,), _ = states([g], Supervision(), SPEAKERS, WORDING, 0)
    assert plain.recorded == ()
    (rich,), _ = states([g], Supervision(), SPEAKERS, WORDING, 0, partial(winner, task=TASK))
    assert len(rich.recorded) == 1
    assert "Confidence" not in rich.recorded[0].text
    assert rich.recorded[0].source in g.by_id
