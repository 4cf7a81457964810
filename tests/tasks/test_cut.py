"""A reply that its token limit cut inside its answer is truncated: no answer, neither right nor anybody's mistake."""

import asyncio
from dataclasses import replace

import pytest

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Talk, Wording
from vivavoce.data.acceptance import AcceptRules, decide
from vivavoce.exams.examine import examine
from vivavoce.graph import Graph
from vivavoce.records import Grade, Problem, Reply, Sampling, node
from vivavoce.tasks import grade_of, open_task

PROBLEM = Problem("p", "9 + 9?", "18")
TRUNCATED = Grade(None, False, "truncated")


@pytest.fixture(scope="module")
def task():
    return open_task("gsm8k", {})


@pytest.mark.parametrize(
    "text",
    [
        "So it is.\nFinal answer: 1",  # of 18
        "So it is.\nFinal answer: 18",  # of 180, perhaps
        "Final answer:\n18",
        "18",
        "So it is \\boxed{18} because",
        "So it is.\nThe answer is 18",
        "Nine and nine are",
        "#### 18",
        "Final answer: 18\n\nThat was wrong.\nFinal answer: 2",
    ],
)
def test_an_answer_that_might_have_gone_on_is_none(task, text: str) -> None:
    assert asyncio.run(grade_of(task, PROBLEM, text, cut=True)) == TRUNCATED


@pytest.mark.parametrize(
    "text", ["Final answer: 18\n", "Final answer: 18\n\nIt is the sum of", "\\boxed{18}\nThis is bec", "#### 18\n\n"]
)
def test_an_answer_whose_line_was_ended_before_the_cut_counts(task, text: str) -> None:
    assert asyncio.run(grade_of(task, PROBLEM, text, cut=True)) == Grade("18", True)
    assert asyncio.run(grade_of(task, replace(PROBLEM, gold="1"), text, cut=True)) == Grade("18", False)


def test_what_was_not_cut_is_graded_as_it_stands_and_nothing_is_empty(task) -> None:
    assert asyncio.run(grade_of(task, PROBLEM, "Final answer: 1")) == Grade("1", False)
    assert [asyncio.run(grade_of(task, PROBLEM, " \n", cut=cut)).status for cut in (False, True)] == ["empty"] * 2


def test_a_task_may_know_that_an_answer_is_complete() -> None:
    task = open_task("schoolhouse", {"train": 1, "test": 0})
    (problem,) = task.problems("train")
    grade = asyncio.run(grade_of(task, problem, f"ans={problem.gold} con", cut=True))
    assert (grade.correct, grade.status) == (True, "ok")


def test_an_exam_and_a_debate_say_the_same_of_it(task, tmp_path) -> None:
    agent = Scripted("ada", lambda messages, sampling, seed: Reply("Let me see.\nFinal answer: 1", finish="length"))
    with Journal(tmp_path / "journal.sqlite") as journal:
        wording = Wording(Talk(), prompt_set("general"), task)
        judged = examine(agent, [PROBLEM], wording, journal, Sampling(), stage="test")
        (one,) = asyncio.run(judged)
    assert (one.answer, one.correct, one.status) == (None, False, "truncated")


def test_a_rationale_that_was_cut_is_not_learnt_even_if_no_answer_is_asked_for() -> None:
    cut = node("rationale", "p", "ada", 0, "Nine and nine are", answer=None, correct=False, status="truncated")
    rules = AcceptRules(take="all", answer_check=False)
    (decision,) = decide([Graph(PROBLEM, (cut,))], rules)
    assert (decision.verdict, decision.reason) == ("rejected", "truncated")


@pytest.mark.parametrize("finish", ["length", "filter"])
def test_what_a_filter_ended_is_cut_as_what_a_limit_ended_is(task, tmp_path, finish) -> None:
    script = Scripted("a", lambda *_: Reply("So it is.\nFinal answer: 1", finish))
    with Journal(tmp_path / "journal.sqlite") as journal:
        wording = Wording(Talk(), prompt_set("general"), task)
        (judged,) = asyncio.run(examine(script, [PROBLEM], wording, journal, Sampling(), stage="test", seed=0))
    assert (judged.answer, judged.correct, judged.status) == (None, False, "truncated")
