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
from vivavoce.methods.measured import Measured
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
        return wanted(self.arms, self.own_arms, [t.name for t in self.teachers], self.review)

    @model_validator(mode="after")
    def _arms_can_be_had(self) -> Options:
        there = [t.name for t in self.teachers]
        for name, arm in self.wanted.items():
            named = [*(arm.teachers or ()), *(arm.accepts(self.accept).reviewers or ())]
            if unknown := [t for t in named if t not in there]:
                raise ValueError(f"arm `{name}` names `{unknown[0]}`, who is no teacher; there are {', '.join(there)}")
            if arm.items != "mistakes" and self.review.per_question == "mistakes":
                raise ValueError(
                    f"arm `{name}` learns from questions that the student may have got right (items: {arm.items}), but "
                    "rationales are asked for its mistakes alone: set review.per_question: all"
                )
        return self

    @model_validator(mode="after")
    def _somebody_reviews(self) -> Options:
        authors, _, reviewers = (self.review.named(role, [t.name for t in self.teachers]) for role in ROLES)
        for name, arm in self.wanted.items():
            accept = arm.accepts(self.accept)
            if not accept.needs_reviews or self.review.scope != "others":
                continue
            writing = [a for a in authors if arm.teachers is None or a in arm.teachers]
            counted = {r for r in reviewers if accept.reviewers is None or r in accept.reviewers}
            lonely = [a for a in writing if not counted - {a}]
            # one fixed judge has no judge itself, which is as intended; others must be there to be judged
            if lonely and (accept.reviewers is None or lonely == writing):
                raise ValueError(
                    f"arm `{name}` needs reviews, but `{lonely[0]}` has no peer: add a teacher, set "
                    "review.scope: self, or take only arms that need none (single, unreviewed, checked, majority)"
                )
        return self


async def distill(recipe: Options, run: Run) -> dict[str, Any]:
    """Exam, feedback, rationales, reviews, students, tests; returns what ``results.json`` holds."""
    async with ReviewSession(recipe, run, recipe.review) as s:
        problems, start = s.task.problems("train"), s.untrained()
        graphs = await s.review(problems)

        accept = {arm: how.accepts(recipe.accept) for arm, how in recipe.wanted.items()}
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
                if len(s.with_rows({f"{arm}.{r}-{k}": path for k, path in later.items()})) < len(later):
                    break  # fresh, and of no mistake left is there anything to learn: the students stay as they are
                arms[arm] = (await s.train({f"{arm}.{r}": (start, later, steps[arm])}))[f"{arm}.{r}"]
            if how[arm].prefer:
                trees = {f"{arm}.dpo": s.mistake_trees(how[arm], accept[arm], graphs, f"{arm}.trees")}
                then = await s.train({name: (arms[arm], path, recipe.dpo) for name, path in s.with_rows(trees).items()})
                arms[arm] = then.get(f"{arm}.dpo", arms[arm])

        tested, also = await s.sit(arms), await s.also_test(arms)
        singles = [arm for arm in tested if arm.startswith("single:")]
        best = max(singles, key=lambda arm: s.right(tested[arm]), default="")
        others = [arm for arm in how if not arm.startswith("single:")]
        pairs = [("student", arm) for arm in how] + [(best, arm) for arm in others]
        pairs += [(a, b) for i, a in enumerate(others) for b in others[i + 1 :]]
        facts = {"best_single": best or None, "exam": s.exam(graphs), "review": asdict(calibrate(graphs))}
        return s.results(tested, also, pairs, **facts)


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


async def pilot(recipe: Options, run: Run, questions: int) -> None:
    """Ask of the first questions what a run asks of all, so that a plan can go by it; the run pays for none again."""
    async with ReviewSession(recipe, run, recipe.review) as s:
        await s.review(s.task.problems("train")[:questions])
        await s.sit({"student": s.untrained()}, questions)


def plan(recipe: Options, measured: Measured | None = None) -> list[Planned]:
    """What a run of this recipe will ask for."""
    return plan_review(recipe, recipe.review, list(recipe.wanted.values()), measured)
