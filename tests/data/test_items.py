"""Which questions and whose texts an arm learns from, and what is kept of earlier exams: all views of the graphs."""

from __future__ import annotations

import pytest

from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Wording
from vivavoce.data.acceptance import AcceptRules, decide
from vivavoce.data.two_task import (
    Items,
    Lessons,
    choose_items,
    feedback_rows,
    only,
    rationale_rows,
    replay_rows,
    solved_problems,
)
from vivavoce.graph import Graph
from vivavoce.protocols.peer_review import Options
from vivavoce.records import Example, Problem, node
from vivavoce.tasks import open_task

LESSONS = Lessons(Wording(Options(per_question="all"), prompt_set("general"), open_task("gsm8k", {})), "pupil")


def exam(i: int, stated: str | None) -> Graph:
    """A question whose answer is 4, what the student said, and a feedback and a rationale of each of two teachers."""
    p = Problem(f"p{i}", f"What is 2 + 2, in world {i}?", "4")
    answer = node(
        "answer",
        p.id,
        "pupil",
        0,
        f"Final answer: {stated}",
        answer=stated,
        correct=stated == "4",
        status="ok" if stated else "no_answer",
    )
    notes = [
        node("critique", p.id, t, 0, f"{t}: you forgot to carry.", parents=(answer.id,), target=answer.id)
        for t in ("ada", "bob")
    ]
    texts = [node("rationale", p.id, t, 0, f"{t}: 2 and 2 make 4.", answer="4", correct=True) for t in ("ada", "bob")]
    return Graph(p, (answer, *(notes if stated == "7" else []), *texts))


EXAM = [exam(i, "7" if i % 3 == 0 else "4" if i % 3 == 1 else None) for i in range(30)]


def ids(graphs: list[Graph]) -> set[str]:
    return {g.problem.id for g in graphs}


def learnt(items: Items, seed: int = 0) -> set[str]:
    return ids(choose_items(EXAM, items, LESSONS, seed))


def test_items_are_the_mistakes_or_all_or_as_many_drawn_from_all() -> None:
    mistakes, drawn = learnt("mistakes"), learnt("random")
    assert mistakes == {f"p{i}" for i in range(0, 30, 3)}
    assert learnt("all") == ids(EXAM)
    assert len(drawn) == len(mistakes)
    assert drawn - mistakes, "also what the student knew"
    assert drawn == learnt("random") != learnt("random", seed=1)


def test_what_is_drawn_hangs_on_the_seed_and_the_questions_and_on_no_order() -> None:
    assert ids(choose_items(EXAM[::-1], "random", LESSONS, 0)) == learnt("random")


def test_a_teacher_left_out_teaches_nothing_and_takes_no_place_among_the_best() -> None:
    rules = AcceptRules(take="all", top_m=1)
    everyone = {d.author for d in decide(EXAM, rules) if d.verdict == "accepted"}
    assert everyone == {"ada", "bob"}
    seen = only(EXAM, ["bob"])
    rows = list(rationale_rows(seen, decide(seen, rules), LESSONS))
    assert len(rows) == 30, "every question has its best text, now that all others are away"
    texts = [row.completion for row in [*rows, *feedback_rows(seen, LESSONS)]]
    assert len(texts) == 30 + 10
    assert all(t.startswith("bob") for t in texts)


def test_solved_is_what_was_answered_right_and_no_answer_is_not() -> None:
    assert solved_problems(EXAM, LESSONS) == {f"p{i}" for i in range(1, 30, 3)}


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.25, 5), (0.5, 10), (1.0, 20)])
def test_the_share_that_is_replayed_is_drawn_from_the_rows_on_what_is_solved(share: float, kept: int) -> None:
    rows = [Example(f"p{i}", (), f"text {j}", (f"{i}-{j}",), stream="answer") for i in range(30) for j in range(2)]
    known = solved_problems(EXAM, LESSONS)
    drawn = replay_rows(rows, known, share, 0)
    assert len(drawn) == kept == len({row.source for row in drawn})
    assert {row.problem for row in drawn} <= known
    assert drawn == replay_rows(rows, known, share, 0)
    if share == 0.5:
        assert drawn != replay_rows(rows, known, share, 1)
