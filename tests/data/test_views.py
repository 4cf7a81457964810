"""Rows and trees as views of a graph: counts, provenance, pairing rules, steps, packing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Wording
from vivavoce.data.examples import examples
from vivavoce.data.export import preference_rows, sft_rows
from vivavoce.data.rules import ExampleRules, TreeRules
from vivavoce.data.trees import Grower, pairs, preference_trees
from vivavoce.errors import DataError
from vivavoce.graph import Graph
from vivavoce.protocols.debate_reflect import Options
from vivavoce.records import Node, Problem, Tree, node
from vivavoce.schoolhouse import world
from vivavoce.tasks import open_task

SUM = Problem("sum", "What is 2 + 2?", "4")
TASK = open_task("gsm8k", {})
WORDING = Wording(Options(), prompt_set("general"), TASK)


def answer_node(agent: str, answer: int | None, round: int = 0, note: str = "", **rest: Any) -> Node:
    text = f"I am {agent}{note}.\nFinal answer: {answer}" if answer is not None else "I cannot say."
    correct = None if rest.pop("ungradable", False) else answer == 4
    return node(
        "answer",
        SUM.id,
        agent,
        round,
        text,
        answer=None if answer is None else str(answer),
        correct=correct,
        status="ok" if answer is not None else "no_answer",
        **rest,
    )


def graph(*nodes: Node) -> Graph:
    """A debate in which every answer read those of the round before, with what was said about them."""
    prompts, asked = {}, list[Node]()
    for n in nodes:
        if n.kind == "answer":
            read = [m for m in nodes if m.round == n.round - 1]
            made = WORDING.make("debate" if n.round else "answer", SUM, n.agent, read)
            prompts[made.id] = made
            n = replace(n, prompt=made.id, call="c")
        asked.append(n)
    return Graph(SUM, tuple(asked), prompts=prompts)


def grow(g: Graph, count: int = 1, options: Options = WORDING.options, **rules: object) -> list[Tree]:  # type: ignore[assignment]
    wording = replace(WORDING, options=options, count=lambda text: len(text.split()) * count)
    return list(preference_trees([g], Grower(TreeRules.model_validate(rules), wording, "student", ("student",))))


@pytest.mark.parametrize("right", range(5))
def test_a_round_with_k_right_of_a_gives_k_times_a_minus_k_pairs(right: int) -> None:
    trees = grow(graph(*(answer_node(f"t{i}", 4 if i < right else 7) for i in range(4))))
    assert sum(len(list(pairs(t))) for t in trees) == right * (4 - right)


def test_a_correct_answer_never_becomes_a_rejected_one_nor_an_ungradable_one_anything() -> None:
    g = graph(
        answer_node("a", 4), answer_node("b", 5), answer_node("c", 9, ungradable=True), answer_node("student", None)
    )
    (tree,) = grow(g)
    assert [c.text for c in tree.chosen] == ["I am a.\nFinal answer: 4"]
    assert [c.text for c in tree.rejected] == ["I am b.\nFinal answer: 5"]


def test_an_answer_that_cannot_be_parsed_is_rejected_only_on_request() -> None:
    g = graph(answer_node("a", 4), answer_node("b", None))
    assert grow(g) == []
    assert [c.text for c in grow(g, rejected_must_parse=False)[0].rejected] == ["I cannot say."]
    cut = graph(answer_node("a", 4), replace(answer_node("b", None), status="truncated"))
    assert grow(cut, rejected_must_parse=False) == [], "what its limit cut is nobody's mistake"


def test_every_row_names_the_nodes_that_it_came_from() -> None:
    g = graph(answer_node("a", 4), answer_node("b", 5), answer_node("a", 4, 1), answer_node("b", 4, 1, note=" too"))
    known = set(g.by_id)
    rows = examples([g], ExampleRules(), ["a", "b"], WORDING)
    assert len(rows) == 2, "a said the same twice: one row, two sources"
    assert sorted(len(r.source) for r in rows) == [1, 2]
    assert all(set(r.source) <= known for r in rows)
    assert all(c.source in known for t in grow(g) for c in (*t.chosen, *t.rejected))


def test_supervised_rows_hold_no_shared_information_and_no_wrong_answer() -> None:
    g = graph(answer_node("a", 4), answer_node("b", 5), answer_node("b", 4, 1, note=" convinced by a"))
    rows = examples([g], ExampleRules(), ["a", "b", "student"], WORDING)
    assert {r.completion for r in rows} == {"I am a.\nFinal answer: 4", "I am b convinced by a.\nFinal answer: 4"}
    assert all("experts" not in r.prompt[-1]["content"] for r in rows)


def test_the_student_learns_from_its_own_right_answers_only_if_it_may() -> None:
    g = graph(answer_node("a", 4), answer_node("student", 4))

    def taken(include: bool) -> list[str]:
        rows = examples([g], ExampleRules(include_student=include), ["a", "student"], WORDING, "student")
        return [g.by_id[r.source[0]].agent for r in rows]

    assert (taken(True), taken(False)) == (["a", "student"], ["a"])


def test_at_most_so_many_rows_of_a_question_are_kept_the_latest_rounds_first() -> None:
    g = graph(
        answer_node("a", 4),
        answer_node("b", 4),
        answer_node("a", 4, 1, note=" again"),
        answer_node("b", 4, 1, note=" again"),
    )
    rows = examples([g], ExampleRules(max_per_question=3), ["a", "b"], WORDING)
    assert [g.by_id[r.source[0]].round for r in rows] == [1, 1, 0]
    assert len(examples([g], ExampleRules(), ["a", "b"], WORDING)) == 4


def test_the_winner_of_a_vote_is_taken_though_gold_says_otherwise() -> None:
    g = graph(answer_node("a", 5), answer_node("b", 5), answer_node("c", 4))
    take = ExampleRules(take="winner", vote="majority")
    (row,) = examples([g], take, ["a", "b", "c"], WORDING)
    assert row.completion.endswith("5")
    assert examples([g], take.model_copy(update={"take": "right_winner"}), ["a", "b", "c"], WORDING) == []


def test_pairing_rules_filter_the_cross_product() -> None:
    g = graph(
        answer_node("a", 4),
        answer_node("b", 5),
        answer_node("student", 6),
        answer_node("a", 5, 1),
        answer_node("b", 4, 1),
        answer_node("student", 6, 1),
    )
    own = grow(g, pairing="student_rejected_only", rounds=[0])
    assert [c.source for t in own for c in t.rejected] == [g.nodes[2].id]
    changed = grow(g, pairing="transition_only")
    assert [(t.round, [c.source for c in t.chosen], [c.source for c in t.rejected]) for t in changed] == [
        (1, [g.nodes[4].id], [g.nodes[3].id, g.nodes[5].id])
    ]


def test_at_most_so_many_pairs_and_always_the_same_ones() -> None:
    g = graph(*(answer_node(f"t{i}", 4, note=str(i)) for i in range(3)), *(answer_node(f"w{i}", 5) for i in range(3)))
    trees = grow(g, max_pairs=4)
    assert sum(len(list(pairs(t))) for t in trees) == 4
    assert trees == grow(g, max_pairs=4)


def long_graph() -> Graph:
    early = [answer_node(a, 5, note=" who says " + "much " * 120) for a in ("a", "b", "c")]
    return graph(*early, answer_node("a", 4, 1), answer_node("b", 5, 1))


def test_a_context_over_the_budget_is_shortened_and_the_question_never_is() -> None:
    (tree,) = grow(long_graph(), context_budget=90)
    content = tree.prompt[-1]["content"]
    assert SUM.question in content
    assert content.count("Final answer: 5") == 3
    assert content.count("[…]") == 3


def test_packed_contexts_weigh_as_much_as_one() -> None:
    trees = grow(long_graph(), context="packed", context_budget=140)
    assert len(trees) == 3
    assert sum(t.weight for t in trees) == pytest.approx(1)
    assert len({t.chosen for t in trees}) == 1
    assert len({t.id for t in trees}) == 3


def test_trees_of_one_question_share_its_weight_only_if_the_rules_say_so() -> None:
    g = graph(*(answer_node(agent, answer, r, f" {r}") for r in (0, 1) for agent, answer in (("a", 4), ("b", 5))))
    assert [t.weight for t in grow(g)] == [1, 1]
    assert [t.weight for t in grow(g, weight="per_question")] == [0.5, 0.5]


def test_step_trees_branch_where_right_and_wrong_part() -> None:
    def answer(agent: str, *steps: str, right: bool) -> Node:
        text = "\n".join(steps)
        return node("answer", SUM.id, agent, 0, text, answer=steps[-1], correct=right)

    g = graph(
        answer("a", "first", "second", "4", right=True),
        answer("b", "first", "third", "4", right=True),
        answer("c", "first", "second", "5", right=False),
        answer("student", "start", "7", right=False),
    )
    trees = grow(g, branch="step")
    assert [(t.prefix, [c.text for c in t.chosen], [c.text for c in t.rejected]) for t in trees] == [
        ("first\nsecond\n", ["4"], ["5"])
    ], "`first` leads both ways, so `start` has no right alternative"
    rest = grow(graph(*g.nodes[:2], g.nodes[3]), branch="step", span="rest")
    assert [(t.prefix, [c.text for c in t.chosen], t.complete) for t in rest] == [("", ["first\nsecond\n4"], True)]


def chain(question: str, wrong_at: int | None = None) -> str:
    """The right chain, or one that goes on from a wrong digit at a step."""
    pieces = [
        f"{s.name}={s.fact[1]}{s.fact[0]}{s.fact[2]}={s.value if i != wrong_at else (s.value + 1) % 10}"
        for i, s in enumerate(world.gold(question))
    ]
    return "; ".join([*pieces, f"ans={pieces[-1][-1]}"])


def test_checked_step_trees_reject_the_first_wrong_step_of_the_student_alone() -> None:
    task = open_task("schoolhouse", {"train": 5, "test": 1})
    problem = next(p for p in task.problems("train") if len(world.gold(p.question)) >= 3)

    def answer(agent: str, text: str) -> Node:
        grade = task.grade(problem, text)
        return node("answer", problem.id, agent, 0, text, answer=grade.answer, correct=grade.correct)

    g = Graph(
        problem,
        (
            answer("a", chain(problem.question)),
            answer("b", chain(problem.question, 0)),
            answer("student", chain(problem.question, 1)),
        ),
    )
    grower = Grower(
        TreeRules(branch="step", pairing="student_rejected_only"),
        Wording(Options(prompts="schoolhouse"), prompt_set("schoolhouse"), task, len),
        "student",
        ("student",),
    )
    (tree,) = preference_trees([g], grower)
    steps = task.steps(chain(problem.question))
    assert tree.prefix == steps[0]
    assert [c.text for c in tree.chosen] == [steps[1]]
    assert [c.text for c in tree.rejected] == [task.steps(chain(problem.question, 1))[1]]
    assert not tree.complete


def test_exports_are_conversational_rows_one_for_each_pair() -> None:
    g = graph(answer_node("a", 4), answer_node("b", 4), answer_node("c", 5), answer_node("student", 6))
    rows = list(preference_rows(grow(g)))
    assert len(rows) == 4
    assert rows[0]["prompt"][-1]["role"] == "user"
    assert rows[0]["chosen"] == [{"role": "assistant", "content": "I am a.\nFinal answer: 4"}]
    supervised = examples([g], ExampleRules(), ["a"], WORDING)
    assert [m["role"] for m in next(sft_rows(supervised))["messages"]] == ["user", "assistant"]
    later = replace(grow(g)[0], prefix="shared ")
    assert next(preference_rows([later]))["chosen"][0]["content"] == "shared I am a.\nFinal answer: 4"
    with pytest.raises(DataError, match="span: rest"):
        next(preference_rows([replace(later, complete=False)]))
