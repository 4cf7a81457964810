"""Debate-conditioned on-policy distillation (MAD-OPD): teachers debate the student's state, then score the student's
own tokens under that debate, weighted by the confidence that they stated.

Paper: arXiv:2605.01347. Differs from the authors' code: docs/decisions/0005. One debate on every state serves all arms,
students, seeds and objectives. The same recipe also trains the baselines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.committee.rehearsal import Planned
from vivavoce.committee.wording import Talk
from vivavoce.exams.arms import Arm, Pair
from vivavoce.graph import Stored
from vivavoce.methods.arms import Listed
from vivavoce.methods.distilling import DistilRecipe, DistilSession, main_arm, usual_pairs
from vivavoce.methods.learnt import Learnt, Trained
from vivavoce.methods.measured import Measured
from vivavoce.methods.opd_arms import DistilArm, ImitationArm, OnPolicyArm, wanted
from vivavoce.methods.plan import plan_states
from vivavoce.methods.trainings import Training, training
from vivavoce.protocols import state_debate
from vivavoce.run import Run
from vivavoce.train.objective import OnPolicyOptions
from vivavoce.train.settings import SFTSettings


class Warm(BaseModel):
    """Our extension: the training before it. A student that is mostly wrong shows its teachers few useful states."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    questions: int | None = Field(default=None, ge=1, description="first training questions to use; None: all")
    learn: ImitationArm = Field(default=ImitationArm(), description="which recorded answers it learns from")
    sft: SFTSettings = Field(default=SFTSettings(), description="how it is trained on them")


class Options(DistilRecipe):
    """A recipe of ``method: debate_opd``."""

    debate: state_debate.Options = Field(
        default=state_debate.Options(), description="how teachers debate the state that the student is in"
    )
    warm: Warm | None = Field(default=None, description="fine-tune the student first; None: it starts as it is (paper)")
    opd: OnPolicyOptions = Field(default=OnPolicyOptions(), description="on-policy distillation of every such arm")
    sft: SFTSettings = Field(default=SFTSettings(), description="for the arms that imitate")
    arms: list[str] = Field(
        default=["opd", "mt_opd", "mt_mean", "mt_max", "debate_opd"],
        min_length=1,
        description="what is trained and compared: names of methods/opd_arms.py, or of own_arms",
    )
    own_arms: dict[str, OnPolicyArm | ImitationArm] = Field(default={}, description="arms of the user's own, by name")
    value: bool = Field(default=True, description="report what the debate is worth before anything is trained on it")

    @property
    def rules(self) -> Talk:
        return self.debate

    @property
    def wanted(self) -> dict[str, Listed[DistilArm]]:
        """The arms by name."""
        return wanted(self.arms, dict(self.own_arms), [s.name for s in self.seated])

    @property
    def students(self) -> list[str]:
        return [*(["untrained"] if self.warm else []), "student", *self.wanted]

    @model_validator(mode="after")
    def _arms_exist(self) -> Options:
        for name, arm in ((name, one.how) for name, one in self.wanted.items()):
            if isinstance(arm, ImitationArm) and arm.seconds_of is not None and arm.seconds_of not in self.wanted:
                raise ValueError(f"arm `{name}` takes as long as `{arm.seconds_of}`, which is not among the arms")
        return self


async def learn(s: DistilSession, recipe: Options) -> Learnt:
    """Debates on states, a warm start, every arm."""
    s.seat(recipe.seated)
    problems, start = s.task.problems("train"), s.start
    graphs: dict[tuple[str, ...] | None, Stored] = {None: await s.debate(problems)}
    facts: dict[str, Any] = {"debate_value": s.value(graphs[None])} if recipe.value else {}
    students, arms = {"student": start}, {"student": Arm("student")}
    if recipe.warm is not None:
        rows = s.imitate("warm", recipe.warm.learn, graphs[None][: recipe.warm.questions])
        students = {"untrained": start} | await s.train({"student": (start, rows, recipe.warm.sft)})
        warmed = Arm("student", material=recipe.warm.learn.material, method=recipe.method)
        start, arms = students["student"], {"untrained": Arm("untrained"), "student": warmed}

    ways = {name: one.how for name, one in recipe.wanted.items()}
    plans = {}
    for name, way in ways.items():
        if isinstance(way, ImitationArm):
            plans[name] = (start, s.imitate(name, way, graphs[None]), s.as_many(recipe.sft, recipe.opd))
            continue
        table = way.table
        if way.sees_action:
            seen = {seed: await s.debate(problems, table, (start, seed)) for seed in recipe.seeds}
            made = {k: s.supervise(f"{name}-{k}", way, g, recipe.opd) for k, g in seen.items()}
            plans[name] = (
                start,
                {k: path for k, (path, _) in made.items()},
                {k: how for k, (_, how) in made.items()},
            )
            continue
        if table not in graphs:
            graphs[table] = await s.debate(problems, table)
        plans[name] = (start, *s.supervise(name, way, graphs[table], recipe.opd))
    timed = {n: a.seconds_of for n, a in ways.items() if isinstance(a, ImitationArm) and a.seconds_of}
    students |= await s.train({name: plan for name, plan in plans.items() if name not in timed})
    for name, other in timed.items():
        pace = await s.train({f"{name}.pace": plans[name]})
        long = s.for_as_long(recipe.sft, pace[f"{name}.pace"], students[other])
        students |= await s.train({name: (start, plans[name][1], long)})

    before = "student" if recipe.warm else None
    arms |= {name: one.arm(recipe.method, one.how.material, before) for name, one in recipe.wanted.items()}
    singles = [name for name, one in recipe.wanted.items() if one.base == "opd"]

    def pairs(best: str | None) -> Sequence[Pair]:
        return usual_pairs(list(ways), singles, [a for a in ("untrained", "student") if a in arms], best)

    facts |= {"supervision": s.supervision}
    return Learnt(students, arms, pairs, singles, main_arm(list(ways)), lambda: facts)


def opened(recipe: Options, run: Run, start: Trained | None = None) -> DistilSession:
    """The session in which :func:`learn` works; ``start`` are the students that it begins with."""
    return DistilSession(recipe, run, recipe.debate, start)


async def distill(recipe: Options, run: Run) -> dict[str, Any]:
    """Debates on states, students, tests; returns what ``results.json`` holds."""
    async with opened(recipe, run) as s:
        return await s.results(await learn(s, recipe))


async def value(recipe: Options, run: Run) -> dict[str, Any]:
    """The value of the debate to the scorers; nothing is trained."""
    async with opened(recipe, run) as s:
        s.seat(recipe.seated)
        return s.value(await s.debate(s.task.problems("train")))


async def pilot(recipe: Options, run: Run, questions: int) -> None:
    """Ask some questions as a run would, so that a plan can use it. The run pays for none of them again."""
    async with opened(recipe, run) as s:
        await s.debate(s.drawn("train", questions))
        await s.sit({"student": s.start}, questions)


def plan(recipe: Options, measured: Measured | None = None) -> list[Planned]:
    """The calls that a run of this recipe will make."""
    arms = [one.how for one in recipe.wanted.values()]
    tables = {None} | {a.table for a in arms if isinstance(a, OnPolicyArm)}
    students = 1 + len(recipe.seeds) * (len(recipe.wanted) + (recipe.warm is not None))
    seen = sum(isinstance(a, OnPolicyArm) and a.sees_action for a in arms) * len(recipe.seeds)
    ordered = [None if t is None else list(t) for t in sorted(tables, key=lambda t: t or ())]
    return plan_states(recipe, recipe.debate, ordered, students, seen, measured)


def trainings(recipe: Options, measured: Measured | None = None) -> list[Training]:
    """The trainings of a run of this recipe."""
    seeds, found = len(recipe.seeds), list[Training]()
    if recipe.warm is not None:
        found.append(training("student", seeds, recipe.warm.sft, measured))
    for name, one in recipe.wanted.items():
        if not isinstance(one.how, ImitationArm):
            found.append(training(name, seeds, recipe.opd, measured))
            continue
        as_many = recipe.sft.model_copy(update={"max_steps": recipe.opd.max_steps})
        found.append(training(name, seeds, as_many, measured, known=one.how.seconds_of is None))
        if one.how.seconds_of is not None:  # how many updates take as long is tried out first
            found.append(training(f"{name}.pace", seeds, as_many, measured))
    return found
