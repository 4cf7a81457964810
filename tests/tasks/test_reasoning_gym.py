"""reasoning-gym: its questions, made again by the same recipe, and its scorers, shut in."""

from pathlib import Path

import pytest

from vivavoce.errors import DataError
from vivavoce.records import Grade
from vivavoce.tasks import Task, open_task, reasoning_gym
from vivavoce.tasks.checking import check_tasks

pytest.importorskip("reasoning_gym")
OPTIONS = {"datasets": ["chain_sum", "n_queens", "puzzle24"], "train": 7, "test": 6}


@pytest.fixture(scope="module")
def task() -> Task:
    return open_task("reasoning_gym", OPTIONS)


def test_equal_options_make_equal_questions_and_no_question_stands_twice(task: Task) -> None:
    second = open_task("reasoning_gym", OPTIONS)
    train, test = task.problems("train"), task.problems("test")
    assert (train, test) == (second.problems("train"), second.problems("test"))
    assert len({p.id for p in train + test}) == len({p.question for p in train + test}) == 13
    assert [p.group for p in train] == ["chain_sum"] * 3 + ["n_queens"] * 2 + ["puzzle24"] * 2
    other = open_task("reasoning_gym", OPTIONS | {"seed": 1})
    assert not {p.id for p in other.problems("test")} & {p.id for p in train + test}


def test_the_packages_scorer_judges_what_stands_between_the_tags(task: Task) -> None:
    problem = task.problems("test")[0]
    for text in (f"So\n<answer>{problem.gold}</answer>", f"<ANSWER> {problem.gold}\n</ANSWER>."):
        assert task.grade(problem, text) == Grade(problem.gold, True)
    assert task.grade(problem, f"Final answer: {problem.gold}").correct is True
    last = task.grade(problem, f"<answer>{problem.gold}</answer> no: <answer>7x</answer>")
    assert (last.answer, last.correct) == ("7x", False)
    for text in ("", "no idea", "<answer></answer>", f"<think><answer>{problem.gold}</answer></think> hm"):
        assert task.grade(problem, text) == Grade(None, False, "no_answer")


def test_four_other_numbers_that_make_24_are_no_answer(task: Task) -> None:
    first, second = [p for p in task.problems("test") if p.group == "puzzle24"]
    assert task.grade(first, f"<answer>{first.gold}</answer>").correct is True
    assert task.grade(first, f"<answer>{second.gold}</answer>").correct is False


@pytest.mark.parametrize(
    "reply",
    [
        "__import__('os').system('touch {}')",
        "open('{}', 'w').write('x')",
        "__import__('pathlib').Path('{}').touch()",
        "__import__('subprocess').run(['touch', '{}'])",
    ],
)
def test_a_reply_that_its_scorer_evaluates_reaches_nothing(task: Task, tmp_path: Path, reply: str) -> None:
    queens = next(p for p in task.problems("test") if p.group == "n_queens")
    grade = task.grade(queens, f"<answer>{reply.format(tmp_path / 'left')}</answer>")
    assert grade.correct is False
    assert not (tmp_path / "left").exists()
    assert task.grade(queens, f"<answer>{queens.gold}</answer>").correct is True


def test_a_process_that_was_ended_from_outside_is_replaced(task: Task) -> None:
    problem = task.problems("test")[0]
    for process in reasoning_gym._pool.idle:
        process.process.kill()
        process.process.wait()
    assert task.grade(problem, f"<answer>{problem.gold}</answer>").correct is True


def test_what_cannot_be_made_is_told_by_data_set() -> None:
    with pytest.raises(DataError, match="did you mean `chain_sum`"):
        open_task("reasoning_gym", {"datasets": ["chainsum"], "train": 1, "test": 1}).problems("test")
    config = {"chain_sum": {"min_terms": 9, "max_terms": 2}}
    with pytest.raises(DataError, match="data set chain_sum"):
        open_task("reasoning_gym", {"datasets": ["chain_sum"], "test": 1, "config": config}).problems("test")
    tiny = {"coin_flip": {"min_trials": 1, "max_trials": 1}}
    with pytest.raises(DataError, match="questions are different"):
        open_task("reasoning_gym", {"datasets": ["coin_flip"], "test": 900, "config": tiny}).problems("test")


@pytest.mark.slow
def test_every_data_set_accepts_its_gold_answer_and_rejects_a_wrong_one(tmp_path: Path) -> None:
    (checked,) = check_tasks(tmp_path, ["reasoning_gym"])
    assert not checked.off
    assert (checked.rows, checked.rejected) == (212, 212)
    assert checked.accepted == checked.rows - checked.unknown
    assert {doubt.split(", ")[1] for doubt in checked.odd} == {"boxnet", "rush_hour"}
