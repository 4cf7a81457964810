"""Peer review: the student's exam, the committee's feedback and rationales, and their reviews of each other's.

Paper: arXiv:2410.03663 (FAIR, earlier MAPD). For every training question that the student gets wrong: each teacher
says what is wrong with the student's answer, each writes a rationale of its own without having seen it, and each
scores the rationales of the others. Differs from the authors' code: any number of teachers and any split of the three
roles; review texts are kept; a score that cannot be read is asked for again and then stays unread; a failed call is
recorded and never becomes the word "None"; nothing is asked twice, in this run or in a later round of exams.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.agents.journal import Journal
from vivavoce.debate.gathering import gathered
from vivavoce.debate.prompting import REVIEW, Ask, PromptSet
from vivavoce.debate.scores import ScoreForm
from vivavoce.debate.speaking import Member, asked, say
from vivavoce.graph import Graph, Stored
from vivavoce.records import Node, Problem, seed_of
from vivavoce.tasks import Task

MistakeClass = Literal["wrong", "no_answer", "empty", "truncated"]
Role = Literal["authors", "commenters", "reviewers"]
ROLES: tuple[Role, ...] = ("authors", "commenters", "reviewers")


class ReviewRules(BaseModel):
    """Every knob of exam, feedback and review that decides which calls are made (defaults: see each)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    asks: ClassVar[tuple[Ask, ...]] = REVIEW

    prompts: str = Field(default="general", description="prompt set: a folder name under debate/prompts, or a path")
    word_limit: int = Field(default=300, ge=1, description="words that prompts allow for a text (ours)")
    mistake: Literal["any_wrong", "majority_wrong", "pass_rate"] = Field(
        default="any_wrong",
        description="which questions count as mistakes, by the exam's samples (code: its one sample)",
    )
    pass_rate: float = Field(
        default=1.0, gt=0, le=1, description="mistake: pass_rate: fewer right samples than this share"
    )
    classes: list[MistakeClass] = Field(
        default=["wrong"],
        min_length=1,
        description="kinds of mistakes that are taught; the others are counted (code: all four)",
    )
    per_question: Literal["all", "mistakes"] = Field(
        default="mistakes", description="questions that get rationales and reviews: only mistaken ones (paper), or all"
    )
    feedback: bool = Field(default=True, description="teachers explain the student's mistake (paper)")
    feedback_sees_gold: bool = Field(default=True, description="they see the right answer (code)")
    rationales: int = Field(default=1, ge=0, description="rationales of each author (code: 1)")
    answer_check: Literal["before", "after"] = Field(
        default="after",
        description="before: a rationale with a wrong answer is never sent to reviewers, which saves their calls; "
        "after: all are reviewed (code), and whether the answer counts is a matter of acceptance",
    )
    scope: Literal["others", "all", "self"] = Field(
        default="others",
        description="who reviews: every reviewer but the author (paper), the author too, or the author alone",
    )
    reviewers_each: int | None = Field(
        default=None,
        ge=1,
        description="so many reviewers of each rationale, at random with equal load; None: all (paper)",
    )
    gold_shown: bool = Field(default=True, description="reviewers see the right answer (code)")
    review_temperature: float = Field(
        default=0.0, ge=0, description="of reviews: a score is no matter of luck (code: 0.8)"
    )
    authors: list[str] | None = Field(default=None, description="teachers who write rationales; None: all (paper)")
    commenters: list[str] | None = Field(default=None, description="teachers who explain mistakes; None: all (paper)")
    reviewers: list[str] | None = Field(default=None, description="teachers who review; None: all (paper)")
    score: ScoreForm = Field(default="strict", description="how a score is read; compat: as the authors' code reads it")
    retries: int = Field(default=2, ge=0, description="times an unreadable score is asked for again (code: 0)")

    @model_validator(mode="after")
    def _consistent(self) -> ReviewRules:
        if self.scope == "self" and self.reviewers_each is not None:
            raise ValueError("scope: self has one reviewer; leave reviewers_each out")
        return self

    @property
    def ask_confidence(self) -> bool:
        return False

    def named(self, role: Role, teachers: Sequence[str]) -> list[str]:
        """The teachers who hold a role, in the order of the recipe. Raises ValueError for a name that is no teacher."""
        wanted: list[str] | None = getattr(self, role)
        if unknown := [name for name in wanted or () if name not in teachers]:
            raise ValueError(f"review.{role} names `{unknown[0]}`, who is no teacher; there are {', '.join(teachers)}")
        return [name for name in teachers if wanted is None or name in wanted]


@dataclass(frozen=True)
class Panel:
    """Who examines whom: the student, and teachers by the roles that they hold."""

    student: Member
    authors: tuple[Member, ...]
    commenters: tuple[Member, ...]
    reviewers: tuple[Member, ...]
    rules: ReviewRules
    prompts: PromptSet
    task: Task
    journal: Journal
    seed: int = 0
    stage: str = "review"
    """Label of these calls in the cost ledger."""

    @property
    def score_form(self) -> ScoreForm:
        return self.rules.score


async def examined(problem: Problem, panel: Panel) -> Graph:
    """The student's own answers to one question, as a graph of their own."""
    messages = panel.prompts.render("answer", **asked(problem, panel.rules, panel.task))
    graph = Graph(problem, (), "recorded")
    answers = await asyncio.gather(
        *(
            say(graph, "answer", 0, panel.student, messages, panel, parents=(), saw_gold=False, sample=i)
            for i in range(panel.student.samples)
        )
    )
    return graph.extended(answers)


def mistake(graph: Graph, student: str, rules: ReviewRules) -> Node | None:
    """The student's answer that teachers are to explain; None where the question counts as known.

    The first mistaken sample of a class that is taught. An ungradable or failed answer is no mistake.
    """
    said = [n for n in graph.nodes if n.kind == "answer" and n.agent == student and n.correct is not None]
    wrong = [n for n in said if not n.correct]
    right = len(said) - len(wrong)
    counts = {
        "any_wrong": bool(wrong),
        "majority_wrong": 2 * len(wrong) > len(said),
        "pass_rate": right < rules.pass_rate * len(said),
    }
    taught = [n for n in wrong if mistake_class(n) in rules.classes]
    return taught[0] if taught and counts[rules.mistake] else None


def mistake_class(answer: Node) -> MistakeClass:
    """What kind of mistake a wrong answer is: of reasoning (``wrong``), or of form."""
    if answer.status in ("no_answer", "empty", "truncated"):
        return answer.status
    return "wrong"


async def reviewed(graph: Graph, panel: Panel) -> Graph:
    """The graph with the committee's feedback, rationales and reviews, if the student was mistaken."""
    about = mistake(graph, panel.student.name, panel.rules)
    if about is None and panel.rules.per_question == "mistakes":
        return graph
    feedback, rationales = await asyncio.gather(_feedback(graph, about, panel), _rationales(graph, panel))
    graph = graph.extended([*feedback, *rationales])
    return graph.extended(await _reviews(graph, rationales, panel))


async def review_all(
    problems: Sequence[Problem],
    panel: Panel,
    in_flight: int = 512,
    done: Callable[[Graph], None] = lambda _: None,
) -> Stored:
    """Examine the student and review its mistakes, at most ``in_flight`` questions at once, in their order."""

    async def one(problem: Problem) -> Graph:
        return await reviewed(await examined(problem, panel), panel)

    return await gathered(problems, one, in_flight, done, panel.journal.path.parent)


async def _feedback(graph: Graph, about: Node | None, panel: Panel) -> list[Node]:
    if about is None or not panel.rules.feedback:
        return []
    gold = graph.problem.gold if panel.rules.feedback_sees_gold else None
    messages = panel.prompts.render(
        "feedback", text=about.text, gold=gold, **asked(graph.problem, panel.rules, panel.task)
    )
    return list(
        await asyncio.gather(
            *(
                say(graph, "critique", 0, m, messages, panel, parents=(about.id,), saw_gold=bool(gold), target=about)
                for m in panel.commenters
            )
        )
    )


async def _rationales(graph: Graph, panel: Panel) -> list[Node]:
    messages = panel.prompts.render("rationale", **asked(graph.problem, panel.rules, panel.task))
    return list(
        await asyncio.gather(
            *(
                say(graph, "rationale", 0, m, messages, panel, parents=(), saw_gold=False, sample=i)
                for m in panel.authors
                for i in range(panel.rules.rationales)
            )
        )
    )


async def _reviews(graph: Graph, rationales: Iterable[Node], panel: Panel) -> list[Node]:
    """Every rationale that arrived goes to its reviewers; with ``answer_check: before``, only those that are right."""
    return list(
        await asyncio.gather(
            *(
                _review(graph, n, m, panel)
                for n in rationales
                if n.status not in ("error", "empty") and (panel.rules.answer_check == "after" or n.correct)
                for m in reviewers_of(n.agent, graph.problem, panel)
            )
        )
    )


def reviewers_of(author: str, problem: Problem, panel: Panel) -> list[Member]:
    """Who reviews a rationale of ``author``.

    With ``reviewers_each`` k, the k at the same seeded places after the author in the cyclic order of reviewers: for
    every question each reviewer gets equally many, and the choice for one question depends on no other.
    """
    rules, everyone = panel.rules, list(panel.reviewers)
    names = [m.name for m in everyone]
    if rules.scope == "self":
        return [m for m in everyone if m.name == author]
    at = names.index(author) if author in names else [m.name for m in panel.authors].index(author)
    after = [everyone[(at + i) % len(everyone)] for i in range(len(everyone))]
    eligible = [m for m in after if rules.scope == "all" or m.name != author]
    if rules.reviewers_each is None or rules.reviewers_each >= len(eligible):
        return eligible
    places = random.Random(seed_of(panel.seed, problem.id, "reviewers")).sample(
        range(len(eligible)), rules.reviewers_each
    )
    return [eligible[i] for i in sorted(places)]


async def _review(graph: Graph, rationale: Node, reviewer: Member, panel: Panel) -> Node:
    """One review; a score that cannot be read is asked for again, with another seed."""
    gold = graph.problem.gold if panel.rules.gold_shown else None
    messages = panel.prompts.render(
        "review", text=rationale.text, gold=gold, **asked(graph.problem, panel.rules, panel.task)
    )
    attempt = 0
    while True:
        said = await say(
            graph,
            "review",
            0,
            reviewer,
            messages,
            panel,
            parents=(rationale.id,),
            saw_gold=bool(gold),
            target=rationale,
            sample=attempt,
        )
        if said.status in ("ok", "error") or attempt == panel.rules.retries:
            return said
        attempt += 1
