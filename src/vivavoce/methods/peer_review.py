"""Peer review (FAIR, earlier MAPD): the student sits an exam; teachers explain its mistakes, answer, and review.

Paper: arXiv:2410.03663. Differs from the authors' code: docs/decisions/0004. The student learns two tasks at once, to
see what is wrong with its own mistake and to answer as an accepted rationale does, against every arm of the recipe.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import Field, model_validator

from vivavoce.config import Recipe
from vivavoce.data.acceptance import AcceptRules
from vivavoce.data.calibration import calibrate
from vivavoce.debate.plan import Planned
from vivavoce.debate.review import ROLES, ReviewRules
from vivavoce.methods.plan import plan_review
from vivavoce.methods.review_arms import Arm, wanted
from vivavoce.methods.reviewing import ReviewSession
from vivavoce.run import Run
from vivavoce.train.settings import TreeDPOSettings, TwoTaskSettings


class Options(Recipe):
    """A recipe of ``method: peer_review``."""

    review: ReviewRules = ReviewRules()
    accept: AcceptRules = AcceptRules(answer_check=True)
    two_task: TwoTaskSettings = TwoTaskSettings()
    dpo: TreeDPOSettings = TreeDPOSettings()
    arms: list[str] = Field(
        ["single", "unreviewed", "reviewed", "checked", "checked_and_reviewed"],
        min_length=1,
        description="what is trained and compared: names of methods/review_arms.py, or of own_arms",
    )
    own_arms: dict[str, Arm] = Field({}, description="arms of the user's own, by name")

    @property
    def rules(self) -> ReviewRules:
        return self.review

    @property
    def wanted(self) -> dict[str, Arm]:
        """The arms by name."""
        return wanted(self.arms, self.own_arms, self.review.named("authors", [t.name for t in self.teachers]))

    @model_validator(mode="after")
    def _somebody_reviews(self) -> Options:
        authors, _, reviewers = (self.review.named(role, [t.name for t in self.teachers]) for role in ROLES)
        lonely = [a for a in authors if not set(reviewers) - {a}]
        reviewed = [arm for arm, how in self.wanted.items() if (how.accept or self.accept).take != "all"]
        if lonely and reviewed and self.review.scope == "others":
            raise ValueError(
                f"arm `{reviewed[0]}` needs reviews, but `{lonely[0]}` has no peer: add a teacher, set "
                "review.scope: self, or take only arms that need none (single, unreviewed, checked)"
            )
        return self


async def distill(recipe: Options, run: Run) -> dict[str, Any]:
    """Exam, feedback, rationales, reviews, students, tests; returns what ``results.json`` holds."""
    async with ReviewSession(recipe, run, recipe.review) as s:
        problems, start = s.task.problems("train"), s.untrained()
        graphs = await s.review(problems)

        accept = {arm: how.accept or recipe.accept for arm, how in recipe.wanted.items()}
        rows = {arm: s.two_task_rows(how, accept[arm], [graphs], arm) for arm, how in recipe.wanted.items()}
        how = {arm: recipe.wanted[arm] for arm in s.with_rows(rows)}
        steps = {arm: recipe.two_task.model_copy(update=_given(alpha=how[arm].alpha)) for arm in how}
        arms = {"student": start} | await s.train({arm: (start, rows[arm], steps[arm]) for arm in how})

        for arm in how:
            exams = {seed: [graphs] for seed in recipe.seeds}
            for r in range(2, how[arm].exams + 1):
                for seed in recipe.seeds:
                    exams[seed].append(await s.review_again(problems, f"{arm}.{r}-{seed}", arms[arm], seed))
                later = {k: s.two_task_rows(how[arm], accept[arm], e, f"{arm}.{r}-{k}") for k, e in exams.items()}
                arms[arm] = (await s.train({f"{arm}.{r}": (start, later, steps[arm])}))[f"{arm}.{r}"]
            if how[arm].prefer:
                trees = {f"{arm}.dpo": s.mistake_trees(how[arm], accept[arm], graphs)}
                then = await s.train({name: (arms[arm], path, recipe.dpo) for name, path in s.with_rows(trees).items()})
                arms[arm] = then.get(f"{arm}.dpo", arms[arm])

        tested = await s.test(arms)
        singles = [arm for arm in tested if arm.startswith("single:")]
        best = max(singles, key=lambda arm: s.right(tested[arm]), default="")
        others = [arm for arm in how if not arm.startswith("single:")]
        pairs = [("student", arm) for arm in how] + [(best, arm) for arm in others]
        pairs += [(a, b) for i, a in enumerate(others) for b in others[i + 1 :]]
        facts = {"best_single": best or None, "exam": s.exam(graphs), "review": asdict(calibrate(graphs))}
        return s.results(tested, pairs, **facts)


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def plan(recipe: Options) -> list[Planned]:
    """What a run of this recipe will ask for."""
    return plan_review(recipe, recipe.review, list(recipe.wanted.values()))
