"""Who examines whom: mistakes, feedback, rationales and reviews, also where teachers fail, and what is accepted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.debate.scripts import SUM, Script, broken

from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.reviewers import reviewers_of
from vivavoce.committee.table import Member, Setting, Table, hold_all
from vivavoce.committee.wording import Wording
from vivavoce.data.acceptance import AcceptRules, decide, with_accepted_feedback
from vivavoce.data.two_task import Lessons, feedback_rows, mistake_trees, only, rationale_rows
from vivavoce.graph import Graph
from vivavoce.methods.review_arms import ReviewArm
from vivavoce.methods.review_rows import ReviewRows
from vivavoce.protocols import peer_review
from vivavoce.protocols.peer_review import Options
from vivavoce.records import Message, Problem, Reply, Sampling, Usage
from vivavoce.tasks import open_task

TASK = open_task("gsm8k", {})


def saying(answer: object = 4, score: str = "[5]") -> Script:
    """An agent that explains, answers or scores, whatever the prompt asks for."""

    def script(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        asked = messages[-1]["content"]
        if "in square brackets" in asked:
            return f"I checked it. {score}"
        return "You forgot to carry." if "You teach" in asked else f"I add.\nFinal answer: {answer}"

    return script


def member(name: str, script: Script, role: str = "teacher", samples: int = 1) -> Member:
    return Member(Scripted(name, script), role, Sampling(), samples)  # type: ignore[arg-type]


def sitting(teachers: dict[str, Script], journal: Journal, student: Script, samples: int, **rules: object) -> Setting:
    members = (member("student", student, "student", samples), *(member(n, s) for n, s in teachers.items()))
    options = Options.model_validate(rules)
    return Setting(peer_review.run, members, options, prompt_set("general"), TASK, journal)


@pytest.fixture
def hold(tmp_path: Path):
    """``hold({"a": script, …}, **rules)``: the graph of one question, and what the calls were for."""

    def hold(teachers: dict[str, Script], student: Script | None = None, samples: int = 1, **rules: object) -> Graph:
        with Journal(tmp_path / "journal.sqlite") as journal:
            sat = sitting(teachers, journal, student or saying(7), samples, **rules)
            (graph,) = asyncio.run(hold_all([SUM], sat))
        graph.check()
        return graph

    return hold


def kinds(graph: Graph) -> Counter[str]:
    return Counter(n.kind for n in graph.nodes)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_n_teachers_give_n_times_n_minus_1_reviews_and_none_of_their_own(hold, n: int) -> None:
    graph = hold({f"t{i}": saying() for i in range(n)})
    assert kinds(graph) == +Counter(answer=1, critique=n, rationale=n, review=n * (n - 1))
    assert all(graph.by_id[r.target].agent != r.agent for r in graph.nodes if r.kind == "review")


def test_nothing_is_asked_about_what_the_student_knows(hold) -> None:
    assert kinds(hold({"a": saying(), "b": saying()}, saying(4))) == Counter(answer=1)


def test_the_rationale_never_saw_gold_and_the_rest_says_that_it_did(hold) -> None:
    graph = hold({"a": saying(), "b": saying()})
    assert {(n.kind, n.saw_gold) for n in graph.nodes} == {
        ("answer", False), ("critique", True), ("rationale", False), ("review", True),
    }  # fmt: skip
    blind = hold({"a": saying(), "b": saying()}, gold_shown=False, feedback_sees_gold=False)
    assert not any(n.saw_gold for n in blind.nodes)


@pytest.mark.parametrize(
    ("reply_script", "taught", "kind"),
    [(saying(7), True, "ok"), (lambda *_: "I do not know", False, "no_answer"), (lambda *_: " ", False, "empty")],
)
def test_only_the_classes_that_are_taught_cost_calls(hold, reply_script: Script, taught: bool, kind: str) -> None:
    graph = hold({"a": saying(), "b": saying()}, reply_script)
    assert graph.nodes[0].status == kind
    assert (kinds(graph)["review"] > 0) == taught
    assert (
        kinds(hold({"a": saying(), "b": saying()}, reply_script, classes=["wrong", "no_answer", "empty"]))["review"]
        == 2
    )


def test_a_wrong_rationale_is_not_sent_to_reviewers_where_the_answer_is_checked_before(hold) -> None:
    teachers = {"a": saying(4), "b": saying(5)}
    assert kinds(hold(teachers))["review"] == 2
    assert kinds(hold(teachers, answer_check="before"))["review"] == 1


def test_authors_who_see_the_right_answer_are_told_it_and_their_texts_say_so(hold) -> None:
    graph = hold({"a": saying(), "b": saying()}, rationale_sees_gold=True)
    rationales = [n for n in graph.nodes if n.kind == "rationale"]
    assert all(n.saw_gold for n in rationales)
    assert all("The right answer is 4." in graph.messages_of(n)[-1]["content"] for n in rationales)
    plain = hold({"a": saying(), "b": saying()})
    assert not any("right answer" in plain.messages_of(n)[-1]["content"] for n in plain.nodes if n.kind == "rationale")


def test_several_reviews_of_a_pair_are_several_draws_and_count_as_one_reviewer(hold) -> None:
    def scores(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        if "in square brackets" not in messages[-1]["content"]:
            return saying()(messages, sampling, seed)
        return f"It is fine. {['[5]', '[1]', 'no score'][seed % 3]}"

    graph = hold({"a": saying(), "b": scores}, reviews_each=12, review_temperature=0.7, retries=1)
    of_a = [n for n in graph.nodes if n.kind == "review" and n.agent == "b"]
    assert len({n.sample for n in of_a}) == len(of_a) >= 12
    read = [n.score for n in of_a if n.score is not None]
    assert set(read) == {1, 5}
    (decision,) = [d for d in decide([graph], AcceptRules(min_valid="all")) if d.author == "a"]
    assert (decision.value, decision.valid) == (pytest.approx(sum(read) / len(read)), 1)
    with pytest.raises(ValueError, match="are all the same"):
        Options(reviews_each=2)


def test_a_teachers_own_system_text_stands_before_all_that_it_is_asked(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        sat = sitting({"a": saying(), "b": saying()}, journal, saying(7), 1)
        briefed = replace(
            sat, members=tuple(replace(m, system="Be terse.") if m.name == "a" else m for m in sat.members)
        )
        (graph,) = asyncio.run(hold_all([SUM], briefed))
    first = {(n.agent, n.kind): graph.messages_of(n)[0] for n in graph.nodes}
    terse = {"role": "system", "content": "Be terse."}
    assert [agent for agent, message in first.items() if message == terse] == [
        ("a", "critique"), ("a", "rationale"), ("a", "review"),
    ]  # fmt: skip


def test_feedback_stays_if_the_answer_check_leaves_no_rationale_to_review(hold) -> None:
    graph = hold({"a": saying(6), "b": saying(5)}, answer_check="before")
    assert kinds(graph) == Counter(answer=1, critique=2, rationale=2)
    lessons = Lessons(Wording(Options(answer_check="before"), prompt_set("general"), TASK), "student")
    assert len(list(feedback_rows([graph], lessons))) == 2
    assert not list(rationale_rows([graph], decide([graph], AcceptRules(answer_check=True)), lessons))


def test_an_unreadable_score_is_asked_for_again_and_then_stays_unread(hold) -> None:
    graph = hold({"a": saying(score="4 out of 5"), "b": saying(score="[4]")}, retries=2)
    assert [n.sample for n in graph.nodes if n.kind == "review" and n.agent == "a"] == [0, 1, 2], "every try is kept"
    by = {n.agent: n for n in graph.nodes if n.kind == "review"}
    assert (by["a"].score, by["a"].status, by["a"].sample) == (None, "no_answer", 2)
    assert (by["b"].score, by["b"].status, by["b"].sample) == (4, "ok", 0)
    compat = hold({"a": saying(score="4 out of 5"), "b": saying()}, score="compat")
    assert next(n.score for n in compat.nodes if n.kind == "review" and n.agent == "a") == 5


def test_a_teacher_that_always_fails_leaves_texts_undecided_and_never_accepted(hold) -> None:
    graph = hold({"a": saying(), "dead": broken})
    verdicts = {d.author: (d.verdict, d.reason) for d in decide([graph], AcceptRules())}
    assert verdicts == {"a": ("undecided", "too few valid reviews"), "dead": ("undecided", "call failed")}
    assert len(graph.failures()) == 3


def test_a_student_that_fails_is_no_mistake(hold) -> None:
    assert kinds(hold({"a": saying(), "b": saying()}, broken)) == Counter(answer=1)


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_random_reviewers_are_never_the_author_and_have_equal_load(n: int, k: int, seed: int) -> None:
    names = [f"t{i}" for i in range(n)]
    sat = tuple(member(x, saying()) for x in names)
    nowhere: Any = None
    made = Setting(peer_review.run, sat, Options(reviewers_each=k), prompt_set("general"), TASK, nowhere, seed)
    chosen = {a: [m.name for m in reviewers_of(a, Table(SUM, made))] for a in names}
    assert all(a not in agent and len(set(agent)) == len(agent) == min(k, n - 1) for a, agent in chosen.items())
    assert len(set(Counter(x for agent in chosen.values() for x in agent).values())) == 1


def test_a_second_run_and_a_changed_acceptance_ask_nothing(tmp_path: Path) -> None:
    problems = [Problem(f"p{i}", f"What is 2 + 2, in world {i}?", "4") for i in range(20)]
    paid: list[bool] = []
    with Journal(tmp_path / "journal.sqlite") as journal:
        journal.on_call = lambda agent, cached, usage: paid.append(not cached)
        sat = sitting({"a": saying(), "b": saying(5), "c": saying()}, journal, saying(7), 1)
        first = asyncio.run(hold_all(problems, sat))
        calls = sum(paid)
        assert calls == 20 * (1 + 3 + 3 + 6)
        assert list(asyncio.run(hold_all(problems, sat))) == list(first)
        assert sum(paid) == calls


def test_rows_of_both_streams_name_what_they_come_from(hold) -> None:
    graph = hold({"a": saying(4, "[1]"), "b": saying(5, "[5]"), "c": saying(4, "[5]")})
    lessons = Lessons(Wording(Options(), prompt_set("general"), TASK), "student")
    feedback = list(feedback_rows(only([graph], ["a", "c"]), lessons))
    assert [(r.stream, graph.by_id[r.source[0]].agent) for r in feedback] == [("feedback", "a"), ("feedback", "c")]
    assert "Final answer: 7" in feedback[0].prompt[0]["content"]
    rules = AcceptRules(answer_check=True, threshold=2.5)  # a: 5, 5; b: 1, 5 but wrong; c: 1, 5
    decisions = decide([graph], rules)
    rows = list(rationale_rows([graph], decisions, lessons, rules))
    assert [(graph.by_id[r.source[0]].agent, r.weight) for r in rows] == [("a", 1.0), ("c", pytest.approx(0.2))]
    assert "7" not in rows[0].prompt[0]["content"]
    (tree,) = mistake_trees([graph], decisions, lessons)
    assert [c.text for c in tree.rejected] == ["I add.\nFinal answer: 7"]


def test_shuffled_feedback_belongs_to_another_question(tmp_path: Path) -> None:
    problems = [Problem(f"p{i}", f"What is 2 + 2, in world {i}?", "4") for i in range(7)]
    with Journal(tmp_path / "journal.sqlite") as journal:
        graphs = asyncio.run(hold_all(problems, sitting({"a": saying()}, journal, saying(7), 1)))
    lessons = Lessons(Wording(Options(), prompt_set("general"), TASK), "student")
    own = {n.id: g.problem.id for g in graphs for n in g.nodes}
    rows = list(feedback_rows(graphs, lessons, shuffled=3))
    assert len(rows) == 7
    assert len({own[r.source[0]] for r in rows}) == 7
    assert all(own[r.source[0]] != r.problem for r in rows)


def cutting(script: Script, what: str) -> Any:
    """The same agent, whose token limit ends what it says if that begins so."""

    def cut(messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        reply = script(messages, sampling, seed)
        return Reply(reply, "length" if reply.startswith(what) else "stop", Usage(9, 9))

    return cut


def test_a_score_that_a_token_limit_cut_is_asked_for_again_and_counts_for_nothing(hold) -> None:
    cut = cutting(saying(4), "I checked")
    graph = hold({"a": cut, "b": saying(4)}, retries=2, answer_check="before")
    (of_a,) = {n.agent for n in graph.nodes if n.kind == "review" and n.status == "truncated"}
    assert of_a == "a"
    assert [n.score for n in graph.nodes if n.kind == "review" and n.agent == "a"] == [None] * 3


def test_a_score_above_the_line_that_was_cut_counts(hold) -> None:
    cut = cutting(saying(4, "[5]\nTo say more, the"), "I checked")
    graph = hold({"a": cut, "b": saying(4)}, answer_check="before")
    assert {n.score for n in graph.nodes if n.kind == "review"} == {5.0}


def test_cut_feedback_is_no_row(hold) -> None:
    cut = cutting(saying(4), "You forgot")
    graph = hold({"a": cut, "b": saying(4)})
    assert sorted(n.status for n in graph.nodes if n.kind == "critique") == ["ok", "truncated"]
    lessons = Lessons(Wording(Options(), prompt_set("general"), TASK), "student")
    assert len(list(feedback_rows([graph], lessons))) == 1


def test_cut_rationales_cost_no_reviews(hold) -> None:
    graph = hold({"a": cutting(saying(4), "I add"), "b": saying(4)})
    assert [n.status for n in graph.nodes if n.kind == "rationale"] == ["truncated", "ok"]
    assert {n.target for n in graph.nodes if n.kind == "review"} == {
        n.id for n in graph.nodes if n.kind == "rationale" and n.status == "ok"
    }


def test_feedback_is_reviewed_on_request_and_what_its_reviews_reject_is_not_learnt(hold) -> None:
    teachers = {"a": saying(), "b": saying(score="[2]"), "c": saying(score="[4]")}
    graph = hold(teachers, feedback_reviewed=True)
    assert kinds(graph) == Counter(answer=1, critique=3, rationale=3, review=6 + 6)
    critiques = {n.id: n.agent for n in graph.nodes if n.kind == "critique"}
    about = [n for n in graph.nodes if n.kind == "review" and n.target in critiques]
    assert all(n.agent != critiques[str(n.target)] for n in about)
    (asked,) = {graph.prompt_of(n).template for n in about}
    assert asked == "feedback_review"
    text = graph.prompt_of(about[0]).chat[0]["content"]
    assert "Final answer: 7" in text
    assert "You forgot to carry." in text

    lessons = Lessons(Wording(Options(), prompt_set("general"), TASK), "student")
    rows = ReviewRows(lessons, list(teachers))  # a: 2 and 4; b: 5 and 4; c: 5 and 2

    def authors(feedback: str, accept: AcceptRules) -> list[str]:
        made = rows.examples(ReviewArm(feedback=feedback, alpha=1.0), accept, [[graph]], 1.0)  # type: ignore[arg-type]
        return [graph.by_id[r.source[0]].agent for r in made]

    assert authors("all", AcceptRules()) == ["a", "b", "c"]
    assert authors("reviewed", AcceptRules()) == ["b", "c"]
    assert authors("reviewed", AcceptRules(threshold=4)) == ["b"]
    assert authors("reviewed", AcceptRules(aggregate="min", threshold=1.5)) == ["a", "b", "c"]
    unreviewed = hold(teachers)
    (kept,) = with_accepted_feedback([unreviewed], AcceptRules())
    assert not [n for n in kept.nodes if n.kind == "critique"]
    spent = [rows.spend(ReviewArm(feedback=f), AcceptRules(), graph, 1.0) for f in ("all", "reviewed")]  # type: ignore[arg-type]
    assert spent[0] <= spent[1]


def test_what_an_arm_cost_its_teachers_is_what_it_learns_from_and_the_reviews_that_it_needs(hold) -> None:
    graph = hold({name: cutting(saying(), "never") for name in "abc"}, feedback_reviewed=True)  # 18 tokens a text
    rows = ReviewRows(Lessons(Wording(Options(), prompt_set("general"), TASK), "student"), list("abc"))

    def spent(accept: AcceptRules | None = None, **arm: Any) -> tuple[int, int]:
        one = rows.spent(ReviewArm(**arm), accept or AcceptRules(), [[graph], [graph]], 0.5)
        return one["texts"] // 18, one["reviews"] // 18

    assert spent() == (6, 6), "a second exam asks for nothing again"
    assert spent(AcceptRules(take="all")) == (6, 0)
    assert spent(feedback="reviewed") == (6, 12)
    assert spent(alpha=0.0) == (3, 6)
    assert spent(alpha=1.0) == (3, 0)
    assert spent(alpha=1.0, feedback="reviewed") == (3, 6)
    assert spent(teachers=["a"]) == (2, 2)
