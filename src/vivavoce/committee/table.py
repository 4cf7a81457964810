"""The table of one question: the one way by which a protocol asks agents.

A protocol says which agent is asked what, about which node, and what it reads. The table renders the prompt, makes the
call through the journal, grades the reply, and records the node with its prompt and its parents::

    async def run(question, table):
        drafts = await table.all("answer")
        return await table.all("debate", reads=drafts) and "cap"

Caps, resume, batches, plans and reports work for every protocol, because all of them ask through this class.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

from vivavoce.agents import Agent
from vivavoce.agents.journal import Journal
from vivavoce.committee.judges import CAPPED
from vivavoce.committee.prompting import PromptSet
from vivavoce.committee.reading import CountTokens
from vivavoce.committee.scores import Score
from vivavoce.committee.wording import CONFIDENCE, Talk, Wording
from vivavoce.errors import RecipeError
from vivavoce.graph import Graph, Stored
from vivavoce.graph.stored import gathering
from vivavoce.records import Node, Problem, Prompt, Sampling, after_system, node, seed_of
from vivavoce.tasks import Task, grade_of, whole_lines
from vivavoce.tasks.characters import blank

T = TypeVar("T")
_KINDS = {
    **dict.fromkeys(("answer", "debate", "discuss", "act"), "answer"),
    **dict.fromkeys(("critique", "feedback"), "critique"),
}
"""The kind of node that a template asks for; any other template asks for a node of its own name."""
_GRADED = ("answer", "rationale")


Run = Callable[[Problem, "Table"], Awaitable[str | None]]
"""A protocol's coroutine: it holds the debate on one question and returns why it ended (None: ``cap``)."""


@dataclass(frozen=True)
class Member:
    """A member of the committee: an agent with its sampling. ``samples`` answers are drawn in round 0."""

    agent: Agent
    role: Literal["teacher", "student"]
    sampling: Sampling
    samples: int = 1
    system: str = ""
    """A system text before each of its prompts."""

    @property
    def name(self) -> str:
        return self.agent.name


class Action(NamedTuple):
    """The text that an agent had written before a debate was held on it."""

    agent: str
    text: str


@dataclass(frozen=True)
class Setting:
    """The setting of debates: the members, the protocol, the prompts, the task that grades and the journal."""

    run: Run
    members: tuple[Member, ...]
    options: Talk
    prompts: PromptSet
    task: Task
    journal: Journal
    seed: int = 0
    stage: str = "debate"
    """Label of these calls in the cost ledger."""
    count: CountTokens | None = None
    """Tokens of a text; needed if the options set a ``context_tokens`` budget."""
    actions: Mapping[str, Action] = field(default_factory=dict)
    """What the student did, by question, if debates are held on that."""

    @property
    def wording(self) -> Wording:
        """The wording of the prompts."""
        return Wording(self.options, self.prompts, self.task, self.count)


class Table:
    """One question's table. Made by :func:`hold`, and handed to the protocol."""

    def __init__(self, question: Problem, setting: Setting) -> None:
        self.question, self.setting = question, setting
        self.options: Any = setting.options
        self.members = setting.members
        self.task, self.seed = setting.task, setting.seed
        self._wording = setting.wording
        self._by_place: dict[tuple[int, ...], Node] = {}
        self._prompts: dict[str, Prompt] = {}
        self._capped = False

    @property
    def teachers(self) -> tuple[Member, ...]:
        """The teachers, in the order of the recipe."""
        return tuple(m for m in self.members if m.role == "teacher")

    @property
    def student(self) -> Member | None:
        """The student, if it takes part."""
        return next((m for m in self.members if m.role == "student"), None)

    def member(self, name: str) -> Member:
        """The member of that name. Raises RecipeError if no member has it."""
        for m in self.members:
            if m.name == name:
                return m
        known = ", ".join(m.name for m in self.members)
        raise RecipeError(
            f"no member of the committee is called `{name}`", self.options.protocol, f"name one of these: {known}"
        )

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes so far, in the order in which the protocol asked for them."""
        return tuple({n.id: n for _, n in sorted(self._by_place.items())}.values())

    async def ask(
        self,
        member: Member | str,
        template: str,
        *,
        reads: Sequence[Node] = (),
        about: Node | None = None,
        own: Node | None = None,
        gold: bool = False,
        kind: str | None = None,
        round: int | None = None,
        sample: int = 0,
        temperature: float | None = None,
        **values: Any,
    ) -> Node:
        """Ask one member one thing and return the node, whatever its status is.

        A call that failed for good is a node of status ``error``. A call that the question's cap did not allow is a
        node of status ``over_budget``, and the debate ends at the next ask. The author of such a node is absent, and no
        prompt shows it.

        Args:
            member: A member, or its name.
            template: The template of the prompt set that asks.
            reads: Nodes that the member may read; the prompt prints what the options show of them.
            about: The node that is criticised, reflected on or reviewed.
            own: The member's own answer, for a prompt that prints it beside ``about``.
            gold: Print the right answer, if it is known.
            kind: Kind of the node; None: the kind that the template asks for (``debate`` asks for an ``answer``), else
                its name. An ``answer`` and a ``rationale`` are graded; the score of a ``review`` is read.
            round: Round of the node; None: for an answer, one more than the last round that it reads; for anything
                else, the round of the node that it is about or reads.
            sample: Number of the draw. Equal asks with equal numbers are one call.
            temperature: Used in place of the member's own.
            values: Further values for the template.

        Raises RecipeError if the prompt set lacks the template, and BudgetReached at a cap of the run.
        """
        if self._capped:
            raise _QuestionCapped
        place = _BRANCH.get().take()
        member = self.member(member) if isinstance(member, str) else member
        kind = kind or _KINDS.get(template, template)
        if round is None:
            round = _round(kind, [about] if about else reads)
        prompt = self._wording.make(
            template,
            self.question,
            member.name,
            reads,
            about=about,
            own=own,
            gold=gold,
            after_history=kind == "answer",
            **values,
        )
        prompt = after_system(prompt, member.system)
        sampling = member.sampling if temperature is None else replace(member.sampling, temperature=temperature)
        parents = prompt.quotes
        known = {n.id: n for n in (*reads, about, own) if n is not None}
        saw_gold = prompt.shows_gold or any(known[i].saw_gold for i in parents)
        shown = {"parents": parents, "prompt": prompt.id, "saw_gold": saw_gold}
        node = await self._call(member, sampling, kind, round, sample, prompt, about, shown)
        self._noted(place, node, prompt)
        wanted = values.get("ask_confidence", True) and self.options.asks_confidence_again and kind == "answer"
        if wanted and node.confidence is None and node.text:
            node = await self._with_confidence(member, sampling, node, prompt)
            self._by_place[place] = node
        return node

    async def _with_confidence(self, member: Member, sampling: Sampling, answer: Node, asked: Prompt) -> Node:
        """The answer with the confidence that its author states when asked once more, if it states one."""
        place, prompt = _BRANCH.get().take(), self._wording.after(asked, answer, CONFIDENCE)
        shown = {"parents": prompt.quotes, "prompt": prompt.id, "saw_gold": answer.saw_gold}
        stated = await self._call(member, sampling, CONFIDENCE, answer.round, answer.sample, prompt, answer, shown)
        self._noted(place, stated, prompt)
        return replace(answer, confidence=stated.confidence)

    def _noted(self, place: tuple[int, ...], node: Node, prompt: Prompt) -> None:
        self._prompts[prompt.id] = prompt
        self._by_place[place] = node
        self._capped |= node.status == "over_budget"

    async def all(
        self,
        template: str,
        members: Sequence[Member] | None = None,
        *,
        reads: Sequence[Node] = (),
        round: int | None = None,
        **how: Any,
    ) -> list[Node]:
        """Ask several members (None: all) the same at once and return their nodes in the order of the members.

        In round 0 each draws as many samples as the recipe gives it. ``how`` is passed on to :meth:`ask`.
        """
        first = round == 0 or (round is None and not any(n.kind == "answer" for n in reads))
        return await self.gather(
            *(
                self.ask(m, template, reads=reads, round=round, sample=sample, **how)
                for m in (self.members if members is None else members)
                for sample in range(m.samples if first else 1)
            )
        )

    async def gather(self, *asks: Coroutine[Any, Any, T]) -> list[T]:
        """Run several coroutines of a protocol at once and return their results, in their order.

        Use it in place of ``asyncio.gather``: the graph then lists nodes in the order in which the page asks for them,
        not in that of the answers. Paid replies are awaited even if a cap is reached meanwhile.
        """
        at = _BRANCH.get().take()
        tasks = []
        for i, one in enumerate(asks):
            context = copy_context()
            context.run(_BRANCH.set, _Branch((*at, i)))
            tasks.append(asyncio.get_running_loop().create_task(one, context=context))
        done = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [r for r in done if isinstance(r, BaseException)]
        for error in sorted(failed, key=lambda e: isinstance(e, _QuestionCapped)):
            raise error
        return done  # type: ignore[return-value]

    async def action(self) -> Node | None:
        """The student's action on which this debate is held, as its answer of round 0; None if there is none. No agent
        is called."""
        action = self.setting.actions.get(self.question.id)
        if action is None:
            return None
        grade = await grade_of(self.task, self.question, action.text, False, self.setting.stage)
        self._capped |= grade.status == "unjudged" and grade.reason == CAPPED
        read: dict[str, Any] = {"answer": grade.answer, "correct": grade.correct, "status": grade.status}
        did = node("answer", self.question.id, action.agent, 0, action.text, **read)
        self._by_place[_BRANCH.get().take()] = did
        return did

    def stands(self, original: Node, round: int) -> Node:
        """Repeat ``original`` in a later ``round``, because its author is not asked again. No call is made."""
        kept = node(
            original.kind,
            original.problem,
            original.agent,
            round,
            original.text,
            answer=original.answer,
            correct=original.correct,
            status=original.status,
            confidence=original.confidence,
            probability=original.probability,
            saw_gold=original.saw_gold,
        )
        self._by_place[_BRANCH.get().take()] = kept
        return kept

    def graph(self, why: str) -> Graph:
        """All nodes so far, as a graph that ended because of ``why``."""
        nodes = self.nodes
        prompts = {n.prompt: self._prompts[n.prompt] for n in nodes if n.prompt is not None}
        return Graph(self.question, nodes, "budget" if self._capped else why, self.options.needs_gold, prompts)

    async def _call(
        self,
        member: Member,
        sampling: Sampling,
        kind: str,
        round: int,
        sample: int,
        prompt: Prompt,
        about: Node | None,
        shown: dict[str, Any],
    ) -> Node:
        setting, problem = self.setting, self.question
        seed = seed_of(setting.seed, problem.id, member.name, kind, about.agent if about else "", round, sample)
        answered = await setting.journal.call(
            member.agent, prompt, sampling, seed, stage=setting.stage, question=problem.id, kind=kind
        )
        common: dict[str, Any] = {
            "sample": sample,
            "target": about.id if about else None,
            "call": None if answered.refused else answered.key,
            **shown,
        }
        reply = answered.reply
        if reply is None:
            status = "over_budget" if answered.refused else "error"
            return node(kind, problem.id, member.name, round, "", status=status, error=str(answered.error), **common)
        cut = reply.cut
        reading: dict[str, Any] = {"status": "empty" if blank(reply.text) else "truncated" if cut else "ok"}
        if kind in _GRADED:
            grade = await grade_of(self.task, problem, reply.text, cut, setting.stage)
            self._capped |= grade.status == "unjudged" and grade.reason == CAPPED
            reading = {
                "answer": grade.answer,
                "correct": grade.correct,
                "status": grade.status,
                "confidence": setting.prompts.confidence(reply.text),
                "probability": round_probability(self.task.probability(reply.text, reply.tokens))
                if reply.tokens
                else None,
            }
        elif kind == CONFIDENCE:
            confidence = setting.prompts.confidence(reply.text)
            reading |= {"confidence": confidence} | ({} if confidence is not None or cut else {"status": "no_answer"})
        elif kind == "review":
            form = self.options.score_form
            score = setting.prompts.review_score(reply.text, form)
            if cut and (score.value is None or score != setting.prompts.review_score(whole_lines(reply.text), form)):
                score = Score(None, "truncated")  # a 1 may have become 10
            reading = {"score": score.value, "status": "empty" if blank(reply.text) else score.status}
        else:
            score = setting.prompts.score(reply.text, kind)
            certain = not cut or score == setting.prompts.score(whole_lines(reply.text), kind)
            reading["score"] = score if certain else None
        return node(kind, problem.id, member.name, round, reply.text, usage=reply.usage, **common, **reading)


def _round(kind: str, shown: Sequence[Node]) -> int:
    if kind == "answer":
        return 1 + max((n.round for n in shown if n.kind == "answer"), default=-1)
    return max((n.round for n in shown), default=0)


async def hold(question: Problem, setting: Setting) -> Graph:
    """Debate one question to its end."""
    table = Table(question, setting)
    token = _BRANCH.set(_Branch(()))
    try:
        why = await setting.run(question, table)
    except _QuestionCapped:
        why = "budget"
    finally:
        _BRANCH.reset(token)
    return table.graph(why or "cap")


async def hold_all(
    questions: Sequence[Problem],
    setting: Setting,
    in_flight: int = 512,
    done: Callable[[Graph], None] = lambda _: None,
) -> Stored:
    """Debate many questions, at most ``in_flight`` at once, begun in their order; graphs in that order.

    ``done`` is called with each graph as it is made. Only those in flight are in memory; the others lie in a temporary
    file beside the journal. A debate that is cut off leaves its finished calls in the journal.
    """
    kept, todo = gathering(len(questions), setting.journal.path.parent), iter(enumerate(questions))

    async def work() -> None:
        for at, question in todo:
            graph = await hold(question, setting)
            kept.put(at, graph)
            done(graph)

    with _rare_collections():
        async with asyncio.TaskGroup() as group:
            for _ in range(min(in_flight, len(questions))):
                group.create_task(work())
    return kept


def round_probability(probability: float) -> float:
    """Four decimals: enough for a vote, and stable against the last bits of a sum that depend on the batch."""
    return round(probability, 4)


class _QuestionCapped(Exception):
    """The question has reached its cap; nothing more is asked about it."""


@dataclass
class _Branch:
    """The place of an ask in a protocol's flow, so that nodes have the page's order and not that of the replies."""

    path: tuple[int, ...]
    taken: int = field(default=0)

    def take(self) -> tuple[int, ...]:
        self.taken += 1
        return (*self.path, self.taken)


_BRANCH: ContextVar[_Branch] = ContextVar("branch")


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Collect garbage less often while a block runs.

    Python looks for cycles whenever there are 700 objects more than before. Calls in flight have many times as many,
    and hardly any of these objects is in a cycle: the search took a tenth to a fifth of the engine's time.
    """
    before = gc.get_threshold()
    gc.set_threshold(50_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


__all__ = ["Action", "Member", "Run", "Setting", "Table", "hold", "hold_all", "round_probability"]
