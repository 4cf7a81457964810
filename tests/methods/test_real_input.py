"""Real text through every stage: debates on real GSM8K questions over HTTP, and T-DPO on real models' solutions.

The tiny random models answer nonsense; the point is that nothing on the way breaks on real questions and answers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import command
from tests.serving import save_tiny_model, served

from vivavoce.graph import read_graphs


def viva(*arguments: object, cwd: Path) -> str:
    """Run the command line as a user does; what it said, both streams."""
    done = command.viva(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), context=8192)


@pytest.fixture(scope="module")
def endpoint(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(model, tmp_path_factory.mktemp("serve") / "log.txt") as address:
        yield address


RECIPE = """\
method: debate_reflect
task:
  name: gsm8k
  train_path: {data}/train.jsonl.gz
  test_path: {data}/test_first_half.jsonl
  train_limit: 4
  test_limit: 3
teachers:
  - &served {{name: one, backend: openai_chat, model: {model}, base_url_env: URL, api_key_env: KEY, max_new_tokens: 8}}
  - {{<<: *served, name: two}}
  - {{name: sage, backend: scripted, function: "sage.py:sage"}}
  - {{name: fool, backend: scripted, replies: ["Final answer: -1"]}}
student: {{name: student, model: {model}, max_new_tokens: 16}}
debate: {{max_rounds: 2, stop: cap_only}}
sft: {{max_steps: 2, lora: null, max_length: 4000, rows_per_step: 2}}
trees: {{rejected_must_parse: false, context: none}}
dpo: {{max_steps: 2, lora: null, max_length: 4000, trees_per_step: 2, token_budget: 8192}}
test: {{max_new_tokens: 8, committee: false}}
"""
# The random models are cut off before they say anything, and without right and wrong answers there is nothing to learn:
# one teacher has the book, and one is always wrong.
SAGE = """
def sage(messages, sampling, seed):
    said = "".join(m["content"] for m in messages)
    return "Final answer: " + next(gold for question, gold in BOOK.items() if question in said)
"""


def test_a_committee_over_http_debates_real_questions_and_a_student_learns_from_it(
    gsm8k: Path, model: Path, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vivavoce.tasks import open_task

    monkeypatch.setenv("URL", endpoint)
    monkeypatch.setenv("KEY", "unused")
    problems = open_task("gsm8k", {"train_path": gsm8k / "train.jsonl.gz", "train_limit": 4}).problems("train")
    (tmp_path / "sage.py").write_text(f"BOOK = { {p.question: p.gold for p in problems} }\n{SAGE}")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(data=gsm8k, model=model))
    viva("doctor", "recipe.yaml", cwd=tmp_path)
    output = viva("run", "recipe.yaml", "--out", "run", cwd=tmp_path)
    assert "left out, because there are no right answers: single:one, single:two" in output

    graphs = list(read_graphs(tmp_path / "run" / "graphs" / "train.jsonl.gz"))
    assert [g.problem for g in graphs] == problems
    assert not [n for g in graphs for n in g.failures()], "every call over HTTP came back"
    by_http = [n for g in graphs for n in g.nodes if n.agent in ("one", "two") and n.kind == "answer"]
    assert len(by_http) == 4 * 2 * 2
    assert all(n.usage.prompt > 100 and n.usage.completion > 0 for n in by_http)
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"student", "single:sage", "debate_reflect_sft", "debate_reflect"} <= {a["name"] for a in content["arms"]}
    trained = json.loads((tmp_path / "run" / "checkpoints" / "debate_reflect-0" / "train_result.json").read_text())
    assert trained["first_loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_real_models_right_and_wrong_solutions_train_by_preference(gsm8k: Path, model: Path, tmp_path: Path) -> None:
    solutions = gsm8k / "example_model_solutions_first_half.jsonl.gz"
    output = viva("import", "attempts", solutions, "--task", "gsm8k", "--form", "gsm8k", "--out", "graphs.jsonl",
                cwd=tmp_path)  # fmt: skip
    assert "660 graphs, 2640 answers" in output
    viva("trees", "graphs.jsonl", "--task", "gsm8k", "--out", "trees.jsonl", cwd=tmp_path)
    trees = [json.loads(line) for line in (tmp_path / "trees.jsonl").read_text().splitlines()]
    assert len(trees) > 300
    assert all(t["chosen"] and t["rejected"] for t in trees)
    short = sorted(trees, key=lambda t: len(str(t)))[:24]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(t) + "\n" for t in short))
    viva("train", "tree-dpo", "some.jsonl", "--model", model, "--out", "trained", "--set", "lora=null",
         "--set", "max_steps=40", "--set", "learning_rate=2e-3", "--set", "log_steps=1", cwd=tmp_path)  # fmt: skip
    history = [json.loads(line) for line in (tmp_path / "trained" / "loss.jsonl").read_text().splitlines()]
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert sum(h["loss"] for h in history[-5:]) / 5 < 0.5
