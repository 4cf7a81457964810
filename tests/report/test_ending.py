"""What the terminal says at the end of a run, and the headline that the report begins with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from tests.report.whole_run import judged_rows, some_results, write_run

from vivavoce.cli import app
from vivavoce.exams.examine import Judged
from vivavoce.exams.table import results
from vivavoce.records import Usage
from vivavoce.report.arms_told import what_it_is
from vivavoce.report.differences import gain
from vivavoce.report.ending import ending
from vivavoce.report.headline import headline
from vivavoce.report.sources import Sources

COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The directory of a whole run."""
    return write_run(tmp_path / "demo", count=12)


def with_results(run: Path, **changes: object) -> Sources:
    content = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**content, **changes}))
    return Sources(run)


def rows(right: str) -> list[Judged]:
    return [Judged(f"t-{i}", "", "", "1", c == "R", "ok", Usage()) for i, c in enumerate(right)]


def two(before: str, after: str) -> dict:
    return results("sums", {"student": {0: rows(before)}, "taught": {0: rows(after)}}, [("student", "taught")], 5.0)


def test_the_end_says_what_the_student_can_against_what_and_how_certain_in_80_columns(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    text = ending(Path("demo"), COMMANDS)
    summary, _, steps = text.partition("\n\n")
    whole = " ".join(summary.split())
    assert "schoolhouse:student, taught by schoolhouse:ada, schoolhouse:ben and schoolhouse:cyd, now answers" in whole
    assert re.search(r"now answers [78]\d\.\d % of 400 unseen schoolhouse questions right, \d\d?\.\d % before;", whole)
    assert "that took 12 min 34 s" in whole
    assert "more than the best student taught without a debate (multi_teacher)" in whole
    assert "Chance does not explain the gain: p" in whole
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "your student  demo/checkpoints/debate_reflect-0\n" in steps


def test_the_end_names_only_commands_and_rows_that_there_are(run: Path) -> None:
    assert "export" not in ending(run, COMMANDS)
    (run / "data").mkdir()
    for name, row in {"debate_reflect.trees-0": '{"chosen":[]}', "multi_teacher": '{"completion":"4"}'}.items():
        (run / "data" / f"{name}.jsonl").write_text(row + "\n")
    assert "--as messages --arm multi_teacher --out" in ending(run, COMMANDS)
    named = set(re.findall(r"viva (\S+)", ending(run, COMMANDS)))
    assert {"view", "chat", "report", "export"} <= named <= COMMANDS
    assert "publish" not in re.findall(r"viva (\S+)", ending(run, COMMANDS - {"publish"}))


def test_a_run_without_results_ends_without_a_student(tmp_path: Path) -> None:
    text = ending(write_run(tmp_path / "demo", whole=False, count=4), COMMANDS)
    assert text.startswith("This run has not come to its tests yet.")
    assert "chat" not in text


def test_the_headline_has_all_money_and_the_time_of_all_sessions(run: Path) -> None:
    recipe = (run / "recipe.yaml").read_text()
    priced = "currency: EUR\nstudent:\n  price: {prompt: 1000000, completion: 1000000}\n"
    (run / "recipe.yaml").write_text(recipe.replace("student:\n", priced))
    assert re.search(r"that took 12 min 34 s and [\d.,]+ EUR\.", headline(Sources(run)).sentence)


def test_a_student_that_is_worse_is_said_to_be_worse(run: Path) -> None:
    worse = headline(with_results(run, **two("R" * 40 + "W" * 80, "W" * 20 + "R" * 20 + "W" * 80), main="taught"))
    assert ("worse", "Worse: taught is 16.7 points below before it was taught (p 2e-6).") in worse.banners
    assert "student is worse than before" in worse.certain


def test_few_questions_are_said_to_be_too_few_with_the_least_difference_that_they_can_show(run: Path) -> None:
    few = headline(with_results(run, **two("RRWWWWWWWW", "RRRRWWWWWW"), main="taught"))
    sentence = "Too few questions to tell (n = 10): a difference below 60 points cannot be shown."
    assert ("few", sentence) in few.banners
    assert "not certain" in few.certain
    six = headline(with_results(run, **two("W" * 10, "R" * 6 + "W" * 4), main="taught"))
    assert not [text for kind, text in six.banners if kind == "few"], "six of ten are enough"
    assert "Chance does not explain the gain" in six.certain


def test_a_teacher_whose_calls_fail_is_told_first_of_all(run: Path) -> None:
    failed = [text for kind, text in headline(Sources(run)).banners if kind == "failed"]
    assert failed == [f"Teacher {t} failed: 1 of 3 calls got no answer." for t in ("ada", "ben", "cyd")]


def test_every_arm_of_a_run_is_explained_and_a_chain_names_where_an_arm_starts() -> None:
    assert "ada alone" in what_it_is({"name": "single:ada", "base": "single", "teacher": "ada"})
    assert what_it_is({"name": "mine", "base": "mine", "material": "debate"}) == "learnt from debates"
    later = {
        "name": "trees.t_dpo",
        "base": "t_dpo",
        "material": "debate",
        "start": "review.checked",
        "changes": "dpo.beta=1",
    }
    assert what_it_is(later) == "learnt from debates; starts from review.checked; with dpo.beta=1"
    assert what_it_is({"name": "unknown"}) == ""


def test_a_gain_is_what_only_the_second_has_right_less_what_only_the_first_has() -> None:
    figures = gain("taught", 5, 15, 100)
    assert (figures.points, figures.only_before, figures.only_after) == (pytest.approx(10.0), 5, 15)
    assert 0 < figures.low < 10 < figures.high < 20


def test_results_of_an_earlier_version_have_a_headline_too(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results("t", {"m": {0: judged_rows(4, 2.0, 1)}}, [], 1.0)))
    assert "now answers 100 % of 4 unseen t questions right" in headline(Sources(tmp_path)).sentence
    assert some_results()["arms"][0]["name"] == "student"


def test_questions_of_a_users_own_file_and_students_that_are_alike_are_told_in_plain_words(tmp_path: Path) -> None:
    same = {0: judged_rows(40, 0.5, 1)}
    arms = {"student": {0: judged_rows(40, 0.2, 2)}, "single:ada": same, "debate_reflect": same}
    pairs = [("student", "debate_reflect"), ("single:ada", "debate_reflect")]
    (tmp_path / "results.json").write_text(json.dumps(results("jsonl", arms, pairs, 1.0)))
    outcome = headline(Sources(tmp_path))
    assert "% of 40 unseen questions right" in outcome.sentence
    assert outcome.against == "That is as much as the best other student (single:ada)."


def test_a_run_whose_own_arm_had_nothing_to_learn_from_gives_no_other_arm_as_its_student(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    arms = [arm for arm in results["arms"] if arm["name"] != "debate_reflect"]
    verdict_lines = headline(with_results(run, arms=arms, main="debate_reflect"))
    assert verdict_lines.sentence.startswith("No student was trained as debate_reflect, because the run had no rows")
    assert "as it came answers" in verdict_lines.sentence
    assert (verdict_lines.student, verdict_lines.against, verdict_lines.certain) == (None, "", "")
    assert "chat" not in ending(run, COMMANDS)
