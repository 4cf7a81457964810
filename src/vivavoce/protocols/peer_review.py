"""Peer review: the student's exam, the committee's feedback and rationales, and their reviews of each other's.

Paper: arXiv:2410.03663 (FAIR, earlier MAPD). For every training question that the student gets wrong, each teacher says
what is wrong with the student's answer. Each teacher also writes a rationale of its own without having seen that
answer, and scores the rationales of the others.

Differs from the authors' code: any number of teachers and any split of the three roles; review texts are kept. A score
that cannot be read is asked for again and then stays unread. A failed call is recorded and never becomes the word
"None". Nothing is asked twice, in this run or in a later round of exams.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from vivavoce.committee.mistakes import MistakeClass, MistakeRule, mistake
from vivavoce.committee.reviewers import Roles, holding, reviewers_of
from vivavoce.committee.scores import ScoreForm
from vivavoce.committee.table import Member, Table
from vivavoce.records import Node, Problem


class Options(Roles):
    """Settings of the review: which calls are made."""

    templates: ClassVar[tuple[str, ...]] = ("answer", "rationale", "feedback", "review", "correction")
    protocol: str = "peer_review"
    word_limit: int = Field(default=300, ge=1, description="words that prompts allow for a text (ours)")
    mistake: MistakeRule = Field(
        default="any_wrong",
        description="which questions count as mistakes, by the exam's samples (code: its one sample)",
    )
    pass_rate: float = Field(
        default=1.0, gt=0, le=1, description="mistake: pass_rate: fewer right samples than this share"
    )
    classes: list[MistakeClass] = Field(
        default=["wrong"],
        min_length=1,
        description="kinds of mistakes that are taught; others are counted (code: all four)",
    )
    per_question: Literal["all", "mistakes"] = Field(
        default="mistakes", description="questions that get rationales and reviews: only mistaken ones (paper), or all"
    )
    feedback: bool = Field(default=True, description="teachers explain the student's mistake (paper)")
    feedback_sees_gold: bool = Field(default=True, description="they see the right answer (code)")
    feedback_reviewed: bool = Field(
        default=False,
        description="teachers review each other's feedback as they do rationales (paper, code: false); arms with "
        "`feedback: reviewed` need it",
    )
    rationales: int = Field(default=1, ge=0, description="rationales of each author (code: 1)")
    rationale_sees_gold: bool = Field(
        default=False, description="authors see the right answer, and need only explain it (paper, code: false)"
    )
    reviews_each: int = Field(
        default=1,
        ge=1,
        description="reviews that a reviewer gives one rationale; its score is the mean of those that can be read "
        "(code: 1). Several need review_temperature above 0",
    )
    answer_check: Literal["before", "after"] = Field(
        default="after",
        description="before: a rationale with a wrong answer is never sent to reviewers, which saves their calls; "
        "after: all are reviewed (code), and `accept` decides whether the answer counts",
    )
    gold_shown: bool = Field(default=True, description="reviewers see the right answer (code)")
    review_temperature: float = Field(
        default=0.0,
        ge=0,
        description="sampling temperature of reviews; at 0 a score does not depend on luck (code: 0.8)",
    )
    score: ScoreForm = Field(default="strict", description="how a score is read; compat: as the authors' code reads it")
    retries: int = Field(default=2, ge=0, description="how often an unreadable score is asked for again (code: 0)")

    @model_validator(mode="after")
    def _several_reviews_differ(self) -> Options:
        if self.reviews_each > 1 and not self.review_temperature:
            raise ValueError("reviews_each: several reviews drawn at review_temperature 0 are all the same")
        return self

    @property
    def score_form(self) -> ScoreForm:
        return self.score

    @property
    def asked_templates(self) -> tuple[str, ...]:
        return (*self.templates, "feedback_review") if self.feedback_reviewed else self.templates


async def run(question: Problem, table: Table) -> str:
    o, student = table.options, table.student
    assert student is not None, "peer review examines a student"
    exam = await table.all("answer", [student])
    about = mistake(exam, o)
    if about is None and o.per_question == "mistakes":
        return "recorded"
    authors, commenters = holding("authors", table), holding("commenters", table)
    feedback = [
        table.ask(m, "feedback", about=about, gold=o.feedback_sees_gold) for m in commenters if about and o.feedback
    ]
    written = [
        table.ask(m, "rationale", sample=i, gold=o.rationale_sees_gold) for m in authors for i in range(o.rationales)
    ]
    nodes = await table.gather(*feedback, *written)
    rationales = [n for n in nodes[len(feedback) :] if not n.absent and n.status not in ("empty", "truncated")]
    checked = [n for n in rationales if o.answer_check == "after" or n.correct]
    explained = [n for n in nodes[: len(feedback)] if o.feedback_reviewed and n.status == "ok"]
    each = range(o.reviews_each)
    await table.gather(
        *(_review(n, m, table, i) for n in checked for m in reviewers_of(n.agent, table) for i in each),
        *(_review(n, m, table, i, about) for n in explained for m in reviewers_of(n.agent, table) for i in each),
    )
    return "recorded"


async def _review(text: Node, reviewer: Member, table: Table, which: int, mistaken: Node | None = None) -> None:
    """Ask for the ``which``-th review of a reviewer: of a rationale, or of feedback on the ``mistaken`` answer. A score
    that cannot be read is asked for again, with another seed, and every try is kept.
    """
    o = table.options
    for attempt in range(o.retries + 1):
        review = await table.ask(
            reviewer,
            "review" if mistaken is None else "feedback_review",
            about=text,
            own=mistaken,
            gold=o.gold_shown,
            kind="review",
            sample=which * (o.retries + 1) + attempt,
            temperature=o.review_temperature,
        )
        if review.status == "ok" or review.absent:
            return
