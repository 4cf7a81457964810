"""Learning from texts that others recorded: by two commands, and as a run that asks no teacher."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.methods.carry import carry_out
from tests.serving import save_tiny_model
from typer.testing import CliRunner

from vivavoce.cli import app
from vivavoce.config import check_recipe
from vivavoce.data.acceptance import Decision
from vivavoce.data.fair import read_fair
from vivavoce.data.imported import Imported, import_graphs
from vivavoce.errors import DataError, RecipeError, UserError
from vivavoce.files import file_name
from vivavoce.graph import read_graphs, write_graphs
from vivavoce.methods.doctor import examine
from vivavoce.methods.peer_review import plan, trainings
from vivavoce.methods.review_rows import rows_of_graphs
from vivavoce.records import Example, Tree, from_json
from vivavoce.report import table, write_report
from vivavoce.tasks import open_task
from vivavoce.tasks.grading import stated_answer

ASKED = [("2 + 2", 4), ("3 + 4", 7), ("9 - 1", 8), ("6 - 6", 0)]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small release in the published form: ada is right and praised, bob is one too high and half believed."""
    folder = tmp_path_factory.mktemp("release")
    files: dict[str, list[dict[str, Any]]] = {"false": [], "feedback": [], "rationale": []}
    for i, (sum_, gold) in enumerate(ASKED):
        mistake = {
            "id": i,
            "question": f"Think. What is {sum_}?",
            "gold_answer": str(gold),
            "student_wrong_pred": f"<think>{gold}?</think>I say {gold + 5}",
            "student_wrong_final_answer": str(gold + 5),
        }
        ada, bob = f"<think>{gold + 2}? No.</think>{sum_} makes {gold} things.", f"It is {gold + 1}."
        scores = (5, 4 if i == 0 else 1)
        files["false"].append(mistake)
        bob_says = "The correct answer is 99." if i == 0 else f"Not {gold + 5}."
        files["feedback"].append(
            {**mistake, "ada_feedback": "<think>Hm.</think>Count again.", "bob_feedback": bob_says}
        )
        accepted = [ada, bob] if i == 0 else [ada]
        files["rationale"].append(
            {
                **mistake,
                "ada_rationale": [ada, scores[0]],
                "bob_rationale": [bob, scores[1]],
                "correct_rationale": accepted,
            }
        )
    for kind, records in files.items():
        (folder / f"tiny_svamp_{kind}_round0.json").write_text(json.dumps(records), "utf-8")
    return folder


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untaught student that reads whole prompts."""
    return save_tiny_model(tmp_path_factory.mktemp("reader"), context=2048)


@pytest.fixture
def values(released: Path, reader: Path, tmp_path: Path) -> dict[str, Any]:
    """A recipe without teachers."""
    asked = [{"Body": "Think.", "Question": f"What is {n} + 1?", "Answer": n + 1, "Type": "sum"} for n in range(20, 26)]
    asked.append({"Body": "Think.", "Question": "What is 2 + 2?", "Answer": 4, "Type": "sum"})
    (tmp_path / "test.json").write_text(json.dumps(asked), "utf-8")
    return {
        "method": "peer_review",
        "name": "test",
        "task": {"name": "svamp", "path": str(tmp_path / "test.json"), "train_share": 0, "leave_out": str(released)},
        "imported": {"path": str(released), "teachers": ["ada", "bob"]},
        "student": {"name": "pupil", "model": str(reader), "dtype": "float32"},
        "arms": ["single", "unreviewed", "reviewed", "checked"],
        "two_task": {"alpha": 0, "max_steps": 2, "lora": None, "threads": 1, "max_length": 1500, "rows_per_step": 2},
        "test": {"max_new_tokens": 20, "committee": False},
    }


def rows_of(where: Path, name: str) -> list[Example]:
    return [
        from_json(Example, line)
        for line in (where / "data" / f"{file_name(name)}.jsonl").read_text("utf-8").splitlines()
    ]


def test_a_run_that_imports_its_texts_asks_no_teacher_and_trains_every_arm(
    values: dict[str, Any], tmp_path: Path
) -> None:
    where = tmp_path / "run"
    results, paid = carry_out(values, where)
    arms = [arm["name"] for arm in results["arms"]]
    assert arms == ["student", "single:ada", "single:bob", "unreviewed", "reviewed", "checked"]
    assert results["n"] == 6, "the question that is trained on is not tested"
    assert paid == 6 * 5, "only tests are asked, and two arms learnt the same rows"
    assert sum(p.calls.most for p in plan(check_recipe(values, Path("t")))) == 6 * 6  # type: ignore[arg-type]
    answers = {name: [r.completion for r in rows_of(where, name) if r.stream == "answer"] for name in arms[1:]}
    assert Counter(len(rows) for rows in answers.values()) == {4: 3, 8: 1, 5: 1}
    assert answers["checked"] == [f"{sum_} makes {gold} things.\nFinal answer: {gold}" for sum_, gold in ASKED]
    assert answers["single:bob"] == [f"It is {gold + 1}." + f"\nFinal answer: {gold + 1}" for _, gold in ASKED]
    assert answers["reviewed"] == [*answers["checked"][:1], *answers["single:bob"][:1], *answers["checked"][1:]]
    assert results["exam"] == {"questions": 4, "mistakes": 4, "ungradable": 0, "wrong": 4}
    assert results["review"]["verdicts"]["right"]["accepted"] == 4
    decided = [from_json(Decision, x) for x in (where / "data/accepted/reviewed.jsonl").read_text("utf-8").splitlines()]
    assert [(d.author, d.verdict, d.value) for d in decided[:4]] == [
        ("ada", "accepted", 5), ("bob", "accepted", 4), ("ada", "accepted", 5), ("bob", "rejected", 1),
    ]  # fmt: skip
    assert results["feedback"] == {agent: {"texts": 4, "gold": 0, "other": n} for agent, n in (("ada", 0), ("bob", 1))}
    second, nothing = carry_out(values, where)
    assert (nothing, second["arms"]) == (0, results["arms"])
    assert "checked" in table(results)
    by_mean = [(at["mean"], at["texts"], at["right"], at["accepted"]) for at in results["review"]["by_mean"]]
    assert by_mean == [(1.0, 3, 0, 0), (4.0, 1, 0, 0), (5.0, 4, 4, 4)], "the recipe's rule checks answers too"
    (where / "results.json").write_text(json.dumps(results), "utf-8")
    page = write_report(where).read_text("utf-8")
    assert '<h2 id="reviews">Reviews</h2>' in page
    assert "bob gave 5.0" in page
    assert "ada: right, accepted (mean 5.0)" in page


def test_texts_are_learnt_as_they_stand_if_no_last_answer_is_read(values: dict[str, Any], tmp_path: Path) -> None:
    values["imported"]["answers"], values["arms"] = "marked", ["unreviewed", "checked"]
    results, _ = carry_out(values, tmp_path / "run")
    assert [arm["name"] for arm in results["arms"]] == ["student", "unreviewed"], (
        "no answer is marked, so none is right"
    )
    assert "\nFinal" not in rows_of(tmp_path / "run", "unreviewed")[-1].completion


def test_the_doctor_looks_at_the_imported_questions(values: dict[str, Any], tmp_path: Path) -> None:
    def messages(values: dict[str, Any]) -> dict[str, str]:
        rows = list(examine(check_recipe(values, Path("t")), tmp_path / "run", True))
        return {f"{f.what}: {f.said}": f.level for f in rows}

    reply = messages(values)
    assert reply["data: 4 train questions"] == "ok"
    assert "failed" not in reply.values(), reply
    del values["task"]["leave_out"]
    assert any(level == "failed" and "are trained on" in words for words, level in messages(values).items())
    with pytest.raises(DataError, match="1 questions are both in train and in test"):
        carry_out(values, tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imported": None}, "there are no teachers"),
        ({"arms": ["refreshed"]}, "`refreshed` takes 2 exams, but the texts are imported"),
        ({"own_arms": {"mine": {"teachers": ["eve"]}}, "arms": ["mine"]}, "`mine` names `eve`, which is not a teacher"),
    ],
)
def test_what_imported_texts_cannot_give_is_refused(
    values: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        check_recipe({**values, **change}, Path("test.yaml"))


@pytest.mark.parametrize(
    ("how", "task", "message"),
    [
        ({"teachers": ["ada"]}, "svamp", "the texts are by ada, bob, and not by ada"),
        ({"student": "eve"}, "svamp", "`eve` answered none of the questions"),
        ({"path": "nowhere.jsonl"}, "svamp", "no such file or folder"),
        ({}, "schoolhouse", "does not say how the last answer of a text is read"),
    ],
)
def test_what_cannot_be_imported_is_told(released: Path, how: dict[str, Any], task: str, message: str) -> None:
    given = {"path": released, "teachers": ["ada", "bob"], **how}
    with pytest.raises(DataError, match=message):
        import_graphs(Imported.model_validate(given), open_task(task, {}))


def test_thoughts_are_no_part_of_what_is_imported(released: Path) -> None:
    graphs = read_fair(released)
    assert not any("<think>" in n.text or "No." in n.text for g in graphs for n in g.nodes)
    assert sum(n.kind == "verdict" for g in graphs for n in g.nodes) == 5, "accepted texts are still found"


# --- by command


def viva(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_two_commands_import_texts_and_train_on_them(released: Path, reader: Path, tmp_path: Path) -> None:
    graphs, quick = tmp_path / "graphs.jsonl", ["--set", "max_steps=1", "--set", "lora=null"]
    viva("import", "fair", released, "--out", graphs)
    viva("train", "two-task", graphs, "--model", reader, "--out", tmp_path / "both", *quick)
    rows = [from_json(Example, x) for x in (tmp_path / "both.reviewed.jsonl").read_text("utf-8").splitlines()]
    assert Counter(row.stream for row in rows) == {"feedback": 8, "answer": 5}
    done = json.loads((tmp_path / "both" / "train_result.json").read_text("utf-8"))
    assert done["details"]["answer_rows"] == 5
    viva("train", "sft", graphs, "--model", reader, "--out", tmp_path / "sft", "--arm", "checked", *quick)
    rows = [from_json(Example, x) for x in (tmp_path / "sft.checked.jsonl").read_text("utf-8").splitlines()]
    assert [row.completion.splitlines()[-1] for row in rows] == [f"Final answer: {gold}" for _, gold in ASKED]
    viva("train", "tree-dpo", graphs, "--model", reader, "--out", tmp_path / "dpo", *quick)
    trees = [from_json(Tree, x) for x in (tmp_path / "dpo.reviewed.jsonl").read_text("utf-8").splitlines()]
    assert [len(tree.chosen) for tree in trees] == [2, 1, 1, 1]
    assert trees[0].rejected[0].text == "I say 9\nFinal answer: 9", "both sides end in the same form"


def test_the_published_texts_become_rows_that_a_test_can_read(fair_svamp: Path, tmp_path: Path) -> None:
    write_graphs(tmp_path / "g.jsonl", read_fair(fair_svamp))
    made = rows_of_graphs(tmp_path / "g.jsonl", "reviewed")
    assert made.summary == "826 of 1,161 rationales accepted"
    assert Counter(row.stream for row in made.examples) == {"feedback": 1161, "answer": 826}
    marked = [row.completion for row in made.examples if row.stream == "answer" and stated_answer(row.completion)]
    assert len(marked) > 815, "all but a few name a number"
    task = open_task("svamp", {})
    checked = [row for row in rows_of_graphs(tmp_path / "g.jsonl", "checked").examples if row.stream == "answer"]
    problems = {g.problem.id: g.problem for g in read_graphs(tmp_path / "g.jsonl")}
    assert 700 < len(checked) < 760
    assert all(task.grade(problems[row.problem], row.completion).correct for row in checked)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("revewed", "unknown arm `revewed`"),
        ("single", "`single` is 2 arms"),
        ("refreshed", "takes several exams"),
        ("reviewed@threshold=2", "threshold"),
    ],
)
def test_an_arm_that_graphs_cannot_give_is_told(released: Path, tmp_path: Path, arm: str, message: str) -> None:
    write_graphs(tmp_path / "g.jsonl", read_fair(released))
    with pytest.raises(UserError, match=message):
        rows_of_graphs(tmp_path / "g.jsonl", arm)


def test_left_out_teachers_and_thresholds_change_what_is_learnt_from_graphs(released: Path, tmp_path: Path) -> None:
    write_graphs(tmp_path / "g.jsonl", read_fair(released))
    many = {arm: len(rows_of_graphs(tmp_path / "g.jsonl", arm).examples) for arm in ("single:ada", "unreviewed")}
    assert many == {"single:ada": 4 + 4, "unreviewed": 8 + 8}
    consistent = rows_of_graphs(tmp_path / "g.jsonl", "consistent_feedback").examples
    assert "The correct answer is 99." not in {row.completion for row in consistent}
    assert sum(row.stream == "feedback" for row in consistent) == 7
    bare = rows_of_graphs(tmp_path / "g.jsonl", "answer_only").examples
    assert [row.completion for row in bare] == [f"Final answer: {gold}" for _, gold in ASKED]
    made = rows_of_graphs(tmp_path / "g.jsonl", "reviewed@accept={threshold: 4.5}")
    assert made.summary == "4 of 8 rationales accepted"


def test_whose_task_the_questions_are_must_be_known(released: Path, tmp_path: Path) -> None:
    text = (released / "tiny_svamp_false_round0.json").read_text("utf-8")
    for kind in ("false", "feedback", "rationale"):
        text = (released / f"tiny_svamp_{kind}_round0.json").read_text("utf-8")
        (tmp_path / f"tiny_sums_{kind}_round0.json").write_text(text, "utf-8")
    write_graphs(tmp_path / "g.jsonl", read_fair(tmp_path))
    with pytest.raises(DataError, match="`sums` is not a task"):
        rows_of_graphs(tmp_path / "g.jsonl", "reviewed")
    assert rows_of_graphs(tmp_path / "g.jsonl", "reviewed", open_task("gsm8k", {})).examples


def test_updates_are_told_before_anything_is_trained(values: dict[str, Any]) -> None:
    assert [t.updates for t in trainings(check_recipe(values, Path("t")))] == [2] * 5  # type: ignore[arg-type]
