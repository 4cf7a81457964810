"""On-policy agentic distillation (OPAD): the student acts, teachers debate every state that it came to, then score its
own actions under those debates.

    L = mean over visited states of  1/|a_m| sum_t  sum_k w_k D( p_k(. | s_m, H_m, a_m,<t)  ||  q(. | s_m, a_m,<t) )

s_m is the prompt with the student's own earlier actions and the environment's answers; H_m is the debate on it. Paper:
arXiv:2605.01347, Eqs. 9 and 10.

Differs from the authors' code, which replays recorded conversations: the environment answers what the student did; each
state is debated by itself; no later observation reaches a teacher. Differs from the paper: episodes are played in
iterations, between which the student is trained, not one an update.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, model_validator

from vivavoce.committee.rehearsal import Planned
from vivavoce.committee.table import Action
from vivavoce.committee.wording import Talk
from vivavoce.config import AgentSpec
from vivavoce.data.steps import Visited, by_action, visited_states
from vivavoce.environments.environment import Episode
from vivavoce.exams.arms import Arm, Pair
from vivavoce.methods.acting import ActingSession
from vivavoce.methods.arms import ListedArm
from vivavoce.methods.distilling import DistilRecipe, main_arm, usual_pairs
from vivavoce.methods.learnt import Learnt, Trained
from vivavoce.methods.measured import Measured
from vivavoce.methods.opad_arms import StepArm, arms_of
from vivavoce.methods.opd_arms import USUAL, DebateChoices
from vivavoce.methods.plan import plan_actions
from vivavoce.methods.trainings import Training, training
from vivavoce.protocols import act_debate
from vivavoce.records import Problem, seed_of
from vivavoce.run import Run
from vivavoce.train.objective import OnPolicyOptions


class Options(DistilRecipe):
    """A recipe of ``method: opad``."""

    acts: ClassVar[bool] = True

    user: AgentSpec | None = Field(
        default=None,
        description="a model that plays the person that the student talks to, if the task's environment has one "
        "(tau2: the customer); None: the scripted one",
    )
    debate: act_debate.Options = Field(
        default=act_debate.Options(), description="how teachers debate each state of an episode"
    )
    opd: OnPolicyOptions = Field(default=OnPolicyOptions(), description="of one iteration")
    iterations: int = Field(default=4, ge=1, description="times that the student plays and is trained (ours)")
    episodes: int = Field(default=200, ge=1, description="training tasks of an iteration; each iteration draws its own")
    rollouts: int = Field(default=1, ge=1, description="episodes of one task in an iteration (paper: 1)")
    expected_turns: float | None = Field(
        default=None,
        gt=0,
        description="turns of a usual episode, for `viva plan`; None: those of reference episodes, or 8 if "
        "the environment shows none",
    )
    arms: list[str] = Field(
        default=["opd", "mt_opd", "debate_opd"],
        min_length=1,
        description="what is trained and compared: names of methods/opad_arms.py, or of own_arms",
    )
    own_arms: dict[str, StepArm] = Field(default={}, description="arms of the user's own, by name")

    @property
    def rules(self) -> Talk:
        return self.debate

    @property
    def places(self) -> dict[tuple[str | int, ...], AgentSpec]:
        return {**super().places, **({("user",): self.user} if self.user else {})}

    @model_validator(mode="after")
    def _user_has_a_name(self) -> Options:
        if self.user and self.user.name in [a.name for a in (*self.teachers, self.student)]:
            raise ValueError(f"user and another agent are both called `{self.user.name}`: give each a name of its own")
        return self

    @property
    def wanted(self) -> dict[str, ListedArm[StepArm]]:
        """The arms by name."""
        return arms_of(self.arms, self.own_arms, [s.name for s in self.scoring_agents])

    @property
    def ways(self) -> dict[str, StepArm]:
        """The training settings of each arm, by its name."""
        return {name: one.options for name, one in self.wanted.items()}

    @property
    def scored_arms(self) -> dict[str, StepArm]:
        return self.ways

    @property
    def students(self) -> list[str]:
        return ["student", *self.wanted]


Seen = dict[tuple[str, int], list[Visited]]


async def learn(s: ActingSession, recipe: Options) -> Learnt:
    """Play, debate and train in iterations."""
    s.set_scorers(recipe.scoring_agents)
    problems, ways = s.task.problems("train"), recipe.ways
    students: dict[str, Trained] = dict.fromkeys(ways, s.start)
    trained: defaultdict[str, list[Trained]] = defaultdict(list)
    debated: set[str] = set()
    counted = list[dict[str, int]]()
    debating: defaultdict[str, float] = defaultdict(float)
    for i in range(recipe.iterations):
        seen = await _visit(s, recipe, problems, students, i)
        tables: defaultdict[DebateChoices, list[Problem]] = defaultdict(list)
        actions = dict[str, Action]()
        for (name, _), states in seen.items():
            if (way := ways[name]).debates:
                tables[way.table] += [one.as_problem(way) for one in states]
            if way.sees_action:
                actions |= {one.problem.id: Action(s.student, one.actions[0].text) for one in states}
        graphs = await s.debate_states(i, tables, actions)
        new = {problem.id for table in tables.values() for problem in table}
        counted.append({"visited": sum(map(len, seen.values())), "states": len(new), "new": len(new - debated)})
        debated |= new
        plans = {}
        for name, way in ways.items():
            held = graphs.get(way.table, {}) if way.debates else {}
            ids = [{one.as_problem(way).id for one in seen[name, seed]} for seed in recipe.seeds] if held else []
            spent = [s.spent_on(way, [held[id] for id in each if id in held]) for each in ids]
            debating[name] += sum(spent) / len(recipe.seeds)
            made = {
                seed: s.teach(f"{name}.{i}-{seed}", way, seen[name, seed], held, recipe.opd) for seed in recipe.seeds
            }
            rows, settings = ({seed: pair[at] for seed, pair in made.items()} for at in (0, 1))
            plans[f"{name}.{i}"] = (students[name], rows, settings)
        models = await s.train(plans)
        for name in ways:
            students[name] = models[f"{name}.{i}"]
            trained[name].append(students[name])

    singles = [name for name, one in recipe.wanted.items() if one.plain == "opd"]
    arms = {name: one.arm(recipe.method, one.options.material) for name, one in recipe.wanted.items()}

    def pairs(best: str | None) -> Sequence[Pair]:
        return usual_pairs(list(ways), singles, ["student"], best)

    def facts() -> dict[str, Any]:
        steps = s.depths() if s.guided else {}
        norms = s.gradients(trained)
        spent = {
            name: {"debate": round(debating[name]), "scoring": sum(map(s.scored_tokens, trained[name]))}
            for name in ways
        }
        counts_by_arm = {"supervision": s.supervision, "teacher_tokens": spent, "iterations": counted}
        return {**counts_by_arm, "steps": steps, "gradient_norms": norms}

    students = {"student": s.start, **students}
    return Learnt(students, {"student": Arm("student")} | arms, pairs, singles, main=main_arm(list(ways)), facts=facts)


def opened(recipe: Options, run: Run, start: Trained | None = None) -> ActingSession:
    """The session in which :func:`learn` works; ``start`` are the students that it begins with."""
    return ActingSession(recipe, run, recipe.debate, recipe.user, start)


async def distill(recipe: Options, run: Run) -> dict[str, Any]:
    """Episodes, debates, students, tests; returns what ``results.json`` holds."""
    async with opened(recipe, run) as s:
        return await s.results(await learn(s, recipe))


async def _visit(
    s: ActingSession, recipe: Options, problems: list[Problem], students: dict[str, Trained], i: int
) -> Seen:
    """The states of each arm's student, or of the reference, in this iteration, by arm and training seed."""
    groups, by_arm = {p.id: p.group for p in problems}, Seen()
    for seed in recipe.seeds:
        rng = random.Random(seed_of(recipe.seed, seed, "episodes", i))
        drawn = rng.sample(problems, min(recipe.episodes, len(problems)))
        draws = [seed_of(recipe.seed, seed, i, n) for n in range(recipe.rollouts)]
        gold: list[Episode] = []
        if any(arm.states == "gold" or arm.reference for arm in recipe.ways.values()):
            gold = await s.references(drawn, recipe.seed)
        for name, arm in recipe.ways.items():
            model, sampling, stage = students[name].of(seed), recipe.student.sampling(), f"iteration-{i}-seed-{seed}"
            from_gold = round(arm.reference * len(drawn))
            episodes = gold[:] if arm.states == "gold" else gold[:from_gold]
            for draw in draws if arm.states == "student" else ():
                episodes += await s.play(stage, model, drawn[from_gold:], sampling, draw, s.task)
            states = visited_states(episodes, groups, arm, seed_of(recipe.seed, seed, i))
            if arm.states == "gold":
                await s.acts(stage, model, states, sampling, seed_of(recipe.seed, seed, i))
                states = [state for state in states if state.actions]
            by_arm[name, seed] = by_action(states) if arm.sees_action else states
    return by_arm


async def pilot(recipe: Options, run: Run, questions: int) -> None:
    """Play some training tasks with the untrained student, and debate its states."""
    async with opened(recipe, run) as s:
        problems = s.draw_questions("train", questions)
        model, sampling = s.start.of(recipe.seeds[0]), recipe.student.sampling()
        episodes = await s.play("pilot", model, problems, sampling, recipe.seed, s.task)
        states = visited_states(episodes, {}, StepArm(), recipe.seed)
        await s.debate_states("pilot", {USUAL: [one.problem for one in states]})


def plan(recipe: Options, measured: Measured | None = None) -> list[Planned]:
    """The calls that a run of this recipe will make."""
    rounds = recipe.iterations * len(recipe.seeds) * recipe.episodes
    acted = rounds * sum(recipe.rollouts if arm.states == "student" else 1 for arm in recipe.ways.values())
    held = sum(arm.debates for arm in recipe.ways.values()) * rounds
    students = 1 + len(recipe.seeds) * len(recipe.wanted)
    return plan_actions(recipe, recipe.debate, acted, held, students, recipe.expected_turns, recipe.user, measured)


def trainings(recipe: Options, measured: Measured | None = None) -> list[Training]:
    """The trainings of a run of this recipe."""
    models = recipe.iterations * len(recipe.seeds)
    return [training(name, models, recipe.opd, measured) for name in recipe.wanted]


__all__ = ["Options", "distill", "learn", "opened", "pilot", "plan", "trainings"]
