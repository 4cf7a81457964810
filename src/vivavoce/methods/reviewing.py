"""The verbs of peer review: over a session's task and agents, exams with feedback and reviews, and rows of an arm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from vivavoce.committee.mistakes import mistake_class
from vivavoce.committee.table import Member
from vivavoce.data.acceptance import AcceptRules, decide
from vivavoce.data.two_task import (
    Lessons,
    chosen,
    feedback_rows,
    mistake_trees,
    only,
    rationale_rows,
    replayed,
    solved,
)
from vivavoce.graph import Graph, Stored
from vivavoce.methods.learnt import Trained
from vivavoce.methods.review_arms import ReviewArm
from vivavoce.methods.session import Session
from vivavoce.protocols.peer_review import Options
from vivavoce.records import Example, Problem


class ReviewSession(Session[Options]):
    """A session whose committee examines the student. Opened and closed as :class:`Session` is."""

    async def review(self, problems: Sequence[Problem]) -> Stored:
        """Examine the untaught student, and let the committee explain, answer and review."""
        return await self._reviewed(problems, "train", self._member(self.recipe.student, "student"))

    async def review_again(self, problems: Sequence[Problem], stage: str, student: Trained, seed: int) -> Stored:
        """Examine a taught student: only mistakes that it has not made before cost calls of teachers."""
        spec = self.recipe.student
        agent = self._agents.another(spec, model=str(student.of(seed)[0]))
        try:
            return await self._reviewed(problems, stage, Member(agent, "student", spec.sampling(), spec.samples))
        finally:
            await agent.aclose()

    async def _reviewed(self, problems: Sequence[Problem], stage: str, student: Member) -> Stored:
        members = [student, *(self._member(spec, "teacher") for spec in self.recipe.teachers)]
        return await self.ask(stage, "review", members, self.rules, problems)

    # --- views

    @property
    def _lessons(self) -> Lessons:
        return Lessons(self.wording, self.student)

    def two_task_rows(self, arm: ReviewArm, accept: AcceptRules, exams: Sequence[Sequence[Graph]], name: str) -> Path:
        """Both streams of an arm, from the graphs of every exam so far; a text that stands in several counts once."""
        *earlier, last = [self._both_streams(arm, accept, graphs) for graphs in exams]
        before = _once(earlier)
        if arm.fresh:
            before = replayed(before, solved(exams[-1], self._lessons), arm.replay, self.recipe.seed)
        return self.rows(name, _once([before, last]))

    def _both_streams(self, arm: ReviewArm, accept: AcceptRules, graphs: Sequence[Graph]) -> list[Example]:
        """Feedback and accepted rationales of one exam."""
        seed, written = self.recipe.seed, only(graphs, arm.teachers or self.teachers)
        feedback = feedback_rows(written, self._lessons, seed if arm.shuffle_feedback else None)
        learnt = chosen(written, arm.items, self._lessons, seed)
        weighted = accept if arm.score_weighted else None
        return [*feedback, *rationale_rows(learnt, decide(learnt, accept, seed, self.task), self._lessons, weighted)]

    def mistake_trees(self, arm: ReviewArm, accept: AcceptRules, graphs: Sequence[Graph], name: str) -> Path:
        """Accepted rationales against the student's wrong answers."""
        seed, written = self.recipe.seed, only(graphs, arm.teachers or self.teachers)
        learnt = chosen(written, arm.items, self._lessons, seed)
        return self.rows(name, mistake_trees(learnt, decide(learnt, accept, seed, self.task), self._lessons))

    def exam(self, graphs: Sequence[Graph]) -> dict[str, int]:
        """What came of the exam: questions, those taken up as mistakes, and wrong answers by kind."""
        said = [n for g in graphs for n in g.answers(agents=[self.student])]
        kinds = Counter(mistake_class(n) for n in said if n.correct is False)
        taken = sum(self._lessons.mistake(g) is not None for g in graphs)
        ungradable = sum(n.correct is None for n in said)
        return {"questions": len(graphs), "mistakes": taken, "ungradable": ungradable, **kinds}


def _once(exams: Iterable[Iterable[Example]]) -> list[Example]:
    """The rows of several exams, each text once."""
    return list({(row.stream, row.source): row for rows in exams for row in rows}.values())
