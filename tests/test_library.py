"""vivavoce from Python: a whole story without a recipe, in scripts, in notebooks and awaited."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.command import ran
from tests.debate.scripts import SUM, always

import vivavoce as vv
from vivavoce.errors import RecipeError
from vivavoce.records import Message, Problem, Sampling

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"


def test_the_names_of_the_package_are_there_and_importing_them_needs_no_torch() -> None:
    code = (
        "import sys, vivavoce as vv\n"
        "assert not [m for m in sys.modules if m.startswith('vivavoce.') and m != 'vivavoce.version']\n"
        "print(*[getattr(vv, name).__name__ for name in vv.__all__])\n"
        "print(vv.debate, callable(vv.debate), callable(vv.evaluate), 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, last = done.stdout.strip().splitlines()
    assert names.split() == vv.__all__
    assert last.endswith("True True False")
    assert set(vv.__all__) <= set(dir(vv))
    with pytest.raises(AttributeError):
        _ = vv.nonsense


@pytest.fixture
def run(tmp_path: Path):
    run = vv.Run(tmp_path / "run")
    yield run
    run.close()


def committee(**answers: object) -> list[Any]:
    return [vv.agent(name, respond=always(answer)) for name, answer in answers.items()]


def test_own_questions_and_functions_debate_and_become_rows(run: vv.Run) -> None:
    task = vv.task("gsm8k")
    graphs = vv.debate([SUM], committee(a=4, b=5), task=task, run=run, max_rounds=2, stop="cap_only")
    assert [n.kind for n in graphs[0].nodes] == ["answer", "answer", "reflection", "critique", "answer", "answer"]
    rows = vv.examples(graphs)
    assert {r.completion for r in rows} == {"I add.\nFinal answer: 4"}
    (tree, *_) = vv.trees(graphs, rounds=[0])
    assert [c.text for c in tree.rejected] == ["I add.\nFinal answer: 5"]
    frame = graphs.to_pandas()
    assert list(frame["agent"]) == [n.agent for n in graphs[0].nodes]
    assert all("2 + 2" in prompt for prompt in frame["prompt"])
    assert rows.to_dataset().num_rows == 1
    assert graphs.load(graphs.save(run.path / "graphs.jsonl")) == graphs


def test_what_was_asked_once_is_not_asked_again_and_awaiting_gives_the_same(run: vv.Run) -> None:
    calls: list[int] = []

    def counted(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        calls.append(seed)
        return "Final answer: 4"

    async def twice() -> Any:
        panel = [vv.agent("a", respond=counted), vv.agent("b", respond=counted)]
        task = vv.task("gsm8k")
        one = await vv.debate.aio([SUM], panel, task=task, run=run)
        return one, vv.debate([SUM], panel, task=task, run=run)  # in a running loop, as in a notebook

    one, two = asyncio.run(twice())
    assert one == two
    assert len(calls) == 2
    (cost, _) = run.costs()
    assert (cost["calls"], cost["free"]) == (1, 1)


def test_a_review_gives_both_streams(run: vv.Run) -> None:
    def teacher(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        asked = messages[-1]["content"]
        return "Sound. [5]" if "in square brackets" in asked else "I add.\nFinal answer: 4"

    student = vv.agent("student", respond=always(7))
    graphs = vv.review([SUM], [vv.agent(n, respond=teacher) for n in "ab"], student, task=vv.task("gsm8k"), run=run)
    assert [r.stream for r in vv.examples(graphs)] == ["feedback", "feedback", "answer", "answer"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_round": 2}, "did you mean `max_rounds`"),
        ({"protocol": "debate"}, "unknown protocol"),
        ({"task": None}, "how they are graded"),
        ({"prompts": "none"}, "unknown prompt set"),
    ],
)
def test_a_mistake_is_told_before_anybody_is_asked(run: vv.Run, change: dict[str, Any], says: str) -> None:
    def never(*_: object) -> str:
        raise AssertionError("asked")

    given = {"task": vv.task("gsm8k"), "run": run, **change}
    with pytest.raises(RecipeError, match=says):
        vv.debate([SUM], [vv.agent("a", respond=never)], **given)


def test_rows_from_nothing_are_refused(run: vv.Run) -> None:
    graphs = vv.debate([Problem("p", "?", "4")], committee(a=5), task=vv.task("gsm8k"), run=run)
    with pytest.raises(RecipeError, match="no rows to learn from"):
        vv.sft("schoolhouse:student", vv.examples(graphs), run=run)


def test_a_student_is_trained_once_tested_and_compared(run: vv.Run) -> None:
    task = vv.task("schoolhouse", train=12, test=20)
    tiny = {"dtype": "float32", "threads": 1, "max_new_tokens": 64}
    graphs = vv.debate(task, [vv.agent(n, f"schoolhouse:{n}", **tiny) for n in ("ada", "bob")], run=run, max_rounds=2)
    quick: dict[str, Any] = {"lora": None, "threads": 1, "max_steps": 2, "run": run, "learning_rate": 1e-3}
    student = vv.sft("schoolhouse:student", vv.examples(graphs), **quick)
    assert vv.sft("schoolhouse:student", vv.examples(graphs), **quick) == student
    assert student.path != vv.sft("schoolhouse:student", vv.examples(graphs), seed=1, **quick).path
    asked: dict[str, Any] = {"run": run, "dtype": "float32", "max_new_tokens": 64}
    comparison = vv.compare(
        {"before": vv.evaluate("schoolhouse:student", task, **asked), "after": vv.evaluate(student, task, **asked)}
    )
    assert [(arm["name"], arm["n"]) for arm in comparison] == [("before", 20), ("after", 20)]
    assert [(p["a"], p["b"]) for p in comparison.results["paired"]] == [("before", "after")]
    assert list(comparison.to_pandas()["name"]) == ["before", "after"]


def test_the_lines_of_the_package_docstring_are_fifteen_at_most_and_run(tmp_path: Path) -> None:
    code = [line[4:] for line in (vv.__doc__ or "").splitlines() if line.startswith("    ")]
    assert len(code) <= 15
    quick = "\n".join(["import vivavoce as vv", *code]).replace("lora=None", "lora=None, max_steps=2")
    done = ran("-c", quick, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "before -> after: gain" in done.stdout


@pytest.mark.enable_socket
@pytest.mark.slow
def test_the_notebook_runs() -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    book = nbformat.reads(json.dumps(json.loads(NOTEBOOK.read_text("utf-8"))), as_version=4)
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3").execute()
    shown = [o for cell in book.cells if cell.cell_type == "code" for o in cell.outputs]
    assert any("SFT" in str(o.get("data", {}).get("text/plain", "")) for o in shown)
    assert any("image/png" in o.get("data", {}) for o in shown)


def test_models_without_room_for_answers_are_refused_before_anything_is_generated() -> None:
    task = vv.task("schoolhouse", train=4, test=4)
    with pytest.raises(RecipeError, match="takes 1,024 tokens"):
        vv.evaluate("schoolhouse:student", task, max_new_tokens=1020)
    ada = vv.agent("ada", "schoolhouse:ada", max_new_tokens=1020)
    with pytest.raises(RecipeError, match="ada: max_new_tokens is 1,020"):
        vv.debate(task, [ada])
