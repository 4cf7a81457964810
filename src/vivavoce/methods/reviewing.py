"""The verbs of peer review: over a session's task and agents, exams with feedback and reviews, and rows of an arm."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from vivavoce.committee.mistakes import mistake_class
from vivavoce.committee.table import Member
from vivavoce.committee.wording import Wording
from vivavoce.config import Recipe
from vivavoce.data.acceptance import AcceptRules
from vivavoce.data.imported import Imported, import_graphs
from vivavoce.data.two_task import Lessons
from vivavoce.errors import DataError
from vivavoce.exams.examine import Judged, examine
from vivavoce.exams.table import Tested
from vivavoce.files import file_name, read_records
from vivavoce.graph import Graph, Stored
from vivavoce.graph.stored import gathering
from vivavoce.methods.asking import kept_graphs, kept_rows
from vivavoce.methods.learnt import Trained
from vivavoce.methods.review_arms import ReviewArm
from vivavoce.methods.review_rows import NO_LIMIT, MaterialLimit, ReviewRows
from vivavoce.methods.session import Session
from vivavoce.progress import say
from vivavoce.protocols.peer_review import Options
from vivavoce.records import Example, Message, Problem, digest, seed_of, to_json
from vivavoce.run import Run


@dataclass(frozen=True)
class WithExamples(Wording):
    """Questions with worked examples before them, as turns of the same conversation."""

    before: tuple[Message, ...] = ()

    def plain(self, problem: Problem) -> list[Message]:
        """The examples, then the question as every test asks it."""
        return [*self.before, *super().plain(problem)]


class ReviewSession(Session[Options]):
    """A session whose committee examines the student. Opened and closed as :class:`Session` is.

    With ``texts``, recorded texts take the place of the exam and of all replies of the committee.
    """

    def __init__(
        self, recipe: Recipe, run: Run, rules: Options, start: Trained | None = None, texts: Imported | None = None
    ) -> None:
        super().__init__(recipe, run, rules, start)
        self._texts = texts
        self._examples: dict[str, list[Example]] = {}

    async def review(self, problems: Sequence[Problem]) -> Stored:
        """Examine the untaught student, and let the committee explain, answer and review."""
        if self._texts is None:
            return await self._review(problems, "train", self._member(self.recipe.student, "student"))
        texts = self._texts
        if self.recipe.teachers:
            say(f"texts are imported from {texts.path}: {', '.join(self.teachers)} are not asked")
        depends = ["imported", texts.model_dump(mode="json"), texts.fingerprint, self.task.name]

        async def read(done: Callable[[Graph], None]) -> Stored:
            graphs = import_graphs(texts, self.task, self.task.problems("test"))
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
            return await self._review(problems, stage, Member(agent, "student", spec.sampling(), spec.samples))
        finally:
            await agent.aclose()

    async def _review(self, problems: Sequence[Problem], stage: str, student: Member) -> Stored:
        members = [student, *(self._member(spec, "teacher") for spec in self.recipe.teachers)]
        return await self.ask(stage, "review", members, self.rules, problems)

    # --- tests

    async def test(self, arms: Mapping[str, Trained]) -> Tested:
        """Examine every student, and the untaught one with worked examples before each question."""
        shown = {
            name: {self.recipe.seeds[0]: await self._test_with_shots(name, rows)}
            for name, rows in self._examples.items()
        }
        return {**await self.examine(arms), **shown}

    def show(self, name: str, rows: Path, many: int) -> None:
        """Have the untaught student tested as arm ``name``, with so many of the rationales in ``rows`` before each
        question, drawn at random, no two of one question.
        """
        first_rows: dict[str, Example] = {}
        answers = [row for row in read_records(rows, Example) if row.stream == "answer"]
        for row in sorted(answers, key=lambda row: seed_of(self.recipe.seed, "shots", *row.source)):
            first_rows.setdefault(row.problem, row)
        self._examples[name] = list(first_rows.values())[:many]

    async def _test_with_shots(self, name: str, rows: Sequence[Example]) -> Sequence[Judged]:
        (folder, fingerprint), problems = self.start.of(self.recipe.seeds[0]), self.task.problems("test")
        before = [m for row in rows for m in (*row.prompt, Message(role="assistant", content=row.completion))]
        settings = self.recipe.test.asked
        shown = [(m["role"], m["content"]) for m in before]
        of = digest([to_json(p) for p in problems])
        depends = [fingerprint, of, shown, settings, self.prompts.fingerprint, self.rules.word_limit]

        async def ask() -> Sequence[Judged]:
            async with self.answering(folder) as student:
                with self.run.counting(f"test {name}", len(problems)) as advance:
                    return await examine(
                        student,
                        problems,
                        WithExamples(self.wording.options, self.prompts, self.task, None, tuple(before)),
                        self.run.journal,
                        self._exam_sampling,
                        stage="test",
                        seed=self.recipe.seed,
                        in_flight=self.recipe.in_flight,
                        done=lambda _: advance(),
                    )

        path = self.run.path / "evaluations" / f"{file_name(name)}-{self.recipe.seeds[0]}.jsonl"
        return await kept_rows(self.run, path, depends, Judged, lambda row: row.status == "error", ask)

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
        self,
        arm: ReviewArm,
        accept: AcceptRules,
        exams: Sequence[Sequence[Graph]],
        name: str,
        alpha: float,
        limit: MaterialLimit = NO_LIMIT,
    ) -> Path:
        """Both streams of an arm, from the graphs of every exam so far: :meth:`ReviewRows.examples`.

        The decision on every rationale, and its reason, is written to ``data/accepted``.
        """
        decided = {d.rationale: d for graphs in exams for d in self._rows.decisions(arm, accept, graphs)}
        path = self.run.path / "data" / "accepted" / f"{file_name(name)}.jsonl"
        self.run.write(path, "".join(to_json(d) + "\n" for d in decided.values()))
        return self.rows(name, self._rows.examples(arm, accept, exams, alpha, limit))

    def limits(
        self, ways: Mapping[str, tuple[ReviewArm, AcceptRules]], graphs: Sequence[Graph], alpha: float
    ) -> dict[str, MaterialLimit]:
        """The limit of each arm's material. Raises DataError if tokens are to be equal and none were counted."""
        weights = {name: alpha if arm.alpha is None else arm.alpha for name, (arm, _) in ways.items()}
        if not any(isinstance(arm.volume, str) for arm, _ in ways.values()):
            return {
                name: MaterialLimit(arm.volume) for name, (arm, _) in ways.items() if not isinstance(arm.volume, str)
            }
        many = {
            name: sum(r.stream == "answer" for r in self._rows.examples(*way, [graphs], alpha))
            for name, way in ways.items()
        }
        paid = {name: sum(self._rows.spend(*way, g, weights[name]) for g in graphs) for name, way in ways.items()}
        if not any(paid.values()) and any(arm.volume == "spend" for arm, _ in ways.values()):
            raise DataError("the tokens of the texts were not counted", "volume: spend", "take volume: smallest")
        fewest, cheapest = (min((n for n in of.values() if n), default=None) for of in (many, paid))
        return {
            name: MaterialLimit(tokens=cheapest)
            if arm.volume == "spend"
            else MaterialLimit(fewest if arm.volume == "smallest" else arm.volume)
            for name, (arm, _) in ways.items()
        }

    def teacher_tokens(
        self, arm: ReviewArm, accept: AcceptRules, exams: Sequence[Sequence[Sequence[Graph]]], alpha: float
    ) -> dict[str, int]:
        """Tokens that teachers read and wrote for what an arm could learn from, as if it had been asked for that arm
        alone; on average over ``exams``, those of each seed's student.
        """
        each = [self._rows.spent(arm, accept, sat, alpha) for sat in exams]
        return {kind: round(fmean(one[kind] for one in each)) for kind in ("texts", "reviews")}

    def history(self, name: str, exams: Mapping[int, Sequence[Sequence[Graph]]]) -> list[dict[str, Any]]:
        """The outcome of the questions from exam to exam, by seed; that of each question is in ``data/history``.

        Its letters are, exam by exam: W for a mistake that is taught, R for a right answer, ``-`` for any other.
        """
        entries, lines = list[dict[str, Any]](), list[str]()
        for seed, sat in exams.items():
            letters = [{g.problem.id: self._letter(g) for g in graphs} for graphs in sat]
            for before, after, at in zip(letters, letters[1:], range(2, len(letters) + 1), strict=False):
                both = [(letter, after[i]) for i, letter in before.items()]
                counted = {"mistakes": "?W", "fixed": "WR", "still_wrong": "WW", "regressed": "RW"}
                sizes = {k: sum(p in ("?", a) and q == b for a, b in both) for k, (p, q) in counted.items()}
                entries.append({"exam": at, "seed": seed, **sizes})
            for i in letters[0]:
                row = "".join(of[i] for of in letters)
                lines.append(json.dumps({"seed": seed, "problem": i, "exams": row}) + "\n")
        self.run.write(self.run.path / "data" / "history" / f"{file_name(name)}.jsonl", "".join(lines))
        return entries

    def _letter(self, graph: Graph) -> str:
        if self._lessons.mistake(graph) is not None:
            return "W"
        answers = graph.answers(agents=[self._lessons.student])
        return "R" if any(n.correct for n in answers) else "-"

    def mistake_trees(self, arm: ReviewArm, accept: AcceptRules, graphs: Sequence[Graph], name: str) -> Path:
        """Accepted rationales against the student's wrong answers."""
        return self.rows(name, self._rows.trees(arm, accept, graphs))

    def exam(self, graphs: Sequence[Graph]) -> dict[str, int]:
        """The outcome of the exam: questions, those taken up as mistakes, and wrong answers by kind."""
        lessons = self._lessons
        answers = [n for g in graphs for n in g.answers(agents=[lessons.student])]
        kinds = Counter(mistake_class(n) for n in answers if n.correct is False)
        mistakes = sum(lessons.mistake(g) is not None for g in graphs)
        ungradable = sum(n.correct is None for n in answers)
        return {"questions": len(graphs), "mistakes": mistakes, "ungradable": ungradable, **kinds}
