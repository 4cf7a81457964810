"""Peer review from recipe to results: real student, real training, scripted teachers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.methods.carry import carry_out
from tests.methods.conftest import review_recipe

from vivavoce.config import check_recipe
from vivavoce.errors import RecipeError
from vivavoce.files import file_name
from vivavoce.graph import read_graphs
from vivavoce.methods.peer_review import plan
from vivavoce.records import Example, from_json
from vivavoce.report import table, write_report

ARMS = ["single", "unreviewed", "reviewed", "checked", "checked_and_reviewed", "random", "rationale_only"]


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture
def values(recipe: dict[str, Any]) -> dict[str, Any]:
    """The tests' recipe of a debate, as a recipe of peer review."""
    return {**review_recipe(recipe, ARMS), "test": {"max_new_tokens": 40, "committee": False}}


def test_the_whole_method_runs_and_a_second_time_for_nothing(values: dict[str, Any], where: Path) -> None:
    results, paid = carry_out(values, where)
    names = [a["name"] for a in results["arms"]]
    assert names[0] == "student"
    assert set(names) >= {"single:ada", "single:bob", "single:cyd", *ARMS[1:]}
    graphs = list(read_graphs(where / "graphs" / "train.jsonl.gz"))
    for g in graphs:
        g.check()
        mistaken = any(n.kind == "review" for n in g.nodes)
        assert sum(n.kind == "review" for n in g.nodes) == (6 if mistaken else 0)
    assert results["exam"]["questions"] == 30
    assert 0 < results["exam"]["mistakes"] <= 30
    spent = results["teacher_tokens"]
    assert spent["reviewed"]["reviews"] > 0 == spent["unreviewed"]["reviews"]
    assert spent["single:ada"]["texts"] < spent["unreviewed"]["texts"] == spent["reviewed"]["texts"]
    assert spent["rationale_only"]["texts"] < spent["reviewed"]["texts"]
    assert {point["arm"] for point in results["gain_by_tokens"]} == set(names) - {"student"}
    planned = plan(check_recipe(values, Path("t")))  # type: ignore[arg-type]
    assert sum(p.calls.least for p in planned) <= paid <= sum(p.calls.most for p in planned)
    second, paid_again = carry_out(values, where)
    assert paid_again == 0
    assert {k: v for k, v in second.items() if k != "wall_s"} == {k: v for k, v in results.items() if k != "wall_s"}
    (where / "results.json").write_text(json.dumps(results))
    assert "checked_and_reviewed" in table(results)
    assert "checked_and_reviewed" in write_report(where).read_text()


def test_changing_what_is_accepted_and_how_it_is_weighed_asks_no_teacher(values: dict[str, Any], where: Path) -> None:
    changed = {**values, "accept": {"threshold": 2.0, "aggregate": "median"}, "arms": ["reviewed", "score_weighted"]}
    changed["two_task"] = {**values["two_task"], "alpha": 0.8, "pairing": "paired-resampled"}
    tests = 2 * 2 * 20  # the new students sit the test
    _, paid = carry_out(changed, where, update=True)
    assert paid <= tests


def test_a_second_exam_asks_teachers_only_about_new_mistakes(values: dict[str, Any], where: Path) -> None:
    recipe = {**values, "arms": ["refreshed"], "seeds": [0]}
    results, _ = carry_out(recipe, where, update=True)
    assert [a["name"] for a in results["arms"]] == ["student", "refreshed"]
    first, second = (list(read_graphs(where / "graphs" / f"{s}.jsonl.gz")) for s in ("train", "refreshed.2-0"))
    known = {n.call for g in first for n in g.nodes if n.kind in ("rationale", "review")}
    asked = {g.problem.id for g in first if any(n.kind == "review" for n in g.nodes)}
    later = [n for g in second if g.problem.id in asked for n in g.nodes if n.kind in ("rationale", "review")]
    assert later
    assert all(n.call in known for n in later), "what does not depend on the student was asked once"


def rows_of(where: Path, name: str, stream: str | None = None) -> list[Example]:
    """The rows of an arm, of one stream or of both."""
    rows = [
        from_json(Example, x) for x in (where / "data" / f"{file_name(name)}.jsonl").read_text("utf-8").splitlines()
    ]
    return [row for row in rows if stream in (None, row.stream)]


def test_one_left_out_one_judge_a_majority_and_a_changed_key_are_views_of_the_same_texts(
    values: dict[str, Any], where: Path
) -> None:
    changed = {**values, "seeds": [0], "arms": ["leave_out", "judge", "majority", "rationale_only@alpha=0.25"]}
    carry_out({**values, "seeds": [0]}, where, update=True)
    results, paid = carry_out(changed, where, update=True)
    names = [a["name"] for a in results["arms"]]
    assert names == [
        "student", "without:ada", "without:bob", "without:cyd", "judge:ada", "judge:bob", "judge:cyd",
        "majority", "rationale_only@alpha=0.25",
    ]  # fmt: skip
    assert paid <= 8 * 20, "only the new students' tests are asked for"
    nodes = {n.id: n for g in read_graphs(where / "graphs" / "train.jsonl.gz") for n in g.nodes}
    assert {nodes[r.source[0]].agent for r in rows_of(where, "without:ada")} == {"bob", "cyd"}
    scores = {(n.target, n.agent): n.score for n in nodes.values() if n.kind == "review"}
    judged = rows_of(where, "judge:bob", "answer")
    assert judged
    assert all((scores[r.source[0], "bob"] or 0) > 3 and nodes[r.source[0]].agent != "bob" for r in judged)
    assert len(rows_of(where, "judge:bob", "feedback")) == len(rows_of(where, "majority", "feedback")) > 0


def test_all_items_and_as_many_at_random_are_learnt_from_in_one_run_with_the_mistakes(
    values: dict[str, Any], tmp_path: Path
) -> None:
    recipe = {**values, "seeds": [0], "arms": ["unreviewed@accept.answer_check=true", "all_items", "random_items"]}
    recipe["student"] = {**values["student"], "model": "schoolhouse:student"}
    recipe["review"] = {**values["review"], "per_question": "all"}
    recipe["accept"] = {"take": "all"}
    results, _ = carry_out(recipe, tmp_path)
    mistaken, asked = results["exam"]["mistakes"], results["exam"]["questions"]
    assert 0 < mistaken < asked
    graphs = list(read_graphs(tmp_path / "graphs" / "train.jsonl.gz"))
    mistakes = {g.problem.id for g in graphs if any(n.kind == "critique" for n in g.nodes)}
    learnt = {arm: {r.problem for r in rows_of(tmp_path, arm, "answer")} for arm in recipe["arms"]}
    assert learnt["unreviewed@accept.answer_check=true"] <= mistakes
    assert learnt["all_items"] == {g.problem.id for g in graphs}
    assert len(learnt["random_items"]) == len(mistakes) == mistaken
    assert learnt["random_items"] != mistakes
    assert len({len(rows_of(tmp_path, arm, "feedback")) for arm in recipe["arms"]}) == 1


def test_a_fresh_exam_forgets_what_was_solved_and_a_replay_keeps_a_share_of_it(
    values: dict[str, Any], tmp_path: Path
) -> None:
    recipe = {**values, "seeds": [0], "arms": ["refreshed_fresh", "refreshed_replay", "refreshed_fresh@replay=1"]}
    recipe["student"] = {**values["student"], "model": "schoolhouse:student"}
    recipe["two_task"] = {**values["two_task"], "max_steps": 20, "learning_rate": 4e-3}
    carry_out(recipe, tmp_path)
    for arm, share in zip(recipe["arms"], (0, 0.5, 1), strict=True):
        second = list(read_graphs(tmp_path / "graphs" / f"{arm}.2-0.jsonl.gz"))
        solved = {g.problem.id for g in second if all(n.correct for n in g.answers(agents=["student"]))}
        before = [r for r in rows_of(tmp_path, arm) if r.problem in solved]
        assert before, "the student learnt something"
        later = rows_of(tmp_path, f"{arm}.2-0")
        kept = [r for r in later if r.problem in solved]
        assert len(kept) == round(share * len(before))
        assert all(r in before for r in kept)
        assert len(later) > len(kept), "and the mistakes of the last exam are all there"


def test_where_a_fresh_exam_leaves_nothing_to_learn_the_student_stays_as_it_is(
    values: dict[str, Any], tmp_path: Path
) -> None:
    """One question, which a teacher answers right and the student does not, until it knows it by heart."""
    recipe = {**values, "seeds": [0], "arms": ["rationale_only@exams=2,fresh=true"]}
    recipe["student"] = {**values["student"], "model": "schoolhouse:student", "temperature": 0, "max_new_tokens": 64}
    recipe["review"] = {**values["review"], "feedback": False}
    recipe["two_task"] = {**values["two_task"], "max_steps": 60, "learning_rate": 4e-3}
    recipe["task"] = {"name": "schoolhouse", "train": 1, "test": 4, "seed": 4, "kinds": ["bit"]}
    (arm,) = recipe["arms"]
    results, _ = carry_out(recipe, tmp_path)
    assert [a["name"] for a in results["arms"]] == ["student", arm]
    assert rows_of(tmp_path, arm)
    assert not rows_of(tmp_path, f"{arm}.2-0")
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [f"{file_name(arm)}-0"]


def test_every_student_sits_the_further_tests_too_and_a_second_time_for_nothing(
    values: dict[str, Any], where: Path
) -> None:
    before, _ = carry_out(values, where, update=True)
    far = {"name": "schoolhouse", "test": 7, "seed": 3, "kinds": ["mix"]}
    recipe = {**values, "also_test": {"far": far, "sum": {**far, "test": 5, "kinds": ["sum"]}}}
    results, paid = carry_out(recipe, where, update=True)
    others = ("wall_s", "also", "macro")
    assert {k: v for k, v in results.items() if k not in others} == {k: v for k, v in before.items() if k not in others}
    assert results["macro"]["tasks"] == ["schoolhouse"] * 3
    models = sum(len(a["seeds"]) for a in results["arms"])
    assert 0 < paid <= models * 12, "what was taught and tested before is kept"
    assert list(results["also"]) == ["far", "sum"]
    for name, n, kind in (("far", 7, "mix"), ("sum", 5, "sum")):
        also = results["also"][name]
        assert (also["task"], also["n"]) == ("schoolhouse", n)
        assert [a["name"] for a in also["arms"]] == [a["name"] for a in results["arms"]]
        assert all(a["groups"].keys() == {kind} for a in also["arms"])
        assert [(p["a"], p["b"]) for p in also["paired"]] == [(p["a"], p["b"]) for p in results["paired"]]
        assert len(list((where / "evaluations" / name).glob("*.jsonl"))) == models
    planned = {p.stage: p.calls.most for p in plan(check_recipe(recipe, Path("t")))}  # type: ignore[arg-type]
    assert (planned["test:far"], planned["test:sum"]) == (models * 7, models * 5)
    second, nothing = carry_out(recipe, where)
    assert (nothing, second["also"]) == (0, results["also"])
    assert "Also tested on far (schoolhouse): 7 questions" in table(results)
    (where / "results.json").write_text(json.dumps(results))
    assert "far: schoolhouse, 7 questions" in write_report(where).read_text("utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": ["revewed"]}, "unknown arm `revewed`"),
        ({"review": {"authors": ["eve"]}}, "names `eve`, which is not a teacher"),
        (
            {"own_arms": {"mine": {"reviewers": ["eve"]}}, "arms": ["mine"]},
            "`mine` names `eve`, which is not a teacher",
        ),
        ({"own_arms": {"mine": {"teachers": ["eve"]}}, "arms": ["mine"]}, "`mine` names `eve`, which is not a teacher"),
        ({"accept": {"reviewers": ["eve"]}, "arms": ["score_weighted"]}, "names `eve`, which is not a teacher"),
        ({"arms": ["all_items"]}, "`all_items` learns from .* set review.per_question: all"),
        ({"arms": ["random_items"]}, "set review.per_question: all"),
        ({"arms": ["refreshed@replay=0.5"]}, "replay needs fresh"),
        ({"review": {"answer_check": "before"}, "arms": ["reviewed"]}, "`reviewed` goes by reviews of right and wrong"),
        (
            {"student": {"name": "student", "model": "schoolhouse:student", "system": "x"}},
            "come from the prompt set alone",
        ),
    ],
)
def test_mistakes_in_a_recipe_are_named(values: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_recipe({**values, **change}, Path("test.yaml"))


def test_one_teacher_without_peers_is_refused_unless_nothing_is_reviewed(values: dict[str, Any]) -> None:
    alone = {**values, "teachers": values["teachers"][:1]}
    with pytest.raises(RecipeError, match="has no peer"):
        check_recipe(alone, Path("test.yaml"))
    check_recipe({**alone, "arms": ["single", "checked", "majority"]}, Path("test.yaml"))
    check_recipe({**alone, "review": {"scope": "self"}}, Path("test.yaml"))


def test_of_two_teachers_none_can_be_left_out_but_each_can_judge_the_other(values: dict[str, Any]) -> None:
    two = {**values, "teachers": values["teachers"][:2]}
    with pytest.raises(RecipeError, match="`without:ada` needs reviews, but `bob` has no peer"):
        check_recipe({**two, "arms": ["leave_out"]}, Path("test.yaml"))
    check_recipe({**two, "arms": ["judge"]}, Path("test.yaml"))
