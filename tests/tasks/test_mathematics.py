"""Mathematical answers: equal where they are, and hostile ones neither hang nor run anything."""

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.errors import MissingDependency
from vivavoce.records import Grade
from vivavoce.tasks import mathematics, open_task
from vivavoce.tasks.grading import GRADERS
from vivavoce.tasks.mathematics import equal, perturb

pytest.importorskip("math_verify")
MATH = GRADERS["math"]


@pytest.fixture(scope="module", autouse=True)
def _quick_reader() -> Iterator[None]:
    """Readers with a quarter of the time, so that what never ends takes less of it."""
    mathematics._pool.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mathematics, "SECONDS", 0.5)
        yield
    mathematics._pool.close()


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        # what a release got wrong
        ("\\frac{1}{100}", "1/200", False),
        ("0.001", "0.009", False),
        ("E", "2.72", False),
        ("1,000", "1000", True),
        # what math-verify alone gets wrong
        ("(3,1)", "(2,1)", False),
        ("11_2", "11_3", False),
        ("\\frac{1}{2004!}", "\\frac{2}{2004!}", False),
        ("\\sin^2 t", "\\sin^3 t", False),
        ("a + b + c", "a", False),
        ("2007 + \\frac\\pi 2", "2007 + \\frac{\\pi}{2}", True),
        # numbers
        ("\\dfrac{3}{4}", "0.75", True),
        ("2\\frac{1}{2}", "2.5", True),
        ("29,\\!322", "29322", True),
        ("10101_2", "10101", True),
        ("90^\\circ", "90", True),
        ("5\\text{ cm}", "5", True),
        ("5", "5 \\text{ cm}^2", True),
        ("18", "18 dollars", True),
        ("\\$18", "18", True),
        ("50\\%", "50", True),
        ("7", "3 + 4 = 7", True),
        ("\\frac{1}{3}", "0.33", False),
        ("\\sqrt{2}", "1.414", False),
        ("12:30", "12:31", False),
        # expressions
        ("x^2+1", "1+x^2", True),
        ("(x+1)^2", "x^2+2x+1", True),
        ("x^2+1", "x^2-1", False),
        ("\\frac{\\sqrt{3}}{3}", "\\frac{1}{\\sqrt{3}}", True),
        ("y=2x+3", "2x+3", True),
        ("y=2x+3", "y=2x+4", False),
        ("x=3", "3", True),
        ("3+4i", "3-4i", False),
        ("3+4i", "4i+3", True),
        ("e^{i\\pi/3}", "\\frac{1}{2}+\\frac{\\sqrt{3}}{2}i", True),
        ("(1+i)^2", "2i", True),
        ("\\text{even}", "even", True),
        ("\\text{even}", "\\text{odd}", False),
        # several
        ("1,2", "2,1", True),
        ("1,2", "1,3", False),
        ("(1,2)", "(2,1)", False),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\pi/2)", True),
        ("(-\\infty,3)", "(-\\infty,3]", False),
        ("[0,1)\\cup(2,3]", "(2,3]\\cup[0,1)", True),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1\\\\3\\end{pmatrix}", False),
    ],
)
def test_expressions_are_equal_where_they_mean_the_same(gold: str, answer: str, right: bool) -> None:
    assert equal(gold, answer) is right


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So it is \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("So it is $\\boxed 9$.", "9"),
        ("\\fbox{7}", "7"),
        ("\\boxed{5} was Ada's.\nFinal answer: $x^2$", "x^2"),
        ("Final answer: \\(x^2\\).", "x^2"),
        ("Final answer:\n\\[\nx^2\n\\]", "x^2"),
        ("Final answer: $1$ and $2$", "1, 2"),
        ("Final answer: The area is $\\frac12$ cm", "\\frac12"),
        ("Final answer: sqrt(2)/pi", "\\sqrt{2}/\\pi"),
        ("Final answer: **x ≤ 3**", "x \\le  3"),
        ("Final answer: $\\$5$", "5"),
        ("Final answer:", None),
        ("I cannot say which of $a$ and $b$", None),
        ("$x+1$", "x+1"),
    ],
)
def test_the_stated_expression_is_found(text: str, answer: str | None) -> None:
    assert MATH.answer(text) == answer


HOSTILE = [
    "9^{9^{9^9}}",
    "10^{10^{10}}!",
    "(" * 400,
    "\\frac{" * 80 + "1" + "}{2}" * 80,
    "\\binom{10^9}{10^8}",
    "1" * 400 + "^" + "9" * 90,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:16])
def test_a_hostile_expression_neither_hangs_nor_counts_as_right(text: str) -> None:
    start = time.process_time()
    grade = MATH.grade("x + 1", f"Final answer: ${text}$")
    assert grade.correct is not True
    assert (grade.correct is None) == (grade.reason != "")
    assert time.process_time() - start < 1, "the work is done elsewhere"
    assert equal("x+1", "1+x") is True, "the next one is graded as ever"


def test_an_endless_answer_is_not_even_looked_at() -> None:
    grade = MATH.grade("x", "Final answer: $" + "x+" * 500_000 + "$")
    assert (grade.correct, grade.reason) == (None, "longer than 500 characters")


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "\\text{{{}}}",
        "\\operatorname{{{}}}",
        "\\mathrm{{{}}}(1)",
        "x_{{{}}}",
        "\\begin{{{}}}1\\end{{{}}}",
        "f({})=1",
    ],
)
@pytest.mark.parametrize(
    "code", ["__import__('os').system('touch {}')", "open('{}','w')", "exec(\"open('{}','w')\")", "eval('1')"]
)
def test_nothing_that_a_model_writes_is_run(tmp_path: Path, form: str, code: str) -> None:
    text = form.replace("{}", code.format(tmp_path / "made")).replace("{{", "{").replace("}}", "}")
    grade = MATH.grade("7", f"Final answer: ${text}$")
    assert grade.correct is not True
    assert list(tmp_path.iterdir()) == []


def test_the_reader_may_not_evaluate_text_write_files_or_start_processes(tmp_path: Path) -> None:
    """The guard itself, in the process it guards: what math-verify would do with a number is refused by it."""
    code = f"""
import os, socket, subprocess, sys
from vivavoce.tasks import mathematics_worker as worker
refused = []
worker._numeral("12")
sys.addaudithook(lambda event, args: worker._forbid(event, args, refused))
for reach in (lambda: eval("1 + 1"), lambda: open({str(tmp_path / "made")!r}, "w"), lambda: os.system("true"),
              lambda: subprocess.run(["true"]), lambda: socket.socket(), lambda: os.remove("gone")):
    try:
        reach()
    except RuntimeError:
        continue
    raise SystemExit("not refused")
print(len(refused), worker._numeral("12"), worker._numeral("1.5"))
"""
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["6", "12", "1.50000000000000"], done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_process_that_reads_has_no_key_and_little_memory() -> None:
    os.environ["SOME_API_KEY"] = "sk-secret"
    try:
        process = mathematics._Process()
    finally:
        del os.environ["SOME_API_KEY"]
    try:
        if not Path("/proc").is_dir():
            pytest.skip("no /proc")
        proc = Path(f"/proc/{process.process.pid}")
        assert b"sk-secret" not in (proc / "environ").read_bytes()
        limits = (proc / "limits").read_text()
        assert re.search(rf"Max address space +{mathematics.MEMORY} ", limits)
        assert re.search(r"Max file size +0 ", limits)
    finally:
        process.close()


def test_several_threads_share_the_processes() -> None:
    pairs = [(f"x+{i}", f"{i}+x") for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(lambda pair: equal(*pair), pairs)] == [True] * 40
    assert len(mathematics._pool.idle) <= 2
    assert threading.active_count() < 20


def test_a_reader_that_dies_is_replaced() -> None:
    assert equal("x+1", "1+x") is True
    assert mathematics._pool.idle
    for process in mathematics._pool.idle:
        process.process.kill()
        process.process.wait()
    assert equal("x+2", "2+x") is True


def test_a_reader_that_runs_out_of_time_is_replaced_and_its_pair_stays_open() -> None:
    assert equal("x+1", "9^{9^{9^9}}") == "took longer than 0.5 s"
    assert equal("x+1", "1+x") is True


def test_an_answer_that_is_no_expression_is_no_answer_and_never_taught_as_wrong() -> None:
    assert MATH.grade("7", "Final answer: $\\frac{1}{$") == Grade(None, False, "no_answer")


def test_without_math_verify_the_task_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematics.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"vivavoce\[math\]"):
        open_task("math", {})


@settings(deadline=None, max_examples=60)
@given(st.fractions(max_denominator=1000))
def test_a_number_equals_itself_in_every_form_and_not_its_neighbour(value) -> None:
    latex = f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    assert equal(latex, str(value)) is True
    assert equal(latex, perturb(str(value))) is False
