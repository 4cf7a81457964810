"""The committee takes the test: each teacher alone, votes without a debate, the vote after one, and votes without a
debate that cost as many tokens as it did (self-consistency, arXiv:2203.11171).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TypeVar

from vivavoce.committee.table import Member
from vivavoce.committee.votes import VoteBy, has_weights, vote
from vivavoce.committee.wording import Talk
from vivavoce.config import Recipe
from vivavoce.exams.arms import Arm, Pair
from vivavoce.exams.examine import Judged, committee_answers
from vivavoce.exams.table import Tested
from vivavoce.graph import Graph, Stored
from vivavoce.methods.learnt import Trained
from vivavoce.methods.session import Session
from vivavoce.progress import say
from vivavoce.protocols import self_consistency
from vivavoce.records import Node, Problem

R = TypeVar("R", bound=Talk)
DRAFTS: dict[str, VoteBy] = {
    "vote:majority": "majority",
    "vote:most_confident": "most_confident",
    "vote:confidence": "confidence",
    "vote:probability": "probability",
}
"""Votes over the teachers' drafts."""
DEBATED = "vote:debate"
AGAIN = "self_consistency"
"""Votes over many answers of one teacher, or of all."""


def weighs(recipe: Recipe) -> VoteBy:
    """The weights of the vote after a debate: probabilities if every teacher gives them, else stated confidences."""
    return "probability" if all(t.logprobs for t in recipe.teachers) else "confidence"


def committee(recipe: Recipe) -> list[Arm]:
    """The committee's arms in the test: each teacher, votes over their drafts, votes that cost as many tokens as the
    debate if the recipe asks for them, and the vote after the debate.

    One of the votes over drafts uses the same weights as the vote after the debate.
    """
    if not recipe.test.committee:
        return []
    teachers = [Arm(f"teacher:{t.name}", "committee", "teacher", t.name) for t in recipe.teachers]
    drafts = [name for name, by in DRAFTS.items() if by != "probability" or weighs(recipe) == by]
    alone = [Arm(f"{AGAIN}:{t.name}", "committee", AGAIN, t.name) for t in recipe.teachers]
    repeated = [*alone, Arm(AGAIN, "committee", AGAIN)] if recipe.test.self_consistency else []
    return [*teachers, *(Arm(name, "committee", name) for name in drafts), *repeated, Arm(DEBATED, "debate", DEBATED)]


def votes_against_debate(arms: Sequence[Arm]) -> list[Pair]:
    """Every one of a committee against its vote after the debate."""
    return [(arm.name, DEBATED) for arm in arms if arm.name != DEBATED]


class VotingSession(Session[R]):
    """A session whose committee may sit the test too. Opened and closed as :class:`Session` is."""

    async def test(self, arms: Mapping[str, Trained]) -> Tested:
        """Examine every model of every arm on the test questions; after them, the committee itself."""
        return {**await self.examine(arms), **await self.test_committee()}

    def committee(self) -> list[Arm]:
        """The committee's arms in the test."""
        return committee(self.recipe)

    def beside(self, arms: Mapping[str, Arm]) -> list[Arm]:
        """The committee."""
        return self.committee()

    async def test_committee(self) -> Tested:
        """The committee's answers to the test questions; nothing if it is not to sit the test."""
        if not self.recipe.test.committee:
            return {}
        debated = await self.debate_test(self.task.problems("test"))
        return self._votes(debated, await self._answers_again(debated) if self.recipe.test.self_consistency else {})

    async def debate_test(self, problems: Sequence[Problem]) -> Stored:
        """Debate the test questions among the teachers, without gold in any role, for the committee's own score.

        Each teacher gives one answer, drawn as students are tested. There are no notes, so that the votes differ by
        rounds alone.
        """
        test = self.recipe.test
        as_tested = test.model_dump(include={"temperature", "top_p", "top_k", "repetition_penalty"})
        members = [Member(self._agents[t.name], "teacher", t.sampling(**as_tested)) for t in self.recipe.teachers]
        return await self.ask("test", "debate", members, self.rules.for_tests(test.committee_rounds), problems)

    async def _answers_again(self, debated: Sequence[Graph]) -> dict[str, Sequence[Graph]]:
        """The graphs of each teacher's answers without a debate, by its name. The answers to a question cost as many
        tokens as a debate."""
        whole = fmean(sum(_tokens(n) for n in g.nodes) for g in debated)
        by_teacher = dict[str, Sequence[Graph]]()
        for spec in self.recipe.teachers:
            once = fmean([_tokens(n) for g in debated for n in g.stated(0, [spec.name])] or [whole])
            options = self_consistency.Options(
                prompts=self.rules.prompts,
                word_limit=self.rules.word_limit,
                agent=spec.name,
                samples=max(1, round(whole / once)) if once else 1,
                temperature=self.recipe.test.draws_temperature,
            )
            member = Member(self._agents[spec.name], "teacher", spec.sampling(top_p=self.recipe.test.top_p))
            stage = f"again-{spec.name}"
            by_teacher[spec.name] = await self.ask(stage, "again", [member], options, self.task.problems("test"))
        return by_teacher

    def _votes(
        self, graphs: Sequence[Graph], repeated: Mapping[str, Sequence[Graph]] = {}
    ) -> dict[str, dict[int, Sequence[Judged]]]:
        """The committee's answers. A vote by weights that no agent gave is left out; after a debate it becomes a
        majority.
        """
        by, first = weighs(self.recipe), self.recipe.seeds[0]
        if not has_weights((n for g in graphs for n in g.stated(g.rounds - 1)), by):
            weight = "probability" if by == "probability" else "confidence"
            say(f"{DEBATED} counts each answer as one, because no agent gave a {weight}")
            by = "majority"
        drafts = [n for g in graphs for n in g.stated(0)]
        arms = [a for a in self.committee() if a.base not in DRAFTS or has_weights(drafts, DRAFTS[a.base])]
        if missing := [arm.name for arm in self.committee() if arm not in arms]:
            say(f"left out, because no agent gave the weights: {', '.join(missing)}")

        def rows(arm: Arm) -> Sequence[Judged]:
            if arm.base == AGAIN:
                graphs_of_arm = repeated[arm.teacher] if arm.teacher else together(list(repeated.values()))
                return committee_answers(
                    graphs_of_arm, lambda g: self._vote(g, g.answers(0), by), lambda g: g.answers(0)
                )
            if arm.teacher is not None:
                t = arm.teacher
                return committee_answers(
                    graphs, lambda g: next(iter(g.stated(0, [t])), None), lambda g: g.answers(0, [t])
                )
            if arm.family == "committee":
                vote_by = DRAFTS[arm.base]
                return committee_answers(graphs, lambda g: self._vote(g, g.stated(0), vote_by), lambda g: g.answers(0))
            return committee_answers(graphs, lambda g: self._vote(g, g.stated(g.rounds - 1), by), lambda g: g.answers())

        return {arm.name: {first: rows(arm)} for arm in arms}

    def _vote(self, graph: Graph, answers: Sequence[Node], by: VoteBy) -> Node | None:
        return vote(self.task, graph.problem, answers, by, self.recipe.seed)


def together(by_speaker: Sequence[Sequence[Graph]]) -> list[Graph]:
    """The first answers of several speakers, equally many of each, that together cost as many tokens as all answers of
    one of them. ``by_speaker`` holds the graphs of each speaker, whose answers to a question cost equally many tokens.
    """
    joined = []
    for graphs in zip(*by_speaker, strict=True):
        each = max(1, round(1 / sum(1 / max(1, len(g.answers(0))) for g in graphs)))
        first, *others = (replace(g, nodes=tuple(n for n in g.nodes if n.sample < each)) for g in graphs)
        joined.append(first.with_nodes(n for g in others for n in g.nodes))
    return joined


def _tokens(n: Node) -> int:
    return n.usage.prompt + n.usage.completion


__all__ = ["AGAIN", "DEBATED", "DRAFTS", "VotingSession", "committee", "together", "votes_against_debate", "weighs"]
