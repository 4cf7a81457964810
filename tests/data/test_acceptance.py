"""Reviews into decisions: every aggregate, every way in which too little is known, and what no rule may do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vivavoce.data.acceptance import RELEASED, AcceptRules, Decision, clearness, decide, rationales, reliability
from vivavoce.data.calibration import calibrate, kappa
from vivavoce.data.sweep import sweep, sweep_text
from vivavoce.graph import Graph
from vivavoce.records import Node, Problem, node

PANEL = ("ada", "bob", "cyd", "dan")
Raw = int | None


def rationale(author: str, problem: str = "p", text: str = "Two and two make 4.", **rest: Any) -> Node:
    return node("rationale", problem, author, 0, text, **{"answer": "4", "correct": True, **rest})


def review(about: Node, reviewer: str, score: Raw, sample: int = 0, status: str = "no_answer") -> Node:
    return node(
        "review",
        about.problem,
        reviewer,
        0,
        f"[{score}]",
        parents=(about.id,),
        target=about.id,
        sample=sample,
        score=None if score is None else float(score),
        status=status if score is None else "ok",
    )


def graph(*nodes: Node, problem: str = "p") -> Graph:
    return Graph(Problem(problem, "What is 2 + 2?", "4"), nodes)


def scored(*scores: Raw, author: str = "ada", problem: str = "p", **rest: Any) -> list[Node]:
    """A rationale and the scores that the others gave it."""
    text = rationale(author, problem, **rest)
    others = [name for name in PANEL if name != author]
    return [text, *(review(text, agent, s) for agent, s in zip(others, scores, strict=False))]


def decided(*nodes: Node, seed: int = 0, **rules: Any) -> Decision:
    (decision,) = decide([graph(*nodes)], AcceptRules.model_validate(rules), seed)
    return decision


@pytest.mark.parametrize(
    ("scores", "rules", "verdict", "reason"),
    [
        ((4, 3), {}, "accepted", "mean 3.5"),
        ((1, 5), {}, "rejected", "mean 3.0"),
        ((1, 5), {"strict": False}, "accepted", "mean 3.0"),
        ((2, 3, 4), {}, "rejected", "mean 3.0"),
        ((None, 4), {}, "accepted", "mean 4.0"),
        ((None, 4), {"min_valid": "all"}, "undecided", "too few valid reviews"),
        ((None, 4), {"min_valid": "all_but_one"}, "accepted", "mean 4.0"),
        ((None, 4, None), {"min_valid": "all_but_one"}, "undecided", "too few valid reviews"),
        ((5, 5), {"min_valid": 3}, "undecided", "too few valid reviews"),
        ((1, 4, 5), {"aggregate": "median"}, "accepted", "median 4.0"),
        ((3, 5, 5), {"aggregate": "min"}, "rejected", "min 3.0"),
        ((1, 1, 4), {"aggregate": "max"}, "accepted", "max 4.0"),
        ((4, 4, 1), {"aggregate": "share_above"}, "accepted", "share above 0.67"),
        ((5, 3), {"aggregate": "share_above"}, "rejected", "share above 0.5"),
        ((3, 3), {"aggregate": "share_above", "strict": False}, "accepted", "share above 1.0"),
        ((1, 1), {"take": "all"}, "accepted", "taken unreviewed"),
        ((5, 5), {"min_words": 6}, "rejected", "under 6 words"),
        ((5, 5), {"min_words": 5}, "accepted", "mean 5.0"),
    ],
)
def test_the_scores_decide_as_the_rule_says(
    scores: tuple[Raw, ...], rules: dict[str, Any], verdict: str, reason: str
) -> None:
    decision = decided(*scored(*scores), **rules)
    assert (decision.verdict, decision.reason) == (verdict, reason)
    assert decision.valid == sum(s is not None for s in scores)


@pytest.mark.parametrize(
    ("answer", "verdict", "reason"),
    [
        ({"correct": True}, "accepted", "mean 5.0"),
        ({"correct": False}, "rejected", "wrong answer"),
        ({"correct": False, "answer": None, "status": "no_answer"}, "rejected", "no answer"),
        ({"correct": False, "answer": None, "status": "truncated"}, "rejected", "truncated"),
        ({"correct": None}, "undecided", "ungradable answer"),
        ({"correct": None, "text": "", "status": "error"}, "undecided", "call failed"),
        ({"correct": False, "text": " ", "status": "empty"}, "rejected", "empty"),
    ],
)
def test_an_answer_check_takes_right_answers_only_and_ungradable_ones_stay_undecided(
    answer: dict[str, Any], verdict: str, reason: str
) -> None:
    decision = decided(*scored(5, 5, **answer), answer_check=True)
    assert (decision.verdict, decision.reason) == (verdict, reason)
    if answer.get("status") == "truncated":
        assert decided(*scored(5, 5, **answer)).verdict == "rejected", "a text that was cut teaches to stop anywhere"
    elif answer.get("text") is None:
        assert decided(*scored(5, 5, **answer)).verdict == "accepted", "the authors' code checks no answer"


def test_an_authors_review_of_its_own_text_counts_only_on_request() -> None:
    own, *rest = scored(1, 2)
    nodes = (own, *rest, review(own, "ada", 5))
    assert (decided(*nodes).value, decided(*nodes).valid) == (1.5, 2)
    assert decided(*nodes, self_review=True).value == pytest.approx(8 / 3)


def test_a_reviewer_has_one_voice_and_a_readable_score_stands() -> None:
    text = rationale("ada")
    later = [review(text, "bob", None), review(text, "bob", 2, 1), review(text, "bob", None, 2), review(text, "cyd", 4)]
    assert (decided(text, *later).value, decided(text, *later).valid) == (3.0, 2)
    assert decided(text, *later, min_valid="all").verdict == "rejected", "all two reviewers could be read"


def test_at_most_so_many_of_a_question_and_ties_go_by_lot() -> None:
    nodes = [n for author, s in zip(PANEL, (5, 4, 5, 5), strict=True) for n in scored(s, s, s, author=author)]
    best = {d.author: d for d in decide([graph(*nodes)], AcceptRules(top_m=3))}
    assert (best["bob"].verdict, best["bob"].reason) == ("rejected", "below top 3")
    assert {a for a, d in best.items() if d.verdict == "accepted"} == {"ada", "cyd", "dan"}
    firsts = {
        d.author
        for seed in range(30)
        for d in decide([graph(*nodes)], AcceptRules(top_m=1), seed)
        if d.verdict == "accepted"
    }
    assert firsts == {"ada", "cyd", "dan"}


def test_standardised_scores_weigh_a_lenient_and_a_severe_reviewer_alike() -> None:
    """By hand: bob gave 5 4, cyd 3 1, all have mean 3.25, sd sqrt(35)/4; z = 1 and -1 for both."""
    one, two = scored(5, 3), scored(4, 1, problem="q")
    rules = AcceptRules(aggregate="standardised")
    first, second = decide([graph(*one), graph(*two, problem="q")], rules)
    assert first.value == pytest.approx(3.25 + 35**0.5 / 4)
    assert second.value == pytest.approx(3.25 - 35**0.5 / 4)
    (alone,) = decide([graph(*one)], rules)
    assert alone.value == 4, "one score each: nothing is known of either, so both say the overall mean"


@pytest.mark.parametrize(
    ("unread", "value", "verdict"),
    [("leave_out", 5.0, "accepted"), ("middle", 11 / 3, "accepted"), ("lowest", 7 / 3, "rejected")],
)
def test_a_score_that_cannot_be_read_is_left_out_or_counts_as_the_rule_says(
    unread: str, value: float, verdict: str
) -> None:
    decision = decided(*scored(5, None, None), unread=unread)
    assert (decision.value, decision.verdict, decision.valid) == (pytest.approx(value), verdict, 1)
    assert decided(*scored(5, None, None), unread=unread, min_valid=2).verdict == "undecided"
    assert decided(*scored(None, None, None), unread=unread).verdict == "undecided"
    weighed = decided(*scored(5, 4, None), unread=unread, aggregate="agreeing")
    assert weighed.value is not None


def test_random_takes_as_many_as_the_reviews_would_but_others() -> None:
    graphs = [graph(*scored(*s, problem=f"p{i}"), problem=f"p{i}") for i, s in enumerate([(5, 5), (1, 1)] * 20)]
    drawn = [decide(graphs, AcceptRules(take="random"), seed) for seed in (0, 0, 1)]
    taken = [{d.problem for d in ds if d.verdict == "accepted"} for ds in drawn]
    assert [len(t) for t in taken] == [20, 20, 20]
    assert taken[0] == taken[1] != taken[2]
    assert taken[0] != {g.problem.id for g in graphs[::2]}
    wrong = [graph(*scored(5, 5, problem=f"w{i}", correct=False), problem=f"w{i}") for i in range(9)]
    checked = decide([*graphs, *wrong], AcceptRules(take="random", answer_check=True))
    assert {d.reason for d in checked[-9:]} == {"wrong answer"}


@pytest.mark.parametrize(
    ("answers", "accepted"),
    [
        (("4", "4", "5"), {"ada", "bob"}),
        (("5", "5", "4"), {"ada", "bob"}),
        (("4", "5", None), set()),
        (("4", None, None), {"ada"}),
        ((None, None, None), set()),
        (("4", "5", "6", "6"), {"cyd", "dan"}),
        (("4", "4", "5", "5"), set()),
    ],
)
def test_the_majority_is_the_most_frequent_answer_though_gold_is_4_and_a_tie_accepts_nothing(
    answers: tuple[str | None, ...], accepted: set[str]
) -> None:
    nodes = [
        n
        for author, answer in zip(PANEL, answers, strict=False)
        for n in scored(1, 1, author=author, answer=answer, correct=answer == "4")
    ]
    verdicts = decide([graph(*nodes)], AcceptRules(take="majority"))
    assert {d.author for d in verdicts if d.verdict == "accepted"} == accepted
    assert {d.verdict for d in verdicts} <= {"accepted", "rejected"}


def test_a_failed_call_has_no_vote_and_a_checked_majority_is_right_too() -> None:
    failed = rationale("cyd", text="", answer=None, correct=None, status="error")
    texts = [rationale("ada"), rationale("bob", answer="5", correct=False), failed]
    verdicts = decide([graph(*texts)], AcceptRules(take="majority"))
    assert [d.verdict for d in verdicts] == ["rejected", "rejected", "undecided"]
    wrong = [rationale(agent, answer="5", correct=False) for agent in PANEL[:2]]
    checked = decide([graph(*wrong, rationale("cyd"))], AcceptRules(take="majority", answer_check=True))
    assert [d.reason for d in checked] == ["wrong answer", "wrong answer", "outvoted"]


def test_only_the_reviewers_that_are_named_decide() -> None:
    nodes = scored(5, 1, 1)
    assert decided(*nodes).verdict == "rejected"
    one = decided(*nodes, reviewers=["bob"], min_valid="all")
    assert (one.verdict, one.value, one.valid) == ("accepted", 5, 1)
    assert decided(*nodes, reviewers=["cyd", "dan"]).value == 1
    own = (*nodes, review(nodes[0], "ada", 5))
    assert decided(*own, reviewers=["ada"]).verdict == "undecided", "nobody judges itself"
    assert decided(*own, reviewers=["ada"], self_review=True).value == 5


def test_no_more_reviews_are_needed_than_those_who_are_named_can_give() -> None:
    nodes = scored(5, 1, None)
    assert decided(*nodes, min_valid=3).reason == "too few valid reviews"
    assert decided(*nodes, min_valid=3, reviewers=["bob"]).verdict == "accepted", "one judge, one review"
    assert decided(*nodes, min_valid=3, reviewers=["bob", "cyd"]).reason == "mean 3.0", "one left out, two reviews"
    assert decided(*nodes, min_valid=2, reviewers=["bob", "dan"]).verdict == "undecided", "dan was asked, and unread"
    assert decided(*nodes, min_valid=2, reviewers=["ada"]).verdict == "undecided", "nobody was asked"


def test_scores_of_those_who_do_not_count_enter_no_mean_and_no_spread() -> None:
    both = [scored(5, 3), scored(4, 1, problem="q")]
    graphs = [graph(*both[0]), graph(*both[1], problem="q")]
    rules = AcceptRules(aggregate="standardised", reviewers=["bob"])
    assert [d.value for d in decide(graphs, rules)] == pytest.approx([5, 4])


@pytest.mark.parametrize("rules", [{"min_valid": 0}, {"min_valid": "some"}, {"top_m": 0}, {"tau": 3}, {"take": "none"}])
def test_a_rule_that_makes_no_sense_is_refused(rules: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AcceptRules.model_validate(rules)


# --- what holds for any reviews

SCORES = st.lists(st.lists(st.none() | st.integers(1, 5), min_size=3, max_size=3), min_size=1, max_size=6)
RULES = st.builds(
    AcceptRules,
    take=st.sampled_from(["reviewed", "reviewed", "random"]),
    reviewers=st.none() | st.just(["ada", "bob"]),
    aggregate=st.sampled_from(["mean", "median", "min", "max", "share_above", "standardised"]),
    strict=st.booleans(),
    min_valid=st.sampled_from([1, 2, "all", "all_but_one"]),
    answer_check=st.booleans(),
)


def run_of(rows: list[list[Raw]]) -> list[Graph]:
    return [
        graph(*scored(*row, author=PANEL[i % 4], problem=f"p{i}", correct=i % 3 != 1), problem=f"p{i}")
        for i, row in enumerate(rows)
    ]


def accepted(graphs: list[Graph], rules: AcceptRules) -> set[str]:
    return {d.rationale for d in decide(graphs, rules) if d.verdict == "accepted"}


@settings(deadline=None)
@given(SCORES, RULES, st.floats(0, 6), st.floats(0, 6))
def test_a_higher_threshold_never_accepts_more(rows: list[list[Raw]], rules: AcceptRules, a: float, b: float) -> None:
    low, high = (rules.model_copy(update={"threshold": t}) for t in sorted((a, b)))
    assert accepted(run_of(rows), high) <= accepted(run_of(rows), low)


@settings(deadline=None)
@given(SCORES, RULES, st.sampled_from(["error", "no_answer", "out_of_range", "empty"]))
def test_a_rationale_whose_every_review_failed_is_undecided(
    rows: list[list[Raw]], rules: AcceptRules, how: str
) -> None:
    text = rationale("ada", "failed")
    failed = graph(text, *(review(text, agent, None, status=how) for agent in PANEL[1:]), problem="failed")
    *_, last = decide([*run_of(rows), failed], rules.model_copy(update={"take": "reviewed"}))
    assert (last.rationale, last.verdict, last.value, last.valid) == (text.id, "undecided", None, 0)
    (unreviewed,) = decide([graph(text, problem="failed")], rules.model_copy(update={"take": "reviewed"}))
    assert unreviewed.verdict == "undecided", "nobody was asked: not even all of no reviews suffice"


@settings(deadline=None)
@given(SCORES, RULES, st.integers(1, 5))
def test_no_review_by_its_own_author_counts(rows: list[list[Raw]], rules: AcceptRules, own: int) -> None:
    graphs = run_of(rows)
    with_own = [replace(g, nodes=(*g.nodes, review(g.nodes[0], g.nodes[0].agent, own))) for g in graphs]
    assert decide(with_own, rules) == decide(graphs, rules)


@settings(deadline=None)
@given(SCORES, RULES, st.integers(0, 9))
def test_random_acceptance_keeps_the_count(rows: list[list[Raw]], rules: AcceptRules, seed: int) -> None:
    graphs = run_of(rows)
    both = [decide(graphs, rules.model_copy(update={"take": t}), seed) for t in ("reviewed", "random")]
    counts = [sum(d.verdict == "accepted" for d in ds) for ds in both]
    assert counts[0] == counts[1]
    assert (
        [d.rationale for d in both[0]]
        == [d.rationale for d in both[1]]
        == [n.id for g in graphs for n in rationales(g)]
    )


# --- the report on reviewers


def test_kappa_of_small_cases_worked_by_hand() -> None:
    assert kappa([True, True, False, False], [True, False, False, False]) == pytest.approx(0.5)
    assert kappa([True, False], [False, True]) == pytest.approx(-1)
    assert kappa([True, True], [True, True]) is None
    assert kappa([], []) is None


def test_the_report_tells_leniency_auroc_agreement_and_self_preference() -> None:
    graphs = []
    for i, (scores, own, right) in enumerate([((5, 4), 5, True), ((1, 4), 5, False), ((4, None), None, None)]):
        answer = {"correct": right, "answer": "4" if right else "B"}
        one = scored(*scores, problem=f"p{i}", **answer)
        own_reviews = [review(one[0], "ada", own)] if own else []
        graphs.append(graph(*one, *own_reviews, problem=f"p{i}"))
    calibration = calibrate(graphs)
    bob, cyd = calibration.reviewers
    assert (bob.counts, bob.invalid, bob.auroc) == ({"1": 1, "4": 1, "5": 1}, 0, 1.0)
    assert (bob.lenient, bob.lenient_right, bob.lenient_wrong) == (pytest.approx(2 / 3), 1.0, 0.0)
    assert (cyd.counts, cyd.invalid, cyd.auroc) == ({"4": 2}, 1, 0.5)
    (pair,) = calibration.agreements
    assert (pair.first, pair.second, pair.texts, pair.same, pair.kappa, pair.far) == ("bob", "cyd", 2, 0.5, 0.0, 0.5)
    (ada,) = calibration.self_preference
    assert (ada.reviewer, ada.texts, ada.own, ada.others) == ("ada", 2, 5.0, 3.5)
    assert calibration.verdicts["right"]["accepted"] == calibration.verdicts["wrong"]["rejected"] == 1
    assert calibration.verdicts["unknown"] == {"accepted": 1, "rejected": 0, "undecided": 0}
    assert [row.rule for row in sweep(graphs)][:3] == ["none", "mean > 2", "mean > 2.5"]
    shown = sweep_text(sweep(graphs), calibration)
    assert "Mean score of an author's own texts" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_a_report_on_nothing_is_no_error() -> None:
    text = rationale("ada", correct=None, answer=None)
    calibration = calibrate([graph(text, review(text, "bob", None))])
    assert (calibration.reviewers[0].mean, calibration.reviewers[0].auroc, calibration.agreements) == (None, None, [])
    assert sweep([graph(text, review(text, "bob", None))])[1].surely_wrong is None
    assert sweep_text(sweep([]), calibrate([]))


def test_where_gold_is_no_number_the_grader_has_the_word() -> None:
    problem = Problem("p", "Which one?", "B")
    nodes = scored(5, 5, text="Among 3, 4 and 5 it is B.", correct=True, answer="B") + scored(
        5, 5, author="bob", text="It is C.", correct=False, answer="C"
    )
    by_rule = {row.rule: row for row in sweep([Graph(problem, tuple(nodes))])}
    assert (by_rule["mean > 3"].accepted, by_rule["mean > 3"].surely_wrong, by_rule["mean > 3"].last_differs) == (
        2,
        0.5,
        0.5,
    )
    assert by_rule["graded right"].accepted == 1
    assert "last number right" not in by_rule


def test_the_defaults_are_the_released_rule() -> None:
    assert AcceptRules() == RELEASED
    assert (RELEASED.threshold, RELEASED.strict, RELEASED.min_valid, RELEASED.answer_check) == (3, True, 1, False)


@pytest.mark.parametrize(
    ("rules", "value", "weight"),
    [
        ({}, 4.0, 0.5), ({}, 5.0, 1.0), ({}, 3.0, 0.0), ({}, 1.0, 0.0), ({}, None, 0.0),
        ({"aggregate": "share_above"}, 0.5, 0.0), ({"aggregate": "share_above"}, 0.75, 0.5),
        ({"aggregate": "share_above"}, 1.0, 1.0), ({"aggregate": "share_above", "threshold": 5}, 1.0, 1.0),
        ({"threshold": 5, "strict": False}, 5.0, 1.0), ({"threshold": 5, "strict": False}, 4.5, 0.0),
        ({"threshold": 4.5}, 4.75, 0.5), ({"aggregate": "standardised"}, 5.6, 1.0),
    ],
)  # fmt: skip
def test_how_clearly_a_text_passed_goes_from_the_threshold_to_the_highest_value(
    rules: dict[str, Any], value: float | None, weight: float
) -> None:
    decision = Decision("n", "p", "ada", "accepted", "", value, 2)
    assert clearness(decision, AcceptRules(**rules)) == pytest.approx(weight)


@pytest.mark.parametrize("aggregate", ["mean", "median", "min", "max", "share_above", "standardised"])
@pytest.mark.parametrize("threshold", [2.0, 3.0, 4.5])
def test_what_a_strict_rule_accepts_always_counts_something(aggregate: Any, threshold: float) -> None:
    rules, texts = AcceptRules(aggregate=aggregate, threshold=threshold), [rationale(a) for a in ("ada", "bob")]
    scores = [review(n, k, s) for n, s in zip(texts, (5, 4), strict=True) for k in ("cyd", "dan")]
    made = Graph(Problem("p", "2+2?", "4"), (*texts, *scores))
    decisions = decide([made], rules)
    assert all(0 < clearness(d, rules) <= 1 for d in decisions if d.verdict == "accepted")
    assert any(d.verdict == "accepted" for d in decisions)


def test_reviewers_count_by_how_well_they_tell_right_from_wrong_or_by_how_they_agree() -> None:
    """ada tells right from wrong, bob praises everything, cyd errs always; each judges the same texts."""
    given = {"ada": (5, 1), "bob": (5, 5), "cyd": (1, 5)}
    graphs = []
    for q in range(6):
        scores_of, nodes = [], []
        for author in ("x", "y"):
            good = (q + (author == "y")) % 2 == 0
            text = node("rationale", f"q{q}", author, 0, f"{author} {q}", answer="1", correct=good)
            scores_of.append(text)
            nodes += [
                node("review", f"q{q}", agent, 0, "", target=text.id, score=float(scores[0 if good else 1]))
                for agent, scores in given.items()
            ]
        graphs.append(Graph(Problem(f"q{q}", "?", "1"), (*scores_of, *nodes)))
    reliable = AcceptRules(aggregate="reliable")
    assert reliability(graphs, reliable) == {"ada": 1.0, "bob": 0.0, "cyd": 0.0}
    verdicts = {(d.verdict, graphs[int(d.problem[1:])].by_id[d.rationale].correct) for d in decide(graphs, reliable)}
    assert verdicts == {("accepted", True), ("rejected", False)}
    assert {d.verdict for d in decide(graphs, AcceptRules())} == {"accepted"}, "a plain mean takes all of them"
    agreeing = reliability(graphs, AcceptRules(aggregate="agreeing"))
    assert agreeing["ada"] == agreeing["cyd"] == 0.0, "they contradict each other"
    two = AcceptRules(aggregate="agreeing", reviewers=["bob"])
    assert {d.value for d in decide(graphs, two)} == {5.0}, "of whom nothing can be told, the word counts"
