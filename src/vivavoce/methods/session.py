"""The parts that methods share: the task, the agents and the prompts of a run, opened once, and the verbs over them.

A method reads as a list of these verbs. Each is thin, and its parts can be used without a recipe: agents
(:mod:`~vivavoce.methods.opening`), calls that are kept (:mod:`~vivavoce.methods.asking`), training
(:func:`vivavoce.train.jobs.train_on`), tests (:func:`vivavoce.exams.examine.examine`) and the comparison
(:func:`vivavoce.exams.table.results`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from vivavoce import plugins
from vivavoce.agents import Agent, engines
from vivavoce.agents.weights import token_counter
from vivavoce.committee.prompting import prompt_set
from vivavoce.committee.reading import CountTokens
from vivavoce.committee.table import Action, Member, Setting, hold_all
from vivavoce.committee.wording import Talk, Wording
from vivavoce.config import AgentSpec, Recipe
from vivavoce.errors import RecipeError
from vivavoce.exams.arms import Arm, planned_pairs
from vivavoce.exams.examine import Judged, examine, of_arm
from vivavoce.exams.judging import judging
from vivavoce.exams.pass_at_k import pass_at_k_figures
from vivavoce.exams.table import Tested
from vivavoce.files import file_name
from vivavoce.graph import Stored
from vivavoce.graph.graph import FORMAT
from vivavoce.methods.asking import kept_graphs, kept_rows
from vivavoce.methods.budgets import require
from vivavoce.methods.comparing import comparison
from vivavoce.methods.day import on_day
from vivavoce.methods.juries import jury_of, with_jury
from vivavoce.methods.learnt import Learnt, Trained, folders
from vivavoce.methods.opening import Agents, Serving, as_trained
from vivavoce.methods.seats import need_draws, need_student, need_sure, need_whole
from vivavoce.progress import say
from vivavoce.protocols import open_protocol
from vivavoce.records import Example, Interaction, Problem, Sampling, State, Tree, digest, seed_of, to_json
from vivavoce.run import PartDone, Run
from vivavoce.tasks import Task, open_task
from vivavoce.tasks.limits import sample
from vivavoce.train.gate import Gate, together
from vivavoce.train.jobs import Job, Settings, Workers
from vivavoce.train.launch import Launch, visible_gpus
from vivavoce.train.objective import Scorer, ServedStudent

R = TypeVar("R", bound=Talk)


class Session(Generic[R]):
    """An opened run. Use it as ``async with Session(recipe, run, rules) as s``; agents are closed at the end.

    Opening checks everything that can be checked before anything is spent: options, keys, prompts, and that task and
    student can do what the rules ask. Raises RecipeError, MissingKey or MissingDependency.

    Args:
        start: The students that training begins with, one for each seed, if they are not the recipe's own. The first of
            them is examined, or takes part in a debate: one debate serves all seeds.
    """

    def __init__(self, recipe: Recipe, run: Run, rules: R, start: Trained | None = None) -> None:
        self.recipe = recipe = on_day(recipe, run.day)
        self.run, self.rules = run, rules
        self.task: Task = open_task(recipe.task.name, recipe.task.options)
        self.also: dict[str, Task] = {k: open_task(spec.name, spec.options) for k, spec in recipe.also_test.items()}
        self.prompts = prompt_set(rules.prompts)
        self.prompts.need(rules.asked_templates, rules.values, rules.tells)
        self.teachers = [t.name for t in recipe.teachers]
        self.student = recipe.student.name
        self.everyone = [*self.teachers, self.student]
        need_student(recipe)
        need_draws(recipe)
        need_whole(recipe.agents)
        for task in (self.task, *self.also.values()):
            need_sure(task)
        self._given = start
        self._written = set[Path]()
        changes = {self.student: {"model": str(start.of(recipe.seeds[0])[0])}} if start else {}
        self._open = AsyncExitStack()
        self._gate = Gate(recipe.parallel)
        """The gate at which students wait, in training or under examination: so many at once as the recipe allows."""
        self._workers = self._open.enter_context(Workers(run, self._gate, self._engine_for, _launch(recipe, run)))
        self._serving = Serving.of(recipe, run.path)
        self._serves = self._serving.serve(recipe.student)
        self._agents = Agents(recipe.agents, changes, self._serving)
        self._open.push_async_callback(self._agents.aclose)
        self._jury = jury_of(recipe, self._agents, run.journal)
        if self._jury is not None:
            self.task = with_jury(self.task, self._jury)
            self.also = {name: with_jury(task, self._jury) for name, task in self.also.items()}

    async def __aenter__(self) -> Self:
        tests = {"the test": self.task.problems("test"), **{k: t.problems("test") for k, t in self.also.items()}}
        try:
            train = self.recipe.questions(self.task)
            share = None if self.run.share is None else self.run.share.take(train)
            require(self.recipe, train, tests, self.wording.plain, share)
            # A part may be asked where the student's engine is not: most parts do not need it.
            await self._agents.reach(self.run.journal, without=None if share is None else self.student)
        except BaseException:
            await self._open.aclose()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._open.aclose()

    @cached_property
    def start(self) -> Trained:
        """The students that training begins with: the given ones, else the recipe's, untrained."""
        return self._given or Trained({self.recipe.seeds[0]: (self._folder, self._agents[self.student].identity)})

    @cached_property
    def _folder(self) -> Path:
        from vivavoce.agents.weights import folder

        options = self.recipe.student.options
        return folder(options["model"], options.get("revision"), template=options.get("chat_template"))

    def _member(self, spec: AgentSpec, role: Literal["teacher", "student"]) -> Member:
        return Member(self._agents[spec.name], role, spec.sampling(), spec.samples, spec.system)

    # --- what is said

    async def ask(
        self,
        stage: str,
        room: str,
        members: Sequence[Member],
        options: Talk,
        problems: Sequence[Problem],
        label: str | None = None,
        seed: int | None = None,
        actions: Mapping[str, Action] | None = None,
    ) -> Stored:
        """The graphs of ``problems`` by the protocol that ``options`` belong to: read back if nothing changed,
        otherwise asked for and kept in ``graphs/STAGE.jsonl.gz``. Calls have ``label`` in the ledger, by default
        ``ROOM:STAGE``. ``seed`` draws the replies; None: the recipe's seed. ``actions`` are what the student did, by
        question, if debates are held on that; the id of a question names its action too.
        """
        seed = self.recipe.seed if seed is None else seed
        if self.run.share is not None:
            problems = self.run.share.take(problems)
        page = open_protocol(options.protocol)
        depends = [
            FORMAT,
            [p.id for p in problems],
            digest([to_json(p) for p in problems]),
            options.model_dump(mode="json"),
            plugins.fingerprint(page),
            self.prompts.fingerprint,
            seed,
            [_settings_of(m) for m in members],
            *self._deciding_judges,
        ]
        setting = Setting(
            page.run,
            tuple(members),
            options,
            self.prompts,
            self.task,
            self.run.journal,
            seed,
            label or f"{room}:{stage}",
            self._count if options.context_budget else None,
            actions or {},
        )
        return await kept_graphs(
            self.run, stage, depends, problems, lambda done: hold_all(problems, setting, self.recipe.in_flight, done)
        )

    @property
    def _deciding_judges(self) -> list[Any]:
        """The judges that grades depend on; empty unless models judge."""
        return [] if self._jury is None else [self._jury.depends]

    @property
    def wording(self) -> Wording:
        """The wording of the recipe's protocol."""
        return self._wording_of(self.rules)

    def _wording_of(self, options: Talk) -> Wording:
        return Wording(options, self.prompts, self.task, self._count)

    @cached_property
    def _count(self) -> CountTokens:
        return token_counter(self.recipe.student.options["model"])

    # --- rows and training

    def rows(self, name: str, rows: Iterable[Example | Tree | State | Interaction]) -> Path:
        """Write training rows into the run. They are views of the graphs, so they are made again each time.

        Raises PartDone in a part of a run, because it has asked everything that can be asked before training.
        """
        if self.run.share is not None:
            raise PartDone
        path = self.run.path / "data" / f"{file_name(name)}.jsonl"
        self.run.write(path, "".join(to_json(row) + "\n" for row in rows))
        return path

    def with_rows(self, arms: Mapping[str, Path]) -> dict[str, Path]:
        """The arms that have something to learn from; the others are named, and left out.

        A teacher that was never right cannot teach alone, which must not stop the others.
        """
        kept = {arm: path for arm, path in arms.items() if path.stat().st_size}
        if missing := ", ".join(arm for arm in arms if arm not in kept):
            say(f"left out, because there are no right answers: {missing}")
        return kept

    async def train(
        self,
        arms: Mapping[str, tuple[Trained, Path | Mapping[int, Path], Settings | Mapping[int, Settings]]],
        seeds: Sequence[int] | None = None,
    ) -> dict[str, Trained]:
        """Train every arm on every seed: from which model, on which rows, how (one for all seeds, or by seed).

        ``seeds`` are some of the recipe's, None all. Local teachers are unloaded before, because training needs their
        memory; the next reply loads them again.
        """
        seeds = self.recipe.seeds if seeds is None else seeds
        jobs: dict[tuple[str, int], Job] = {}
        for seed in seeds:
            for arm, (start, rows, settings) in arms.items():
                path = rows[seed] if isinstance(rows, Mapping) else rows
                if not path.stat().st_size:
                    raise RecipeError(
                        f"arm `{arm}` has no training rows",
                        str(path),
                        "look with `viva graph show`: rows need right answers, and trees need wrong ones too",
                    )
                chosen = settings[seed] if isinstance(settings, Mapping) else settings
                chosen = as_trained(chosen, self.recipe.student)
                folder, fingerprint = start.of(seed)
                jobs[arm, seed] = Job(
                    f"{file_name(arm)}-{seed}", folder, fingerprint, path, chosen, seed_of(self.recipe.seed, seed)
                )
        await self._agents.leave_memory()
        folders = await self._workers.train(list(jobs.values()))
        made = {key: (folder, job.fingerprint) for (key, job), folder in zip(jobs.items(), folders, strict=True)}
        return {arm: Trained({seed: made[arm, seed] for seed in seeds}) for arm in arms}

    @asynccontextmanager
    async def _engine_for(self, job: Job) -> AsyncIterator[None]:
        """The engines of a job's scorers, and the one that serves its student, if they are to be started."""
        from vivavoce.agents.hf_local import Options
        from vivavoce.agents.served import start

        self.start_scorers(getattr(job.settings, "scorers", ()))
        served: ServedStudent | None = getattr(job.settings, "served", None)
        if served is None or served.state is None or not getattr(job.settings, "on_policy", 0):
            yield
            return
        alone = job.settings.lora is None
        if alone:
            if self._gate.width > 1:
                what = "an engine serves one student at a time if all its weights are trained, and several are at work"
                raise RecipeError(what, "parallel", "set parallel: 1, or train adapters (lora)")
            engines.close(served.name, served.state.parent)  # it may hold the weights of another student
        await asyncio.to_thread(start, served.name, Options(**self._student_options), served.serve, job.start)
        try:
            yield
        finally:
            if alone:
                await asyncio.to_thread(engines.close, served.name, served.state.parent)

    def start_scorers(self, scorers: Sequence[Scorer]) -> None:
        """Have the engines started that are to score; they are waited for when they are asked."""
        from vivavoce.agents.hf_local import Options
        from vivavoce.agents.served import start

        for one in scorers:
            if one.engine is not None and one.engine.state is not None:
                options = Options(model=str(one.model), dtype=one.dtype, trust_remote_code=one.trust_remote_code)
                start(one.engine.name, options, one.engine.serve, Path(str(one.model)))

    @property
    def _student_options(self) -> dict[str, Any]:
        return self._serving.options_for(self.student, self.recipe.student.options)

    # --- tests

    def draw_questions(self, split: str, questions: int) -> list[Problem]:
        """So many questions of a split, drawn by the recipe's seed, with a share for every group: the questions of a
        pilot.
        """
        of = self.recipe.questions(self.task) if split == "train" else self.task.problems(split)
        return sample(of, questions, self.recipe.seed)

    async def examine(self, arms: Mapping[str, Trained], questions: int | None = None) -> Tested:
        """Examine every model of every arm on the test questions, or on so many. What is kept is read back."""
        return await self._examine_all(arms, self.task, "test", self.run.path / "evaluations", questions)

    async def test(self, arms: Mapping[str, Trained]) -> Tested:
        """Test the students and, if a method has one, its committee."""
        return await self.examine(arms)

    def beside(self, arms: Mapping[str, Arm]) -> list[Arm]:
        """Test the arms beside the students, which are ``arms``."""
        return []

    async def also_test(self, arms: Mapping[str, Trained]) -> dict[str, Tested]:
        """The same on the test questions of the other tasks, by their names in the recipe, without a committee."""
        return {
            name: await self._examine_all(arms, task, f"test:{name}", self.run.path / "evaluations" / file_name(name))
            for name, task in self.also.items()
        }

    async def _examine_all(
        self, arms: Mapping[str, Trained], task: Task, stage: str, kept: Path, questions: int | None = None
    ) -> Tested:
        problems = sample(task.problems("test"), questions, self.recipe.seed)
        models = [(arm, seed, model) for arm, trained in arms.items() for seed, model in trained.models.items()]
        answers = await together(
            *(self._examine_model(model, problems, task, stage, (arm, seed), kept) for arm, seed, model in models)
        )
        by_arm: dict[str, dict[int, Sequence[Judged]]] = {arm: {} for arm in arms}
        for (arm, seed, _), rows in zip(models, answers, strict=True):
            by_arm[arm][seed] = rows
        return by_arm

    async def draw(self, arms: Mapping[str, Trained]) -> dict[str, Any]:
        """The figures of ``results.json`` from ``test.draws`` answers, or episodes, of each first seed's student."""
        draws, seed, problems = self.recipe.test.draws, self.recipe.seeds[0], self.task.problems("test")
        kept, models = self.run.path / "evaluations" / "draws", {arm: trained.of(seed) for arm, trained in arms.items()}
        drawings = [(arm, i) for arm in models for i in range(draws)]
        answers = await together(
            *(
                self._examine_model(models[arm], problems, self.task, "draws", (arm, seed), kept, i)
                for arm, i in drawings
            )
        )
        by_arm: dict[str, list[Sequence[Judged]]] = {}
        for (arm, _), rows in zip(drawings, answers, strict=True):
            by_arm.setdefault(arm, []).append(rows)
        return {arm: pass_at_k_figures(drawn, self.task, problems) for arm, drawn in by_arm.items()}

    @asynccontextmanager
    async def answering(self, model: Path) -> AsyncIterator[Agent]:
        """A trained student that answers, with a place at the gate; closed at the end."""
        async with self._gate.enter("answering"):
            student = self._agents.another(self.recipe.student, model=str(model))
            yield student
            await student.aclose()

    @property
    def _exam_sampling(self) -> Sampling:
        return self.recipe.test.sampling(self.recipe.student.stop)

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
        """Test one model on test questions; ``arm_and_seed`` is its arm and training seed, and the folder that keeps
        the answers.

        ``draw`` is the number of a drawn answer.
        """
        (folder, fingerprint), (arm, seed) = model, arm_and_seed
        path = kept / f"{file_name(arm)}-{seed}{'' if draw is None else f'-{draw}'}.jsonl"
        sampling, settings = self._exam_sampling, self.recipe.test.asked
        if draw is not None:
            likely = "probability" in self.recipe.test.best_by
            sampling = replace(sampling, temperature=self.recipe.test.draws_temperature, logprobs=likely)
            settings |= {"temperature": sampling.temperature, "draw": draw, **({"logprobs": True} if likely else {})}
        depends = [
            fingerprint,
            digest([to_json(p) for p in problems]),
            settings,
            self.prompts.fingerprint,
            self.rules.word_limit,
            *self._deciding_judges,
        ]

        async def ask() -> Sequence[Judged]:
            async with self.answering(folder) as student:
                with self.run.counting(f"{stage} {arm}, seed {seed}", len(problems)) as advance:
                    rows = await examine(
                        student,
                        problems,
                        replace(self.wording, task=task),
                        self.run.journal,
                        sampling,
                        stage=stage,
                        seed=self.recipe.seed if draw is None else seed_of(self.recipe.seed, "draw", draw),
                        in_flight=self.recipe.in_flight,
                        done=lambda _: advance(),
                    )
                    return of_arm(rows, arm, seed)

        self._written.add(path)
        rows = await kept_rows(self.run, path, depends, Judged, lambda row: row.status in ("error", "unjudged"), ask)
        return of_arm(rows, arm, seed, problems)

    async def tests(self, arms: Mapping[str, Trained]) -> tuple[Tested, dict[str, Tested]]:
        """Every test of these arms, and of the arms beside them: the recipe's, and the further ones by name. All
        answers are in ``evaluations/`` then.
        """
        tested, also = await self.test(arms), await self.also_test(arms)
        kept = self.run.path / "evaluations"
        self._keep_answers(tested, kept)
        for name, rows in also.items():
            self._keep_answers(rows, kept / file_name(name))
        return tested, also

    def _keep_answers(self, tested: Tested, folder: Path) -> None:
        """Write the answers that are in no file of ``folder`` yet: those of committees and of episodes."""
        for arm, seeds in tested.items():
            for seed, rows in seeds.items():
                path = folder / f"{file_name(arm)}-{seed}.jsonl"
                if path not in self._written:
                    answers = of_arm(rows, arm, seed)
                    depends = digest([to_json(row) for row in answers])
                    if self.run.cached(path, depends) is None:
                        self.run.keep_rows(path, depends, answers)

    # --- what is compared

    async def results(self, learnt: Learnt) -> dict[str, Any]:
        """Test the students of a method and return the content of ``results.json``. ``wall_s`` is the time that all
        sessions spent on the run so far.
        """
        tested, also = await self.tests(learnt.students)
        drawn = await self.draw(learnt.students)
        best = best_of([name for name in learnt.singles if name in tested], tested)
        arms = {**learnt.arms, **{arm.name: arm for arm in self.beside(learnt.arms)}}
        pairs = planned_pairs(learnt.pairs(best), self.recipe.pairs, list(arms))
        facts = {"best_single": best, "main": learnt.main, **learnt.facts()}
        if self._jury is not None:
            facts["judging"] = judging(self.run.journal, self._jury.rules)
        facts["students"] = folders(learnt.students, self.run.path)
        return comparison(
            self.recipe,
            self.run,
            (self.task, self.also),
            (tested, also),
            pairs,
            arms,
            learnt.arms,
            drawn,
            self.run.seconds,
            facts,
        )


def _launch(recipe: Recipe, run: Run) -> Launch | None:
    """The processes that train students; None if the run's own process trains them."""
    processes = recipe.train.processes
    if processes is None or (processes == 1 and len(visible_gpus()) < 2):
        return None
    return Launch(processes, recipe.train.fsdp, visible_gpus(), run.path / "training")


def _settings_of(m: Member) -> tuple[Any, ...]:
    """The settings of a member that decide its replies."""
    settings = (m.agent.identity, m.name, m.role, to_json(m.sampling), m.samples)
    return (*settings, m.system) if m.system else settings


def right(tested: Mapping[int, Sequence[Judged]]) -> int:
    """Right answers over all seeds of an arm."""
    return sum(bool(j.correct) for rows in tested.values() for j in rows)


def best_of(names: Iterable[str], tested: Tested) -> str | None:
    """The arm among ``names`` with the most right answers; the first of equals, None if there is none."""
    return max(names, key=lambda name: right(tested[name]), default=None)


__all__ = ["Session", "best_of", "right"]
