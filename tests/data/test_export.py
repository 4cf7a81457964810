"""Rows in the forms of other trainers: nothing is lost on the way, and each form is what its reader takes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vivavoce.cli import app
from vivavoce.data.export import form_rows, whole_answers, write_form, write_rows
from vivavoce.data.training_rows import training_rows
from vivavoce.errors import DataError
from vivavoce.graph import Graph, write_graphs
from vivavoce.records import Completion, Example, Message, Problem, Tree, node, to_json

SYSTEM, ASKED = Message(role="system", content="Be brief."), Message(role="user", content="2+2?\u2028 Say it.")
EXAMPLES = [
    Example("p", (SYSTEM, ASKED), "It is 4.", ("n1",), "feedback", 0.25),
    Example("q", (ASKED,), "4", ("n2", "n3")),
]
TREES = [
    Tree("t", "p", (SYSTEM, ASKED), (Completion("4", "a"),), (Completion("5", "b"), Completion("6", "c")), weight=1 / 3)
]
STEPS = [
    Tree("s", "p", (ASKED,), (Completion("so 4. ", "a"),), (Completion("so 5. ", "b"),), "2 and 2, ", complete=False)
]
CHECKOUT = Path(__file__).parents[2]
TEXTS = {"a": "2 and 2, so 4. Final answer: 4", "b": "2 and 2, so 5. Final answer: 5"}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().decode().split("\n") if line]


def written(folder: Path, form: Any, rows: Any) -> list[dict[str, Any]]:
    path = folder / "rows.jsonl"
    write_form(path, form, form_rows(form, rows), type(rows[0]))
    return lines(path)


def test_llama_factory_finds_its_columns_and_keeps_other_data_sets(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"other": {"file_name": "o.json"}}')
    assert written(tmp_path, "llama-factory", EXAMPLES)[0]["messages"][-1] == {
        "role": "assistant",
        "content": "It is 4.",
    }
    entry = json.loads((tmp_path / "dataset_info.json").read_text())
    assert entry["rows"]["file_name"] == "rows.jsonl"
    assert (entry["rows"]["formatting"], entry["rows"]["columns"]) == ("sharegpt", {"messages": "messages"})
    assert "other" in entry
    first, second = written(tmp_path, "llama-factory", TREES)
    assert first["messages"] == [SYSTEM, ASKED]
    assert [first["chosen"]["content"], first["rejected"]["content"], second["rejected"]["content"]] == ["4", "5", "6"]
    entry = json.loads((tmp_path / "dataset_info.json").read_text())
    assert entry["rows"]["ranking"]
    assert entry["rows"]["columns"].keys() == {"messages", "chosen", "rejected"}


@pytest.mark.real
@pytest.mark.parametrize("form", ["llama-factory", "ms-swift"])
def test_the_trainers_own_readers_read_both_kinds(form: Any, tmp_path: Path) -> None:
    made = f".venv-{form.replace('-', '_')}"
    python = os.environ.get(f"VIVA_PYTHON_{form.upper().replace('-', '_')}") or str(CHECKOUT / made / "bin" / "python")
    if not Path(python).is_file():
        pytest.skip(f"{form} wants other libraries than ours: `make readers`")
    read = []
    for rows in (EXAMPLES, TREES):
        written(tmp_path, form, rows)
        script = [python, str(Path(__file__).with_name("readers.py")), form, str(tmp_path), str(tmp_path / "out")]
        done = subprocess.run(script, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
        assert done.returncode == 0, done.stderr[-2000:]
        read.append([(row["system"], row["prompt"], row["answers"]) for row in lines(tmp_path / "out")])
    expected = (SYSTEM["content"], [ASKED["content"]])
    assert read[0] == [(*expected, ["It is 4."]), ("", expected[1], ["4"])]
    assert read[1] == [(*expected, ["4", "5"]), (*expected, ["4", "6"])]


def test_ms_swift_reads_messages_and_the_rejected_response(tmp_path: Path) -> None:
    assert written(tmp_path, "ms-swift", EXAMPLES)[1]["messages"] == [ASKED, {"role": "assistant", "content": "4"}]
    first, _ = written(tmp_path, "ms-swift", TREES)
    assert first["messages"][-1] == {"role": "assistant", "content": "4"}
    assert first["rejected_response"] == "5"


def test_openai_takes_messages_alone_and_the_rest_lies_beside_them(tmp_path: Path) -> None:
    made = written(tmp_path, "openai", EXAMPLES)
    assert [set(row) for row in made] == [{"messages"}] * 2
    assert lines(tmp_path / "rows.provenance.jsonl") == [
        {"row": 1, "problem": "p", "source": ["n1"], "stream": "feedback", "weight": 0.25},
        {"row": 2, "problem": "q", "source": ["n2", "n3"], "stream": "answer", "weight": 1.0},
    ]
    first, _ = written(tmp_path, "openai", TREES)
    assert set(first) == {"input", "preferred_output", "non_preferred_output"}
    assert first["input"]["messages"] == [SYSTEM, ASKED]
    assert first["non_preferred_output"] == [{"role": "assistant", "content": "5"}]


def test_kto_rows_say_of_each_answer_once_whether_it_is_right(tmp_path: Path) -> None:
    made = written(tmp_path, "kto", TREES)
    assert [(row["completion"][0]["content"], row["label"]) for row in made] == [
        ("4", True),
        ("5", False),
        ("6", False),
    ]
    assert all(row["label"] is True for row in written(tmp_path, "kto", EXAMPLES))


def test_trl_makes_the_same_kto_rows_of_our_pairs() -> None:
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl.data_utils import unpair_preference_dataset

    one = [Tree("t", "p", (ASKED,), (Completion("4", "a"),), (Completion("5", "b"),))]
    pairs = [{k: row[k] for k in ("prompt", "chosen", "rejected")} for row in form_rows("preferences", one)]
    theirs: Any = unpair_preference_dataset(Dataset.from_list(pairs))
    assert list(theirs) == [{k: row[k] for k in ("prompt", "completion", "label")} for row in form_rows("kto", one)]


def test_verl_gets_parquet_with_the_right_answer_where_it_is_known(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    problems = {"p": Problem("p", "2+2?", "4", "sums")}
    assert write_form(path, "verl", form_rows("verl", EXAMPLES, problems), Example)[0] == 2
    first, second = parquet.read_table(path).to_pylist()
    assert first["prompt"] == [SYSTEM, ASKED]
    assert first["messages"] == [SYSTEM, ASKED, {"role": "assistant", "content": "It is 4."}]
    assert first["reward_model"] == {"style": "rule", "ground_truth": "4"}
    assert first["data_source"] == "vivavoce/sums"
    assert (second["extra_info"]["problem"], second["extra_info"]["source"], second["extra_info"]["weight"]) == (
        "q",
        ["n2", "n3"],
        1.0,
    )
    with pytest.raises(DataError, match=r"no \.jsonl file"):
        write_form(tmp_path / "x.jsonl", "verl", iter(()), Example)


@pytest.mark.parametrize("form", ["llama-factory", "ms-swift", "kto", "preferences", "messages", "prompt-completion"])
def test_weight_source_and_stream_stand_in_every_row(tmp_path: Path, form: Any) -> None:
    if form not in ("messages", "prompt-completion"):
        assert all(
            row["weight"] == 1 / 3 and row["tree"] == "t" and row["source"] for row in written(tmp_path, form, TREES)
        )
    if form != "preferences":
        first, second = written(tmp_path, form, EXAMPLES)
        assert (first["weight"], first["stream"], first["source"]) == (0.25, "feedback", ["n1"])
        assert (second["weight"], second["stream"], second["source"]) == (1.0, "answer", ["n2", "n3"])


def test_rows_of_llama_factory_and_ms_swift_are_rows_for_our_own_training_too(tmp_path: Path) -> None:
    for form in ("llama-factory", "ms-swift"):
        written(tmp_path, form, EXAMPLES)
        assert training_rows(tmp_path / "rows.jsonl", Example) == EXAMPLES


def test_steps_become_whole_answers_by_one_flag(tmp_path: Path) -> None:
    (tree,) = whole_answers(STEPS, TEXTS)
    assert (tree.complete, tree.prefix) == (True, "2 and 2, ")
    assert [c.text for c in (*tree.chosen, *tree.rejected)] == ["so 4. Final answer: 4", "so 5. Final answer: 5"]
    assert list(whole_answers(TREES, {})) == TREES
    with pytest.raises(DataError, match="in no graph"):
        list(whole_answers(STEPS, {"a": TEXTS["a"]}))
    with pytest.raises(DataError, match="begins otherwise"):
        list(whole_answers(STEPS, {**TEXTS, "b": "Well, so 5."}))
    with pytest.raises(DataError, match="single steps"):
        list(form_rows("ms-swift", STEPS))


def test_a_file_of_trees_and_a_run_with_its_graphs_are_exported(tmp_path: Path) -> None:
    run, p = tmp_path / "run", Problem("p", "2+2?", "4")
    right = node("answer", "p", "ada", 0, TEXTS["a"], answer="4", correct=True)
    wrong = node("answer", "p", "bob", 0, TEXTS["b"], answer="5", correct=False)
    steps = Tree(
        "s",
        "p",
        (ASKED,),
        (Completion("so 4. ", right.id),),
        (Completion("so 5. ", wrong.id),),
        "2 and 2, ",
        complete=False,
    )
    (run / "data").mkdir(parents=True)
    (run / "data" / "trees-0.jsonl").write_text(to_json(steps) + "\n", "utf-8")
    (run / "graphs").mkdir()
    write_graphs(run / "graphs" / "train.jsonl.gz", [Graph(p, (right, wrong))])

    def viva(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["export", *arguments])

    out = tmp_path / "pairs.jsonl"
    done = viva(str(run), "--as", "preferences", "--out", str(out))
    assert isinstance(done.exception, DataError)
    assert "--whole" in done.exception.do
    assert viva(str(run), "--as", "preferences", "--whole", "--out", str(out)).exit_code == 0
    (row,) = lines(out)
    assert row["chosen"] == [{"role": "assistant", "content": TEXTS["a"]}]
    assert row["source"] == [right.id, wrong.id]
    write_rows(tmp_path / "t.jsonl", form_rows("trees", TREES))
    assert viva(str(tmp_path / "t.jsonl"), "--as", "ms-swift", "--out", str(out)).exit_code == 0
    assert len(lines(out)) == 2
    wrong_kind = viva(str(tmp_path / "t.jsonl"), "--as", "messages", "--out", str(out)).exception
    assert isinstance(wrong_kind, DataError)
    assert "--as preferences" in wrong_kind.do


def test_rows_that_a_form_takes_are_found_in_a_run_and_named(tmp_path: Path) -> None:
    data = tmp_path / "run" / "data"
    data.mkdir(parents=True)

    def exported(form: str) -> str:
        out = str(tmp_path / f"{form}.jsonl")
        return CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--as", form, "--out", out]).stderr

    for name, rows in {"reviewed": EXAMPLES, "states": [], "trees-0": [], "trees-1": TREES}.items():
        (data / f"{name}.jsonl").write_text("".join(to_json(row) + "\n" for row in rows))
    assert "2 rows of reviewed in" in exported("messages")
    assert "2 rows of trees-1 in" in exported("preferences")
    (data / "trees-1.jsonl").write_text("")
    done = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--as", "preferences", "--out", "x.jsonl"])
    assert isinstance(done.exception, DataError)
    assert "no rows that the form preferences takes" in done.exception.what
