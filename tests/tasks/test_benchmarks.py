"""Each benchmark reads its official forms, and grades what stands in them right."""

import csv
import importlib
import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from vivavoce.errors import DataError, RecipeError
from vivavoce.tasks import Task, open_task
from vivavoce.tasks.benchmark import Benchmark

OFFICIAL = [
    (name, files)
    for name in ("gsm8k", "svamp", "strategyqa", "logiqa", "mmlu", "mmlu_pro", "arc_challenge", "ecqa", "math")
    for files in importlib.import_module(f"vivavoce.tasks.{name}").OFFICIAL
]


def opened(name: str, **options: Any) -> Benchmark:
    task = open_task(name, options)
    assert isinstance(task, Benchmark)
    return task


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def array(path: Path, *rows: object) -> Path:
    path.write_text(json.dumps(rows), "utf-8")
    return path


def shown(task: Task, split: str = "test") -> list[tuple[str, str]]:
    return [(problem.question, problem.gold) for problem in task.problems(split)]


@pytest.mark.parametrize(("name", "files"), OFFICIAL, ids=lambda value: value if isinstance(value, str) else "")
def test_official_gold_answers_are_right_and_those_beside_them_wrong(
    official: Path, name: str, files: Mapping[str, Any]
) -> None:
    """Every so-manieth row; ``viva check-tasks`` goes through all of them."""
    paths = {k: sorted(official.glob(v))[0] if k.endswith("path") else v for k, v in files.items()}
    task, most = opened(name, **paths), 12 if name == "math" else 80
    for split in [split for split in ("train", "test") if "path" in paths or f"{split}_path" in paths]:
        rows = len(task.problems(split))
        assert rows > 100
        assert len({problem.id for problem in task.problems(split)}) == rows
        for sample in islice(task.samples(split), 0, None, rows // most):
            for text in sample.right:
                assert task.grade(sample.problem, text).correct is True, (sample.where, text)
            for text in sample.wrong:
                assert task.grade(sample.problem, text).correct is False, (sample.where, text)


def test_svamp_joins_story_and_question(tmp_path: Path) -> None:
    row = {"ID": "1", "Body": "Ada had 5 pens and gave away 2", "Question": "How many are left?", "Answer": 3.0}
    rows = [row | {"Type": "Subtraction"}, row | {"Body": "She had 7 pens.", "Answer": 7.0, "Type": "Addition"}]
    task = opened("svamp", path=array(tmp_path / "SVAMP.json", *rows), train_share=0)
    assert shown(task) == [
        ("Ada had 5 pens and gave away 2. How many are left?", "3"),
        ("She had 7 pens. How many are left?", "7"),
    ]
    assert [problem.group for problem in task.problems("test")] == ["Subtraction", "Addition"]


def test_strategyqa_answers_yes_or_no(tmp_path: Path) -> None:
    rows = [{"question": "Can a fish ring a bell?", "answer": True}, {"question": "Is 4 odd?", "answer": False}]
    task = opened("strategyqa", test_path=array(tmp_path / "dev.json", *rows))
    assert [gold for _, gold in shown(task)] == ["yes", "no"]
    assert task.grade(task.problems("test")[0], "Final answer: untrue").correct is False


LOGIQA = """
b
Some birds sing.
What follows?
A.All birds sing.
B.Not all are silent.
C.None sings.
D. Cats sing.

b
All in Lund are Swedes, and some in Lund do not work.
What must be true?
A.Some Swedes work.
C.Some who work are Swedes.
B.Some Swedes do not work.
D.None works.

c
Professor Lin coughs.
What is assumed?
A.He smokes.
B.He is old.
Professor C.Lin did smoke.
D.He is well.
"""


def test_logiqa_puts_options_back_in_the_order_of_their_letters(tmp_path: Path) -> None:
    (tmp_path / "Test.txt").write_text(LOGIQA, "utf-8")
    task = opened("logiqa", test_path=tmp_path / "Test.txt")
    first, second, third = shown(task)
    birds = "A. All birds sing.\nB. Not all are silent.\nC. None sings.\nD. Cats sing."
    assert first == (f"Some birds sing.\nWhat follows?\n{birds}", "B")
    assert second[1] == "B"
    assert second[0].endswith("B. Some Swedes do not work.\nC. Some who work are Swedes.\nD. None works.")
    assert third[1] == "C"
    assert "\nC. Professor C.Lin did smoke.\n" in third[0]
    assert [sample.odd != "" for sample in task.samples("test")] == [False, True, True]


def test_a_logiqa_record_that_is_cut_off_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "Test.txt").write_text(LOGIQA[: LOGIQA.index("C.Some")], "utf-8")
    with pytest.raises(DataError, match="eight lines") as caught:
        opened("logiqa", test_path=tmp_path / "Test.txt").problems("test")
    assert caught.value.where.endswith("Test.txt, line 9")


@pytest.mark.parametrize("name", ["test.txt", "test.jsonl"])
def test_logiqa_2_is_json_lines_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    row = {"id": 1, "text": "Some birds sing.", "question": "What follows?", "options": ["a", "b", "c"], "answer": 2}
    task = opened("logiqa", version=2, test_path=lines(tmp_path / name, row))
    assert shown(task) == [("Some birds sing.\nWhat follows?\nA. a\nB. b\nC. c", "C")]
    assert task.name == "logiqa2"


def test_an_option_that_stands_there_twice_is_offered_once(tmp_path: Path) -> None:
    row = {"subject": "arithmetic", "question": "2 + 2?", "choices": ["5", "5", "4", "3"], "answer": "C"}
    task = opened("mmlu", test_path=lines(tmp_path / "test.jsonl", row))
    assert shown(task) == [("2 + 2?\nA. 5\nB. 4\nC. 3", "B")]
    (sample,) = task.samples("test")
    assert sample.wrong == ("Final answer: A", "Final answer: C")
    assert "offered once" in sample.odd


def test_mmlu_reads_the_folder_of_files_without_a_header(tmp_path: Path) -> None:
    for subject, gold in (("anatomy", "A"), ("high_school_physics", "D")):
        with (tmp_path / f"{subject}_test.csv").open("w", newline="") as file:
            csv.writer(file).writerow([f"Of {subject}?\nSay, which?", "one", "two", "three", "four", gold])
    task = opened("mmlu", test_path=tmp_path)
    assert [(problem.group, problem.gold) for problem in task.problems("test")] == [
        ("anatomy", "A"),
        ("high_school_physics", "D"),
    ]
    only = opened("mmlu", test_path=tmp_path, subjects=["High school physics"])
    assert [problem.group for problem in only.problems("test")] == ["high_school_physics"]
    with pytest.raises(DataError, match=r"no question of the subject 'anatomi', did you mean `anatomy`"):
        opened("mmlu", test_path=tmp_path, subjects=["anatomi"]).problems("test")


def test_mmlu_pro_is_one_set_that_is_cut_by_share_and_seed(tmp_path: Path) -> None:
    letters = "ABCDEFGHIJ"
    rows = [
        {"question": f"Is it {i}?", "options": [*letters.lower()], "answer": letters[i % 10], "category": "physics"}
        for i in range(40)
    ]
    path = lines(tmp_path / "test.jsonl", *rows)
    task = opened("mmlu_pro", path=path, train_share=0.75)
    train, test = task.problems("train"), task.problems("test")
    assert (len(train), len(test)) == (30, 10)
    assert {p.gold for p in train + test} == {*letters}
    assert train == opened("mmlu_pro", path=path, train_share=0.75).problems("train")
    assert train != opened("mmlu_pro", path=path, train_share=0.75, seed=1).problems("train")
    assert task.grade(test[0], f"The answer is ({test[0].gold}).").correct is True


def test_arc_reads_both_forms_and_letters_its_digits(tmp_path: Path) -> None:
    choices = [{"label": str(i), "text": text} for i, text in enumerate(("ice", "steam", "rock"), 1)]
    rows = [
        {"id": "1", "question": {"stem": "Which is hot?", "choices": choices}, "answerKey": "2"},
        {"id": "2", "question": "Cold?", "choices": {"text": ["ice", "sun"], "label": ["A", "B"]}, "answerKey": "A"},
    ]
    task = opened("arc_challenge", test_path=lines(tmp_path / "test.jsonl", *rows))
    assert shown(task) == [("Which is hot?\nA. ice\nB. steam\nC. rock", "B"), ("Cold?\nA. ice\nB. sun", "A")]
    with pytest.raises(DataError, match="answerKey '4' is not one of the labels"):
        shown(opened("arc_challenge", test_path=lines(tmp_path / "bad.jsonl", rows[0] | {"answerKey": "4"})))


def test_ecqa_finds_the_letter_of_its_answer(tmp_path: Path) -> None:
    fields = ["", "q_no", "q_text", *(f"q_op{i}" for i in range(1, 6)), "q_ans", "taskB"]
    with (tmp_path / "test.csv").open("w", newline="") as file:
        written = csv.writer(file)
        written.writerow(fields)
        written.writerow([0, "x", "Where is a book?", "sea", "shelf", "sky", "shelf", "oven", "shelf", "It\nis so."])
    task = opened("ecqa", test_path=tmp_path / "test.csv")
    assert shown(task) == [("Where is a book?\nA. sea\nB. shelf\nC. sky\nD. oven", "B")]


def test_math_reads_a_folder_of_problems_and_rows_with_an_answer(tmp_path: Path) -> None:
    problem = {"problem": "What is $1/2$ of 9?", "level": "Level 1", "type": "Algebra"}
    for number, box in ((2, "\\boxed{\\frac{9}{2}}"), (10, "\\boxed 5"), (11, "\\boxed{}")):
        (tmp_path / "algebra").mkdir(exist_ok=True)
        row = problem | {"problem": f"{number}?", "solution": f"So it is ${box}$."}
        (tmp_path / "algebra" / f"{number}.json").write_text(json.dumps(row, indent=4))
    task = opened("math", test_path=tmp_path)
    assert shown(task) == [("2?", "\\frac{9}{2}"), ("10?", "5")]
    assert task.left_out == [f"{tmp_path}/algebra/11.json, row 1: the box of its solution is empty"]
    row = {"problem": "?", "solution": "$\\boxed{5.0}$", "answer": "5", "subject": "Geometry", "level": 1}
    (kept,) = opened("math", test="math500", test_path=lines(tmp_path / "500.jsonl", row)).problems("test")
    assert (kept.gold, kept.group) == ("5", "Geometry")


@pytest.mark.parametrize(("limit", "kept"), [(None, 2), (1, 1)])
def test_a_question_of_train_that_is_tested_is_left_out_of_train(tmp_path: Path, limit: int | None, kept: int) -> None:
    rows = [
        {"subject": "sums", "question": f"{i} + 1?", "choices": [str(i), str(i + 1)], "answer": 1} for i in range(4)
    ]
    paths = {
        "train_path": lines(tmp_path / "val.jsonl", *rows[:3]),
        "test_path": lines(tmp_path / "test.jsonl", *rows[2:]),
    }
    task = opened("mmlu", **paths, train_limit=limit, test_limit=limit)
    assert len(task.problems("train")) == kept
    assert task.left_out == [f"{tmp_path}/val.jsonl, row 3: a question of train that stands in test, too"]
    strict = opened("mmlu", **paths, overlap="refuse")
    strict.problems("train")
    with pytest.raises(DataError, match="1 questions are both in train and in test"):
        strict.problems("test")


def test_a_path_for_the_whole_excludes_one_for_a_part(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="path excludes train_path and test_path"):
        opened("svamp", path=tmp_path, test_path=tmp_path)


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder holds no file of rows"):
        opened("mmlu_pro", path=tmp_path).problems("test")


def test_a_gold_answer_that_is_none_of_the_options_is_named(tmp_path: Path) -> None:
    row = {"question": "?", "options": ["a", "b"], "answer": "C", "category": "physics"}
    with pytest.raises(DataError, match="'C' is none of 2 options") as caught:
        opened("mmlu_pro", path=lines(tmp_path / "test.jsonl", row)).problems("test")
    assert caught.value.where == f"{tmp_path}/test.jsonl, row 1"
