"""The verbs of methods that debate: over a session's task and agents, debates, trees, later attempts and votes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from vivavoce.committee.table import Member
from vivavoce.committee.votes import VoteBy, vote, weighed
from vivavoce.committee.wording import Talk, Wording
from vivavoce.config import Recipe
from vivavoce.data.rules import TreeRules
from vivavoce.data.trees import Grower
from vivavoce.exams.arms import Arm
from vivavoce.exams.examine import Judged, examine, judged
from vivavoce.exams.table import Tested
from vivavoce.graph import Graph, Stored
from vivavoce.methods.learnt import Trained
from vivavoce.methods.looking import Looks, Mode, rules
from vivavoce.methods.session import Session
from vivavoce.progress import say
from vivavoce.records import Node, Problem, node, seed_of
from vivavoce.train.gate import together

DRAFTS: dict[str, VoteBy] = {
    "vote:majority": "majority",
    "vote:most_confident": "most_confident",
    "vote:confidence": "confidence",
    "vote:probability": "probability",
}
"""Votes over the teachers' drafts."""
DEBATED = "vote:debate"


def weighs(recipe: Recipe) -> VoteBy:
    """The weights of the vote after a debate: probabilities if every teacher gives them, else stated confidences."""
    return "probability" if all(t.logprobs for t in recipe.teachers) else "confidence"


def committee(recipe: Recipe) -> list[Arm]:
    """The committee's arms in the test: each teacher, votes over their drafts, and the vote after a debate.

    One of the votes over drafts uses the same weights as the vote after the debate.
    """
    if not recipe.test.committee:
        return []
    teachers = [Arm(f"teacher:{t.name}", "committee", "teacher", t.name) for t in recipe.teachers]
    drafts = [name for name, by in DRAFTS.items() if by != "probability" or weighs(recipe) == by]
    return [*teachers, *(Arm(name, "committee", name) for name in drafts), Arm(DEBATED, "debate", DEBATED)]


def later_name(student: str) -> str:
    """The agent's name in graphs for answers that a student gave after SFT."""
    return f"{student} after SFT"


def grower(recipe: Recipe, rules: TreeRules, wording: Wording) -> Grower:
    """A grower of preference trees from a debate of ``recipe``, which asked by ``wording``."""
    student = recipe.student.name
    return Grower(rules, wording, student, (student, later_name(student)), recipe.seed)


class DebateSession(Session[Talk]):
    """A session whose committee debates. Opened and closed as :class:`Session` is."""

    async def debate(self, problems: Sequence[Problem], stage: str = "train", rules: Talk | None = None) -> Stored:
        """Debate the training questions, by the recipe's protocol; by other ``rules`` of it in another stage."""
        members = [self._member(spec, "teacher") for spec in self.recipe.teachers]
        members.append(self._member(self.recipe.student, "student"))
        return await self.ask(stage, "debate", members, rules or self.rules, problems)

    async def debate_test(self, problems: Sequence[Problem]) -> Stored:
        """Debate the test questions among the teachers, without gold in any role, for the committee's own score.

        Each teacher gives one answer, drawn as students are tested. There are no notes, so that the votes differ by
        rounds alone.
        """
        test = self.recipe.test
        members = [
            Member(self._agents[t.name], "teacher", t.sampling(temperature=test.temperature, top_p=test.top_p))
            for t in self.recipe.teachers
        ]
        return await self.ask("test", "debate", members, self.rules.for_tests(test.committee_rounds), problems)

    def grower(self, rules: TreeRules) -> Grower:
        """A grower of preference trees."""
        return grower(self.recipe, rules, self.wording)

    @property
    def _later_name(self) -> str:
        return later_name(self.student)

    async def attempt(
        self, graphs: Sequence[Graph], students: Trained, seed: int, samples: int, temperature: float
    ) -> Sequence[Graph]:
        """The graphs, with ``samples`` more answers to every question, of the student of a training seed.

        These answers are in round 0 under a name of their own; their author has read no other text.
        """
        if not samples:
            return graphs
        model, _ = students.of(seed)
        sampling = self.recipe.student.sampling(temperature=temperature, logprobs=False)
        async with self.answering(model) as student:
            with self.run.counting(f"attempts of seed {seed}", len(graphs) * samples) as advance:
                sat = await asyncio.gather(
                    *(
                        examine(
                            student,
                            [g.problem for g in graphs],
                            self.wording,
                            self.run.journal,
                            sampling,
                            stage="attempts",
                            seed=seed_of(self.recipe.seed, seed, i),
                            in_flight=self.recipe.in_flight,
                            done=lambda _: advance(),
                        )
                        for i in range(samples)
                    )
                )
        return [
            g.extended(
                node(
                    "answer",
                    g.problem.id,
                    self._later_name,
                    0,
                    j.text,
                    sample=i,
                    answer=j.answer,
                    correct=j.correct,
                    status=j.status,
                    usage=j.usage,
                )
                for i, j in enumerate(by_sample)
                if j.status != "error"
            )
            for g, by_sample in zip(graphs, zip(*sat, strict=True), strict=True)
        ]

    async def test(self, arms: Mapping[str, Trained]) -> Tested:
        """Examine every model of every arm on the test questions; after them, the committee itself."""
        tested = {**await self.sit(arms), **await self.look_again(arms)}
        if not self.recipe.test.committee:
            return tested
        return {**tested, **self._votes(await self.debate_test(self.task.problems("test")))}

    @property
    def looks(self) -> Looks:
        """The students that look at their answers again."""
        return getattr(self.recipe, "looks", Looks())

    async def look_again(self, arms: Mapping[str, Trained]) -> Tested:
        """Have students answer the test questions, read notes on their answers, and answer again."""
        found = dict[str, dict[int, Sequence[Judged]]]()
        for arm, mode, name in self.looks.looked:
            if arm in arms:
                models = arms[arm].models
                sat = await together(*(self._looks(name, mode, seed, model) for seed, model in models.items()))
                found[name] = dict(zip(models, sat, strict=True))
        return found

    async def _looks(self, name: str, mode: Mode, seed: int, model: tuple[Path, str]) -> Sequence[Judged]:
        sampling = self._exam_sampling
        async with self.answering(model[0]) as student:
            members = [
                Member(self._agents[t.name], "teacher", t.sampling(temperature=sampling.temperature, logprobs=False))
                for t in self.recipe.teachers
            ]
            members.append(Member(student, "student", sampling))
            asked = self.task.problems("test")
            label = f"look:{name}"
            graphs = await self.ask(f"{name}-{seed}", "look", members, rules(self.rules, mode), asked, label)
            return judged(graphs, lambda g: next(iter(g.stated(g.rounds - 1, [self.student])), None), lambda g: g.nodes)

    def committee(self) -> list[Arm]:
        """The committee's arms in the test."""
        return committee(self.recipe)

    def beside(self, arms: Mapping[str, Arm]) -> list[Arm]:
        """Students after a second look, and the committee."""
        return [*self.looks.arms_of(arms), *self.committee()]

    def _votes(self, graphs: Sequence[Graph]) -> dict[str, dict[int, Sequence[Judged]]]:
        """The committee's answers. A vote by weights that no agent gave is left out; after a debate it becomes a
        majority.
        """
        by, first = weighs(self.recipe), self.recipe.seeds[0]
        if not weighed((n for g in graphs for n in g.stated(g.rounds - 1)), by):
            weight = "probability" if by == "probability" else "confidence"
            say(f"{DEBATED} counts heads, because no agent gave a {weight}")
            by = "majority"
        drafts = [n for g in graphs for n in g.stated(0)]
        arms = [a for a in self.committee() if a.base not in DRAFTS or weighed(drafts, DRAFTS[a.base])]
        if missing := [arm.name for arm in self.committee() if arm not in arms]:
            say(f"left out, because no agent gave the weights: {', '.join(missing)}")

        def rows(arm: Arm) -> Sequence[Judged]:
            if arm.teacher is not None:
                t = arm.teacher
                return judged(graphs, lambda g: next(iter(g.stated(0, [t])), None), lambda g: g.answers(0, [t]))
            if arm.family == "committee":
                how = DRAFTS[arm.base]
                return judged(graphs, lambda g: self._vote(g, 0, how), lambda g: g.answers(0))
            return judged(graphs, lambda g: self._vote(g, g.rounds - 1, by), lambda g: g.answers())

        return {arm.name: {first: rows(arm)} for arm in arms}

    def _vote(self, graph: Graph, round: int, by: VoteBy) -> Node | None:
        return vote(self.task, graph.problem, graph.stated(round), by, self.recipe.seed)


__all__ = ["DEBATED", "DRAFTS", "DebateSession", "committee", "weighs"]
