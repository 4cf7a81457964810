"""The verbs of methods that debate: over a session's task and agents, debates, trees, and second looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vivavoce.committee.table import Member
from vivavoce.committee.wording import Talk, Wording
from vivavoce.config import Recipe
from vivavoce.data.rules import TreeRules
from vivavoce.data.trees import Grower
from vivavoce.exams.arms import Arm
from vivavoce.exams.examine import Judged, committee_answers
from vivavoce.exams.table import Tested
from vivavoce.graph import Stored
from vivavoce.methods.attempts import later_name
from vivavoce.methods.learnt import Trained
from vivavoce.methods.looking import Looks, Mode, rules
from vivavoce.methods.voting import VotingSession
from vivavoce.records import Problem
from vivavoce.train.gate import together


def grower(recipe: Recipe, rules: TreeRules, wording: Wording) -> Grower:
    """A grower of preference trees from a debate of ``recipe``, which asked by ``wording``."""
    student = recipe.student.name
    return Grower(rules, wording, student, (student, later_name(student)), recipe.seed)


class DebateSession(VotingSession[Talk]):
    """A session whose committee debates. Opened and closed as :class:`Session` is."""

    async def debate(self, problems: Sequence[Problem], stage: str = "train", rules: Talk | None = None) -> Stored:
        """Debate the training questions, by the recipe's protocol; by other ``rules`` of it in another stage."""
        members = [self._member(spec, "teacher") for spec in self.recipe.teachers]
        members.append(self._member(self.recipe.student, "student"))
        return await self.ask(stage, "debate", members, rules or self.rules, problems)

    def grower(self, rules: TreeRules) -> Grower:
        """A grower of preference trees."""
        return grower(self.recipe, rules, self.wording)

    async def test(self, arms: Mapping[str, Trained]) -> Tested:
        """Examine every model of every arm on the test questions; after them, the committee itself."""
        return {**await self.examine(arms), **await self.look_again(arms), **await self.test_committee()}

    @property
    def looks(self) -> Looks:
        """The students that look at their answers again."""
        return getattr(self.recipe, "looks", Looks())

    async def look_again(self, arms: Mapping[str, Trained]) -> Tested:
        """Have students answer the test questions, read notes on their answers, and answer again."""
        looks = dict[str, dict[int, Sequence[Judged]]]()
        for arm, mode, name in self.looks.looked:
            if arm in arms:
                models = arms[arm].models
                sat = await together(*(self._looks(name, mode, seed, model) for seed, model in models.items()))
                looks[name] = dict(zip(models, sat, strict=True))
        return looks

    async def _looks(self, name: str, mode: Mode, seed: int, model: tuple[Path, str]) -> Sequence[Judged]:
        sampling = self._exam_sampling
        async with self.answering(model[0]) as student:
            members = [
                Member(self._agents[t.name], "teacher", t.sampling(temperature=sampling.temperature, logprobs=False))
                for t in self.recipe.teachers
            ]
            members.append(Member(student, "student", sampling))
            problems = self.task.problems("test")
            label = f"look:{name}"
            graphs = await self.ask(f"{name}-{seed}", "look", members, rules(self.rules, mode), problems, label)
            return committee_answers(
                graphs, lambda g: next(iter(g.stated(g.rounds - 1, [self.student])), None), lambda g: g.nodes
            )

    def beside(self, arms: Mapping[str, Arm]) -> list[Arm]:
        """Students after a second look, and the committee."""
        return [*self.looks.arms_of(arms), *self.committee()]


__all__ = ["DebateSession", "grower"]
