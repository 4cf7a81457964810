"""Debate & Reflect: teachers and student debate; SFT on right answers, then T-DPO on right against wrong ones.

Paper: arXiv:2506.03541. Differs from the authors' code: docs/decisions/0002. On the same questions it also trains the
arms to compare with: each single teacher, all teachers without debate (and the best of their drafts, if the method
learns from winners). Another arm is the SFT-only student, trained on for as long as T-DPO took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from vivavoce.committee.rehearsal import Planned
from vivavoce.committee.wording import Talk
from vivavoce.config import Recipe
from vivavoce.data.examples import examples
from vivavoce.data.interactions import interactions
from vivavoce.data.rules import ExampleRules, TreeRules
from vivavoce.data.trees import preference_trees
from vivavoce.errors import RecipeError
from vivavoce.exams.arms import Arm, Pair
from vivavoce.exams.notes import effect
from vivavoce.graph import Graph
from vivavoce.methods.arms import ListedArm, after_what_they_need
from vivavoce.methods.attempts import attempt
from vivavoce.methods.debating import DebateSession
from vivavoce.methods.learnt import Learnt, Trained
from vivavoce.methods.looking import Looks
from vivavoce.methods.looking import check as check_looks
from vivavoce.methods.looking import rules as look
from vivavoce.methods.measured import Measured
from vivavoce.methods.plan import plan_debate
from vivavoce.methods.reflect_arms import (
    SILENT,
    Attempts,
    ReflectArm,
    arms_of,
    changed_section,
    check,
    needed_arms,
    usual,
)
from vivavoce.methods.trainings import Training, training
from vivavoce.methods.voting import committee, votes_against_debate
from vivavoce.progress import say
from vivavoce.protocols import debate_reflect as protocol
from vivavoce.run import Run
from vivavoce.train.gate import together
from vivavoce.train.jobs import Settings
from vivavoce.train.settings import MAGDiSettings, SFTSettings, TreeDPOSettings

_TRAIN = "train"


class Options(Recipe):
    """A recipe of ``method: debate_reflect``."""

    debate: protocol.Options = Field(default=protocol.Options(), description="how teachers and student debate")
    examples: ExampleRules = Field(default=ExampleRules(), description="which answers become rows of SFT")
    sft: SFTSettings = Field(default=SFTSettings(), description="supervised fine-tuning on those rows")
    attempts: Attempts = Field(default=Attempts(), description="answers of the student between SFT and T-DPO")
    trees: TreeRules = Field(default=TreeRules(), description="how preference trees are grown from the debates")
    dpo: TreeDPOSettings = Field(default=TreeDPOSettings(), description="T-DPO on those trees, after SFT")
    magdi: MAGDiSettings = Field(default=MAGDiSettings(), description="MAGDi: learning from whole graphs of debates")
    arms: list[str] = Field(
        default_factory=lambda data: usual(data["examples"].take if "examples" in data else "right"),
        min_length=1,
        description="what is trained and compared: names of methods/reflect_arms.py, or of own_arms",
    )
    looks: Looks = Field(Looks(), description="students that look at their test answers again, as further arms")
    own_arms: dict[str, ReflectArm] = Field({}, description="arms of the user's own, by name")

    @property
    def rules(self) -> Talk:
        return self.debate

    @property
    def wanted(self) -> dict[str, ListedArm[ReflectArm]]:
        """The arms by name."""
        return arms_of(self.arms, self.own_arms, [t.name for t in self.teachers], self._rounds)

    @property
    def needed(self) -> dict[str, ListedArm[ReflectArm]]:
        """The arms that are trained: those that are wanted, and those that one of them starts from."""
        return needed_arms(self.arms, self.own_arms, [t.name for t in self.teachers], self._rounds)

    @property
    def _rounds(self) -> int:
        return getattr(self.debate, "max_rounds", 1)

    def debate_of(self, arm: ReflectArm) -> Talk:
        """The rules of the debates that an arm learns from."""
        return changed_section(self.debate, arm.debate)

    @property
    def held(self) -> dict[str, Talk]:
        """The debates that are held for the arms, by the name of their stage: the recipe's own, then the others by the
        first arm that learns from them."""
        rules_by_stage: dict[str, Talk] = {_TRAIN: self.debate}
        for name, one in self.needed.items():
            if (rules := self.debate_of(one.options)) not in rules_by_stage.values():
                rules_by_stage[f"{_TRAIN}:{name}"] = rules
        return rules_by_stage

    @property
    def students(self) -> list[str]:
        return ["student", *self.wanted]

    @property
    def compared(self) -> list[str]:
        looked = [name for _, _, name in self.looks.looked]
        return [*self.students, *looked, *(arm.name for arm in committee(self))]

    @model_validator(mode="after")
    def _arms_can_be_had(self) -> Options:
        there = [t.name for t in self.teachers]
        check_looks(self.looks, self.students)
        for name, one in self.needed.items():
            if unknown := [t for t in one.options.teachers or () if t not in there]:
                raise ValueError(
                    f"arm `{name}` names `{unknown[0]}`, which is not a teacher; the teachers are {', '.join(there)}"
                )
            check(name, one.options, self)
            if (other := one.options.seconds_of) is not None and self.needed[
                str(one.options.start)
            ].options.learn != "answers":
                raise ValueError(
                    f"arm `{name}` takes as long as `{other}` by the pace of `{one.options.start}`, which is not SFT"
                )
            if (other := one.options.as_long_as) is not None and self.needed[other].options.learn != "trees":
                raise ValueError(f"arm `{name}` takes as long as `{other}`, which is not an arm of T-DPO")
        return self


async def learn(s: DebateSession, recipe: Options) -> Learnt:
    """Make debates, rows, students, trees and students of trees. Each student sits its tests when it is trained."""
    problems = s.task.problems("train")
    held = [(rules, await s.debate(problems, stage, rules)) for stage, rules in recipe.held.items()]
    school = _School(s, recipe, held)

    async def examined() -> dict[str, Trained]:
        await s.examine({"student": s.start})
        return {}

    # What a student goes through is one thing after another and fills no two cores: seeds are trained side by side.
    trained = Trained.merge(await together(*map(school.teach, recipe.seeds), examined()))
    if not trained:
        do = "look with `viva graph show`: rows need right answers, and trees need wrong ones too"
        raise RecipeError("no arm of the run has anything to learn from", str(s.run.path / "data"), do)
    students = {"student": s.start} | {name: trained[name] for name in recipe.wanted if name in trained}
    arms = {
        name: one.arm(recipe.method, one.options.material, one.options.start) for name, one in recipe.wanted.items()
    }
    singles = [name for name, one in recipe.wanted.items() if one.plain == "single"]

    main = _main(recipe.wanted)

    def pairs(best: str | None) -> Sequence[Pair]:
        votes = votes_against_debate(s.committee())
        return _pairs(list(arms), main, singles, best) + s.looks.pairs + votes

    facts = {"notes": (notes := school.notes())}
    if notes and "turns" in notes:
        effects = f"notes changed {notes['answers_changed']:.1%} of the {notes['turns']:,} answers that read them"
        say(f"{effects}: {notes['right']:,} are right, {notes['right_without']:,} of the same turns without notes")
    return Learnt(students, {"student": Arm("student")} | arms, pairs, singles, main, lambda: facts)


def _pairs(arms: Sequence[str], main: str, singles: Sequence[str], best: str | None) -> list[Pair]:
    """The arms to test against each other: SFT against the best arm without a debate, then every arm against the
    method.

    Of the single teachers' students only the ``best`` is compared.
    """
    rivals = [best, *(a for a in arms if a not in singles)]
    drafts = [a for a in (best, "multi_teacher_vote") if a in (best, *arms) and a is not None]
    chosen = [(a, "debate_reflect_sft") for a in drafts if "debate_reflect_sft" in arms]
    return chosen + [(a, main) for a in ("student", *rivals) if a is not None and a != main]


def _main(wanted: Mapping[str, ListedArm[ReflectArm]]) -> str:
    """The arm that the run is about: the method's own, else the last one of T-DPO, else the last one."""
    of_trees = [name for name, one in wanted.items() if one.options.learn == "trees"]
    usual = [name for name in ("debate_reflect", "debate_reflect_sft") if name in wanted]
    return (usual[:1] or of_trees[-1:] or list(wanted)[-1:])[0]


class _School:
    """The material of a run's arms: rows that all seeds share, made once, and trees of each student's own."""

    def __init__(self, s: DebateSession, recipe: Options, held: Sequence[tuple[Talk, Sequence[Graph]]]) -> None:
        self.s, self.recipe, self.held, self.arms = s, recipe, held, recipe.needed

    def graphs(self, arm: ReflectArm) -> Sequence[Graph]:
        """The debates that an arm learns from: all of them, or the first."""
        held = next(graphs for rules, graphs in self.held if rules == self.recipe.debate_of(arm))
        return held if arm.share == 1 else held[: max(1, round(arm.share * len(held)))]

    def notes(self) -> dict[str, Any] | None:
        """The effect of notes on the answers of agents that read them: of all notes, and of each kind, if debates
        without them are held. None if there is nothing to compare.
        """
        debate, full = self.recipe.debate, self.held[0][1]
        effects = dict[str, dict[str, Any] | None]()
        for kind, silent in SILENT.items():
            try:
                rules = changed_section(debate, silent)
            except ValueError:  # of a protocol without such notes
                continue
            bare = next((graphs for other, graphs in self.held[1:] if other == rules), None)
            effects[kind] = None if bare is None else effect(self.s.task, full, bare)
        by_kind = {kind: one for kind, one in effects.items() if one and kind}
        return {**(effects.get("") or {}), **({"without": by_kind} if by_kind else {})} or None

    @cached_property
    def rows(self) -> dict[str, Path]:
        """Rows of the arms that learn answers or graphs, without those that have none."""
        make = {"answers": self._right, "graphs": self._discussions}
        made = {
            name: make[one.options.learn](name, one.options)
            for name, one in self.arms.items()
            if one.options.learn in make
        }
        return self.s.with_rows(made)

    def _right(self, name: str, arm: ReflectArm) -> Path:
        s, take = self.s, changed_section(self.recipe.examples, arm.examples)
        teachers = arm.teachers or s.everyone
        return s.rows(name, examples(self.graphs(arm), take, teachers, s.wording, s.student))

    def _discussions(self, name: str, arm: ReflectArm) -> Path:
        return self.s.rows(name, interactions(self.graphs(arm), arm.teachers or self.s.teachers, self.s.wording))

    async def teach(self, seed: int) -> dict[str, Trained]:
        """The students of one training seed, by arm: each starts when those that it needs are there."""
        names = {name: one.options.needs for name, one in self.arms.items()}
        wanted = self.recipe.wanted

        async def train(name: str, before: Mapping[str, Trained | None]) -> Trained | None:
            if (lesson := await self._lesson(name, self.arms[name].options, before, seed)) is None:
                return None
            return (await self.s.train({name: lesson}, [seed]))[name]

        async def test(name: str, student: Trained | None) -> None:
            if student is not None and name in wanted:
                await self.s.examine({name: student})

        trained = await after_what_they_need(names, train, test)
        return {name: student for name, student in trained.items() if student is not None}

    async def _lesson(
        self, name: str, arm: ReflectArm, before: Mapping[str, Trained | None], seed: int
    ) -> tuple[Trained, Path, Settings] | None:
        """The start, rows and settings of an arm's training; None if there is nothing to learn from."""
        start = self.s.start if arm.start is None else before[arm.start]
        if start is None:
            if seed == self.recipe.seeds[0]:
                say(f"left out, because it starts from {arm.start}, which was not trained: {name}")
            return None
        if arm.learn != "trees":
            settings = (
                self._steps(arm, before, seed)
                if arm.learn == "answers"
                else changed_section(self.recipe.magdi, arm.magdi)
            )
            return None if name not in self.rows or settings is None else (start, self.rows[name], settings)
        trees = await self._trees_of(name, arm, start, seed)
        if not trees.stat().st_size:
            say(f"left out, because there are no trees of right and wrong answers: {name}, seed {seed}")
            return None
        return start, trees, changed_section(self.recipe.dpo, arm.dpo)

    def _steps(self, arm: ReflectArm, before: Mapping[str, Trained | None], seed: int) -> SFTSettings | None:
        settings = changed_section(self.recipe.sft, arm.sft)
        if arm.as_long_as is None:
            return settings
        if (other := before[arm.as_long_as]) is None:
            return None
        dpo = changed_section(self.recipe.dpo, self.arms[arm.as_long_as].options.dpo)
        updates = other.result(seed)["steps"]
        if arm.seconds_of is not None and (start := before[str(arm.start)]) is not None:
            pace = start.result(seed)
            updates = max(1, round(other.result(seed)["seconds"] * pace["steps"] / pace["seconds"]))
        return settings.model_copy(update={"learning_rate": dpo.learning_rate, "muon": dpo.muon, "max_steps": updates})

    async def _trees_of(self, name: str, arm: ReflectArm, start: Trained, seed: int) -> Path:
        """The trees of a student, kept as ``trees-SEED``; trees of an arm with its own rules are kept under its
        name.
        """
        other = arm.start != "debate_reflect_sft" or arm.debate or arm.share != 1
        own = other or arm.trees or arm.attempts
        attempts = changed_section(self.recipe.attempts, arm.attempts)
        tried = await attempt(self.s, self.graphs(arm), start, seed, attempts.samples, attempts.temperature)
        grown = preference_trees(tried, self.s.grower(changed_section(self.recipe.trees, arm.trees)))
        return self.s.rows(f"{name}.trees-{seed}" if own else f"trees-{seed}", grown)


def opened(recipe: Options, run: Run, start: Trained | None = None) -> DebateSession:
    """The session in which :func:`learn` works; ``start`` are the students that it begins with."""
    return DebateSession(recipe, run, recipe.debate, start)


async def distill(recipe: Options, run: Run) -> dict[str, Any]:
    """Debate, train, test; returns what ``results.json`` holds."""
    async with opened(recipe, run) as s:
        return await s.results(await learn(s, recipe))


async def pilot(recipe: Options, run: Run, questions: int) -> None:
    """Ask some questions as a run would, so that a plan can use it. The run pays for none of them again."""
    async with opened(recipe, run) as s:
        for stage, rules in recipe.held.items():
            await s.debate(s.draw_questions("train", questions), stage, rules)
        if recipe.test.committee:
            await s.debate_test(s.draw_questions("test", questions))
        await s.examine({"student": s.start}, questions)


def plan(recipe: Options, measured: Measured | None = None) -> list[Planned]:
    """The calls that a run of this recipe will make."""
    grown = [one.options for one in recipe.needed.values() if one.options.learn == "trees"]
    tried = {(arm.start, changed_section(recipe.attempts, arm.attempts)) for arm in grown}
    attempts = sum(attempts.samples for _, attempts in tried)
    looked = {name: look(recipe.debate, mode) for _, mode, name in recipe.looks.looked}
    students = 1 + len(recipe.seeds) * len(recipe.wanted)
    return plan_debate(recipe, recipe.held, attempts, students, looked, measured)


def trainings(recipe: Options, measured: Measured | None = None) -> list[Training]:
    """The trainings of a run of this recipe."""
    lines, models, arms = list[Training](), len(recipe.seeds), {k: one.options for k, one in recipe.needed.items()}
    for name, arm in arms.items():
        sft = changed_section(recipe.sft, arm.sft)
        if arm.as_long_as is not None:
            sft = sft.model_copy(update={"max_steps": changed_section(recipe.dpo, arms[arm.as_long_as].dpo).max_steps})
        settings = {
            "answers": sft,
            "trees": changed_section(recipe.dpo, arm.dpo),
            "graphs": changed_section(recipe.magdi, arm.magdi),
        }
        lines.append(training(name, models, settings[arm.learn], measured, known=arm.seconds_of is None))
    return lines
