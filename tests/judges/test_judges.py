"""Models that judge where no program can: their verdicts, read and put together, paid, resumed and measured."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from vivavoce.agents import open_agent
from vivavoce.agents.journal import Journal
from vivavoce.committee.judges import JudgedTask, Judging, Jury, Verdict, decide_verdict, values
from vivavoce.errors import RecipeError
from vivavoce.exams.judging import judging
from vivavoce.records import Grade, Problem, Reply, Sampling
from vivavoce.stats import kappa
from vivavoce.tasks import grade_of, open_task

PEOPLE = Path(__file__).parent / "people.py"
GOOD, BAD = "Give it water.", "Paint it."


@pytest.fixture
def task(tmp_path: Path) -> Any:
    rows = [{"question": f"What does plant {n} need?"} for n in range(6)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return open_task("jsonl", {"path": tmp_path / "q.jsonl", "train_share": 0.5, "seed": 0, "grader": "judge"})


def jury(journal: Journal | None, *names: str, temperature: float = 0.3, **how: Any) -> Jury:
    agents = [open_agent(name, "scripted", {"function": f"{PEOPLE}:{name}"}) for name in names]
    return Jury([(agent, Sampling(temperature)) for agent in agents], Judging(**how), journal)


def graded(task: Any, judges: Jury, text: str, **how: Any) -> Grade:
    return asyncio.run(grade_of(JudgedTask(task, judges), task.problems("train")[0], text, **how))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("Fine. [8]", (8.0, "ok")),
        ("Fine.\nScore: 8/10", (8.0, "ok")),
        ("<think>[3]</think> Fine. [8]", (8.0, "ok")),
        ("Eight out of ten", (None, "no_answer")),
        ("[7-8]", (None, "no_answer")),
        ("[11]", (None, "out_of_range")),
        ("", (None, "empty")),
    ],
)
def test_a_score_is_read_or_it_is_no_verdict(reply: str, read: tuple[float | None, str]) -> None:
    assert Judging().read(Reply(reply), "") == read


@pytest.mark.parametrize(
    ("reply", "order", "read"),
    [
        ("Better. [A]", "first", (1.0, "ok")),
        ("Better. [A]", "second", (0.0, "ok")),
        ("**[b]**", "first", (0.0, "ok")),
        ("[Tie].", "second", (0.5, "ok")),
        ("[A] or [B]? I cannot say", "first", (None, "no_answer")),
        ("Answer A", "first", (None, "no_answer")),
        ("<think>[A]</think>", "first", (None, "no_answer")),
    ],
)
def test_a_preference_is_read_or_it_is_no_verdict(reply: str, order: Any, read: tuple[float | None, str]) -> None:
    assert Judging(form="pairwise").read(Reply(reply), order) == read


def test_a_verdict_that_was_cut_is_truncated() -> None:
    assert Judging().read(Reply("It is well argued, but", finish="length"), "") == (None, "truncated")
    assert Judging(highest=10).read(Reply("Good.\nScore: 1", finish="length"), "") == (None, "truncated"), (
        "of 10, perhaps"
    )
    assert Judging().read(Reply("[4]\n\nIt argues", finish="filter"), "") == (4.0, "ok")


def test_judges_decide_together_and_half_without_a_verdict_decide_nothing() -> None:
    def verdicts(*scores: float | None) -> list[Verdict]:
        return [Verdict(str(i), "", s, "ok" if s is not None else "no_answer") for i, s in enumerate(scores)]

    how = {rule: Judging(decide=rule) for rule in ("mean", "majority", "all")}
    assert [decide_verdict(verdicts(9, 9, 2), how[rule]) for rule in how] == [False, True, False]
    assert [decide_verdict(verdicts(10, 7, 4), how[rule]) for rule in how] == [True, True, False]
    assert decide_verdict(verdicts(9, 9, None), how["mean"]) is True
    assert decide_verdict(verdicts(9, None), how["mean"]) is None
    assert decide_verdict(verdicts(9, None, None), how["mean"]) is None


def test_a_judge_who_prefers_a_place_says_tie(task: Any, tmp_path: Path) -> None:
    both = [Verdict("a", "first", 1.0, "ok"), Verdict("a", "second", 0.0, "ok")]
    assert values(both) == {"a": 0.5}
    assert values([both[0], Verdict("a", "second", None, "no_answer")]) == {"a": None}
    problem = Problem("p", "What does it need?", gold=BAD)
    with Journal(tmp_path / "journal.sqlite") as journal:
        judges = jury(journal, "first", form="pairwise")
        assert {v.value for v in asyncio.run(judges.verdicts(problem, GOOD, "test"))} == {1.0, 0.0}
        assert values(asyncio.run(judges.verdicts(problem, GOOD, "test"))) == {"first": 0.5}
        fair = jury(journal, "fair", form="pairwise", right_from=1.0)
        assert decide_verdict(asyncio.run(fair.verdicts(problem, GOOD, "test")), fair.rules) is True
        assert decide_verdict(asyncio.run(fair.verdicts(problem, BAD, "test")), fair.rules) is False
        by_judge = judging(journal, fair.rules)["judges"]
    assert (by_judge["first"]["same_in_both_orders"], by_judge["fair"]["same_in_both_orders"]) == (0.0, 1.0)


def test_answers_are_graded_by_those_who_judge(task: Any, tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        judges = jury(journal, "strict")
        assert graded(task, judges, GOOD) == Grade(GOOD, True, score=9.0)
        assert graded(task, judges, f"<think>Paint it?</think>{BAD}") == Grade(BAD, False, score=2.0)
        assert len(journal) == 2
        assert graded(task, judges, GOOD) == Grade(GOOD, True, score=9.0)  # from the journal
        assert graded(task, judges, "") == Grade(None, False, "empty")
        assert graded(task, judges, GOOD, cut=True) == Grade(None, False, "truncated")
        assert len(journal) == 2
        (call, _) = journal
        assert (call.stage, call.tags["kind"]) == ("judge:", "verdict")


def test_what_no_judge_can_be_read_on_is_unjudged_and_neither_right_nor_wrong(task: Any, tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        for names in (("mute",), ("gone",), ("strict", "mute"), ("strict", "gone")):
            grade = graded(task, jury(journal, *names), GOOD)
            assert (grade.correct, grade.status, grade.score) == (None, "unjudged", None), names
            assert grade.reason
        assert graded(task, jury(journal, "strict", "kind", "mute"), GOOD).correct is True
        assert sum(call.agent == "mute" for call in journal) == 2  # asked once more, and no third time
        graded(task, jury(journal, "mute", temperature=0.0), BAD)
        assert sum(call.agent == "mute" for call in journal) == 3  # at temperature 0 it would say the same again


def test_an_open_question_without_judges_has_no_grade(task: Any) -> None:
    assert task.grade(task.problems("train")[0], GOOD).status == "unjudged"
    assert asyncio.run(grade_of(task, task.problems("train")[0], GOOD)).correct is None


def test_judges_are_measured_against_gold_without_deciding(tmp_path: Path) -> None:
    rows = [{"question": f"What does plant {n} need?", "answer": "water"} for n in range(8)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    task = open_task("jsonl", {"path": tmp_path / "q.jsonl", "train_share": 1.0, "seed": 0, "grader": "text"})
    with Journal(tmp_path / "journal.sqlite") as journal:
        judges = jury(journal, "strict", "kind", decides=False)
        for i, problem in enumerate(task.problems("train")):
            reply = f"Final answer: {'water' if i < 5 else 'paint'}"
            grade = asyncio.run(grade_of(JudgedTask(task, judges), problem, reply))  # type: ignore[arg-type]
            assert (grade.correct, grade.score) == (i < 5, 9.5 if i < 5 else 6.0), "the mean of both"
        figures = judging(journal, judges.rules)
    assert figures["gold"]["strict"] | {"wilson95": 0} == {
        "n": 8, "agree": 1.0, "wilson95": 0, "kappa": 1.0, "right_called_wrong": 0, "wrong_called_right": 0,
    }  # fmt: skip
    assert (figures["gold"]["kind"]["agree"], figures["gold"]["kind"]["wrong_called_right"]) == (0.625, 3)
    assert figures["gold"]["kind"]["kappa"] == 0
    assert figures["between"][0]["agree"] == 0.625
    assert "tests" not in figures, "no answer of a test was judged"
    assert figures["judges"]["kind"]["right"] == 1.0


def test_kappa_takes_chance_out() -> None:
    assert kappa([True, False], [True, False]) == 1
    assert kappa([True, False, True, False], [True, True, False, False]) == 0
    assert kappa([True, True], [True, True]) is None
    assert kappa([], []) is None


def test_pairs_need_something_to_compare_with(task: Any) -> None:
    from vivavoce.methods.juries import with_jury

    with pytest.raises(RecipeError, match="3 of 3 questions have none"):
        with_jury(task, jury(None, "fair", form="pairwise"))
