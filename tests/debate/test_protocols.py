"""Protocols as pages: parents are what prompts print, order is the page's, caps and resume need no word of it."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.debate.scripts import SUM, always, broken

from vivavoce.agents.budget import Caps, Ledger
from vivavoce.agents.journal import Journal
from vivavoce.agents.scripted import Scripted
from vivavoce.committee.prompting import PromptSet, prompt_set
from vivavoce.committee.reading import fit, hidden, statements
from vivavoce.committee.stopping import Ending
from vivavoce.committee.table import Action, Member, Run, Setting, Table, hold, hold_all
from vivavoce.committee.votes import vote
from vivavoce.committee.wording import Discussion, Talk, Wording
from vivavoce.data.rules import TreeRules
from vivavoce.data.states import Supervision, states
from vivavoce.data.trees import Grower, preference_trees
from vivavoce.errors import RecipeError
from vivavoce.graph import Graph, read_graphs, write_graphs
from vivavoce.protocols import (
    act_debate,
    debate_reflect,
    moderated,
    open_protocol,
    peer_review,
    self_consistency,
    state_debate,
)
from vivavoce.records import Message, Node, Problem, Sampling, Usage, node, seed_of
from vivavoce.tasks import open_task

TASK = open_task("gsm8k", {})


ALONE, ABOUT = ("answer", "debate", "discuss", "summary", "rationale"), ("critique", "reflection", "review", "feedback")


def teachers(scripts: dict[str, Any], samples: int = 1) -> tuple[Member, ...]:
    return tuple(
        Member(Scripted(n, s), "student" if n == "student" else "teacher", Sampling(), samples)
        for n, s in scripts.items()
    )


def held(
    folder: Path,
    run: Run,
    options: Talk,
    scripts: dict[str, Any],
    problem: Problem = SUM,
    prompts: PromptSet | None = None,
    samples: int = 1,
) -> Graph:
    with Journal(folder / f"{random.random()}.sqlite") as journal:
        setting = Setting(
            run,
            teachers(scripts, samples),
            options,
            prompts or prompt_set("general"),
            TASK,
            journal,
            count=lambda text: len(text.split()),
        )
        graph = asyncio.run(hold(problem, setting))
        for n in graph.nodes:  # the journal and the graph hold the same prompt
            if n.call is not None:
                assert journal[n.call].messages == graph.messages_of(n)
    graph.check()
    return graph


def unique(name: str) -> Callable[[Sequence[Message], Sampling, int], str]:
    """An agent every text of which can be told from every other."""

    def script(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        return f"word-{name}-{seed} I say.\nFinal answer: {4 + seed % 3}\nScore: {1 + seed % 5}"

    return script


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_the_parents_of_a_node_are_exactly_the_nodes_whose_text_stands_in_its_prompt(tmp_path: Path, seed: int) -> None:
    """Random protocols: who is asked by which template, reading what, about which node, in any order."""
    rng = random.Random(seed)
    options = Discussion(
        topology=rng.choice(["all", "ring", "star"]),  # type: ignore[arg-type]
        shuffle=rng.choice(["shared", "per_agent"]),  # type: ignore[arg-type]
        anonymous=rng.random() < 0.5,
        order_seed=rng.randrange(99),
    )

    def ask(table: Table, nodes: Sequence[Node], sample: int) -> Any:
        about = rng.choice(nodes) if nodes else None
        template = rng.choice(ALONE if about is None else (*ALONE, *ABOUT))
        return table.ask(
            rng.choice(table.members),
            template,
            reads=rng.sample(nodes, rng.randint(0, len(nodes))),
            about=about if template in ABOUT else None,
            own=rng.choice([None, *nodes]) if template == "critique" else None,
            gold=rng.random() < 0.5,
            sample=sample,
        )

    async def run(question: Problem, table: Table) -> str:
        nodes: list[Node] = []
        for step in range(rng.randint(1, 5)):
            nodes += await table.gather(*(ask(table, tuple(nodes), 10 * step + i) for i in range(rng.randint(1, 4))))
        return "cap"

    graph = held(tmp_path, run, options, {n: unique(n) for n in ("a", "b", "c", "student")})
    for n in graph.nodes:
        text = "\n".join(m["content"] for m in graph.messages_of(n))
        assert set(n.parents) == {other.id for other in graph.nodes if other.text.split()[0] in text.split()}
        gold = graph.prompt_of(n).shows_gold
        assert n.saw_gold == (gold or any(graph.by_id[p].saw_gold for p in n.parents))
    copy = tmp_path / "again.jsonl"
    write_graphs(copy, [graph])
    assert list(read_graphs(copy)) == [graph]


def test_a_text_that_the_template_does_not_print_is_no_parent(tmp_path: Path) -> None:
    """A debate template that prints answers alone: notes were paid for and read by nobody."""
    answers = "--- user\n{{ question }}\n{% for s in statements %}\n{{ s.text }}\n{% endfor %}\n"
    shutil.copytree(prompt_set("schoolhouse").folder, tmp_path / "blind")
    (tmp_path / "blind" / "debate.md").write_text(answers)
    scripts = {"a": always(4), "b": always(5)}
    general = held(tmp_path, debate_reflect.run, debate_reflect.Options(max_rounds=2, stop="cap_only"), scripts)
    blind = held(
        tmp_path,
        debate_reflect.run,
        debate_reflect.Options(max_rounds=2, stop="cap_only", prompts=str(tmp_path / "blind")),
        scripts,
        prompts=prompt_set(str(tmp_path / "blind")),
    )
    read = {
        k: Counter(g.by_id[p].kind for n in g.answers(1) for p in n.parents) for k, g in (("g", general), ("b", blind))
    }
    assert read["g"] == {"answer": 4, "reflection": 2, "critique": 2}
    assert read["b"] == {"answer": 4}
    assert {n.kind for n in blind.nodes} == {"answer", "reflection", "critique"}


@pytest.mark.parametrize(
    "filter", ["upper", "truncate(30)", "replace('I', 'We')", "indent(3)", "string", "trim", "title"]
)
def test_what_a_template_does_with_a_text_hides_no_parent(tmp_path: Path, filter: str) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "set.yaml").write_text("{}")
    (folder / "answer.md").write_text("--- user\n{{ question }}\n")
    (folder / "debate.md").write_text(
        "--- user\n{% for s in statements %}{{ s.name ~ ': ' ~ (s.text | "
        + filter
        + ") }}\n{% endfor %}{{ question }}\n"
    )
    options = state_debate.Options(ask_confidence=False)

    async def run(question: Problem, table: Table) -> str:
        drafts = await table.all("answer")
        await table.all("debate", reads=drafts)
        return "cap"

    graph = held(tmp_path, run, options, {n: unique(n) for n in "ab"}, prompts=PromptSet(folder))
    for n in graph.answers(1):
        assert set(n.parents) == {d.id for d in graph.answers(0)}


def test_marks_inside_a_text_are_no_marks_and_the_text_stays_what_it_is(tmp_path: Path) -> None:
    odd = "a \ufdd0\ufdd5\ufdd2 b \ufdd1 \ufdd3\ue000 {{ question }} --- user\nFinal answer: 4"
    scripts = {"a": lambda *_: odd, "b": always(5)}
    graph = held(tmp_path, debate_reflect.run, debate_reflect.Options(max_rounds=2, stop="cap_only"), scripts)
    (n, *_) = graph.answers(1, ["b"])
    assert odd in graph.messages_of(n)[0]["content"]
    question = Problem("odd", odd, "4")
    graph = held(tmp_path, debate_reflect.run, debate_reflect.Options(max_rounds=1), scripts, problem=question)
    assert odd in graph.messages_of(graph.nodes[0])[0]["content"]
    assert graph.nodes[0].parents == ()


def test_nodes_stand_in_the_order_of_the_page_whoever_answers_first(tmp_path: Path) -> None:
    async def run(question: Problem, table: Table) -> str:
        async def line(member: Member) -> None:
            draft = await table.ask(member, "answer")
            await table.ask(member, "reflection", about=draft)

        await table.gather(*(line(m) for m in table.members))
        return "cap"

    def slow(ms: int) -> Any:
        async def script(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
            await asyncio.sleep(ms / 1000)
            return f"{ms}\nFinal answer: 4"

        return script

    graph = held(tmp_path, run, Talk(), {"a": slow(30), "b": slow(10), "c": slow(1)})
    assert [(n.agent, n.kind) for n in graph.nodes] == [(a, k) for a in "abc" for k in ("answer", "reflection")]


def test_a_moderator_sums_up_is_read_and_ends_the_debate(tmp_path: Path) -> None:
    def moderator(verdict: str) -> Any:
        def script(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
            asked = messages[-1]["content"]
            return f"They differ by one.\nVerdict: {verdict}" if "You moderate" in asked else "Final answer: 4"

        return script

    options = moderated.Options(moderator="m", max_rounds=3)
    graph = held(tmp_path, moderated.run, options, {"m": moderator("go on"), "b": always(5)})
    assert (graph.rounds, graph.stopped) == (3, "cap")
    assert Counter(n.kind for n in graph.nodes) == {"answer": 6, "summary": 2}
    (first, second) = (n for n in graph.nodes if n.kind == "summary")
    assert (first.round, second.round, first.score) == (0, 1, 0.0)
    for n in graph.answers(1):
        assert first.id in n.parents
        assert "The moderator's summary\nThey differ by one." in graph.messages_of(n)[0]["content"]
    done = held(tmp_path, moderated.run, options, {"m": moderator("done"), "b": always(5)})
    assert (done.rounds, done.stopped) == (1, "moderator")


def test_self_consistency_draws_one_agent_so_often_and_the_vote_decides(tmp_path: Path) -> None:
    def often(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        assert sampling.temperature == 0.9
        return f"Final answer: {4 if seed % 4 else 5}"

    options = self_consistency.Options(agent="b", samples=9, temperature=0.9)
    graph = held(tmp_path, self_consistency.run, options, {"a": always(7), "b": often})
    assert [n.agent for n in graph.nodes] == ["b"] * 9
    assert len({n.call for n in graph.nodes}) == 9
    won = vote(TASK, SUM, graph.answers(0), "majority")
    assert won is not None
    assert won.answer == "4"


ASKED: tuple[Message, ...] = ({"role": "system", "content": "walk"}, {"role": "user", "content": "next?"})
STATE = Problem("halls/1", "next?", "go(2)\ngo(3)", history=ASKED)


@pytest.mark.parametrize("prompts", ["general", "code"])
@pytest.mark.parametrize(("page", "problem"), [(state_debate, SUM), (act_debate, STATE)])
def test_teachers_that_are_told_the_right_answer_read_it_in_every_turn_and_their_texts_say_so(
    tmp_path: Path, page: Any, problem: Problem, prompts: str
) -> None:
    wanted = replace(problem, gold="the wine-dark sea")
    scripts = {"a": always(4), "b": always(5)}
    rules = page.Options(prompts=prompts)
    blind = held(tmp_path, page.run, rules, scripts, wanted, prompt_set(prompts))
    sees_gold = held(
        tmp_path, page.run, rules.model_copy(update={"sees_gold": True}), scripts, wanted, prompt_set(prompts)
    )
    assert len(sees_gold.nodes) == len(blind.nodes) == 4
    for n in sees_gold.nodes:
        assert "the wine-dark sea" in sees_gold.messages_of(n)[-1]["content"]
        assert sees_gold.messages_of(n)[:-1] == blind.messages_of(blind.answers(n.round, [n.agent])[0])[:-1]
        assert n.saw_gold
    assert not any("wine-dark" in m["content"] or n.saw_gold for n in blind.nodes for m in blind.messages_of(n))
    wording = Wording(rules.model_copy(update={"sees_gold": True}), prompt_set(prompts), TASK)
    assert "wine-dark" not in str(wording.plain(wanted)), "the student is asked as ever"
    views, _ = states([sees_gold], Supervision(weights="uniform"), ["a", "b"], wording, 0)
    assert "wine-dark" not in str(views[0].views), "scorers read what was said, not what was told"
    unknown = held(tmp_path, page.run, rules.model_copy(update={"sees_gold": True}), scripts, replace(problem, gold=""))
    assert not any(n.saw_gold or "eyes alone" in str(unknown.messages_of(n)) for n in unknown.nodes)


def test_test_questions_are_debated_without_what_was_told_or_done() -> None:
    rules = act_debate.Options(sees_gold=True, student="first_round").for_tests(2)
    assert (rules.sees_gold, rules.student) == (False, "never")


def test_a_debate_on_an_action_is_read_from_the_first_turn_and_asks_nobody_for_it(tmp_path: Path) -> None:
    rules = act_debate.Options(student="first_round")
    with Journal(tmp_path / "j.sqlite") as journal:
        actions = {STATE.id: Action("student", "go(7)")}
        sat = teachers({"a": unique("a"), "b": unique("b")})
        setting = Setting(act_debate.run, sat, rules, prompt_set("general"), TASK, journal, actions=actions)
        graph = asyncio.run(hold(STATE, setting))
        assert len(journal) == 4, "two turns of two teachers"
    (did,) = graph.stated(0, ["student"])
    assert (did.text, did.call, did.prompt) == ("go(7)", None, None)
    for n in graph.nodes[1:]:
        assert did.id in n.parents
        assert "go(7)" in graph.messages_of(n)[-1]["content"]
    assert {n.agent for n in graph.stated(1)} == {"a", "b"}, "it does not speak again"


def test_a_prompt_set_that_cannot_tell_the_right_answer_is_refused() -> None:
    rules = state_debate.Options(prompts="schoolhouse", sees_gold=True)
    with pytest.raises(RecipeError, match="does not print the right answer"):
        prompt_set("schoolhouse").need(rules.templates, rules.values, rules.tells)


def test_a_page_knows_nothing_of_caps_and_is_stopped_by_one(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite", ledger=Ledger({}, question=Caps(calls=7))) as journal:

        async def endless(question: Problem, table: Table) -> str:
            for i in range(50):
                await table.gather(*(table.ask(m, "answer", sample=i) for m in table.members))
            return "cap"

        setting = Setting(
            endless, teachers({"a": always(4), "b": always(5)}), Talk(), prompt_set("general"), TASK, journal
        )
        (graph,) = asyncio.run(hold_all([SUM], setting))
        assert len(journal) == 7
    assert graph.stopped == "budget"
    assert graph.cut_short
    assert len(graph.answers()) == 7
    assert not graph.failures()
    assert all(n.absent and n.call is None for n in graph.nodes if n.status == "over_budget")


def test_a_protocol_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "from pydantic import BaseModel\nclass Options(BaseModel): ...\nasync def run(q, t): ...\n"
    )
    with pytest.raises(RecipeError, match="subclass of vivavoce"):
        open_protocol(str(tmp_path / "a.py"))
    with pytest.raises(RecipeError, match="unknown protocol `debate`"):
        open_protocol("debate")
    with pytest.raises(RecipeError, match="no member of the committee is called `zoe`"):
        held(tmp_path, moderated.run, moderated.Options(moderator="zoe"), {"a": always(4), "b": always(5)})


# --- each option changes what it should change


def debated(tmp_path: Path, scripts: dict[str, Any], samples: int = 1, **options: Any) -> Graph:
    given = {"max_rounds": 2, "stop": "cap_only", **options}
    return held(tmp_path, debate_reflect.run, debate_reflect.Options(**given), scripts, samples=samples)


def test_speakers_are_shuffled_from_question_to_question_and_by_reader_if_asked(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]

    def order(question: str, reader: str, how: debate_reflect.Options) -> tuple[str, ...]:
        answers = [node("answer", question, n, 0, f"I am {n}") for n in names]
        return tuple(s.text.text for s in statements(Problem(question, "?", "4"), answers, reader, how.showing))

    shared, own = debate_reflect.Options(), debate_reflect.Options(shuffle="per_agent")
    assert len({order(str(q), "a", shared) for q in range(30)}) > 10
    assert all(order(str(q), "a", shared) == order(str(q), "b", shared) for q in range(30))
    assert sum(order(str(q), "a", own) != order(str(q), "b", own) for q in range(30)) > 15
    assert order("q", "a", shared) != order("q", "a", debate_reflect.Options(order_seed=43))


def test_feedback_to_the_student_alone_leaves_the_others_uncriticised(tmp_path: Path) -> None:
    scripts = {"a": always(4), "b": always(5), "student": always(6)}
    everyone = debated(tmp_path, scripts)
    student = debated(tmp_path, scripts, feedback_to="student_only")
    targets = [{g.by_id[str(n.target)].agent for n in g.nodes if n.kind == "critique"} for g in (everyone, student)]
    assert targets == [{"b", "student"}, {"student"}]


def test_a_review_is_drawn_at_its_own_temperature(tmp_path: Path) -> None:
    seen: dict[str, set[float]] = {}

    def script(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
        asked = "review" if "in square brackets" in messages[-1]["content"] else "other"
        seen.setdefault(asked, set()).add(sampling.temperature)
        return "Sound. [4]" if asked == "review" else "I add.\nFinal answer: 5"

    options = peer_review.Options(review_temperature=0.9)
    held(tmp_path, peer_review.run, options, {"a": script, "b": script, "student": script})
    assert seen == {"review": {0.9}, "other": {Sampling().temperature}}


def test_the_word_limit_is_what_prompts_say(tmp_path: Path) -> None:
    graph = debated(tmp_path, {"a": always(4), "b": always(5)}, word_limit=123)
    assert all("123 words" in graph.messages_of(n)[0]["content"] for n in graph.nodes)


@pytest.mark.parametrize(("reflections", "feedback"), [(True, True), (False, True), (True, False), (False, False)])
def test_trees_show_the_notes_that_their_rules_show(tmp_path: Path, reflections: bool, feedback: bool) -> None:
    def noted(answer: int) -> Any:
        def script(messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
            asked = messages[-1]["content"]
            if "Find where it went astray" in asked:
                return "A REFLECTION"
            return "A CRITIQUE" if "Tell the colleague" in asked else f"Well.\nFinal answer: {answer}"

        return script

    graph = debated(tmp_path, {"a": noted(4), "b": noted(5), "student": noted(6)})
    setting = Setting(debate_reflect.run, (), debate_reflect.Options(), prompt_set("general"), TASK, None)  # type: ignore[arg-type]
    rules = TreeRules(reflections=reflections, feedback=feedback, rounds=[1])
    wording = replace(setting.wording, count=lambda text: len(text.split()))
    (tree,) = preference_trees([graph], Grower(rules, wording, "student", ("student",)))
    text = tree.prompt[-1]["content"]
    assert ("A REFLECTION" in text, "A CRITIQUE" in text) == (reflections, feedback)
    own = next(n for n in graph.answers(1, ["student"]))
    assert (list(tree.prompt) == graph.messages_of(own)) == (reflections and feedback), (
        "as asked, unless the rules differ"
    )


def test_a_vote_by_confidence_is_no_majority() -> None:
    def answer_node(agent: str, answer: str, confidence: float) -> Node:
        return node("answer", "sum", agent, 0, answer, answer=answer, confidence=confidence)

    answers = [answer_node("a", "4", 0.95), answer_node("b", "5", 0.3), answer_node("c", "5", 0.3)]
    won = {by: vote(TASK, SUM, answers, by) for by in ("majority", "confidence")}  # type: ignore[arg-type]
    assert {by: n.answer for by, n in won.items() if n} == {"majority": "5", "confidence": "4"}


def test_a_page_of_your_own_whose_end_looks_at_gold_says_so_by_itself() -> None:
    looks = [Ending(), Ending(stop="all_correct"), Ending(later_rounds="if_student_wrong")]
    assert [rules.needs_gold for rules in looks] == [False, True, True]


def test_one_survivor_of_three_agrees_with_nobody(tmp_path: Path) -> None:
    one = debated(tmp_path, {"a": always(5), "b": broken, "c": broken}, stop="consensus", max_rounds=3)
    two = debated(tmp_path, {"a": always(5), "b": always(5), "c": broken}, stop="consensus", max_rounds=3)
    assert (one.stopped, one.rounds) == ("cap", 3)
    assert (two.stopped, two.rounds) == ("consensus", 1)


def test_equal_answers_in_other_forms_are_consensus(tmp_path: Path) -> None:
    forms = ["Final answer: $\\frac{1}{2}$", "Final answer: $\\dfrac12$", "Final answer: $0.5$"]
    task = open_task("math", {"train_path": "x", "test_path": "y"})
    with Journal(tmp_path / "j.sqlite") as journal:
        members = teachers({f"t{i}": lambda *_, text=text: text for i, text in enumerate(forms)})
        setting = Setting(debate_reflect.run, members, debate_reflect.Options(), prompt_set("general"), task, journal)
        graph = asyncio.run(hold(Problem("p", "q?", "\\frac{1}{2}"), setting))
    assert (graph.stopped, graph.rounds) == ("consensus", 1)


@pytest.mark.parametrize(
    ("gold", "text", "masked"),
    [
        ("B", "But Bob should have picked B: Because Boyle", "But Bob should have picked [hidden]: Because Boyle"),
        ("4", "I wrote 24 + 40 = 64 in 1994; it is 4", "I wrote 24 + 40 = 64 in 1994; it is [hidden]"),
        ("no", "I know nothing: not now", "I know nothing: not now"),
        ("1080", "The right answer was 1,080, not 1,070.", "The right answer was [hidden], not 1,070."),
        ("C", "My answer should be (C).", "My answer should be ([hidden])."),
        ("4", "4.5 is not 4. Nor is 3.4", "4.5 is not [hidden]. Nor is 3.4"),
        ("", "nothing to hide", "nothing to hide"),
    ],
)
def test_gold_is_masked_as_a_whole_and_never_inside_another_word(gold: str, text: str, masked: str) -> None:
    assert hidden(text, gold) == masked


def _shown(text: str, answer: str, n: int = 2) -> list[Any]:
    answers = [node("answer", "q", f"a{i}", 0, text, answer=answer) for i in range(n)]
    return statements(Problem("q", "?", "4"), answers, "x", debate_reflect.Options().showing)


@pytest.mark.parametrize(
    ("text", "answer", "budget"),
    [
        ("w " * 300 + "\nFinal answer: 7\nConfidence: 90", "7", 120),
        ("首先我们需要计算苹果的数量。" * 40 + "\nFinal answer: 5", "5", 400),
        ("\\frac{" + "1+" * 300 + "2}{3}\nFinal answer: 5", "5", 400),
        ("首先我们需要计算苹果的数量。" * 40 + "答案是5。", "5", 300),
        ("One thing leads to another. " * 60 + "So the final answer is 42.", "42", 200),
    ],
)
def test_a_shortened_answer_keeps_its_beginning_and_its_final_answer(text: str, answer: str, budget: int) -> None:
    count = len if budget >= 200 else lambda t: len(t.split())
    fitted, cut = fit(_shown(text, answer), budget, count, lambda t: TASK.grade(SUM, t).answer)
    assert cut == 2
    for s in fitted:
        assert answer in s.text.text.split("[…]")[1]
        assert text.startswith(s.text.text.split(" […]")[0])
        assert len(s.text.text.split("[…]")[0]) > 20
    assert sum(count(s.text.text) for s in fitted) <= budget


def test_shown_rounds_and_scorers_views_come_from_what_was_said(tmp_path: Path) -> None:
    scripts = {n: unique(n) for n in ("a", "b")}
    options = state_debate.Options()
    graph = held(tmp_path, state_debate.run, options, scripts)
    setting = Setting(state_debate.run, (), options, prompt_set("general"), TASK, None)  # type: ignore[arg-type]
    (state,), _ = states([graph], Supervision(weights="uniform"), ["a", "b"], setting.wording, 0)
    for view in state.views:
        text = "\n".join(m["content"] for m in view.messages)
        assert all(n.text.splitlines()[0] in text for n in graph.answers())
    assert set(state.source) == {n.id for n in graph.answers()}


def test_programmers_are_asked_in_words_of_their_own_in_turns_and_in_scoring(tmp_path: Path) -> None:
    code, scripts = prompt_set("code"), {"a": stating(4, 90), "b": stating(5, 40)}
    state = replace(SUM, history=({"role": "user", "content": SUM.question},))
    for run, options in ((state_debate.run, state_debate.Options()), (act_debate.run, act_debate.Options())):
        code.need(options.templates, options.values)
        graph = held(tmp_path, run, options, scripts, state, code)
        first, second = (graph.prompt_of(graph.answers(r)[0]).chat[-1]["content"] for r in (0, 1))
        assert "edge cases" in first
        assert "Run each program in your head" in second
        assert [n.confidence for n in graph.answers(1)] == [0.9, 0.4]
        setting = Setting(run, (), options, code, TASK, None)  # type: ignore[arg-type]
        (row,), _ = states([graph], Supervision(), ["a", "b"], setting.wording, 0)
        for view in row.views:
            assert "Confidence: N" not in view.messages[-1]["content"], "a scorer is not asked for it"
            assert "I reckon." in view.messages[-1]["content"]
        assert "I reckon." not in str(row.prompt)


def stating(answer: int, confidence: int) -> Callable[..., str]:
    return lambda *_: f"I reckon.\nFinal answer: {answer}\nConfidence: {confidence}"


@pytest.mark.parametrize("reads", ["last_round", "all_rounds"])
def test_those_who_disagree_or_doubt_may_be_asked_again_alone_and_the_others_words_stand(
    tmp_path: Path, reads: Any
) -> None:
    scripts = {"a": stating(4, 90), "b": stating(4, 30), "c": stating(5, 95)}
    asked = {}
    for later in ("all", "who_disagree", "who_doubt"):
        options = state_debate.Options(later_speakers=later, reads=reads)  # type: ignore[arg-type]
        graph = held(tmp_path, state_debate.run, options, scripts)
        asked[later] = [n.agent for n in graph.answers(1) if n.call is not None]
        assert sorted(n.agent for n in graph.stated(1)) == ["a", "b", "c"], "all have a stand in every round"
        for n in graph.answers(1):
            if n.call is None:
                (before,) = graph.answers(0, [n.agent])
                assert (n.text, n.answer, n.confidence) == (before.text, before.answer, before.confidence)
                assert n.usage == Usage()
        setting = Setting(state_debate.run, (), options, prompt_set("general"), TASK, None)  # type: ignore[arg-type]
        (state,), _ = states([graph], Supervision(), ["a", "b", "c"], setting.wording, 0)
        grown = [math.exp(0.9), math.exp(0.3), math.exp(0.95)]
        assert [v.weight for v in state.views] == pytest.approx([g / sum(grown) for g in grown])
    assert asked == {"all": ["a", "b", "c"], "who_disagree": ["c"], "who_doubt": ["b"]}


def test_a_debate_ends_once_no_teacher_is_to_be_asked_and_a_tie_asks_all(tmp_path: Path) -> None:
    sure = {"a": stating(4, 90), "b": stating(5, 95)}
    graph = held(tmp_path, state_debate.run, state_debate.Options(later_speakers="who_doubt"), sure)
    assert (graph.rounds, graph.stopped) == (1, "settled")
    graph = held(tmp_path, state_debate.run, state_debate.Options(later_speakers="who_doubt", sure=0.93), sure)
    assert [n.agent for n in graph.answers(1) if n.call] == ["a"]
    graph = held(tmp_path, state_debate.run, state_debate.Options(later_speakers="who_disagree"), sure)
    assert [n.agent for n in graph.answers(1) if n.call] == ["a", "b"], "no answer leads"
    agreed = {"a": stating(4, 90), "b": stating(4, 10)}
    graph = held(tmp_path, state_debate.run, state_debate.Options(later_speakers="who_disagree"), agreed)
    assert (graph.rounds, graph.stopped) == (1, "settled")


def test_seeds_of_calls_do_not_depend_on_the_protocol(tmp_path: Path) -> None:
    """So a journal that another protocol filled answers the drafts of this one."""
    with Journal(tmp_path / "j.sqlite") as journal:
        for run, options in (
            (debate_reflect.run, debate_reflect.Options(max_rounds=1)),
            (moderated.run, moderated.Options(max_rounds=1)),
        ):
            setting = Setting(
                run, teachers({"a": always(4), "b": always(5)}), options, prompt_set("general"), TASK, journal
            )
            asyncio.run(hold(SUM, setting))
        assert len(journal) == 2
        assert {c.seed for c in journal} == {seed_of(0, "sum", n, "answer", "", 0, 0) for n in "ab"}


def test_in_the_schoolhouse_a_criticised_draft_is_read_as_its_first_critic_who_found_a_mistake_corrected_it() -> None:
    question = Problem("q", "a=4; b=a-3; c=b*5; c?", "9")
    draft = "b=4-3=1; c=1*5=7?; ans=7 conf=15"
    notes = {
        "own": ("reflection", "b=4-3=1 got 1 ok; c=1*5=8 got 7 wrong; ans=8; score=2"),
        "blind": ("critique", "b=4-3=1 got 1 ok; c=1*5=7 got 7 ok; ans=7; score=3"),
        "sees": ("critique", "b=4-3=1 got 1 ok; c=1*5=9 got 7 wrong; ans=9; score=2"),
        "late": ("critique", "b=4-3=2 got 1 wrong; c=2*5=0; ans=0; score=1"),
    }
    wording = Wording(
        debate_reflect.Options(prompts="schoolhouse"), prompt_set("schoolhouse"), open_task("schoolhouse", {})
    )
    about = node("answer", "q", "ada", 0, draft)
    made = {k: node(kind, "q", k, 0, text, target=about.id) for k, (kind, text) in notes.items()}

    def read(*agents: str) -> tuple[str, tuple[str, ...]]:
        asked = wording.make("debate", question, "ada", [about, *(made[k] for k in agents)])
        return asked.chat[1]["content"], asked.quotes

    assert read() == (f"{question.question}\nme: {draft}", (about.id,))
    assert read("blind") == (f"{question.question}\nme: {draft}", (about.id,)), "a critic who agrees adds nothing"
    seen = f"{question.question}\nme: b=4-3=1; c=1*5=9; ans=9 conf=95"
    assert read("own", "blind", "sees", "late") == (seen, (made["sees"].id,))
    assert read("own", "blind")[0].endswith("me: b=4-3=1; c=1*5=8; ans=8 conf=95")
