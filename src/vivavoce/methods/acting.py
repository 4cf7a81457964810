"""The verbs of methods in which the student acts: episodes, debates on the states in them, supervision step by step."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from vivavoce.committee.table import Action
from vivavoce.committee.wording import Talk
from vivavoce.config import AgentSpec, Recipe
from vivavoce.data.steps import Visited, step_states
from vivavoce.environments.environment import Environment, Episode, Guide
from vivavoce.environments.episodes import play, reference, shows
from vivavoce.environments.words import for_agent, offering
from vivavoce.errors import RecipeError
from vivavoce.exams.examine import Judged
from vivavoce.files import file_name
from vivavoce.graph import Graph
from vivavoce.methods.asking import kept_rows
from vivavoce.methods.distilling import DistilSession
from vivavoce.methods.learnt import Trained
from vivavoce.methods.opad_arms import StepArm
from vivavoce.methods.opd_arms import DebateChoices
from vivavoce.methods.seats import acting, need_person
from vivavoce.progress import say
from vivavoce.records import Completion, Problem, Sampling, Usage, digest, seed_of, to_json
from vivavoce.run import Run
from vivavoce.tasks import Task
from vivavoce.tasks.acting import Peopled, was_best
from vivavoce.train.objective import OnPolicyOptions, OnPolicySettings
from vivavoce.train.settings import read_curve

_DEEPEST = 12
"""Steps whose errors are counted one by one; later ones are few."""


class ActingSession(DistilSession):
    """A session whose student acts in the task's environment. Opened and closed as a Session is."""

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        rules: Talk,
        user: AgentSpec | None = None,
        start: Trained | None = None,
    ) -> None:
        super().__init__(recipe, run, rules, start)
        self._user, tasks = user, (self.task, *self.also.values())
        for task in tasks:
            acting(task)
        if user:
            need_person(user, *tasks)
        self.tested: dict[str, dict[int, Sequence[Episode]]] = {}
        # of all students that play at the same time, because a server of environments has room for so many
        self._episodes_at_once = asyncio.Semaphore(recipe.in_flight)

    @property
    def guided(self) -> bool:
        """Whether the environment knows which actions are best."""
        return isinstance(acting(self.task).environment(), Guide)

    def _world(self, task: Task) -> Environment:
        """A fresh environment of a task, with the person that the recipe puts in it."""
        if self._user and isinstance(task, Peopled):
            return task.peopled(self._agents[self._user.name], self._user.sampling(), self.run.journal)
        return acting(task).environment()

    async def play(
        self,
        stage: str,
        model: tuple[Path, str],
        problems: Sequence[Problem],
        sampling: Sampling,
        seed: int,
        task: Task,
    ) -> list[Episode]:
        """Let a student act in every problem's environment once. Episodes are read back if nothing has changed."""
        folder, fingerprint = model
        settings = [fingerprint, digest([to_json(p) for p in problems]), to_json(sampling), seed, task.name]
        depends = [*settings, acting(task).environment().limits.turns, self._other_agents(task)]
        path = self.run.path / "episodes" / f"{file_name(stage)}-{digest(depends)[:12]}.jsonl"

        async def ask() -> list[Episode]:
            agent = self._agents.another(self.recipe.student, model=str(folder))
            with self.run.counting(f"episodes of {stage}", len(problems)) as advance:

                async def one(problem: Problem) -> Episode:
                    async with self._episodes_at_once:
                        world = for_agent(self._world(task), agent)
                        episode = await play(world, agent, problem.id, seed, sampling, self.run.journal)
                    advance()
                    return episode

                played = list(await asyncio.gather(*map(one, problems)))
            await agent.aclose()
            if failed := sum(map(_is_cut_off, played)):
                say(f"{failed} episodes ended because a call failed for good (viva run --retry-failed continues them)")
            return played

        return list(await kept_rows(self.run, path, depends, Episode, _is_cut_off, ask))

    async def references(self, problems: Sequence[Problem], seed: int) -> list[Episode]:
        """The environment's own episodes, as the student would read them. Raises RecipeError if it shows none."""
        if not shows(acting(self.task).environment()):
            do = "leave out arms with states: gold, or reference: above 0"
            raise RecipeError(f"`{self.task.name}` has no reference episodes", "arms", do)
        agent = self._agents[self.student]

        async def one(problem: Problem) -> Episode:
            async with self._episodes_at_once:
                return await reference(for_agent(self._world(self.task), agent), problem.id, seed)

        return list(await asyncio.gather(*map(one, problems)))

    def _other_agents(self, task: Task) -> list[str]:
        """The agents in a task's environment besides the student, on which episodes depend."""
        if self._user is None or not isinstance(task, Peopled):
            return []
        return [self._agents[self._user.name].identity, to_json(self._user.sampling())]

    async def acts(
        self, stage: str, model: tuple[Path, str], seen: Sequence[Visited], sampling: Sampling, seed: int
    ) -> None:
        """Ask a student for its action in states that it did not come to, and note it there.

        As in an episode, an action that was cut off or is empty is no example.
        """
        agent = self._agents.another(self.recipe.student, model=str(model[0]))
        gate = asyncio.Semaphore(self.recipe.in_flight)
        drawn = offering(sampling, acting(self.task).environment(), agent)
        with self.run.counting(f"actions of {stage}", len(seen)) as advance:

            async def one(state: Visited) -> None:
                id, messages = state.problem.id, list(state.problem.history)
                async with gate:
                    call = self.run.journal.call(agent, messages, drawn, seed_of(seed, id), stage="act", problem=id)
                    reply = (answered := await call).reply
                advance()
                if reply is not None and not reply.cut and reply.text.strip():
                    state.actions.append(Completion(reply.text, answered.key, reply.ids))

            await asyncio.gather(*map(one, seen))
        await agent.aclose()

    async def debate_states(
        self,
        iteration: int | str,
        wanted: Mapping[DebateChoices, Iterable[Problem]],
        actions: Mapping[str, Action] | None = None,
    ) -> dict[DebateChoices, dict[str, Graph]]:
        """Debates by table and state. A state that was debated before, in any run of this folder, is read
        from the journal. ``actions`` are what was done there, by state, for tables that see it."""
        if self._user and self._user.backend == "hf_local":  # debates want the memory
            await self._agents[self._user.name].aclose()
        by_table: dict[DebateChoices, dict[str, Graph]] = {}
        for table, states in wanted.items():
            if problems := list({p.id: p for p in states}.values()):
                done = actions if table.sees_action else None
                held = await self.debate(problems, table, stage=f"states-{iteration}", actions=done)
                by_table[table] = {g.problem.id: g for g in held}
        return by_table

    def teach(
        self,
        name: str,
        arm: StepArm,
        seen: Sequence[Visited],
        graphs: Mapping[str, Graph],
        options: OnPolicyOptions,
    ) -> tuple[Path, OnPolicySettings]:
        """The states of an arm, written into the run, and how to train on them."""
        scorers = list(self.scorers if arm.scorers is None else arm.scorers)
        wording = self._wording_of(arm.table.rules(self.rules))
        rows, counts = step_states(seen, graphs, arm, scorers, wording, self.recipe.seed)
        self.supervision[name] = {**counts.facts(), "visits": sum(len(v.actions) or 1 for v in seen)}
        self._enough(name, counts, len(seen), options, arm)
        learn_from, share = arm.learn_from or options.learn_from, 1.0 if arm.act_again else 0.0
        return self.rows(name, rows), self._how(options, scorers, arm, learn_from=learn_from, on_policy=share)

    # --- tests

    async def _examine_model(
        self,
        model: tuple[Path, str],
        problems: Sequence[Problem],
        task: Task,
        stage: str,
        arm_and_seed: tuple[str, int],
        kept: Path,
        draw: int | None = None,
    ) -> Sequence[Judged]:
        """Put one model in the environments of test tasks. The episodes are kept; outcomes are counted from them.

        ``draw`` is the number of a drawn episode, for pass@k.
        """
        arm, seed = arm_and_seed
        if draw is not None:
            sampling = replace(self._exam_sampling, temperature=self.recipe.test.draws_temperature)
            own = seed_of(self.recipe.seed, "draw", draw)
            episodes = await self.play(f"{stage} {arm}-{seed}-{draw}", model, problems, sampling, own, task)
        else:
            of_arm = self.tested.setdefault(arm, {}) if task is self.task else {}  # arms in the order of their sitting
            of_arm[seed] = episodes = await self.play(
                f"{stage} {arm}-{seed}", model, problems, self._exam_sampling, self.recipe.seed, task
            )
        return [_judged_episode(p, e) for p, e in zip(problems, episodes, strict=True)]

    def depths(self) -> dict[str, dict[str, Any]]:
        """Errors of each arm, over all seeds: actions that were not best by their place in the episode, after a best
        step and after another one, and turns.
        """
        return {
            arm: _depths([e for played in by_seed.values() for e in played]) for arm, by_seed in self.tested.items()
        }

    def gradients(self, trained: Mapping[str, Sequence[Trained]]) -> dict[str, dict[str, float]]:
        """Norms of the gradients before clipping, over all logged updates of an arm."""
        spreads = {}
        for arm, rounds in trained.items():
            norms = [
                point["grad_norm"]
                for one in rounds
                for folder, _ in one.models.values()
                for point in read_curve(folder / "loss.jsonl")
                if "grad_norm" in point
            ]
            if norms:
                mean = fmean(norms)
                spread = pstdev(norms) / mean if mean else 0.0
                spreads[arm] = {
                    "mean": round(mean, 4),
                    "greatest": round(max(norms), 4),
                    "spread": round(spread, 4),
                }
        return spreads


def _is_cut_off(episode: Episode) -> bool:
    """Whether a call failed for good that would have been its next action."""
    return episode.ended == "no_action"


def _judged_episode(problem: Problem, episode: Episode) -> Judged:
    usage = sum((s.action.usage for s in episode.steps), Usage())
    text = "\n".join(m["content"] for m, acted in episode.masked() if acted)
    status = "error" if _is_cut_off(episode) else "ok"
    return Judged(
        problem.id,
        problem.group,
        text,
        episode.ended,
        episode.success,
        status,
        usage,
        question=problem.question,
        gold=problem.gold,
        prompt=episode.prompt,
    )


def _depths(episodes: Sequence[Episode]) -> dict[str, Any]:
    at: defaultdict[int, list[bool]] = defaultdict(list)
    after: defaultdict[bool, list[bool]] = defaultdict(list)
    for episode in episodes:
        best = [was_best(episode, i) for i in range(len(episode.steps)) if episode.steps[i].best]
        for i, ok in enumerate(best):
            at[min(i, _DEEPEST - 1)].append(ok)
        for before, ok in pairwise(best):
            after[before].append(ok)
    return {
        "turns": round(fmean(len(e.steps) for e in episodes), 3) if episodes else 0,
        "wrong_by_step": [_wrong(at[i]) for i in sorted(at)],
        "wrong_after_best": _wrong(after[True]),
        "wrong_after_wrong": _wrong(after[False]),
    }


def _wrong(best: Sequence[bool]) -> list[int]:
    """The pair [not best, all]."""
    return [len(best) - sum(best), len(best)]


__all__ = ["ActingSession"]
