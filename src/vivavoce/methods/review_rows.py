"""The rows of an arm, from graphs of peer reviews: what a run writes into ``data/``, and a command without a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.wording import Wording
from vivavoce.data.acceptance import RELEASED, AcceptRules, Decision, decide, with_accepted_feedback
from vivavoce.data.imported import Imported, import_graphs, writers
from vivavoce.data.two_task import (
    Lessons,
    choose_items,
    feedback_rows,
    gold_rows,
    mistake_trees,
    only,
    rationale_rows,
    replay_rows,
    solved_problems,
)
from vivavoce.errors import DataError, RecipeError
from vivavoce.graph import Graph, read_graphs
from vivavoce.methods.review_arms import ReviewArm, arms_of
from vivavoce.plugins import names
from vivavoce.protocols.peer_review import Options
from vivavoce.records import Example, Node, Tree, seed_of
from vivavoce.tasks import Task, open_task


class MaterialLimit(NamedTuple):
    """The limit of an arm's material; None: all."""

    rationales: int | None = None
    tokens: int | None = None
    """Tokens of teachers, for the questions of the rows."""


NO_LIMIT = MaterialLimit()


@dataclass(frozen=True)
class ReviewRows:
    """Makes rows from lessons by some teachers; ``seed`` is that of the random draws."""

    lessons: Lessons
    teachers: Sequence[str]
    seed: int = 0

    def examples(
        self,
        arm: ReviewArm,
        accept: AcceptRules,
        exams: Sequence[Sequence[Graph]],
        alpha: float,
        limit: MaterialLimit = NO_LIMIT,
    ) -> list[Example]:
        """Both streams of an arm, from the graphs of every exam so far; a text that is in several counts once.

        ``alpha`` weighs the streams (of arms that do not say it themselves); a stream of weight 0 is left out. Rows
        beyond ``limit`` are left out at random.
        """
        alpha = alpha if arm.alpha is None else arm.alpha
        if limit.tokens is not None:
            exams = [self._within(limit.tokens, arm, accept, graphs, alpha) for graphs in exams]
        both = [r for r in self._of_exams(arm, accept, exams) if (alpha if r.stream == "feedback" else 1 - alpha)]
        if limit.rationales is None:
            return both
        answers = sorted((r for r in both if r.stream == "answer"), key=lambda r: seed_of(self.seed, *r.source))
        drawn = {id(r) for r in answers[: limit.rationales]}
        return [r for r in both if r.stream != "answer" or id(r) in drawn]

    def spend(self, arm: ReviewArm, accept: AcceptRules, graph: Graph, alpha: float) -> int:
        """Tokens of teachers behind what an arm could learn from one question: texts, and reviews if it needs them."""
        return sum(_tokens(n) for n in self._behind(arm, accept, graph, alpha))

    def spent(
        self, arm: ReviewArm, accept: AcceptRules, exams: Sequence[Sequence[Graph]], alpha: float
    ) -> dict[str, int]:
        """The same over all exams that one student sat, ``texts`` and ``reviews`` apart; a text counts once."""
        alpha = alpha if arm.alpha is None else arm.alpha
        behind = {n.id: n for graphs in exams for g in graphs for n in self._behind(arm, accept, g, alpha)}
        reviews = sum(_tokens(n) for n in behind.values() if n.kind == "review")
        return {"texts": sum(map(_tokens, behind.values())) - reviews, "reviews": reviews}

    def _behind(self, arm: ReviewArm, accept: AcceptRules, graph: Graph, alpha: float) -> list[Node]:
        (written,) = only([graph], arm.teachers or self.teachers)
        texts = {n.id for n in written.nodes if n.kind == "rationale" and alpha < 1}
        explained = {n.id for n in written.nodes if n.kind == "critique" and alpha > 0}
        reviewed = (texts if accept.needs_reviews else set()) | (explained if arm.feedback == "reviewed" else set())

        def counts(n: Node) -> bool:
            return n.id in texts or n.id in explained or (n.kind == "review" and n.target in reviewed)

        return [n for n in written.nodes if counts(n)]

    def _within(
        self, tokens: int, arm: ReviewArm, accept: AcceptRules, graphs: Sequence[Graph], alpha: float
    ) -> list[Graph]:
        """As many questions, drawn at random, as cost no more; in their order."""
        remaining, kept = tokens, set[str]()
        for g in sorted(graphs, key=lambda g: seed_of(self.seed, "spend", g.problem.id)):
            if (cost := self.spend(arm, accept, g, alpha)) <= remaining:
                remaining -= cost
                kept.add(g.problem.id)
        return [g for g in graphs if g.problem.id in kept]

    def _of_exams(self, arm: ReviewArm, accept: AcceptRules, exams: Sequence[Sequence[Graph]]) -> list[Example]:
        *earlier, last = [self._both_streams(arm, accept, graphs) for graphs in exams]
        before = _once(earlier)
        if arm.fresh:
            before = replay_rows(before, solved_problems(exams[-1], self.lessons), arm.replay, self.seed)
        return _once([before, last])

    def _both_streams(self, arm: ReviewArm, accept: AcceptRules, graphs: Sequence[Graph]) -> list[Example]:
        """Feedback and accepted rationales of one exam."""
        written = only(graphs, arm.teachers or self.teachers)
        shuffled = self.seed if arm.shuffle_feedback else None
        explained = with_accepted_feedback(written, accept) if arm.feedback == "reviewed" else written
        feedback = feedback_rows(explained, self.lessons, shuffled, arm.feedback)
        learnt = choose_items(written, arm.items, self.lessons, self.seed)
        if arm.answers == "gold":
            return [*feedback, *gold_rows(learnt, self.lessons)]
        decided = decide(learnt, accept, self.seed, self.lessons.wording.task)
        return [*feedback, *rationale_rows(learnt, decided, self.lessons, accept if arm.score_weighted else None)]

    def decisions(self, arm: ReviewArm, accept: AcceptRules, graphs: Sequence[Graph]) -> list[Decision]:
        """The decision on every rationale that the arm could learn from."""
        learnt = choose_items(only(graphs, arm.teachers or self.teachers), arm.items, self.lessons, self.seed)
        return decide(learnt, accept, self.seed, self.lessons.wording.task)

    def trees(self, arm: ReviewArm, accept: AcceptRules, graphs: Sequence[Graph]) -> Iterator[Tree]:
        """Accepted rationales against the student's wrong answers."""
        written = only(graphs, arm.teachers or self.teachers)
        learnt = choose_items(written, arm.items, self.lessons, self.seed)
        return mistake_trees(learnt, decide(learnt, accept, self.seed, self.lessons.wording.task), self.lessons)


def _tokens(n: Node) -> int:
    return n.usage.prompt + n.usage.completion


def _once(exams: Iterable[Iterable[Example]]) -> list[Example]:
    """The rows of several exams, each text once."""
    return list({(row.stream, row.problem, row.source): row for rows in exams for row in rows}.values())


class Made(NamedTuple):
    """The rows that an arm makes of graphs in a file."""

    examples: list[Example]
    trees: list[Tree]
    summary: str
    """A summary of the accepted rationales, in words."""


def rows_of_graphs(path: Path, arm: str, task: Task | None = None, seed: int = 0, alpha: float = 0.5) -> Made:
    """The rows of an arm (``reviewed``, ``checked@accept.threshold=4``) from a file of graphs of a peer review.

    The questions are those of ``task``, None: of the task whose name their ids begin with. Every kind of mistake in the
    file is learned; ``alpha`` weighs feedback against rationales. Raises DataError if the file is none of a peer review
    or its task is not known. Raises RecipeError if there is no such arm, or it is several, or needs more than the file
    has.
    """
    graphs = list(read_graphs(path))
    name = graphs[0].problem.id.partition("/")[0] if graphs else ""
    if task is None and name not in names("tasks"):
        raise DataError(
            f"the task of the questions is not known: `{name}` is not a task", str(path), "give --task NAME"
        )
    task = task or open_task(name, {})
    authors = writers(graphs)
    if not authors:
        raise DataError("there are no rationales in the graphs", str(path), "give graphs of a peer review")
    students = list(dict.fromkeys(n.agent for g in graphs for n in g.answers(0)))
    if len(students) != 1:
        what = f"the exam in the graphs was taken by {', '.join(students) or 'no student'}"
        raise DataError(what, str(path), "give graphs with the exam of one student")
    options = Options(classes=["wrong", "no_answer", "empty", "truncated"], per_question="all")
    try:
        listed_arms = arms_of([arm], {}, authors, options)
    except ValueError as e:
        raise RecipeError(str(e), f"--arm {arm}", "name one arm, as recipes of peer_review do") from e
    if len(listed_arms) != 1:
        raise RecipeError(f"`{arm}` is {len(listed_arms)} arms", f"--arm {arm}", f"name one: {', '.join(listed_arms)}")
    (listed,) = listed_arms.values()
    if listed.options.exams > 1:
        raise RecipeError(f"`{arm}` takes several exams, but the graphs hold one", f"--arm {arm}", "run a recipe")
    texts = import_graphs(Imported(path=path, teachers=authors, student=students[0]), task)
    accept = listed.options.accepts(RELEASED)
    lessons = Lessons(Wording(options, prompt_set(options.prompts), task), students[0], marks=True)
    made = ReviewRows(lessons, authors, seed)
    decided = decide(only(texts, listed.options.teachers or authors), accept, seed, task)
    accepted = sum(d.verdict == "accepted" for d in decided)
    summary = f"{accepted:,} of {len(decided):,} rationales accepted"
    return Made(
        made.examples(listed.options, accept, [texts], alpha), list(made.trees(listed.options, accept, texts)), summary
    )


__all__ = ["NO_LIMIT", "Made", "MaterialLimit", "ReviewRows", "rows_of_graphs"]
