"""Agents agree when their answers are one answer by the task's own equality, whatever form each gave it."""

import itertools
from types import SimpleNamespace

import pytest

from vivavoce.committee.votes import vote
from vivavoce.data.acceptance import AcceptRules, decide
from vivavoce.graph import Graph
from vivavoce.records import Node, Problem, node
from vivavoce.tasks import open_task
from vivavoce.tasks.agreement import classes, majority

PROBLEM = Problem("p", "?", "\\frac{1}{2}")
HALVES = ["\\frac{1}{2}", "\\frac12", "\\dfrac{1}{2}", "0.5", "1/2"]


@pytest.fixture(scope="module")
def math():
    pytest.importorskip("math_verify")
    return open_task("math", {"train_path": "a", "test_path": "b"})


def test_one_half_in_every_form_is_one_answer(math) -> None:
    assert classes(math, PROBLEM, [*HALVES, "3", None, "\\sqrt{9}"]) == [0, 0, 0, 0, 0, 5, None, 5]


def test_the_order_of_the_agents_changes_no_class(math) -> None:
    answers = ["2x", "x+x", "3", "x\\cdot 2"]
    for order in itertools.permutations(answers):
        table = dict(zip(order, classes(math, PROBLEM, order), strict=True))
        assert len({table[a] for a in ("2x", "x+x", "x\\cdot 2")}) == 1
        assert table["3"] != table["2x"]


def test_an_answer_that_is_none_agrees_with_nobody() -> None:
    task = open_task("gsm8k", {})
    assert classes(task, PROBLEM, [None, "5", None, "5"]) == [None, 1, None, 1]
    assert classes(task, PROBLEM, []) == []
    assert majority(task, PROBLEM, [None, None, "5"]) is None
    assert majority(task, PROBLEM, [None, "5", "5"]) == "5"


def test_sameness_is_closed_and_a_task_without_its_own_compares_texts() -> None:
    near = SimpleNamespace(same=lambda problem, a, b: abs(int(a) - int(b)) == 1)
    assert classes(near, PROBLEM, ["3", "1", "2", "9"]) == [0, 0, 0, 3]  # type: ignore[arg-type]
    plain = SimpleNamespace()
    assert classes(plain, PROBLEM, ["1", "1.0", "1"]) == [0, 1, 0]  # type: ignore[arg-type]


def _answer(agent: str, answer: str, kind: str = "answer") -> Node:
    correct = answer in HALVES
    return node(kind, "p", agent, 0, f"Final answer: ${answer}$", answer=answer, correct=correct)


def test_three_right_answers_in_three_forms_outvote_two_wrong_ones_in_one(math) -> None:
    nodes = [_answer(f"a{i}", answer) for i, answer in enumerate(["3", *HALVES[1:4], "3"])]
    won = vote(math, PROBLEM, nodes, "majority")
    assert won is not None
    assert won.correct is True
    assert vote(None, PROBLEM, nodes, "majority").correct is False  # type: ignore[union-attr]


def test_a_majority_of_rationales_is_counted_the_same_way(math) -> None:
    texts = [_answer(f"a{i}", answer, "rationale") for i, answer in enumerate(["3", *HALVES[1:4], "3"])]
    verdicts = decide([Graph(PROBLEM, tuple(texts))], AcceptRules(take="majority", answer_check=False), task=math)
    assert [d.verdict for d in verdicts] == ["rejected", "accepted", "accepted", "accepted", "rejected"]
