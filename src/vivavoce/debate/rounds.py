"""The debate: independent answers, then rounds of reading, reflecting and answering again.

Paper: arXiv:2506.03541, sections on debate and reflection. Differs from the authors' code: any number of teachers;
nothing is paid after the last round; a failed call leaves its agent absent and recorded instead of ending the run;
an unparseable answer is kept as what it is and never becomes the word "None".
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vivavoce.agents.journal import Journal
from vivavoce.debate.context import Context, Counter, shared_information
from vivavoce.debate.gathering import gathered
from vivavoce.debate.prompting import PromptSet
from vivavoce.debate.rules import DebateRules
from vivavoce.debate.scores import ScoreForm
from vivavoce.debate.speaking import Member, asked, say
from vivavoce.graph import Graph, Stored
from vivavoce.graph.graph import StopReason
from vivavoce.records import Message, Node, Problem
from vivavoce.tasks import Task


@dataclass(frozen=True)
class Committee:
    """Who debates, by which rules and with which prompts, judged by which task, written to which journal."""

    members: tuple[Member, ...]
    rules: DebateRules
    prompts: PromptSet
    task: Task
    journal: Journal
    seed: int = 0
    stage: str = "debate"
    """Label of these calls in the cost ledger."""
    count: Counter | None = None
    """Tokens of a text; needed where the rules set a ``context_tokens`` budget."""

    @property
    def score_form(self) -> ScoreForm:
        return "strict"

    @property
    def speakers(self) -> tuple[str, ...]:
        """Those whose answers the others read."""
        return tuple(m.name for m in self.members if m.role == "teacher" or self.rules.hears_student)


async def debate(problem: Problem, committee: Committee) -> Graph:
    """Debate one problem to its end: consensus, another stop rule, or ``max_rounds`` answer rounds."""
    rules = committee.rules
    graph = Graph(problem, (), oracle_roles=rules.needs_gold)
    stopped: StopReason | None = None
    for r in range(rules.max_rounds):
        graph = graph.extended(await _answers(graph, r, committee))
        stopped = stop_reason(graph, r, committee)
        last = r == rules.max_rounds - 1
        if not stopped and (not last or rules.last_round_reflect):
            graph = graph.extended(await _notes(graph, r, committee))
            stopped = "budget" if graph.cut_short else None
        if stopped or last:
            break
    return Graph(graph.problem, graph.nodes, stopped or "cap", graph.oracle_roles)


async def debate_all(
    problems: Sequence[Problem],
    committee: Committee,
    in_flight: int = 512,
    done: Callable[[Graph], None] = lambda _: None,
) -> Stored:
    """Debate many problems at once, at most ``in_flight``; graphs in the order of the problems.

    ``done`` is called as each debate ends. A debate that is cut off leaves its finished calls in the journal.
    """
    return await gathered(problems, lambda p: debate(p, committee), in_flight, done, committee.journal.path.parent)


def stop_reason(graph: Graph, round: int, committee: Committee) -> StopReason | None:
    """Why the debate ends after the answers of ``round``, or None where it goes on.

    A question that has reached its cap is not discussed further, so that one teacher's absence decides nothing.

    Only the speakers count, and only those who answered. Agreement needs an answer that could be parsed from each.
    """
    if graph.cut_short:
        return "budget"
    said = graph.stated(round, committee.speakers)
    if not said:
        return "no_answers"
    rule, later = committee.rules.stop, committee.rules.later_rounds
    answers = {n.answer for n in said}
    if rule == "all_correct" and all(n.correct for n in said):
        return "all_correct"
    if rule in ("consensus", "majority_stable") and len(answers) == 1 and None not in answers:
        return "consensus"
    if (
        rule == "majority_stable"
        and round
        and (now := _majority(said)) is not None
        and now == _majority(graph.stated(round - 1, committee.speakers))
    ):
        return "majority_stable"
    if round == 0 and later == "if_drafts_disagree" and len(answers) == 1 and None not in answers:
        return "drafts_agree"
    if round == 0 and later == "if_student_wrong":
        drafts = graph.answers(0, [m.name for m in committee.members if m.role == "student"])
        if drafts and all(n.correct for n in drafts):
            return "student_right"
    return None


def _majority(said: Iterable[Node]) -> str | None:
    """The answer of more than half of those who spoke."""
    answers = [n.answer for n in said]
    top, votes = Tally(answers).most_common(1)[0] if answers else (None, 0)
    return top if 2 * votes > len(answers) else None


async def _answers(graph: Graph, round: int, committee: Committee) -> list[Node]:
    """The answers of one round: all members at once, each reading the same round before."""
    calls = []
    for m in committee.members:
        if m.role == "student" and (
            committee.rules.student == "never" or (round and committee.rules.student == "first_round")
        ):
            continue
        messages, context = _question(graph, round, m.name, committee)
        calls += [
            say(
                graph,
                "answer",
                round,
                m,
                messages,
                committee,
                sample=sample,
                parents=context.parents,
                saw_gold=context.saw_gold,
            )
            for sample in range(1 if round else m.samples)
        ]
    return list(await asyncio.gather(*calls))


def _question(graph: Graph, round: int, reader: str, committee: Committee) -> tuple[list[Message], Context]:
    rules, values = committee.rules, asked(graph.problem, committee.rules, committee.task)
    if round == 0:
        said = committee.prompts.pose(rules.turns[0], graph.problem.history, statements=(), scoring=False, **values)
        return said, Context((), (), False)
    context = shared_information(
        graph, round - 1, reader, committee.speakers, rules, committee.count, rules.context_tokens
    )
    statements = context.statements
    return committee.prompts.pose(
        rules.turns[1], graph.problem.history, statements=statements, scoring=False, **values
    ), context


async def _notes(graph: Graph, round: int, committee: Committee) -> list[Node]:
    """Reflections and critiques on the answers of one round, all at once.

    Oracle roles: who was wrong reflects, and who was right criticises each who was wrong; an ungradable or unparsed
    answer counts as neither. With gold-free roles all reflect and all criticise all others. With k of A agents right
    that is k(A-k) critiques and A-k reflections.
    """
    rules = committee.rules
    free = rules.roles == "gold_free"
    own = {n.agent: n for n in graph.stated(round)}
    members = {m.name: m for m in committee.members}
    wrong = [n for n in own.values() if free or n.correct is False]
    values = asked(graph.problem, rules, committee.task)
    calls = []
    for n in wrong if rules.reflect else []:
        if n.status in ("ok", "no_answer", "truncated"):
            gold = graph.problem.gold if rules.reflection_sees_gold else None
            messages = committee.prompts.render("reflection", text=n.text, gold=gold, known_wrong=not free, **values)
            calls.append(
                say(
                    graph,
                    "reflection",
                    round,
                    members[n.agent],
                    messages,
                    committee,
                    parents=(n.id,),
                    target=n,
                    saw_gold=n.saw_gold or gold is not None,
                )
            )
    for critic in own.values() if rules.feedback_from != "none" else ():
        m = members[critic.agent]
        if not (free or critic.correct) or (rules.feedback_from == "teachers_only" and m.role == "student"):
            continue
        for n in wrong:
            if (
                n.agent == critic.agent
                or n.status == "empty"
                or (rules.feedback_to == "student_only" and members[n.agent].role != "student")
            ):
                continue
            messages = committee.prompts.render(
                "critique", text=n.text, own=critic.text, known_wrong=not free, **values
            )
            calls.append(
                say(
                    graph,
                    "critique",
                    round,
                    m,
                    messages,
                    committee,
                    parents=(critic.id, n.id),
                    target=n,
                    saw_gold=n.saw_gold or critic.saw_gold,
                )
            )
    return list(await asyncio.gather(*calls))
