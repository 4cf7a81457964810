"""Arms of different runs, on the questions that both were asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from vivavoce.cli import app
from vivavoce.errors import DataError
from vivavoce.exams.across import across, kept_tests
from vivavoce.exams.arms import Arm
from vivavoce.exams.examine import Judged
from vivavoce.exams.table import OUTCOMES, outcomes, results
from vivavoce.records import Usage, to_json


def run_folder(
    folder: Path, arms: dict[str, dict[int, str]], first: int = 0, main: str = "taught", old: bool = False
) -> Path:
    """A run that has ended: for each arm and seed a letter for each question, R if it is right; ids from ``first``."""
    folder.mkdir()

    def rows(right: str) -> list[Judged]:
        return [Judged(f"q{first + i}", "", "", "1", c == "R", "ok", Usage()) for i, c in enumerate(right)]

    tested = {arm: {seed: rows(right) for seed, right in seeds.items()} for arm, seeds in arms.items()}
    figures = results("sums", tested, [], 1.0, {"vote": Arm("vote", "committee")}, main=main)
    (folder / "results.json").write_text(json.dumps(figures), "utf-8")
    recipe = {"method": "peer_review", "name": folder.name, "two_task": {"alpha": len(arms)}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    if old:
        (folder / "evaluations").mkdir()
        for arm, seeds in tested.items():
            for seed, judged in seeds.items():
                text = "".join(to_json(j) + "\n" for j in judged)
                (folder / "evaluations" / f"{arm}-{seed}.jsonl").write_text(text, "utf-8")
    else:
        (folder / OUTCOMES).write_text(json.dumps(outcomes("sums", tested, {"q1": "p", "q2": "p"})), "utf-8")
    return folder


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """The second run's questions begin two later, and its taught student has two seeds."""
    a = run_folder(tmp_path / "a", {"student": {0: "W" * 12}, "taught": {0: "RRRR" + "W" * 8}, "vote": {0: "R" * 12}})
    b = run_folder(tmp_path / "b", {"student": {0: "W" * 12}, "taught": {0: "RR" + "R" * 10, 1: "WW" + "R" * 10}}, 2)
    return a, b


def compared(*folders: Path, **how: Any) -> dict[str, Any]:
    return across([kept_tests(folder, folder.name) for folder in folders], **how)


def test_arms_of_one_name_are_compared_on_the_questions_that_both_runs_asked(two: tuple[Path, Path]) -> None:
    comparison = compared(*two)
    assert (comparison["n"], comparison["questions"]) == (10, {"a": 12, "b": 12})
    assert [(p["a"], p["b"]) for p in comparison["paired"]] == [
        ("a: student", "b: student"),
        ("a: taught", "b: taught"),
    ]
    taught = comparison["paired"][1]
    assert (taught["a_only"], taught["b_only"], taught["gain"]) == (0, 8, 0.8)
    assert [s["gain"] for s in taught["seeds"]] == [0.8, 0.6], "the one model of the first run meets both seeds"
    assert taught["pooled"]["gain"] == pytest.approx(0.7)
    assert taught["p_holm"] == pytest.approx(2 * taught["pooled"]["p"])
    assert {arm["name"]: arm["right"] for arm in comparison["arms"]}["a: taught"] == 2, "of the shared questions"


def test_only_the_arms_that_are_asked_for_are_compared_and_their_family_is_corrected_for(
    two: tuple[Path, Path],
) -> None:
    comparison = compared(*two, arms=["taught"])
    (pair,) = comparison["paired"]
    assert pair["p_holm"] == pair["pooled"]["p"]
    with pytest.raises(DataError, match="no arm `vote`"):
        compared(*two, arms=["vote"])


def test_runs_about_different_arms_are_compared_by_what_they_are_about(tmp_path: Path) -> None:
    a = run_folder(tmp_path / "a", {"student": {0: "WWWW"}, "old": {0: "RWWW"}}, main="old")
    b = run_folder(tmp_path / "b", {"student": {0: "WWWW"}, "new": {0: "RRRW"}}, main="new")
    pairs = [(p["a"], p["b"]) for p in compared(a, b)["paired"]]
    assert pairs == [("a: student", "b: student"), ("a: old", "b: new")]


def test_three_runs_are_held_against_the_first(tmp_path: Path) -> None:
    folders = [
        run_folder(tmp_path / n, {"student": {0: right}}) for n, right in (("a", "WW"), ("b", "RW"), ("c", "RR"))
    ]
    assert [(p["b"], p["gain"]) for p in compared(*folders)["paired"]] == [("b: student", 0.5), ("c: student", 1.0)]


def test_runs_without_a_shared_question_have_an_interval_that_is_not_paired(tmp_path: Path) -> None:
    a = run_folder(tmp_path / "a", {"student": {0: "R" * 56 + "W" * 14}})
    b = run_folder(tmp_path / "b", {"student": {0: "R" * 48 + "W" * 32}}, first=1000)
    comparison = compared(a, b)
    assert comparison["paired"] == []
    (pair,) = comparison["apart"]
    assert pair["gain"] == pytest.approx(-0.2)
    assert pair["interval95"] == pytest.approx([-0.3339, -0.0524], abs=1e-4)


def test_runs_of_an_earlier_version_are_compared_from_their_answers(tmp_path: Path) -> None:
    old = run_folder(tmp_path / "a", {"student": {0: "WWWR"}}, old=True)
    new = run_folder(tmp_path / "b", {"student": {0: "RRWR"}})
    assert compared(old, new)["paired"][0]["gain"] == 0.5


def test_what_belongs_together_in_the_first_run_counts_once(two: tuple[Path, Path]) -> None:
    assert compared(two[0], two[0])["paired"][0]["pooled"]["clusters"] == 11


def test_the_command_tells_gains_and_in_what_the_recipes_differ(two: tuple[Path, Path], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compare", *map(str, two)])
    assert done.exit_code == 0, done.output
    assert "a: taught → b: taught" in done.output
    assert "On the 10 questions that all runs were asked, of: a 12, b 12." in done.output
    assert "b differs from a in two_task.alpha" in done.output
    content = json.loads(CliRunner().invoke(app, ["compare", *map(str, two), "--arm", "taught", "--json"]).stdout)
    assert (content["differ"], len(content["paired"])) == ({"b": ["two_task.alpha"]}, 1)
    for wrong, message in (
        ([two[0]], "nothing to compare"),
        ([two[0], tmp_path], "no results"),
        ([two[0]] * 2, "twice"),
    ):
        with pytest.raises(DataError, match=message):
            CliRunner().invoke(app, ["compare", *map(str, wrong)], catch_exceptions=False)
