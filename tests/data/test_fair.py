"""The released files of peer review: every count that was measured on them by hand, and errors that name the record."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.command import viva

from vivavoce.data.acceptance import RELEASED, decide
from vivavoce.data.bounds import figures, right, surely_wrong
from vivavoce.data.calibration import calibrate
from vivavoce.data.fair import STUDENT, Flagged, read_fair, summary
from vivavoce.data.sweep import sweep
from vivavoce.errors import DataError
from vivavoce.graph import Graph, read_graphs
from vivavoce.records import Problem, node


@pytest.fixture(scope="module")
def released(fair_svamp: Path) -> list[Graph]:
    return read_fair(fair_svamp)


def test_the_released_svamp_files_give_every_known_count(released: list[Graph]) -> None:
    totals = summary(released)
    assert (totals.items, totals.rationales, totals.reviews, totals.valid) == (387, 1161, 2322, 2320)
    assert totals.flagged == [Flagged("svamp/84", "gemini", "gpt", "83"), Flagged("svamp/296", "gpt", "mistral", "0")]
    assert (totals.accepted, totals.covered) == (826, 365)
    assert totals.accepted_of == {"gpt": 286, "gemini": 221, "mistral": 319}
    assert totals.questions_with == {3: 167, 2: 127, 1: 71, 0: 22}
    assert totals.mismatches == []
    assert (len(totals.suspect), totals.suspect[0], len(totals.cut), len(totals.empty)) == (42, "svamp/0", 14, 9)


def test_every_graph_is_whole_and_says_what_saw_gold(released: list[Graph]) -> None:
    for graph in released:
        graph.check()
        assert [n.kind for n in graph.nodes[:13]] == ["answer"] + ["critique"] * 3 + ["rationale"] * 3 + ["review"] * 6
        assert all(n.saw_gold == (n.kind in ("critique", "review", "verdict")) for n in graph.nodes)
        assert all(n.agent != graph.by_id[n.target or ""].agent for n in graph.nodes if n.kind == "review")
        exam = graph.nodes[0]
        assert (exam.agent, exam.correct, exam.round) == (STUDENT, False, 0)
    assert {g.nodes[0].status for g in released} == {"ok", "empty"}


def test_who_gave_which_score_is_told_by_the_position(released: list[Graph]) -> None:
    given = {(r.author, r.reviewer): r for r in calibrate(released).reviewers_of}
    table = {agent: ([*r.counts.values()], r.invalid, r.mean and round(r.mean, 2)) for agent, r in given.items()}
    assert table == {
        ("gpt", "gemini"): ([10, 11, 8, 4, 354], 0, 4.76),
        ("gpt", "mistral"): ([101, 1, 2, 3, 279], 1, 3.93),
        ("gemini", "gpt"): ([87, 45, 18, 15, 221], 1, 3.62),
        ("gemini", "mistral"): ([131, 12, 7, 12, 225], 0, 3.49),
        ("mistral", "gpt"): ([35, 30, 25, 22, 275], 0, 4.22),
        ("mistral", "gemini"): ([14, 20, 23, 18, 312], 0, 4.53),  # 1755 / 387
    }


def test_the_calibration_report_of_the_released_reviews(released: list[Graph]) -> None:
    calibration = calibrate(released)
    assert {r.reviewer: round(r.lenient or 0, 3) for r in calibration.reviewers} == {
        "gemini": 0.889,
        "gpt": 0.69,
        "mistral": 0.671,
    }
    assert [(a.author, round(a.same, 2), round(a.kappa or 0, 2), round(a.far, 2)) for a in calibration.agreements] == [
        ("gpt", 0.80, 0.34, 0.19),
        ("gemini", 0.80, 0.59, 0.17),
        ("mistral", 0.79, 0.33, 0.13),
    ]
    most = {"5+5": 716, "1+5": 137, "1+1": 75, "1+2": 46, "2+5": 34, "4+5": 32, "3+5": 29, "1+3": 27}
    assert dict([*calibration.score_pairs.items()][:8]) == most
    scores = [(float(s), n) for r in calibration.reviewers for s, n in r.counts.items()]
    assert round(sum(s * n for s, n in scores) / 2320, 2) == 4.09
    assert round(sum(n for s, n in scores if s == 5) / 2320, 2) == 0.72
    assert calibration.self_preference == []


def test_reviews_against_right_answers(released: list[Graph]) -> None:
    calibration = calibrate(released)
    authors = {a.author: a for a in calibration.authors}
    bounds = {name: (round(a.right / 3.87, 1), round(a.maybe_right / 3.87, 1)) for name, a in authors.items()}
    assert bounds == {"gpt": (69.0, 80.6), "gemini": (62.5, 68.5), "mistral": (57.1, 77.8)}
    through = {name: (a.surely_wrong_accepted, a.surely_wrong) for name, a in authors.items()}
    assert through == {"gpt": (12, 75), "gemini": (15, 122), "mistral": (50, 86)}
    assert calibration.verdicts["right"] == {"accepted": 665, "rejected": 65, "undecided": 0}
    assert calibration.verdicts["wrong"] == {"accepted": 161, "rejected": 270, "undecided": 0}


def test_the_threshold_table_to_the_digit(released: list[Graph]) -> None:
    rows = {r.rule: r for r in sweep(released)}

    def row(rule: str) -> tuple[int, int, float, float]:
        r = rows[rule]
        return r.accepted, r.questions, round(100 * (r.surely_wrong or 0), 1), round(100 * (r.last_differs or 0), 1)

    assert row("none") == (1161, 387, 24.4, 37.1)
    assert row("mean > 2") == (1001, 383, 15.6, 28.2)
    assert row("mean > 2.5") == (975, 383, 14.2, 26.4)
    assert row("mean > 3") == (826, 365, 9.3, 19.5)
    assert row("mean > 3.5") == (783, 357, 7.8, 16.9)
    assert row("mean > 4") == (750, 344, 6.0, 14.8)
    assert row("mean > 4.5") == (718, 338, 4.2, 12.8)
    assert row("min > 3, all valid") == (752, 344, 6.1, 14.9)
    assert row("max > 3, all valid") == (986, 383, 15.0, 27.3)
    assert row("last number right") == (730, 337, 0.0, 0.0)
    assert row("gold number anywhere")[:3] == (878, 362, 0.0)
    assert row("last number right and mean > 3") == (665, 326, 0.0, 0.0)
    assert row("gold number anywhere and mean > 3")[:3] == (749, 341, 0.0)


def test_ties_at_the_threshold_and_bare_answers_among_the_accepted(released: list[Graph]) -> None:
    decisions = decide(released, RELEASED)
    assert sum(d.value == 3.0 for d in decisions) == 149
    assert sum(d.value == 3.5 for d in decisions) == 43
    taken = {d.rationale for d in decisions if d.verdict == "accepted"}
    assert sum(n.id in taken and n.agent == "gemini" and len(n.text) < 20 for g in released for n in g.nodes) == 80
    drawn = [
        [surely_wrong(n, g.problem) for n in g.nodes if n.id in taken]
        for g in released
        if any(n.id in taken for n in g.nodes)
    ]
    assert round(100 * sum(sum(wrong) / len(wrong) for wrong in drawn) / len(drawn), 1) == 11.7


# --- a small release of our own

MISTAKE = {
    "id": 7,
    "question": "What is 2 + 2?",
    "gold_answer": "4",
    "student_wrong_pred": "2 + 2 = 5",
    "student_wrong_final_answer": "5",
}
FEEDBACK = MISTAKE | {"ada_feedback": "Count again.", "bob_feedback": "5 is too many."}
RATIONALE = MISTAKE | {"ada_rationale": ["It is 4.", 5], "bob_rationale": ["5", 1], "correct_rationale": ["It is 4."]}
Files = dict[str, list[dict[str, Any]]]


def release(folder: Path, edit: Callable[[Files], object] = lambda _: None) -> Path:
    files: Files = copy.deepcopy({"false": [MISTAKE], "feedback": [FEEDBACK], "rationale": [RATIONALE]})
    edit(files)
    for kind, records in files.items():
        (folder / f"tiny-1_sums_{kind}_round0.json").write_text(json.dumps(records), "utf-8")
    return folder


def test_any_number_of_teachers_is_read_from_the_first_record(tmp_path: Path) -> None:
    (graph,) = read_fair(release(tmp_path))
    assert graph.problem == Problem("sums/7", "What is 2 + 2?", "4")
    assert [(n.kind, n.agent, n.text) for n in graph.nodes] == [
        ("answer", STUDENT, "2 + 2 = 5"),
        ("critique", "ada", "Count again."),
        ("critique", "bob", "5 is too many."),
        ("rationale", "ada", "It is 4."),
        ("rationale", "bob", "5"),
        ("review", "bob", "5"),
        ("review", "ada", "1"),
        ("verdict", "release", "accepted"),
    ]
    assert read_fair(sorted(tmp_path.glob("*.json"))) == [graph]


def other_release(folder: Path, name: str, record: dict[str, Any], texts: dict[str, str]) -> Graph:
    """A release of one record of another data set: what each teacher wrote; everything scored 5."""
    others = {f"{agent}_feedback": "Look again." for agent in texts}
    rationale = {f"{agent}_rationale": [text, *[5] * (len(texts) - 1)] for agent, text in texts.items()}
    files = {"false": record, "feedback": {**record, **others}}
    files["rationale"] = {**record, **rationale, "correct_rationale": list(texts.values())}
    for kind, one in files.items():
        (folder / f"tiny_{name}_{kind}_round0.json").write_text(json.dumps([one]), "utf-8")
    (graph,) = read_fair(folder)
    return graph


def test_true_and_false_are_read_with_facts_behind_the_gold_answer(tmp_path: Path) -> None:
    record = {
        "id": 3,
        "question": "Do whales lay eggs?",
        "gold_answer": "False.\tWhales are mammals. True whales are cetaceans.",
        "student_wrong_pred": "True, for they live in the sea.",
        "student_wrong_final_answer": "true",
    }
    texts = {"ada": "Whales are mammals. The answer is False.", "bob": "They do.", "cyd": "True"}
    graph = other_release(tmp_path, "strategyqa", record, texts)
    assert (graph.problem.id, graph.problem.gold) == ("strategyqa/3", "no")
    assert [(n.agent, n.answer, n.correct) for n in graph.nodes if n.kind in ("answer", "rationale")] == [
        (STUDENT, "yes", False), ("ada", "no", True), ("bob", None, False), ("cyd", "yes", False),
    ]  # fmt: skip
    assert summary([graph]).mismatches == []
    sentinel = other_release(tmp_path, "strategyqa", {**record, "student_wrong_final_answer": "none"}, texts)
    assert sentinel.nodes[0].status == "no_answer"


LOGIC = {
    "id": 8,
    "context": "All cats sleep.\nTom is a cat.",
    "question": "What follows?",
    "options": ["Tom is awake", "Tom sleeps", "All sleep", "Cats are rare"],
    "student_wrong_pred": "Answer: Tom is awake Rationale: it is day",
    "student_wrong_final_answer": "Tom is awake",
}


@pytest.mark.parametrize("gold", ["1", "Tom sleeps", "B", "b"])
def test_options_are_lettered_as_our_task_asks_them_and_read_by_letter_or_text(tmp_path: Path, gold: str) -> None:
    texts = {
        "ada": "Answer: Tom sleeps\nRationale: all cats sleep, so not Tom is awake.",
        "bob": "The correct answer is (C).",
        "cyd": "Tom sleeps or Tom is awake, who knows.",
        "dan": "Being a cat, TOM  SLEEPS.",
    }
    graph = other_release(tmp_path, "logiqa", {**LOGIC, "gold_answer": gold}, texts)
    lettered = "A. Tom is awake\nB. Tom sleeps\nC. All sleep\nD. Cats are rare"
    assert graph.problem == Problem("logiqa/8", f"All cats sleep.\nTom is a cat.\nWhat follows?\n{lettered}", "B")
    assert [(n.agent, n.answer, n.correct) for n in graph.nodes if n.kind in ("answer", "rationale")] == [
        (STUDENT, "A", False), ("ada", "B", True), ("bob", "C", False), ("cyd", None, False), ("dan", "B", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": "four"}, "'options' is not a list"),
        ({"options": ["a", ""]}, "'options' is not a list"),
        ({"gold_answer": "7"}, "none of 4 options"),
        ({"gold_answer": "nothing follows"}, "none of 4 options"),
    ],
)
def test_options_that_cannot_be_read_are_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        other_release(tmp_path, "logiqa", {**LOGIC, "gold_answer": "1", **change}, {"ada": "x", "bob": "y"})


def test_a_failed_call_of_the_release_is_a_failed_call_here(tmp_path: Path) -> None:
    def edit(files: Files) -> None:
        files["feedback"][0]["ada_feedback"] = None
        files["rationale"][0] |= {"ada_rationale": [None, 5], "correct_rationale": [None]}

    (graph,) = read_fair(release(tmp_path, edit))
    assert [(n.kind, n.agent) for n in graph.failures()] == [("critique", "ada"), ("rationale", "ada")]
    assert [d.verdict for d in decide([graph], RELEASED)] == ["undecided", "rejected"]
    assert summary([graph]).mismatches == ["sums/7"], "the release accepted the text None"


def changed(kind: str, **values: Any) -> Callable[[Files], object]:
    return lambda files: files[kind][0].update(values)


@pytest.mark.parametrize(
    ("edit", "message", "where"),
    [
        (lambda f: f.pop("feedback"), "no file with _feedback_", ""),
        (lambda f: f["rationale"].clear(), "not a list of records", "rationale_round0.json"),
        (changed("rationale", id=8), "record 7 is missing", "rationale_round0.json"),
        (
            lambda f: f["feedback"].append(FEEDBACK | {"id": 9}),
            "record 9 is not among the mistakes",
            "feedback_round0.json, record 2",
        ),
        (lambda f: f["false"].append(MISTAKE), "id 7 appears twice", "false_round0.json, record 2"),
        (changed("false", id="7"), "the id is '7'", "record 1"),
        (changed("feedback", question="2 + 3?"), "'question' differs", "feedback_round0.json, record 1"),
        (
            lambda f: [r[0].update(gold_answer="many") for r in f.values()],
            "'many' is neither a number",
            "false_round0.json, record 1",
        ),
        (lambda f: f["feedback"][0].pop("bob_feedback"), "no field 'bob_feedback'", "record 1"),
        (changed("feedback", bob_feedback=3), "'bob_feedback' is a int", "record 1"),
        (changed("rationale", bob_rationale=["5"]), "text and 1 scores", "record 1"),
        (changed("rationale", bob_rationale=["5", "1"]), "a score of 'bob_rationale' is '1'", "record 1"),
        (changed("rationale", correct_rationale=["It is 6."]), "no teacher wrote", "record 1"),
        (changed("rationale", correct_rationale=None), "no list of accepted texts", "record 1"),
    ],
)
def test_what_is_missing_is_told_with_file_and_record(
    tmp_path: Path, edit: Callable[[Files], object], message: str, where: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_fair(release(tmp_path, edit))
    assert where in caught.value.where


def test_a_folder_that_is_not_there_and_a_file_that_is_cut(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_fair(tmp_path / "nowhere")
    release(tmp_path)
    (tmp_path / "tiny-1_sums_false_round0.json").write_text('[{"id": 7')
    with pytest.raises(DataError, match="not JSON"):
        read_fair(tmp_path)


def test_the_commands_import_and_sweep(tmp_path: Path) -> None:
    release(tmp_path)
    done = viva("import", "fair", ".", "--out", "graphs.jsonl", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accepted_of"] == {"ada": 1, "bob": 0}
    assert list(read_graphs(tmp_path / "graphs.jsonl")) == read_fair(tmp_path)
    assert "1 mistakes, 2 rationales, 2 reviews (2 valid)" in viva("import", "fair", ".", cwd=tmp_path).stdout
    done = viva("review", "sweep", "graphs.jsonl", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {r["rule"]: r["accepted"] for r in json.loads(done.stdout)["rules"]}["mean > 3"] == 1
    assert "Reviewers: scores" in viva("review", "sweep", "graphs.jsonl", cwd=tmp_path).stdout


# --- what numbers tell


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("It costs $1,080.50 or 12.", ["1080.5", "12"]),
        ("29 - 42 = -13, 5-3, x2", ["29", "42", "-13", "5", "3", "2"]),
        ("1,2 and 3,1234; .5 of it; step 1.", ["1", "2", "3", "1234", "0.5", "1"]),
        ("−7 and " + "9" * 101, ["-7"]),
        ("none", []),
    ],
)
def test_figures_reads_every_number(text: str, numbers: list[str]) -> None:
    assert figures(text) == [Decimal(n) for n in numbers]


def test_a_marked_answer_counts_before_the_last_number() -> None:
    problem = Problem("p", "2 + 2?", "4")
    marked = node("rationale", "p", "ada", 0, "Final answer: 4\n(3 steps)", answer="4", correct=True)
    prose = node("rationale", "p", "ada", 0, "That makes 4 apples.", correct=False, status="no_answer")
    assert right(marked, problem)
    assert right(prose, problem)
    assert not surely_wrong(prose, problem)
    half = node("rationale", "p", "ada", 0, "Final answer: 1/2", answer="0.5", correct=True)
    assert not surely_wrong(half, Problem("p", "?", "0.5")), "the grader read it, though 0.5 stands nowhere"
