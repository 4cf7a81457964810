from __future__ import annotations

import ast
import asyncio
import json
from pathlib import Path

import pytest
from tests.shut_in import needs_sandbox

from vivavoce.errors import DataError
from vivavoce.tasks import grade_of, open_task
from vivavoce.tasks.mutation import mutants
from vivavoce.tasks.numpy_stand_in import without_numpy
from vivavoce.tasks.programs import in_fence, program_in

WHOLE = "def f(x):\n    return x + 1\n"
HEAD = 'def f(x):\n    """Add one."""\n'


@pytest.mark.parametrize(
    ("reply", "program"),
    [
        (f"```python\n{WHOLE}```", WHOLE),
        (f"Sure!\n```py\n{WHOLE}```\nIt adds one.", WHOLE),
        (f"```\n{WHOLE}```", WHOLE),
        (f"~~~python\n{WHOLE}~~~", WHOLE),
        (f"First try:\n```python\ndef f(x): return 0\n```\nBetter:\n```python\n{WHOLE}```", WHOLE),
        (f"```python\n{WHOLE}```\nUse it:\n```python\nprint(f(1))\n```", WHOLE),
        (f"```bash\npip install f\n```\n```python\n{WHOLE}```", WHOLE),
        (f"```python\n{WHOLE}", WHOLE),
        (f"<think>```python\ndef f(x): return 0\n```</think>\n```python\n{WHOLE}```", WHOLE),
        (WHOLE, WHOLE),
        (f"Here it is:\nimport math\n{WHOLE}\nThis adds one.", f"import math\n{WHOLE}"),
        ("    return x + 1\n", f"{HEAD}    return x + 1\n"),
        ("    return x + 1\n\nThat is all.", f"{HEAD}    return x + 1\n"),
        ("```python\n    return x + 1\n```", f"{HEAD}    return x + 1\n"),
        ("```python\r\ndef f(x):\r\n    return x + 1\r\n```", WHOLE),
        ("f = lambda x: x + 1\n", "f = lambda x: x + 1\n"),
        ("I cannot do that.", None),
        ("```python\ndef g(x): return x\n```", None),
        ("def ff(x): return x", None),
        ("", None),
    ],
)
def test_the_program_is_found_in_what_a_model_wrote(reply: str, program: str | None) -> None:
    assert program_in(reply, "f", HEAD) == program


def test_a_mutant_differs_by_one_change_and_the_last_returns_something_else() -> None:
    rows = list(mutants("def f(x):\n    if x > 2 and x != 7:\n        return x * 3\n    return 'a'", "f", 20))
    assert len(set(rows)) == len(rows)
    assert "x <= 2 and x != 7" in rows[1] + rows[0] + rows[2]
    assert any("x > 2 or x != 7" in m for m in rows)
    assert any("x + 3" in m for m in rows)
    assert any("x * 4" in m for m in rows)
    assert any("'ax'" in m for m in rows)
    assert rows[-1].startswith("def f")
    assert "_right" in rows[-1]
    assert all(ast.parse(m) for m in rows)


def test_a_docstring_is_no_constant_to_change() -> None:
    assert len(list(mutants(f'{HEAD}    """{"long " * 9}"""\n    pass', "f", 20))) <= 2


@needs_sandbox
def test_the_stand_in_compares_as_numpy_does() -> None:
    np = pytest.importorskip("numpy")
    namespace: dict = {}
    exec(without_numpy("import numpy as np"), namespace)
    ours = namespace["np"].allclose
    pairs = [
        (1.0, 1.0 + 1e-9), (1.0, 1.1), ([1.0, 2.0], [1.0, 2.0]), ([1.0, 2.5], [1.0, 2.0]), ((1.0, 2.0), [1.0, 2.0]),
        ([[1.0], [2.0]], [[1.0], [2.0 + 1e-8]]), (float("inf"), float("inf")), (float("nan"), float("nan")),
        (float("inf"), 1.0), ([], []), (1e9, 1e9 + 1), (True, True), (0, 1e-7),
    ]  # fmt: skip
    for out, exp in pairs:
        assert bool(ours(out, exp, rtol=1e-7, atol=1e-6)) == bool(np.allclose(out, exp, rtol=1e-7, atol=1e-6)), (
            out,
            exp,
        )


CASES = [
    ("humaneval", "humaneval/HumanEval_first_half.jsonl", 82),
    ("humaneval", "humaneval_plus/HumanEvalPlus-OriginFmt_first_half.jsonl.gz", 82),
    ("mbpp", "mbpp/test_first_half.jsonl", 318),
    ("mbpp", "mbpp_plus/MbppPlus-OriginFmt_first_half.jsonl.gz", 188),
]


@needs_sandbox
@pytest.mark.parametrize(("name", "file", "rows"), CASES, ids=[file for _, file, _ in CASES])
def test_official_solutions_pass_and_mutants_fail(official: Path, name: str, file: str, rows: int) -> None:
    """One row of twenty; ``viva check-tasks`` goes through all of them."""
    assert len(open_task(name, {"test_path": official / file}).problems("test")) == rows
    task = open_task(name, {"test_path": official / file, "test_limit": rows // 20 + 1})
    for sample in task.samples("test"):  # type: ignore[attr-defined]
        assert all(task.grade(sample.problem, text).correct is True for text in sample.right), sample.where
        (wrong,) = sample.wrong
        grade = task.grade(sample.problem, wrong)
        assert grade.correct is False, sample.where
        assert grade.reason


@needs_sandbox
def test_what_an_answer_ended_on_is_its_grade_s_reason(official: Path) -> None:
    task = open_task("humaneval", {"test_path": official / "humaneval/HumanEval_first_half.jsonl"})
    problem = next(p for p in task.problems("test") if "truncate_number" in p.question)
    head = "def truncate_number(number):\n    "
    for body, reason in [
        ("return 0", "failed: AssertionError"),
        ("import os; os.fork()", "forbidden: PermissionError"),
        ("import os; os._exit(0)", "exited: code 0"),
        ("raise ValueError('no')", "error: ValueError: no"),
        ("return [0] * 10**12", "memory: MemoryError"),
    ]:
        grade = task.grade(problem, f"```python\n{head}{body}\n```")
        assert (grade.correct, grade.reason.startswith(reason)) == (False, True), grade
    grade = task.grade(problem, "I do not know.")
    assert (grade.answer, grade.correct, grade.status) == (None, False, "no_answer")
    assert grade.reason == "no program that defines truncate_number"


def test_a_question_shows_its_function_or_its_tests(official: Path) -> None:
    human = open_task("humaneval", {"test_path": official / CASES[0][1]}).problems("test")[0]
    assert "def has_close_elements" in human.question
    base = open_task("mbpp", {"test_path": official / CASES[2][1]}).problems("test")[0]
    assert base.question.count("assert ") == 3
    plus = open_task("mbpp", {"test_path": official / CASES[3][1]}).problems("test")[0]
    assert plus.question.count("assert ") == 1


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("humaneval", "humaneval_plus/HumanEvalPlus_first_half.jsonl.gz"),
        ("mbpp", "mbpp_plus/MbppPlus_first_half.jsonl.gz"),
    ],
)
def test_a_file_of_inputs_without_results_is_refused(official: Path, name: str, file: str) -> None:
    with pytest.raises(DataError, match="OriginFmt"):
        open_task(name, {"test_path": official / file}).problems("test")


@needs_sandbox
def test_answers_are_graded_while_others_wait_for_theirs(tmp_path: Path) -> None:
    row = {
        "task_id": "t/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "    return x\n",
        "test": "def check(candidate):\n    assert candidate(1) == 1\n",
    }
    (tmp_path / "one.jsonl").write_text(json.dumps(row) + "\n")
    task = open_task("humaneval", {"test_path": tmp_path / "one.jsonl"})
    problem = task.problems("test")[0]
    slow = in_fence("import time\ntime.sleep(1)\ndef f(x): return x\n")

    async def answers() -> list[bool | None]:
        grades = asyncio.gather(
            *(grade_of(task, problem, text) for text in (slow, slow, in_fence("def f(x): return 2")))
        )
        await asyncio.sleep(0.01)
        assert not grades.done(), "other work was held up until all were graded"
        return [grade.correct for grade in await grades]

    assert asyncio.run(answers()) == [True, True, False]
