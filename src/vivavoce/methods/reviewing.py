"""The verbs of peer review: over a session's task and agents, exams with feedback and reviews, and rows of an arm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from vivavoce.committee.mistakes import mistake_class
from vivavoce.committee.table import Member
from vivavoce.config import Recipe
from vivavoce.data.acceptance import AcceptRules
from vivavoce.data.imported import Imported, imported
from vivavoce.data.two_task import Lessons
from vivavoce.files import file_name
from vivavoce.graph import Graph, Stored
from vivavoce.graph.stored import gathering
from vivavoce.methods.asking import kept_graphs
from vivavoce.methods.learnt import Trained
from vivavoce.methods.review_arms import ReviewArm
from vivavoce.methods.review_rows import ReviewRows
from vivavoce.methods.session import Session
from vivavoce.progress import say
from vivavoce.protocols.peer_review import Options
from vivavoce.records import Problem, to_json
from vivavoce.run import Run


class ReviewSession(Session[Options]):
    """A session whose committee examines the student. Opened and closed as :class:`Session` is.

    With ``texts``, what others recorded stands in place of the exam and of all that the committee says.
    """

    def __init__(
        self, recipe: Recipe, run: Run, rules: Options, start: Trained | None = None, texts: Imported | None = None
    ) -> None:
        super().__init__(recipe, run, rules, start)
        self._texts = texts

    async def review(self, problems: Sequence[Problem]) -> Stored:
        """Examine the untaught student, and let the committee explain, answer and review."""
        if self._texts is None:
            return await self._reviewed(problems, "train", self._member(self.recipe.student, "student"))
        texts = self._texts
        if self.recipe.teachers:
            say(f"texts are imported from {texts.path}: {', '.join(self.teachers)} are not asked")
        depends = ["imported", texts.model_dump(mode="json"), texts.fingerprint, self.task.name]

        async def read(done: Callable[[Graph], None]) -> Stored:
            graphs = imported(texts, self.task, self.task.problems("test"))
            kept = gathering(len(graphs), self.run.path)
            for i, graph in enumerate(graphs):
                kept.put(i, graph)
                done(graph)
            return kept

        return await kept_graphs(self.run, "train", depends, problems, read)

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
        if self._texts is None:
            return Lessons(self.wording, self.student)
        return Lessons(self.wording, self._texts.student, marks=self._texts.answers == "last")

    @property
    def _rows(self) -> ReviewRows:
        return ReviewRows(self._lessons, self._texts.teachers if self._texts else self.teachers, self.recipe.seed)

    def two_task_rows(
        self, arm: ReviewArm, accept: AcceptRules, exams: Sequence[Sequence[Graph]], name: str, alpha: float
    ) -> Path:
        """Both streams of an arm, from the graphs of every exam so far: :meth:`ReviewRows.examples`.

        What became of every rationale, and why, is written to ``data/accepted``.
        """
        decided = {d.rationale: d for graphs in exams for d in self._rows.decisions(arm, accept, graphs)}
        path = self.run.path / "data" / "accepted" / f"{file_name(name)}.jsonl"
        self.run.write(path, "".join(to_json(d) + "\n" for d in decided.values()))
        return self.rows(name, self._rows.examples(arm, accept, exams, alpha))

    def mistake_trees(self, arm: ReviewArm, accept: AcceptRules, graphs: Sequence[Graph], name: str) -> Path:
        """Accepted rationales against the student's wrong answers."""
        return self.rows(name, self._rows.trees(arm, accept, graphs))

    def exam(self, graphs: Sequence[Graph]) -> dict[str, int]:
        """What came of the exam: questions, those taken up as mistakes, and wrong answers by kind."""
        lessons = self._lessons
        said = [n for g in graphs for n in g.answers(agents=[lessons.student])]
        kinds = Counter(mistake_class(n) for n in said if n.correct is False)
        taken = sum(lessons.mistake(g) is not None for g in graphs)
        ungradable = sum(n.correct is None for n in said)
        return {"questions": len(graphs), "mistakes": taken, "ungradable": ungradable, **kinds}
