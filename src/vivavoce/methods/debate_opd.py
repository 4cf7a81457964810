"""Debate-conditioned on-policy distillation (MAD-OPD): teachers debate the student's state, then score the student's
own tokens under that debate, weighted by the confidence that they stated.

Paper: arXiv:2605.01347. Differs from the authors' code: docs/decisions/0005. One debate on every state serves all arms,
students, seeds and objectives. The same recipe also trains the baselines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vivavoce.committee.rehearsal import Planned
from vivavoce.committee.wording import Talk
from vivavoce.exams.arms import Arm, Pair
from vivavoce.graph import Stored
from vivavoce.methods.arms import ListedArm
from vivavoce.methods.distilling import DistilRecipe, QuestionSession, main_arm, usual_pairs
from vivavoce.methods.learnt import Learnt, Trained
from vivavoce.methods.measured import Measured
from vivavoce.methods.opd_arms import (
    USUAL,
    DebateChoices,
    DistilArm,
    ImitationArm,
    OnPolicyArm,
    PreferenceArm,
    ScoredArm,
    arms_of,
)
from vivavoce.methods.plan import plan_states
from vivavoce.methods.trainings import Training, training
from vivavoce.methods.voting import committee, votes_against_debate
from vivavoce.progress import say
from vivavoce.protocols import state_debate
from vivavoce.run import Run
from vivavoce.train.objective import OnPolicyOptions
from vivavoce.train.settings import SFTSettings, TreeDPOSettings

_PACE = 10
"""Updates of a training that only finds out how many tokens one takes."""


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
    dpo: TreeDPOSettings | None = Field(
        default=None, description="for the arms that prefer one answer to another; None: the defaults of that section"
    )
    arms: list[str] = Field(
        default=["opd", "mt_opd", "mt_mean", "mt_max", "debate_opd"],
        min_length=1,
        description="what is trained and compared: names of methods/opd_arms.py, or of own_arms",
    )
    own_arms: dict[str, OnPolicyArm | ImitationArm | PreferenceArm] = Field(
        default={}, description="arms of the user's own, by name"
    )
    value: bool = Field(default=True, description="report what the debate is worth before anything is trained on it")

    @property
    def rules(self) -> Talk:
        return self.debate

    @property
    def wanted(self) -> dict[str, ListedArm[DistilArm]]:
        """The arms by name."""
        return arms_of(self.arms, dict(self.own_arms), [s.name for s in self.scoring_agents])

    @property
    def scored_arms(self) -> dict[str, ScoredArm]:
        return {name: one.options for name, one in self.wanted.items() if isinstance(one.options, OnPolicyArm)}

    @property
    def students(self) -> list[str]:
        return [*(["untrained"] if self.warm else []), "student", *self.wanted]

    @model_validator(mode="after")
    def _shares_are_of_teachers(self) -> Options:
        there = [t.name for t in self.teachers]
        for name, arm in ((name, one.options) for name, one in self.wanted.items()):
            if isinstance(arm, ImitationArm) and arm.shares is not None:
                of = arm.teachers or there
                if len(arm.shares) != len(of):
                    what = f"arm `{name}` shares the questions among {len(arm.shares)} teachers, not {len(of)}"
                    raise ValueError(f"{what}: give own_arms one with as many `shares`, or name its `teachers`")
        return self

    @model_validator(mode="after")
    def _arms_exist(self) -> Options:
        for name, arm in ((name, one.options) for name, one in self.wanted.items()):
            if (other := _other(arm)) is None:
                continue
            what = f"arm `{name}` takes as long as `{other}`"
            if isinstance(arm, OnPolicyArm):
                what = f"arm `{name}` takes as many tokens as `{other}`"
            if other not in self.wanted:
                raise ValueError(f"{what}, which is not among the arms")
            of = self.wanted[other].options
            if _other(of) is not None:
                raise ValueError(f"{what}, which itself goes by another arm: name one that makes the usual updates")
            if isinstance(arm, OnPolicyArm) and (not isinstance(of, OnPolicyArm) or of.sees_action):
                raise ValueError(f"{what}, whose tokens are not counted: name an on-policy one")
        return self

    @property
    def compared(self) -> list[str]:
        return [*self.students, *(arm.name for arm in committee(self))]


async def learn(s: QuestionSession, recipe: Options) -> Learnt:
    """Debates on states, a warm start, every arm."""
    s.set_scorers(recipe.scoring_agents)
    problems, start = s.task.problems("train"), s.start
    graphs: dict[DebateChoices, Stored] = {USUAL: await s.debate(problems)}
    facts: dict[str, Any] = {"debate_value": s.value(graphs[USUAL])} if recipe.value else {}
    students, arms = {"student": start}, {"student": Arm("student")}
    if recipe.warm is not None:
        rows = s.imitate("warm", recipe.warm.learn, graphs[USUAL][: recipe.warm.questions])
        students = {"untrained": start} | await s.train({"student": (start, rows, recipe.warm.sft)})
        warmed = Arm("student", material=recipe.warm.learn.material, method=recipe.method)
        start, arms = students["student"], {"untrained": Arm("untrained"), "student": warmed}

    school = _School(s, recipe, graphs, {"student": start, "untrained": s.start})
    students |= await school.teach()

    for name, one in recipe.wanted.items():
        before = "student" if recipe.warm and one.options.start == "student" else None
        arms[name] = one.arm(recipe.method, one.options.material, before)
    ways = recipe.wanted
    singles = [name for name, one in ways.items() if one.base == "opd"]

    def pairs(best: str | None) -> Sequence[Pair]:
        starts = [a for a in ("untrained", "student") if a in arms]
        votes = votes_against_debate(s.committee())
        return [*usual_pairs(list(ways), singles, starts, best), *votes]

    facts |= {"supervision": s.supervision, "teacher_tokens": school.tokens(students)}
    return Learnt(students, arms, pairs, singles, main_arm(list(ways)), lambda: facts)


Plan = tuple[Trained, Path | dict[int, Path], Any]
"""The model to start from, the rows, and the settings of one training, as a session takes them."""


class _School:
    """Trains the arms of a run: all at once, but for those that begin with or go by what another training came to."""

    def __init__(
        self,
        s: QuestionSession,
        recipe: Options,
        graphs: dict[DebateChoices, Stored],
        starts: Mapping[str, Trained],
    ) -> None:
        self.s, self.recipe, self.graphs, self.starts = s, recipe, graphs, starts
        self.ways = {name: one.options for name, one in recipe.wanted.items()}

    async def teach(self) -> dict[str, Trained]:
        """The students by arm, in the order of the recipe."""
        s, recipe = self.s, self.recipe
        plans = {name: plan for name, way in self.ways.items() if (plan := await self._plan(name, way)) is not None}
        plans |= await self._cold_starts(plans)
        later = {name: way for name, way in self.ways.items() if name in plans and _other(way) is not None}
        students = await s.train({name: plan for name, plan in plans.items() if name not in later})
        for name, way in later.items():
            start, rows, settings = plans[name]
            if isinstance(way, OnPolicyArm):
                short = settings.model_copy(update={"max_steps": min(_PACE, self._updates)})
                pace = await s.train({f"{name}.pace": (start, rows, short)}, recipe.seeds[:1])
                other = str(way.tokens_of)
                spent = sum(self._teacher_tokens(other, students[other]).values())
                settings = s.until_tokens(settings, pace[f"{name}.pace"], spent)
            elif isinstance(way, ImitationArm):
                pace = await s.train({f"{name}.pace": plans[name]})
                settings = s.for_as_long(recipe.sft, pace[f"{name}.pace"], students[str(way.seconds_of)])
            students |= await s.train({name: (start, rows, settings)})
        return {name: students[name] for name in self.ways if name in students}

    def tokens(self, students: Mapping[str, Trained]) -> dict[str, dict[str, int]]:
        """The tokens that the teachers of each on-policy arm read and wrote, and its updates."""
        seed = self.recipe.seeds[0]
        return {
            name: {**self._teacher_tokens(name, students[name]), "updates": students[name].result(seed)["steps"]}
            for name, way in self.ways.items()
            if isinstance(way, OnPolicyArm) and not way.sees_action
        }

    def _teacher_tokens(self, name: str, trained: Trained) -> dict[str, int]:
        way = self.ways[name]
        assert isinstance(way, OnPolicyArm), name
        return self.s.teacher_tokens(way, self.graphs[way.table], trained)

    @property
    def _updates(self) -> int:
        opd = self.recipe.opd
        return opd.updates(len(self.graphs[USUAL]), opd.states_per_step)

    async def _plan(self, name: str, way: DistilArm) -> Plan | None:
        """The training of an arm; None, with a message, if it has nothing to learn from."""
        s, recipe, start = self.s, self.recipe, self.starts[way.start]
        if isinstance(way, ImitationArm):
            return start, s.imitate(name, way, self.graphs[USUAL]), s.as_many(recipe.sft, recipe.opd)
        if isinstance(way, PreferenceArm):
            rows = await s.pairs(name, way, self.graphs[USUAL], start)
            if not all(path.stat().st_size for path in rows.values()):
                say(f"left out, because the student has no preferred or no rejected answers: {name}")
                return None
            return start, rows, s.as_many_pairs(recipe.dpo or TreeDPOSettings(), recipe.opd)
        problems = s.task.problems("train")
        if way.sees_action:
            seen = {seed: await s.debate(problems, way.table, (start, seed)) for seed in recipe.seeds}
            made = {k: s.supervise(f"{name}-{k}", way, g, recipe.opd) for k, g in seen.items()}
            return start, {k: path for k, (path, _) in made.items()}, {k: settings for k, (_, settings) in made.items()}
        if way.table not in self.graphs:
            self.graphs[way.table] = await s.debate(problems, way.table)
        return start, *s.supervise(name, way, self.graphs[way.table], recipe.opd)

    async def _cold_starts(self, plans: Mapping[str, Plan]) -> dict[str, Plan]:
        """The plans of arms with a cold start, which begin with the student after it, and are as much shorter."""
        s, sft = self.s, self.s.as_many(self.recipe.sft, self.recipe.opd)
        cold = dict[str, Plan]()
        for name, way in self.ways.items():
            if isinstance(way, OnPolicyArm) and way.cold_start:
                shown_more = way.sees_gold or way.sees_action
                rows = s.imitate(f"{name}.cold", ImitationArm(), self.graphs[USUAL if shown_more else way.table])
                first = max(1, round(way.cold_start * self._updates))
                cold[name] = (plans[name][0], rows, sft.model_copy(update={"max_steps": first}))
        begun = await s.train({f"{name}.cold": plan for name, plan in cold.items()})

        def shorter(name: str) -> Plan:
            _, rows, settings = plans[name]
            updates_left = max(1, self._updates - cold[name][2].max_steps)
            return begun[f"{name}.cold"], rows, settings.model_copy(update={"max_steps": updates_left})

        return {name: shorter(name) for name in cold}


def _other(way: DistilArm) -> str | None:
    """The arm that tells how long an arm is trained."""
    if isinstance(way, OnPolicyArm):
        return way.tokens_of
    return way.seconds_of if isinstance(way, ImitationArm) else None


def opened(recipe: Options, run: Run, start: Trained | None = None) -> QuestionSession:
    """The session in which :func:`learn` works; ``start`` are the students that it begins with."""
    return QuestionSession(recipe, run, recipe.debate, start)


async def distill(recipe: Options, run: Run) -> dict[str, Any]:
    """Debates on states, students, tests; returns what ``results.json`` holds."""
    async with opened(recipe, run) as s:
        return await s.results(await learn(s, recipe))


async def value(recipe: Options, run: Run) -> dict[str, Any]:
    """The value of the debate to the scorers; nothing is trained."""
    async with opened(recipe, run) as s:
        s.set_scorers(recipe.scoring_agents)
        return s.value(await s.debate(s.task.problems("train")))


async def pilot(recipe: Options, run: Run, questions: int) -> None:
    """Ask some questions as a run would, so that a plan can use it. The run pays for none of them again."""
    async with opened(recipe, run) as s:
        await s.debate(s.draw_questions("train", questions))
        await s.examine({"student": s.start}, questions)


def plan(recipe: Options, measured: Measured | None = None) -> list[Planned]:
    """The calls that a run of this recipe will make."""
    arms = [one.options for one in recipe.wanted.values()]
    of_arms = [(a.table, a.start if a.sees_action else "") for a in arms if isinstance(a, OnPolicyArm)]
    tables = [table for table, _ in dict.fromkeys([(USUAL, ""), *of_arms])]
    students = 1 + len(recipe.seeds) * (len(recipe.wanted) + (recipe.warm is not None))
    tried = {(a.start, a.samples, a.temperature) for a in arms if isinstance(a, PreferenceArm)}
    attempts = sum(samples for _, samples, _ in tried)
    return plan_states(recipe, recipe.debate, tables, students, measured, attempts)


def trainings(recipe: Options, measured: Measured | None = None) -> list[Training]:
    """The trainings of a run of this recipe."""
    seeds, lines = len(recipe.seeds), list[Training]()
    if recipe.warm is not None:
        lines.append(training("student", seeds, recipe.warm.sft, measured))
    opd = recipe.opd
    as_many = recipe.sft.model_copy(update={"max_steps": opd.max_steps})
    for name, one in recipe.wanted.items():
        way, known = one.options, _other(one.options) is None
        if isinstance(way, PreferenceArm):
            pairs = (recipe.dpo or TreeDPOSettings()).model_copy(update={"max_steps": opd.max_steps})
            lines.append(training(name, seeds, pairs, measured))
        elif isinstance(way, ImitationArm):
            lines.append(training(name, seeds, as_many, measured, known=known))
            if not known:  # how many updates take as long is tried out first
                lines.append(training(f"{name}.pace", seeds, as_many, measured))
        else:
            cold = opd.max_steps and round(way.cold_start * opd.max_steps)
            after_cold_start = opd.model_copy(update={"max_steps": opd.max_steps and opd.max_steps - (cold or 0)})
            lines.append(training(name, seeds, after_cold_start, measured, known=known))
            if way.cold_start:
                first = recipe.sft.model_copy(update={"max_steps": cold})
                lines.append(training(f"{name}.cold", seeds, first, measured))
            if not known:
                short = opd.model_copy(update={"max_steps": min(_PACE, opd.max_steps or _PACE)})
                lines.append(training(f"{name}.pace", 1, short, measured))
    return lines
