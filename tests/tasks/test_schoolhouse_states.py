"""States of recorded errands as questions."""

from __future__ import annotations

from vivavoce.data.overlap import overlap
from vivavoce.schoolhouse.halls_world import GO, act
from vivavoce.tasks import open_task
from vivavoce.tasks.acting import Acting


def test_a_state_is_what_a_walker_had_read_and_done_and_a_best_action_is_right_there() -> None:
    task = open_task("schoolhouse_states", {"train": 60, "test": 20})
    assert not isinstance(task, Acting), "nothing is played"
    train, test = task.problems("train"), task.problems("test")
    assert (len(train), len(test), len({p.id for p in (*train, *test)})) == (60, 20, 80)
    for p in (*train, *test):
        assert [m["role"] for m in p.history[1:]] == ["user", "assistant"] * (len(p.history) // 2 - 1) + ["user"]
        best = task.worked(p)  # type: ignore[attr-defined]
        assert task.grade(p, best).correct
        wrong = act("A1>?", None if GO in best else 1)
        assert task.grade(p, wrong).correct is False
    assert any(len(p.history) > 4 for p in train), "later states too"


def test_no_state_of_the_test_is_trained_on_and_states_are_compared_by_all_that_was_said() -> None:
    task = open_task("schoolhouse_states", {"train": 60, "test": 20})
    train, test = task.problems("train"), task.problems("test")
    assert len({p.question for p in train} & {p.question for p in test}) > 0, "the last words alone are often the same"
    same, _ = overlap(train, test)
    assert not same
    same, _ = overlap([*train, test[0]], test)
    assert same == [(test[0].id, test[0].id)]
