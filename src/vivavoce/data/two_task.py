"""The rows of a peer review: the student learns to see its own mistakes, and to answer as a reviewed rationale does.

Paper: arXiv:2410.03663 (FAIR). Two streams of supervised rows, made from graphs and acceptance decisions; the trainer
weighs them against each other. No model call is made here.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vivavoce.committee.mistakes import mistake
from vivavoce.committee.wording import Wording
from vivavoce.data.acceptance import AcceptRules, Decision, clearness
from vivavoce.data.feedback import FeedbackRule, keeps_feedback
from vivavoce.errors import DataError
from vivavoce.graph import Graph
from vivavoce.protocols.peer_review import Options
from vivavoce.records import GOLD, Completion, Example, Message, Node, Problem, Tree, digest, seed_of
from vivavoce.tasks import Task
from vivavoce.tasks.grading import Grader, stated_answer

Items = Literal["mistakes", "all", "random"]
_TAUGHT = ("critique", "rationale")
"""Kinds of nodes that the student learns from."""


@dataclass(frozen=True)
class Lessons:
    """The wording of the rows' prompts, and the student."""

    wording: Wording
    """The wording of prompts, with the options of a peer review (:mod:`vivavoce.protocols.peer_review`)."""
    student: str
    marks: bool = False
    """Texts that mark no answer are taught with the one that was read from them (:mod:`vivavoce.data.imported`) as
    their last line, in the form that tests ask for: else the student would learn answers that no test reads."""

    def mistake(self, graph: Graph) -> Node | None:
        """The student's answer that is taught about; None if the question counts as known."""
        return mistake(graph.answers(agents=[self.student]), self._options)

    def correction(self, graph: Graph) -> tuple[Message, ...]:
        """The prompt of the feedback task: the student's own mistake, with the answer that its teachers saw."""
        about = self.mistake(graph)
        assert about is not None
        text, gold = self.wording.lesson_of(about.text), self._options.feedback_sees_gold
        made = self.wording.make("correction", graph.problem, text=text, gold=gold, after_history=False)
        return tuple(made.chat)

    def lesson_of(self, answer: Node) -> str:
        """A rationale or an answer as the student learns to write it."""
        text, grader = self.wording.lesson_of(answer.text), getattr(self.wording.task, "grader", None)
        if not self.marks or answer.answer is None or not isinstance(grader, Grader) or stated_answer(text) is not None:
            return text
        return f"{text}\n{grader.written(answer.answer)}"

    @property
    def _options(self) -> Options:
        assert isinstance(self.wording.options, Options), self.wording.options
        return self.wording.options


def only(graphs: Iterable[Graph], teachers: Collection[str]) -> list[Graph]:
    """The graphs as if only these teachers had written rationales and feedback.

    It is applied before acceptance, not after: a text of a teacher that is left out must take no place among the best,
    and have no vote.
    """
    return [replace(g, nodes=tuple(n for n in g.nodes if n.kind not in _TAUGHT or n.agent in teachers)) for g in graphs]


def choose_items(graphs: Sequence[Graph], items: Items, lessons: Lessons, seed: int) -> list[Graph]:
    """The questions whose rationales are learned from: the student's mistakes (paper), all, or as many at random."""
    if items == "all":
        return list(graphs)
    mistaken = [g for g in graphs if lessons.mistake(g) is not None]
    if items == "mistakes":
        return mistaken
    lots = sorted(graphs, key=lambda g: seed_of(seed, "items", g.problem.id))
    drawn = {g.problem.id for g in lots[: len(mistaken)]}
    return [g for g in graphs if g.problem.id in drawn]


def solved_problems(graphs: Iterable[Graph], lessons: Lessons) -> set[str]:
    """Problems that the student got right in this exam: no mistake of a kind that is taught, and a right answer."""
    return {
        g.problem.id
        for g in graphs
        if lessons.mistake(g) is None and any(n.correct for n in g.answers(agents=[lessons.student]))
    }


def replay_rows(rows: Iterable[Example], known: Collection[str], share: float, seed: int) -> list[Example]:
    """A random share of the rows on problems that are ``known`` by now: the student learned them and could forget
    them.
    """
    kept = [row for row in rows if row.problem in known]
    lots = sorted(kept, key=lambda row: seed_of(seed, "replay", row.stream, *row.source))
    return lots[: round(share * len(kept))]


def feedback_rows(
    graphs: Iterable[Graph], lessons: Lessons, shuffled: int | None = None, rule: FeedbackRule = "all"
) -> Iterator[Example]:
    """One row for each feedback on a mistake that ``rule`` keeps: the student learns to say what was wrong.

    With ``shuffled``, a seed, each mistake gets the feedback that belongs to another question: the control that tells
    whether it matters that feedback is about the student's own mistake.
    """
    kept = [g for g in graphs if lessons.mistake(g) is not None]
    task = lessons.wording.task
    critiques = [
        [n for n in g.nodes if n.kind == "critique" and n.status == "ok" and keeps_feedback(n, g.problem, task, rule)]
        for g in kept
    ]
    if shuffled is not None:
        order = list(range(len(kept)))
        random.Random(seed_of(shuffled, "feedback")).shuffle(order)
        following = dict(zip(order, order[1:] + order[:1], strict=True))
        critiques = [critiques[following[i]] for i in range(len(kept))]
    for graph, notes in zip(kept, critiques, strict=True):
        prompt = lessons.correction(graph)
        for n in notes:
            yield Example(graph.problem.id, prompt, n.text.strip(), (n.id,), stream="feedback")


def rationale_rows(
    graphs: Iterable[Graph],
    decisions: Iterable[Decision],
    lessons: Lessons,
    score_weighted: AcceptRules | None = None,
) -> Iterator[Example]:
    """One row for each accepted rationale, under the plain question as every test asks it.

    With ``score_weighted``, the rules that accepted it, a row counts by how clearly it passed (:func:`clearness`); one
    that counts 0 is left out.
    """
    accepted = {d.rationale: d for d in decisions if d.verdict == "accepted"}
    for graph in graphs:
        prompt = tuple(lessons.wording.plain(graph.problem))
        for n in graph.nodes:
            d = accepted.get(n.id)
            if d is None:
                continue
            weight = 1.0 if score_weighted is None else clearness(d, score_weighted)
            if weight:
                yield Example(graph.problem.id, prompt, lessons.lesson_of(n), (n.id,), "answer", weight)


def gold_rows(graphs: Iterable[Graph], lessons: Lessons) -> Iterator[Example]:
    """One row for each question: the gold answer alone, as tests ask for it."""
    for graph in graphs:
        written = answer_line(lessons.wording.task, graph.problem)
        yield Example(graph.problem.id, tuple(lessons.wording.plain(graph.problem)), written, (GOLD,))


def answer_line(task: Task, problem: Problem) -> str:
    """The gold answer as tests read it, with nothing before it.

    Raises DataError if the task does not read the answer alone.
    """
    written = getattr(task, "written", None)
    line = written(problem) if written else ""
    if not line or not task.grade(problem, line).correct:
        what = f"the task {task.name} has no form for an answer that stands alone"
        raise DataError(what, "answers: gold", "leave that arm out, or give the task a function written(problem)")
    return line


def mistake_trees(graphs: Iterable[Graph], decisions: Iterable[Decision], lessons: Lessons) -> Iterator[Tree]:
    """Accepted rationales against the student's own wrong answers, one tree a question: for the preference term.

    A wrong answer without a final answer is never rejected: the student would learn form, not reasoning.
    """
    accepted = {d.rationale for d in decisions if d.verdict == "accepted"}
    for graph in graphs:
        good = _completions(graph, [n.id for n in graph.nodes if n.id in accepted], lessons)
        own = [n.id for n in graph.answers(agents=[lessons.student]) if n.correct is False and n.answer is not None]
        bad = _completions(graph, own, lessons)
        if good and bad:
            prompt = tuple(lessons.wording.plain(graph.problem))
            texts = [[c.text for c in side] for side in (good, bad)]
            yield Tree(digest([graph.problem.id, texts])[:16], graph.problem.id, prompt, good, bad)


def _completions(graph: Graph, ids: Sequence[str], lessons: Lessons) -> tuple[Completion, ...]:
    first: dict[str, str] = {}
    for i in ids:
        first.setdefault(lessons.lesson_of(graph.by_id[i]), i)
    return tuple(Completion(text, source) for text, source in first.items())
