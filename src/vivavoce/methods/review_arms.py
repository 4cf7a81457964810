"""The ways to learn from one set of reviewed texts: an arm is a view, so that all arms cost the calls of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.data.acceptance import AcceptRules
from vivavoce.data.feedback import FeedbackRule
from vivavoce.data.two_task import Items
from vivavoce.methods.arms import ListedArm, OfEach, by_name
from vivavoce.protocols.peer_review import Options
from vivavoce.train.settings import TreeDPOSettings, TwoTaskSettings


class ReviewArm(BaseModel):
    """One way to learn from the same texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    teachers: list[str] | None = Field(
        default=None, description="teachers whose rationales and feedback are learnt; None: all"
    )
    accept: AcceptRules | None = Field(
        default=None, description="rule that accepts rationales; None: the recipe's `accept:`"
    )
    reviewers: list[str] | None = Field(
        default=None,
        description="reviewers whose reviews count, in place of those of `accept`; None: those of `accept`",
    )
    items: Items = Field(
        default="mistakes",
        description="questions whose rationales are learnt from: the student's mistakes (paper), all, or as many at "
        "random as there were mistakes; the last two need review.per_question: all",
    )
    alpha: float | None = Field(default=None, ge=0, le=1, description="weight of the feedback task; None: the recipe's")
    score_weighted: bool = Field(default=False, description="a rationale counts by how clearly it passed (ours)")
    feedback: FeedbackRule = Field(
        default="all",
        description="which feedback is learnt: all (paper); consistent: none that offers a wrong answer as the right "
        "one; silent: none that offers any, so that a mistake is explained and not corrected (ours); reviewed: what "
        "its reviews accept, which needs review.feedback_reviewed (ours)",
    )
    answers: Literal["rationales", "gold"] = Field(
        default="rationales",
        description="what is learnt under the plain question: rationales (paper), or the gold answer alone, as tests "
        "ask for it (a baseline: what the labels teach without a teacher's word)",
    )
    shuffle_feedback: bool = Field(
        default=False, description="every mistake gets the feedback of another one: a control"
    )
    loss: Literal["own", "released", "released_unpadded"] = Field(
        default="own",
        description="own: as `two_task:` says. released: means over micro-batches, and padding is learnt, as in the "
        "authors' code; released_unpadded: the same without that defect",
    )
    prefer: bool | Literal["orpo", "simpo", "kto"] = Field(
        default=False,
        description="then accepted rationales over the student's wrong answers (ours): true: T-DPO, by the recipe's "
        "`dpo:`; or another preference term in its place",
    )
    exams: int = Field(
        default=1, ge=1, description="exams at most; after each, the student so far takes the next one (ours; paper: 1)"
    )
    training: Literal["restart", "continue"] = Field(
        default="restart",
        description="after a later exam. restart: from the beginning, on the rows of all exams; continue: with the "
        "student that took it (ours)",
    )
    spread: bool = Field(
        default=False,
        description="training: continue: the updates, or epochs, of one training are spread over all exams, so that "
        "the exam is refreshed within it, as each epoch, and no arm makes more updates (ours)",
    )
    until: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="stop rule: no further exam once the share of mistakes falls by less than this (ours)",
    )
    volume: int | Literal["smallest", "spend"] | None = Field(
        default=None,
        description="most rationales, drawn at random; smallest: as many as the arm of the recipe with the fewest has; "
        "spend: as many random questions as cost no more tokens of teachers than the cheapest arm (ours)",
    )
    shots: int = Field(
        default=0,
        ge=0,
        description="nothing is trained: the student as it came is tested with so many of the arm's rationales before "
        "every question, each with its own question (a baseline)",
    )
    fresh: bool = Field(default=False, description="learn from the last exam alone, not from all exams so far")
    replay: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="fresh: keep this share of the earlier exams' rows on what the student now gets right (ours)",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ReviewArm:
        if self.replay and not self.fresh:
            raise ValueError("replay needs fresh: true; without it every row of the earlier exams is kept")
        if self.spread and self.training == "restart":
            raise ValueError("spread needs training: continue; a training that restarts makes all of its updates")
        if self.shots and (self.exams > 1 or self.prefer):
            raise ValueError("shots: nothing is trained, so that there are no later exams and no preferences")
        if isinstance(self.volume, int) and self.volume < 1:
            raise ValueError("volume: an arm learns from one rationale at least")
        return self

    def two_task(self, recipe: TwoTaskSettings) -> TwoTaskSettings:
        """The settings of the two-task training, based on ``recipe``'s."""
        changes: dict[str, Any] = {} if self.alpha is None else {"alpha": self.alpha}
        if self.loss != "own":
            changes |= {"normalisation": "micro_batch", "padding": "learnt" if self.loss == "released" else "none"}
        if self.spread:
            steps = recipe.max_steps and max(1, round(recipe.max_steps / self.exams))
            changes |= {"max_steps": steps, "epochs": recipe.epochs / self.exams}
        return recipe.model_copy(update=changes)

    def preference(self, recipe: TreeDPOSettings) -> TreeDPOSettings:
        """The settings of the preference training, based on ``recipe``'s; with the beta of a term that has another
        scale.
        """
        changes: dict[str, dict[str, Any]] = {
            "orpo": {"objective": "orpo", "nll_weight": 1.0},
            "simpo": {"objective": "simpo", "beta": max(2.0, recipe.beta)},
            "kto": {"objective": "kto"},
        }
        return recipe.model_copy(update=changes.get(str(self.prefer), {}))

    def accepts(self, recipe: AcceptRules) -> AcceptRules:
        """The rules of acceptance, based on ``recipe``'s."""
        rules = self.accept or recipe
        return rules if self.reviewers is None else rules.model_copy(update={"reviewers": self.reviewers})


ALL, CHECKED = AcceptRules(take="all"), AcceptRules(take="all", answer_check=True)
STANDARD = {
    "unreviewed": ReviewArm(accept=ALL),
    "reviewed": ReviewArm(accept=AcceptRules()),
    "checked": ReviewArm(accept=CHECKED),
    "checked_and_reviewed": ReviewArm(accept=AcceptRules(answer_check=True)),
    "random": ReviewArm(accept=AcceptRules(take="random")),
    "majority": ReviewArm(accept=AcceptRules(take="majority")),
    "all_items": ReviewArm(items="all"),
    "random_items": ReviewArm(items="random"),
    "rationale_only": ReviewArm(alpha=0.0),
    "feedback_only": ReviewArm(alpha=1.0),
    "answer_only": ReviewArm(answers="gold", alpha=0.0),
    "few_shot": ReviewArm(shots=4),
    "consistent_feedback": ReviewArm(feedback="consistent"),
    "silent_feedback": ReviewArm(feedback="silent"),
    "reviewed_feedback": ReviewArm(feedback="reviewed"),
    "reliable": ReviewArm(accept=AcceptRules(aggregate="reliable")),
    "agreeing": ReviewArm(accept=AcceptRules(aggregate="agreeing")),
    "shuffled_feedback": ReviewArm(shuffle_feedback=True),
    "score_weighted": ReviewArm(score_weighted=True),
    "preferred": ReviewArm(prefer=True),
    "orpo": ReviewArm(prefer="orpo"),
    "simpo": ReviewArm(prefer="simpo"),
    "kto": ReviewArm(prefer="kto"),
    "released_loss": ReviewArm(loss="released"),
    "released_unpadded": ReviewArm(loss="released_unpadded"),
    "refreshed": ReviewArm(exams=2),
    "refreshed_fresh": ReviewArm(exams=2, fresh=True),
    "refreshed_replay": ReviewArm(exams=2, fresh=True, replay=0.5),
    "continued": ReviewArm(exams=2, training="continue", fresh=True),
    "each_epoch": ReviewArm(exams=3, training="continue", spread=True),
    "until_no_gain": ReviewArm(exams=5, until=0.01),
}
"""Baselines and ablations by name (section numbers: docs/decisions/0004)."""


def arms_of(
    names: Sequence[str], own: dict[str, ReviewArm], teachers: Sequence[str], review: Options
) -> dict[str, ListedArm[ReviewArm]]:
    """The arms that a recipe lists; `single`, `single_checked`, `leave_out` and `judge` are one arm for each teacher.

    `alpha=0.25` after a name, as in `reviewed@alpha=0.25`, changes one key of it. Raises ValueError if there is no
    such name, or no such key of an arm.
    """
    authors, reviewers = review.holders("authors", teachers), review.holders("reviewers", teachers)
    others = {t: [o for o in teachers if o != t] for t in teachers}
    each = {
        "single": OfEach("single", {t: ReviewArm(teachers=[t], accept=ALL) for t in authors}),
        "single_checked": OfEach("single_checked", {t: ReviewArm(teachers=[t], accept=CHECKED) for t in authors}),
        "leave_out": OfEach("without", {t: ReviewArm(teachers=others[t], reviewers=others[t]) for t in teachers}),
        "judge": OfEach("judge", {t: ReviewArm(reviewers=[t]) for t in reviewers}),
    }
    return by_name(names, own, STANDARD, each)
