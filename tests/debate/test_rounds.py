"""Who speaks when: roles, stop rules, absences, leaks of gold, and the budget of the shared information."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError
from tests.debate.conftest import Debate
from tests.debate.scripts import SUM, always, broken

from vivavoce.agents.journal import Call
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.reading import hidden
from vivavoce.committee.rehearsal import Absent, Expected, bounds
from vivavoce.committee.table import Member, Setting
from vivavoce.graph import Graph
from vivavoce.protocols import debate_reflect
from vivavoce.protocols.debate_reflect import Options
from vivavoce.records import Message, Problem, Reply, Sampling, Usage
from vivavoce.tasks import open_task


def kinds(graph: Graph, round: int | None = None) -> dict[str, int]:
    nodes = [n for n in graph.nodes if round is None or n.round == round]
    return {k: sum(n.kind == k for n in nodes) for k in ("answer", "critique", "reflection")}


@pytest.mark.parametrize("right", range(5))
def test_k_of_a_agents_right_give_k_times_a_minus_k_critiques_and_a_minus_k_reflections(
    hold: Debate, right: int
) -> None:
    teachers = {f"t{i}": always(4 if i < right else 10 + i) for i in range(4)}
    graph = hold(teachers, max_rounds=2, stop="cap_only")
    assert kinds(graph, 0) == {"answer": 4, "critique": right * (4 - right), "reflection": 4 - right}


def test_nothing_is_said_after_the_last_round_unless_asked_for(hold: Debate) -> None:
    teachers = {"a": always(4), "b": always(5)}
    assert kinds(hold(teachers, max_rounds=2, stop="cap_only"), 1) == {"answer": 2, "critique": 0, "reflection": 0}
    assert kinds(hold(teachers, max_rounds=2, stop="cap_only", last_round_reflect=True), 1)["critique"] == 1


def test_a_debate_stops_at_consensus_even_on_a_wrong_answer_and_at_all_correct_only_on_the_right_one(
    hold: Debate,
) -> None:
    wrong = {"a": always(5), "b": always(5)}
    assert (hold(wrong).rounds, hold(wrong).stopped) == (1, "consensus")
    assert (hold(wrong, stop="all_correct").rounds, hold(wrong, stop="all_correct").stopped) == (4, "cap")
    assert hold({"a": always(4), "b": always(4)}, stop="all_correct").stopped == "all_correct"


def test_a_stable_majority_stops_the_debate(hold: Debate) -> None:
    graph = hold({"a": always(4), "b": always(4), "c": always(7)}, stop="majority_stable")
    assert (graph.rounds, graph.stopped) == (2, "majority_stable")


def test_drafts_may_end_a_debate_and_what_is_said_later_may_not(hold: Debate) -> None:
    def persuaded(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        return f"Final answer: {4 if 'experts' in messages[-1]['content'] else 5}"

    for rule, why in (("if_drafts_disagree", "drafts_agree"), ("if_student_wrong", "student_right")):
        rules = {"max_rounds": 3, "stop": "cap_only", "later_rounds": rule}
        assert hold({"a": always(4)}, always(4), **rules).stopped == why
        late = hold({"a": always(4)}, persuaded, **rules)
        assert (late.rounds, late.stopped, [n.correct for n in late.answers(1)]) == (3, "cap", [True, True])


def test_no_agreement_is_seen_where_an_answer_cannot_be_read(hold: Debate) -> None:
    assert hold({"a": always("unclear"), "b": always("unclear")}, max_rounds=2).stopped == "cap"


def test_an_agent_whose_calls_fail_is_absent_and_recorded_and_the_debate_goes_on(hold: Debate) -> None:
    graph = hold({"a": always(4), "b": broken, "c": always(5)}, max_rounds=2, stop="cap_only")
    assert [n.agent for n in graph.failures()] == ["b", "b"]
    assert all(n.error == "server: down for good" and n.correct is None for n in graph.failures())
    assert {n.agent for n in graph.answers(1)} == {"a", "c"}
    assert not any(n.target and graph.by_id[n.target].agent == "b" for n in graph.nodes)


def test_a_debate_in_which_nobody_answers_ends(hold: Debate) -> None:
    assert hold({"a": broken, "b": broken}).stopped == "no_answers"


def test_gold_reaches_a_prompt_only_where_the_rules_say_so_and_every_reader_is_marked(
    hold: Debate, calls: list[Call]
) -> None:
    secret = Problem("secret", "Which number do I think of?", "48151623")
    teachers = {"a": always(5), "b": always(6)}
    hold(teachers, problem=secret, max_rounds=3, stop="cap_only")
    assert not any("48151623" in m["content"] for call in calls for m in call.messages)
    leaky = hold(teachers, problem=secret, max_rounds=3, stop="cap_only", reflection_sees_gold=True)
    assert all(n.saw_gold == (n.kind == "reflection" or n.round > 0) for n in leaky.nodes)


def test_gold_can_be_masked_where_a_reflection_quotes_it(hold: Debate, calls: list[Call]) -> None:
    def quotes(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        return "It was 48151623." if "was wrong" in messages[-1]["content"] else "Final answer: 5"

    hold(
        {"a": quotes, "b": quotes},
        problem=Problem("masked", "Which number?", "48151623"),
        max_rounds=2,
        stop="cap_only",
        reflection_sees_gold=True,
        hide_gold_in_context=True,
    )
    debated = [c.messages[-1]["content"] for c in calls if "experts" in c.messages[-1]["content"]]
    assert len(debated) == 2
    assert all("It was [hidden]." in text and "48151623" not in text for text in debated)


def test_gold_free_roles_do_not_depend_on_who_is_right(hold: Debate) -> None:
    rules = {"roles": "gold_free", "max_rounds": 2, "stop": "cap_only"}
    one, two = hold({"a": always(4), "b": always(5)}, **rules), hold({"a": always(6), "b": always(7)}, **rules)
    assert kinds(one, 0) == kinds(two, 0) == {"answer": 2, "critique": 2, "reflection": 2}
    assert not one.oracle_roles


def test_gold_free_roles_refuse_rules_that_look_at_gold() -> None:
    with pytest.raises(ValidationError, match="use consensus"):
        Options(roles="gold_free", stop="all_correct")
    with pytest.raises(ValidationError, match="contradicts"):
        Options(roles="gold_free", reflection_sees_gold=True)


def test_a_student_of_the_first_round_is_criticised_but_read_by_nobody(hold: Debate, calls: list[Call]) -> None:
    graph = hold(
        {"a": always(4), "b": always(5)}, always(97), samples=3, max_rounds=2, stop="cap_only", student="first_round"
    )
    assert [n.round for n in graph.answers(agents=["student"])] == [0, 0, 0]
    assert [graph.by_id[str(n.target)].agent for n in graph.nodes if n.kind == "critique"] == ["b", "student"]
    debated = [c for c in calls if c.tags["kind"] == "answer" and "experts" in c.messages[-1]["content"]]
    assert len(debated) == 2
    assert not any("97" in c.messages[-1]["content"] for c in debated)


def test_question_and_instruction_stay_whole_whatever_the_others_say(hold: Debate, calls: list[Call]) -> None:
    def wordy(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        return "word " * 300 + f"\nFinal answer: {seed % 7 + 5}"

    hold({f"t{i}": wordy for i in range(3)}, max_rounds=2, stop="cap_only", context_tokens=200)
    read = [c.messages[-1]["content"] for c in calls if c.tags["kind"] == "answer"]
    later = [text for text in read if "experts" in text]
    assert later
    for text in later:
        assert SUM.question in text
        assert "Final answer" in text
        assert len(text.split()) < 200 + 150
        assert text.count("Final answer: ") >= 3, "each statement keeps its last line"


@pytest.mark.parametrize(
    "rules",
    [
        Options(max_rounds=3, stop="cap_only"),
        Options(max_rounds=4),
        Options(max_rounds=2, stop="cap_only", roles="gold_free"),
        Options(max_rounds=2, stop="cap_only", feedback_from="teachers_only"),
        Options(max_rounds=3, stop="cap_only", feedback_from="none", reflect=False),
        Options(max_rounds=3, later_rounds="if_student_wrong", feedback_to="student_only", last_round_reflect=True),
    ],
)
@pytest.mark.parametrize(
    "answers", [(4, 5, 6, 4), (5, 5, 5, 5), (4, 4, 4, 4), (4, 5, 5, 4), (4, 5, 6, 7), (6, 5, 7, 4)]
)
def test_a_plan_bounds_what_each_agent_is_asked(
    hold: Debate, calls: list[Call], rules: Options, answers: tuple[int, ...]
) -> None:
    teachers = {f"t{i}": always(a) for i, a in enumerate(answers[:3])}
    hold(teachers, always(answers[3]), **rules.model_dump())
    names = [*teachers, "student"]
    members = tuple(Member(Absent(n), "student" if n == "student" else "teacher", Sampling()) for n in names)
    nowhere: Any = None
    setting = Setting(debate_reflect.run, members, rules, prompt_set("general"), open_task("gsm8k", {}), nowhere)
    expected = Expected(lambda name, kind: 10, dict.fromkeys(names, 0.5))
    spends = asyncio.run(bounds(setting, SUM, expected, lambda name, messages: 1))
    asked = Counter(call.agent for call in calls)
    for name in names:
        least, most = spends[name]
        assert least.calls <= asked[name] <= most.calls


@pytest.mark.parametrize(
    ("topology", "reads"),
    [
        ("all", {"a": "abc", "b": "abc", "c": "abc"}),
        ("ring", {"a": "ab", "b": "bc", "c": "ac"}),
        ("star", {"a": "abc", "b": "ab", "c": "ac"}),
    ],
)
@pytest.mark.parametrize("whole", ["last_round", "all_rounds"])
def test_who_reads_whom_is_what_the_topology_says(
    hold: Debate, topology: str, reads: dict[str, str], whole: str
) -> None:
    teachers = {"a": always(4), "b": always(5), "c": always(6)}
    graph = hold(teachers, max_rounds=3, stop="cap_only", topology=topology, reads=whole, feedback_from="none")
    for n in graph.answers(2):
        read = [graph.by_id[p] for p in n.parents if graph.by_id[p].kind == "answer"]
        assert {p.agent for p in read} == set(reads[n.agent])
        assert {p.round for p in read} == ({0, 1} if whole == "all_rounds" else {1})


def test_notes_that_a_token_limit_cut_are_truncated_read_as_far_as_they_go_and_counted(
    hold: Debate, calls: list[Call]
) -> None:
    from vivavoce.report.debates import Debated

    def short(messages: Sequence[Message], sampling: Sampling, seed: int) -> Reply:
        reply = always(4)(messages, sampling, seed)
        return Reply(reply, "length" if reply.startswith("Mind") else "stop", Usage(9, 9))

    graph = hold({"right": short, "wrong": always(5)}, stop="cap_only", max_rounds=2)  # type: ignore[dict-item]
    notes = {n.agent: n.status for n in graph.nodes if n.kind in ("critique", "reflection")}
    assert notes == {"right": "truncated", "wrong": "ok"}
    assert sum("Mind the carry." in str(call.messages) for call in calls) == 2
    assert Debated([graph]).cut == {"right": 1, "wrong": 0}


@pytest.mark.parametrize(
    ("text", "gold", "left"),
    [
        ("But Bob said B.", "B", "But Bob said [hidden]."),
        ("Yes, yesterday: YES", "yes", "[hidden], yesterday: [hidden]"),
        ("18 of 180, not 18.5 or 3.18", "18", "[hidden] of 180, not 18.5 or 3.18"),
        ("1,800 and 1800", "1800", "[hidden] and [hidden]"),
        ("b is a variable, B is not", "B", "b is a variable, [hidden] is not"),
    ],
)
def test_gold_is_hidden_where_it_stands_by_itself(text: str, gold: str, left: str) -> None:
    assert hidden(text, gold) == left


def test_who_states_no_confidence_is_asked_for_it_once_more_behind_its_answer(hold: Debate, calls: list[Call]) -> None:
    def states(first: str, later: str):
        return lambda messages, sampling, seed: later if len(messages) > 1 else f"I add.\nFinal answer: 4{first}"

    teachers = {
        "a": states("\nConfidence: 90", "unasked"),
        "b": states("", "Confidence: 40"),
        "c": states("", "I cannot say."),
        "d": states("\nConfidence: 0.7", "Confidence (0-100): 72.5 / 100"),
    }
    graph = hold(teachers, max_rounds=1, ask_confidence=True, ask_confidence_again=True)
    assert {n.agent: n.confidence for n in graph.answers(0)} == {"a": 0.9, "b": 0.4, "c": None, "d": 0.725}
    asked_again = [n for n in graph.nodes if n.kind == "confidence"]
    assert [(n.agent, n.status, graph.by_id[str(n.target)].agent) for n in asked_again] == [
        ("b", "ok", "b"),
        ("c", "no_answer", "c"),
        ("d", "ok", "d"),
    ]
    assert len(calls) == 4 + 3
    later = [c for c in calls if c.tags["kind"] == "confidence"]
    assert all([m["role"] for m in c.messages] == ["user", "assistant", "user"] for c in later)
    assert all(c.messages[1]["content"].startswith("I add.\nFinal answer: 4") for c in later)
    once = hold(teachers, max_rounds=1, ask_confidence=True)
    assert {n.agent: n.confidence for n in once.answers(0)} == {"a": 0.9, "b": None, "c": None, "d": None}
    assert not [n for n in once.nodes if n.kind == "confidence"]
