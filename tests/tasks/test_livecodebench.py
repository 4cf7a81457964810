"""LiveCodeBench: rows in the official form, made up here; programs are run in the sandbox."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from tests.shut_in import needs_sandbox

from vivavoce.errors import DataError
from vivavoce.records import Problem
from vivavoce.tasks import Task, open_task

DATA = Path(__file__).parents[3] / "shared" / "data" / "livecodebench_statements"


def packed(cases: list[dict[str, str]]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def case(given: str, wanted: str, kind: str = "stdin") -> dict[str, str]:
    return {"input": given, "output": wanted, "testtype": kind}


SUM = {
    "question_id": "abc1_a",
    "question_content": "Print the sum of the numbers.",
    "starter_code": "",
    "contest_date": "2024-09-01T00:00:00",
    "difficulty": "easy",
    "public_test_cases": json.dumps([case("1 2\n", "3\n")]),
    "private_test_cases": packed([case("4 5 6\n", "15"), case("0.5 1\n", "1.50\n")]),
    "metadata": "{}",
}
PAIRS = {
    "question_id": "77",
    "question_content": "Return the pairs.",
    "starter_code": "class Solution:\n    def pairs(self, nums: List[int], k: int) -> List[List[int]]:\n        ",
    "contest_date": "2025-01-10T00:00:00",
    "difficulty": "hard",
    "public_test_cases": json.dumps([case("[1, 2]\n2", "[[1, 2], [2, 2]]", "functional")]),
    "private_test_cases": packed([case("[]\n1", "[]", "functional")]),
    "metadata": json.dumps({"func_name": "pairs"}),
}


def opened(folder: Path, *rows: dict[str, Any], **options: Any) -> Task:
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_task("livecodebench", {"path": str(folder), **options})


def test_statements_are_asked_with_the_way_in_which_they_are_tested(tmp_path: Path) -> None:
    task = opened(tmp_path, SUM, PAIRS)
    assert task.problems("train") == []
    first, second = task.problems("test")
    assert "standard input" in first.question
    assert "def pairs(self" in second.question
    assert (first.id, second.group) == ("livecodebench/abc1_a", "hard")
    assert "15" not in first.question, "no hidden test is told"
    [late] = opened(tmp_path, SUM, PAIRS, since="2025-01-01").problems("test")
    assert late == second
    [early] = opened(tmp_path, SUM, PAIRS, until="2024-12-31").problems("test")
    assert early == first
    with pytest.raises(DataError, match="no contest problem"):
        opened(tmp_path, SUM, since="2026-01-01").problems("test")


@needs_sandbox
def test_programs_are_run_on_public_and_hidden_tests_alike(tmp_path: Path) -> None:
    task = opened(tmp_path, SUM, PAIRS)
    sums, pairs = task.problems("test")

    def graded(problem: Problem, program: str) -> tuple[bool | None, str]:
        grade = task.grade(problem, f"So:\n```python\n{program}\n```")
        return grade.correct, grade.reason

    assert graded(sums, "print(sum(map(float, input().split())))") == (True, "")
    right = "import sys\ndef main():\n    print(sum(float(x) for x in sys.stdin.read().split()))\n    sys.exit()\n"
    assert graded(sums, right + "if __name__ == '__main__':\n    main()") == (True, "")
    assert graded(sums, "a, b = input().split()\nprint(int(a) + int(b))")[0] is False, "the hidden ones have three"
    wrong, why = graded(sums, "print(3)")
    assert (wrong, "test 2: wrong output" in why) == (False, True)
    assert graded(sums, "import os\nos._exit(0)")[0] is False, "who leaves before the tests are through has not passed"
    solution = "class Solution:\n    def pairs(self, nums: List[int], k: int):\n        return [(n, k) for n in nums]"
    assert graded(pairs, solution) == (True, "")
    assert graded(pairs, solution.replace("(n, k)", "(k, n)"))[0] is False
    assert task.grade(sums, "I do not know.").status == "no_answer"


def test_files_without_tests_or_with_something_else_packed_are_refused(tmp_path: Path) -> None:
    bare = {k: v for k, v in SUM.items() if not k.endswith("test_cases")}
    with pytest.raises(DataError, match=r"(?s)no tests, so that no answer could be graded.*code_generation_lite"):
        opened(tmp_path, bare).problems("test")
    harmful = base64.b64encode(zlib.compress(pickle.dumps(print))).decode()
    with pytest.raises(DataError, match="it would load builtins"):
        opened(tmp_path, {**SUM, "private_test_cases": harmful}).problems("test")
    for change, message in (
        ({"private_test_cases": "%%"}, "cannot be unpacked"),
        ({"public_test_cases": "[3]", "private_test_cases": ""}, "not a list of tests"),
        ({"public_test_cases": "", "private_test_cases": ""}, "the row has no tests"),
        ({"private_test_cases": packed([case("1", "1", "functional")])}, "of the kinds functional, stdin"),
    ):
        with pytest.raises(DataError, match=message):
            opened(tmp_path, {**SUM, **change}).problems("test")
    with pytest.raises(DataError, match="names no func_name"):
        opened(tmp_path, {**PAIRS, "metadata": "{}"}).problems("test")
    with pytest.raises(DataError, match="appears twice"):
        opened(tmp_path, SUM, SUM).problems("test")


@pytest.mark.skipif(not DATA.is_dir(), reason="the statements are not there")
def test_statements_alone_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="no tests, so that no answer could be graded"):
        open_task("livecodebench", {"path": str(DATA)}).problems("test")
