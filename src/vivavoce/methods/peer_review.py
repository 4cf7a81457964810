"""Peer review (FAIR, earlier MAPD): the student takes an exam; teachers explain its mistakes, answer, and review.

Paper: arXiv:2410.03663. Differs from the authors' code: docs/decisions/0004. The student learns two tasks at once: to
see what is wrong with its own mistake, and to answer as an accepted rationale does. The recipe's other arms are
compared with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from pydantic import Field, model_validator

from vivavoce.committee.rehearsal import Planned
from vivavoce.committee.reviewers import ROLES
from vivavoce.config import AgentSpec, Recipe
from vivavoce.data.acceptance import AcceptRules
from vivavoce.data.calibration import calibrate
from vivavoce.data.feedback import counts
from vivavoce.data.imported import Imported, import_graphs
from vivavoce.exams.arms import Arm, Material, Pair
from vivavoce.graph import Graph
from vivavoce.methods.arms import ListedArm
from vivavoce.methods.learnt import Learnt, Trained
from vivavoce.methods.measured import Measured
from vivavoce.methods.plan import plan_review
from vivavoce.methods.review_arms import ReviewArm, arms_of
from vivavoce.methods.reviewing import ReviewSession
from vivavoce.methods.trainings import Training, training
from vivavoce.mistakes import Misplaced
from vivavoce.protocols import peer_review as protocol
from vivavoce.records import Problem
from vivavoce.run import Run
from vivavoce.tasks import Task
from vivavoce.train.settings import TreeDPOSettings, TwoTaskSettings

_MAIN = ("reviewed", "checked_and_reviewed")
"""Arms that are the method itself: the paper's, and ours. A run is about the first of them that was trained."""


class Options(Recipe):
    """A recipe of ``method: peer_review``."""

    review: protocol.Options = Field(
        default=protocol.Options(), description="the exam, feedback, rationales, and how teachers review them"
    )
    accept: AcceptRules = Field(
        default=AcceptRules(answer_check=True), description="which rationales are learnt from, by their reviews"
    )
    two_task: TwoTaskSettings = Field(
        default=TwoTaskSettings(), description="training on feedback and rationales at once"
    )
    dpo: TreeDPOSettings = Field(default=TreeDPOSettings(), description="T-DPO, for arms with `prefer`")
    teachers: list[AgentSpec] = Field(
        [], description="agents that explain, answer and review; none if texts are imported"
    )
    imported: Imported | None = Field(
        None, description="recorded texts, in place of the exam and of all texts of teachers"
    )
    arms: list[str] = Field(
        ["single", "unreviewed", "reviewed", "checked", "checked_and_reviewed"],
        min_length=1,
        description="what is trained and compared: names of methods/review_arms.py, or of own_arms",
    )
    own_arms: dict[str, ReviewArm] = Field({}, description="arms of the user's own, by name")

    @property
    def rules(self) -> protocol.Options:
        return self.review

    @property
    def wanted(self) -> dict[str, ListedArm[ReviewArm]]:
        """The arms by name."""
        return arms_of(self.arms, self.own_arms, self.writers, self.review)

    @property
    def writers(self) -> list[str]:
        """The authors of the texts: the teachers, or the authors of imported texts."""
        return self.imported.teachers if self.imported else [t.name for t in self.teachers]

    def questions(self, task: Task) -> list[Problem]:
        if self.imported is None:
            return super().questions(task)
        return [g.problem for g in import_graphs(self.imported, task)]

    @property
    def students(self) -> list[str]:
        return ["student", *self.wanted]

    @model_validator(mode="after")
    def _somebody_teaches(self) -> Options:
        if not self.writers:
            raise Misplaced("there are no teachers: name some, or give `imported:` texts to learn from", "teachers")
        if self.imported is None:
            return self
        for name, arm in ((name, one.options) for name, one in self.wanted.items()):
            if arm.exams > 1:
                what = (
                    f"arm `{name}` takes {arm.exams} exams, but the texts are imported: no teacher explains "
                    "new mistakes"
                )
                raise ValueError(what)
        return self

    @model_validator(mode="after")
    def _arms_can_be_had(self) -> Options:
        there = self.writers
        for name, arm in ((name, one.options) for name, one in self.wanted.items()):
            named = [*(arm.teachers or ()), *(arm.accepts(self.accept).reviewers or ())]
            if unknown := [t for t in named if t not in there]:
                raise ValueError(
                    f"arm `{name}` names `{unknown[0]}`, which is not a teacher; the teachers are {', '.join(there)}"
                )
            if arm.feedback == "reviewed" and (self.imported is not None or not self.review.feedback_reviewed):
                do = "leave it out: imported feedback has no reviews" if self.imported else "set it to true"
                raise ValueError(f"arm `{name}` learns reviewed feedback, and review.feedback_reviewed is false: {do}")
            unseen = self.review.answer_check == "before" and arm.accepts(self.accept).needs_reviews
            if unseen and not arm.accepts(self.accept).answer_check and not self.imported:
                raise ValueError(
                    f"arm `{name}` goes by reviews of right and wrong texts, but review.answer_check: before leaves "
                    f"wrong ones unreviewed: set it to after, or take {name}@accept.answer_check=true"
                )
            if arm.items != "mistakes" and not self.imported and self.review.per_question == "mistakes":
                raise ValueError(
                    f"arm `{name}` learns from questions that the student may have got right (items: {arm.items}), but "
                    "rationales are asked for its mistakes alone: set review.per_question: all"
                )
        return self

    @model_validator(mode="after")
    def _somebody_reviews(self) -> Options:
        authors, _, reviewers = (self.review.holders(role, self.writers) for role in ROLES)
        for name, arm in ((name, one.options) for name, one in self.wanted.items()):
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
                    "review.scope: self, or use only arms that need none (single, unreviewed, checked, majority)"
                )
        return self


async def learn(s: ReviewSession, recipe: Options) -> Learnt:
    """Make the exam, feedback, rationales, reviews and students."""
    problems = recipe.questions(s.task)
    graphs = await s.review(problems)

    ways, alpha = {name: one.options for name, one in recipe.wanted.items()}, recipe.two_task.alpha
    accept = {name: way.accepts(recipe.accept) for name, way in ways.items()}
    limits = s.limits({name: (way, accept[name]) for name, way in ways.items()}, graphs, alpha)
    rows = {n: s.two_task_rows(way, accept[n], [graphs], n, alpha, limits[n]) for n, way in ways.items()}
    there = s.with_rows(rows)
    for name in (n for n in there if ways[n].shots):
        s.show(name, there[name], ways[name].shots)
    taught = {name: ways[name] for name in there if not ways[name].shots}
    steps = {name: way.two_task(recipe.two_task) for name, way in taught.items()}
    students = await s.train({name: (s.start, rows[name], steps[name]) for name in taught})

    history, tokens = dict[str, list[dict[str, Any]]](), dict[str, dict[str, int]]()
    for name, way in taught.items():
        exams = {seed: [graphs] for seed in recipe.seeds}
        for r in range(2, way.exams + 1):
            for seed in recipe.seeds:
                exams[seed].append(await s.review_again(problems, f"{name}.{r}-{seed}", students[name], seed))
            if way.until and _fell(s, exams.values()) < way.until:
                break
            later = {
                k: s.two_task_rows(way, accept[name], e, f"{name}.{r}-{k}", alpha, limits[name])
                for k, e in exams.items()
            }
            if len(s.with_rows({f"{name}.{r}-{k}": path for k, path in later.items()})) < len(later):
                break  # fresh, and of no mistake left is there anything to learn: the students stay as they are
            start = students[name] if way.training == "continue" else s.start
            students[name] = (await s.train({f"{name}.{r}": (start, later, steps[name])}))[f"{name}.{r}"]
        tokens[name] = s.teacher_tokens(way, accept[name], [*exams.values()], alpha)
        if way.exams > 1:
            history[name] = s.history(name, exams)
        if way.prefer:
            trees = {f"{name}.dpo": s.mistake_trees(way, accept[name], graphs, f"{name}.trees")}
            then = await s.train(
                {dpo: (students[name], path, way.preference(recipe.dpo)) for dpo, path in s.with_rows(trees).items()}
            )
            students[name] = then.get(f"{name}.dpo", students[name])

    singles = [name for name, one in recipe.wanted.items() if one.base == "single"]
    arms = {name: one.arm(recipe.method, _material(accept[name])) for name, one in recipe.wanted.items()}

    def pairs(best: str | None) -> Sequence[Pair]:
        others = [name for name in ways if name not in singles]
        arm_pairs = [("student", name) for name in ways] + [(best, name) for name in others if best is not None]
        return arm_pairs + [(a, b) for i, a in enumerate(others) for b in others[i + 1 :]]

    of_method = [name for base in _MAIN for name, one in recipe.wanted.items() if one.base == base and name in students]
    feedback = counts(graphs, s.task)
    review = asdict(calibrate(graphs, recipe.accept, recipe.seed))
    facts = {"exam": s.exam(graphs), "feedback": feedback, "review": review}
    facts |= {"exams": history} if history else {}
    facts |= {"teacher_tokens": tokens} if any(any(one.values()) for one in tokens.values()) else {}
    return Learnt(
        {"student": s.start} | students,
        {"student": Arm("student")} | arms,
        pairs,
        singles,
        main=of_method[0] if of_method else None,
        facts=lambda: facts,
    )


def _fell(s: ReviewSession, exams: Iterable[Sequence[Sequence[Graph]]]) -> float:
    """The fall in the share of mistakes from the last exam but one to the last, on average over seeds."""
    before, after = zip(*((s.exam(sat[-2]), s.exam(sat[-1])) for sat in exams), strict=True)
    return fmean(
        b["mistakes"] / b["questions"] - a["mistakes"] / a["questions"] for b, a in zip(before, after, strict=True)
    )


def _material(accept: AcceptRules) -> Material:
    return "review" if accept.needs_reviews else "drafts"


def opened(recipe: Options, run: Run, start: Trained | None = None) -> ReviewSession:
    """The session in which :func:`learn` works; ``start`` are the students that it begins with."""
    return ReviewSession(recipe, run, recipe.review, start, recipe.imported)


async def distill(recipe: Options, run: Run) -> dict[str, Any]:
    """Exam, reviews, students, tests; returns what ``results.json`` holds."""
    async with opened(recipe, run) as s:
        return await s.results(await learn(s, recipe))


async def pilot(recipe: Options, run: Run, questions: int) -> None:
    """Ask some questions as a run would, so that a plan can use it. The run pays for none of them again."""
    async with opened(recipe, run) as s:
        await s.review(s.draw_questions("train", questions))
        await s.examine({"student": s.start}, questions)


def plan(recipe: Options, measured: Measured | None = None) -> list[Planned]:
    """The calls that a run of this recipe will make."""
    ways = [one.options for one in recipe.wanted.values()]
    return plan_review(recipe, recipe.review, ways, measured, recipe.imported is not None)


def trainings(recipe: Options, measured: Measured | None = None) -> list[Training]:
    """The trainings of a run of this recipe."""
    lines, seeds = list[Training](), len(recipe.seeds)
    for name, one in ((name, one) for name, one in recipe.wanted.items() if not one.options.shots):
        lines.append(training(name, seeds * one.options.exams, one.options.two_task(recipe.two_task), measured))
        if one.options.prefer:
            lines.append(training(name, seeds, one.options.preference(recipe.dpo), measured))
    return lines
