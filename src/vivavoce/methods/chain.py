"""A chain: several methods, one after the other, each starting from a student of the one before.

All stages share the questions, teachers, tests, training seeds, journal and budget of the recipe. A stage has the
sections of its own method, and a folder of its own, ``stages/NAME``, which is a run directory but for the journal. Arms
are called ``STAGE.ARM`` in the results. If a stage examines the student, or debates with it, that is the student of the
first training seed: one debate serves all seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vivavoce import plugins
from vivavoce.committee.rehearsal import Planned, Span
from vivavoce.committee.wording import Talk
from vivavoce.config import AgentSpec, Recipe, with_protocols
from vivavoce.errors import RecipeError
from vivavoce.exams.arms import Arm, Pair, planned_pairs
from vivavoce.exams.examine import Judged
from vivavoce.methods.budgets import questions_and_prompts, require
from vivavoce.methods.comparing import comparison
from vivavoce.methods.learnt import Learnt, Trained, folders
from vivavoce.methods.measured import Measured
from vivavoce.methods.session import Session, best_of
from vivavoce.methods.trainings import Training
from vivavoce.mistakes import Misplaced, WithinPart
from vivavoce.run import Run
from vivavoce.tasks import open_task

_OF_THE_WHOLE = set(Recipe.model_fields) - {"method"}
"""Keys that all stages share."""
_UNTAUGHT = "student"
"""The arm of the student before any training."""


class Stage(BaseModel):
    """One stage: its method, the arm that it starts from; other keys are the method's own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str = Field(description="a file of vivavoce/methods, or a path to one")
    name: str = Field(
        default="", pattern=r"^(\w[\w-]*)?$", description="name of the stage; default: that of its method"
    )
    start: str | None = Field(
        default=None,
        description="the arm to start from: one of the stage before, STAGE.ARM of any before, or student; the first "
        "stage starts from the student as it came",
    )

    @property
    def called(self) -> str:
        """The name of the stage."""
        return self.name or self.method


class Options(Recipe):
    """A recipe of ``method: chain``."""

    stages: list[Stage] = Field(min_length=1, description="the methods, in order")

    @property
    def parts(self) -> Mapping[str, Recipe]:
        """The recipe of each stage, by its name. Raises Misplaced or WithinPart if one is wrong."""
        return self._resolved

    @cached_property
    def _resolved(self) -> dict[str, Recipe]:
        shared = {key: value for key, value in self.model_dump().items() if key in _OF_THE_WHOLE - {"pairs", "name"}}
        recipes: dict[str, Recipe] = {}
        for i, stage in enumerate(self.stages):
            own = dict(stage.model_extra or {})
            if twice := next((key for key in own if key in _OF_THE_WHOLE), None):
                raise Misplaced(f"`{twice}` is the same in all stages: write it in the chain", "stages", i, twice)
            if stage.called in recipes:
                raise Misplaced(f"two stages are called `{stage.called}`: give one a `name`", "stages", i)
            model = _model(stage, i)
            try:
                values = {**shared, **own, "method": stage.method, "name": f"{self.name}.{stage.called}"}
                recipes[stage.called] = model.model_validate(values)
            except ValidationError as e:
                raise WithinPart(e, model, "stages", i) from None
        return recipes

    @property
    def rules(self) -> Talk:
        return next(iter(self.parts.values())).rules

    @property
    def places(self) -> dict[tuple[str | int, ...], AgentSpec]:
        specs, there = super().places, set(super().places)
        for i, part in enumerate(self.parts.values()):
            specs |= {("stages", i, *loc): spec for loc, spec in part.places.items() if loc not in there}
        return specs

    @property
    def students(self) -> list[str]:
        return [_UNTAUGHT, *(f"{name}.{arm}" for name, part in self.parts.items() for arm in part.students[1:])]

    @property
    def compared(self) -> list[str]:
        arms = {name: part.compared[1:] for name, part in self.parts.items()}
        return [_UNTAUGHT, *(f"{name}.{arm}" for name, those in arms.items() for arm in those)]

    def starts(self) -> list[str]:
        """The arm that each stage starts from, by its name in the results. Raises Misplaced if there is no such arm."""
        origins, before = list[str](), ""
        there = [_UNTAUGHT]
        for i, (stage, (name, part)) in enumerate(zip(self.stages, self.parts.items(), strict=True)):
            near = [arm.removeprefix(f"{before}.") for arm in there if arm.startswith(f"{before}.")]
            if stage.start is None and i:
                raise Misplaced(f"stage `{name}` has no `start`: name an arm of `{before}`", "stages", i)
            start = stage.start or _UNTAUGHT
            full = f"{before}.{start}" if start in near else start
            if full not in there:
                known = f"{before} trains {', '.join(near)}" if near else "no stage before it trains anything"
                raise Misplaced(f"no stage before `{name}` trains an arm `{start}`: {known}", "stages", i, "start")
            origins.append(full)
            there += [f"{name}.{arm}" for arm in part.students[1:]]
            before = name
        return origins

    @model_validator(mode="after")
    def _stages_fit(self) -> Options:
        self.starts()
        return self


def _method(stage: Stage, i: int) -> ModuleType:
    """The module of a stage's method. Raises Misplaced if there is none that can be a stage."""
    try:
        method = plugins.load("methods", stage.method, "stages")
    except RecipeError as e:
        raise Misplaced(e.what, "stages", i, "method") from None
    if not (hasattr(method, "learn") and hasattr(method, "opened")):
        what = f"`{stage.method}` cannot be a stage: it defines no `learn` and no `opened`"
        raise Misplaced(what, "stages", i, "method")
    return method


def _model(stage: Stage, i: int) -> type[Recipe]:
    """The recipe of a stage's method, with the keys of the protocol that the stage names, if it names one."""
    try:
        return with_protocols(_method(stage, i).Options, stage.model_extra or {}, lambda loc: "stages")
    except RecipeError as e:
        raise Misplaced(e.what, "stages", i) from None


@dataclass
class _SoFar:
    """The outcome of the stages so far; arms by their names in the results."""

    students: dict[str, Trained] = field(default_factory=dict)
    arms: dict[str, Arm] = field(default_factory=dict)
    tested: dict[str, Mapping[int, Sequence[Judged]]] = field(default_factory=dict)
    also: dict[str, dict[str, Mapping[int, Sequence[Judged]]]] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    drawn: dict[str, Any] = field(default_factory=dict)
    main: str | None = None

    async def add(self, stage: str, start: str, s: Session[Any], part: Recipe, learnt: Learnt) -> None:
        """Test the students of a stage, and add them."""
        began = part.students[0]

        def called(arm: str) -> str:
            return start if arm == began else f"{stage}.{arm}"

        new = {name: t for name, t in learnt.students.items() if called(name) not in self.tested}
        tested, also = await s.tests(new)
        self.drawn |= {called(name): drawn for name, drawn in (await s.draw(new)).items()}
        best = best_of([name for name in learnt.singles if name in tested], tested)
        for name, arm in {**learnt.arms, **{arm.name: arm for arm in s.beside(learnt.arms)}}.items():
            before = start if arm.start is None else called(arm.start)
            if called(name) not in self.arms:
                of = replace(arm, name=called(name), stage=stage if name != began else "")
                self.arms[called(name)] = replace(of, start=before if arm.material and before != _UNTAUGHT else None)
        self.students |= {called(name): student for name, student in learnt.students.items()}
        self.tested |= {called(name): rows for name, rows in tested.items()}
        for other, arms in also.items():
            self.also.setdefault(other, {}).update({called(name): rows for name, rows in arms.items()})
        self.main = called(learnt.main) if learnt.main else None
        self.pairs += [(called(a), called(b)) for a, b in learnt.pairs(best)]
        self.pairs += [(_UNTAUGHT, self.main)] if self.main else []
        leaders = {"best_single": called(best) if best else None, "main": self.main}
        self.facts[stage] = {"method": part.method, "start": start, **leaders, **learnt.facts()}


async def distill(recipe: Options, run: Run) -> dict[str, Any]:
    """Every stage in turn, each with its tests; returns what ``results.json`` holds."""
    so_far = _SoFar()
    for part in recipe.parts.values():  # before the first of them spends anything
        require(part, *questions_and_prompts(part))
    for i, ((name, part), start) in enumerate(zip(recipe.parts.items(), recipe.starts(), strict=True)):
        method = _method(recipe.stages[i], i)
        if i and start not in so_far.students:
            do = "read the message about it above, or start from another arm"
            raise RecipeError(f"arm `{start}` was left out, and stage `{name}` starts from it", f"stages.{i}.start", do)
        async with method.opened(part, run.part(name, part), so_far.students.get(start)) as s:
            await so_far.add(name, start, s, part, await method.learn(s, part))
    pairs = planned_pairs(so_far.pairs, recipe.pairs, list(so_far.arms))
    facts = {"main": so_far.main, "stages": so_far.facts, "students": folders(so_far.students, run.path)}
    task = open_task(recipe.task.name, recipe.task.options)
    others = {name: open_task(spec.name, spec.options) for name, spec in recipe.also_test.items()}
    return comparison(
        recipe,
        run,
        (task, others),
        (so_far.tested, so_far.also),
        pairs,
        so_far.arms,
        so_far.students,
        so_far.drawn,
        run.seconds,
        facts,
    )


async def pilot(recipe: Options, run: Run, questions: int) -> None:
    """Ask some questions as the first stage would, so that a plan can use it. Later stages depend on its training."""
    name, part = next(iter(recipe.parts.items()))
    await _method(recipe.stages[0], 0).pilot(part, run.part(name, part), questions)


def plan(recipe: Options, measured: Measured | None = None) -> list[Planned]:
    """The calls that a run of this recipe will make: each stage's, under its name."""
    tasks = {"test": recipe.task} | {f"test:{name}": spec for name, spec in recipe.also_test.items()}
    sizes = {stage: len(open_task(spec.name, spec.options).problems("test")) for stage, spec in tasks.items()}
    lines = list[Planned]()
    for i, (name, part) in enumerate(recipe.parts.items()):
        for line in _method(recipe.stages[i], i).plan(part, measured and measured.of(name)):
            if i and line.stage in sizes:  # the student that a later stage begins with was tested by the one before
                line = _scale(line, 1 - sizes[line.stage] / max(1, line.calls.most))
            if line.calls.most:
                lines.append(replace(line, stage=f"{name}/{line.stage}"))
    return lines


def _scale(line: Planned, share: float) -> Planned:
    """A share of a line of the plan."""

    def part(span: Span) -> Span:
        return Span(span.least * share, span.expected * share, span.most * share)

    spans = {of: part(getattr(line, of)) for of in ("calls", "prompt_tokens", "completion_tokens", "money")}
    return replace(line, **spans)


def trainings(recipe: Options, measured: Measured | None = None) -> list[Training]:
    """The trainings of a run of this recipe."""
    return [
        replace(line, arm=f"{name}.{line.arm}")
        for i, (name, part) in enumerate(recipe.parts.items())
        for line in _method(recipe.stages[i], i).trainings(part, measured)
    ]


__all__ = ["Options", "Stage", "distill", "pilot", "plan", "trainings"]
