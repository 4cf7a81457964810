"""What the methods share: the task, the agents and the prompts of a run, opened once, and the verbs over them.

A method reads as a list of these verbs; how each is resumed, shown and written into the run is settled here.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from vivavoce.agents import Agent, open_agent
from vivavoce.config import AgentSpec, Recipe
from vivavoce.debate.prompting import prompt_set
from vivavoce.debate.rounds import Committee, debate_all
from vivavoce.debate.rules import DebateRules
from vivavoce.debate.speaking import Member, Rules
from vivavoce.errors import RecipeError
from vivavoce.evaluate.examine import Judged, examine
from vivavoce.evaluate.table import Arms, compared, results
from vivavoce.files import file_name
from vivavoce.graph import Graph, Stored, stored
from vivavoce.methods.day import on_day
from vivavoce.progress import say
from vivavoce.records import Example, Problem, Sampling, State, Tree, digest, seed_of, to_json
from vivavoce.run import Run
from vivavoce.tasks import Task, open_task
from vivavoce.train.gate import Gate, together
from vivavoce.train.jobs import Job, Settings, Workers


@dataclass(frozen=True)
class Trained:
    """A model for each training seed: its folder and the fingerprint of all that it came from."""

    models: Mapping[int, tuple[Path, str]]

    def of(self, seed: int) -> tuple[Path, str]:
        """The model of a seed; what was not trained has one model for every seed."""
        return self.models.get(seed) or next(iter(self.models.values()))

    @classmethod
    def merged(cls, parts: Iterable[Mapping[str, Trained]]) -> dict[str, Trained]:
        """Arms whose seeds were trained apart, put together; in the order in which they come first."""
        models: dict[str, dict[int, tuple[Path, str]]] = {}
        for arms in parts:
            for arm, trained in arms.items():
                models.setdefault(arm, {}).update(trained.models)
        return {arm: cls(seeds) for arm, seeds in models.items()}


R = TypeVar("R", bound=Rules)
Asking = Callable[[Callable[[Graph], None]], Awaitable[Stored]]
"""Asks whatever a stage asks; tells of each graph as it is done."""


class Session(Generic[R]):
    """An opened run. Use it as ``async with Session(recipe, run, rules) as s``; agents are closed at the end.

    Opening checks everything that can be checked before something is spent: options, keys, prompts, and that task
    and student can do what the rules ask. Raises RecipeError, MissingKey or MissingDependency.
    """

    def __init__(self, recipe: Recipe, run: Run, rules: R) -> None:
        self.recipe = recipe = on_day(recipe, run.day)
        self.run, self.rules = run, rules
        self.task = open_task(recipe.task.name, recipe.task.options)
        self.also = {name: open_task(spec.name, spec.options) for name, spec in recipe.also_test.items()}
        self.prompts = prompt_set(rules.prompts)
        self.prompts.need(rules.asks)
        self.teachers = [t.name for t in recipe.teachers]
        self.student = recipe.student.name
        self.everyone = [*self.teachers, self.student]
        if self.student in self.teachers:
            raise RecipeError(
                f"student and a teacher are both called `{self.student}`",
                "student.name",
                "give each agent a name of its own",
            )
        if recipe.student.backend != "hf_local":
            raise RecipeError(
                "the student is trained here, so it must be a local model",
                "student.backend",
                "use backend: hf_local with model: a folder or a Hub id",
            )
        self._open = AsyncExitStack()
        self._gate = Gate(recipe.parallel)
        """Where students wait, in training or under examination: so many at once as the recipe allows."""
        self._workers = self._open.enter_context(Workers(run, self._gate))
        self._agents = {spec.name: self._agent(spec) for spec in recipe.agents}
        self._begun = time.monotonic()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._open.aclose()

    def _agent(self, spec: AgentSpec, **changes: Any) -> Agent:
        agent = open_agent(spec.name, spec.backend, {**spec.options, **changes})
        self._open.push_async_callback(agent.aclose)
        return agent

    def _member(self, spec: AgentSpec, role: Literal["teacher", "student"]) -> Member:
        return Member(self._agents[spec.name], role, spec.sampling(), spec.samples)

    async def _graphs(
        self,
        stage: str,
        members: Sequence[Member],
        rules: Rules,
        problems: Sequence[Problem],
        ask: Asking,
    ) -> Stored:
        """What was said of ``problems`` in a stage: kept from before where nothing changed, else asked for and kept."""
        depends = [
            [p.id for p in problems],
            digest([to_json(p) for p in problems]),
            rules.model_dump(mode="json"),
            self.prompts.fingerprint,
            self.recipe.seed,
            self._redo,
            [(m.agent.identity, m.name, m.role, to_json(m.sampling), m.samples) for m in members],
        ]
        # What ended early at the cap of a question is asked again where that cap was changed; all else is kept.
        capped = [*depends, self.recipe.budget.question.model_dump(mode="json")]
        path = self.run.path / "graphs" / f"{file_name(stage)}.jsonl"
        if (graphs := self.run.cached(path, depends) or self.run.cached(path, capped)) is not None:
            return stored(graphs)
        with self.run.counting(f"{stage} questions", len(problems)) as advance:
            made = await ask(lambda _: advance())
        short = failed = 0
        for g in made:
            short, failed = short + g.cut_short, failed + len(g.failures())
        if short:
            say(f"{short} of {len(made)} questions ended early at the cap of a question (budget.question)")
        if failed:
            say(f"{failed} calls failed for good; their agents are absent there (viva run --retry-failed asks again)")
        self.run.keep(path, capped if short else depends, made.write)
        return stored(path)

    async def _debated(
        self, stage: str, problems: Sequence[Problem], rules: DebateRules, members: Sequence[Member]
    ) -> Stored:
        """What ``members`` say of ``problems`` in a debate by ``rules``."""
        committee = Committee(
            tuple(members),
            rules,
            self.prompts,
            self.task,
            self.run.journal,
            self.recipe.seed,
            f"debate:{stage}",
            self._count if rules.context_tokens else None,
        )
        return await self._graphs(
            stage,
            members,
            rules,
            problems,
            lambda done: debate_all(problems, committee, self.recipe.in_flight, done),
        )

    @property
    def _redo(self) -> float | None:
        """Something new each time where failed calls are to be tried again, else nothing."""
        return time.time() if self.run.journal.retry_failed else None

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._start)

    @cached_property
    def _start(self) -> Path:
        from vivavoce.agents.weights import folder

        return folder(self.recipe.student.options["model"])

    # --- rows and training

    def rows(self, name: str, rows: Iterable[Example | Tree | State]) -> Path:
        """Write training rows into the run; views of the graphs, so they are simply made again each time."""
        path = self.run.path / "data" / f"{file_name(name)}.jsonl"
        self.run.write(path, "".join(to_json(row) + "\n" for row in rows))
        return path

    def with_rows(self, arms: Mapping[str, Path]) -> dict[str, Path]:
        """The arms that have something to learn from; the others are named, and left out.

        A teacher that was never right cannot teach alone, which must not stop the others.
        """
        kept = {arm: path for arm, path in arms.items() if path.stat().st_size}
        if missing := ", ".join(arm for arm in arms if arm not in kept):
            say(f"left out, for want of right answers: {missing}")
        return kept

    def untrained(self) -> Trained:
        """The student as it came."""
        return Trained({self.recipe.seeds[0]: (self._start, self._agents[self.student].identity)})

    async def train(
        self,
        arms: Mapping[str, tuple[Trained, Path | Mapping[int, Path], Settings | Mapping[int, Settings]]],
        seeds: Sequence[int] | None = None,
    ) -> dict[str, Trained]:
        """Train every arm on every seed: from which model, on which rows, how (one for all seeds, or by seed).

        ``seeds`` are some of the recipe's, None all. Teachers, if local, are let go before, for training wants the
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
                        "were there right answers (and for trees, wrong ones too)? see `viva graph show`",
                    )
                how = settings[seed] if isinstance(settings, Mapping) else settings
                how = how.model_copy(update={"template": self._template})
                folder, fingerprint = start.of(seed)
                jobs[arm, seed] = Job(
                    f"{file_name(arm)}-{seed}", folder, fingerprint, path, how, seed_of(self.recipe.seed, seed)
                )
        for spec in self.recipe.agents:
            if spec.backend == "hf_local":
                await self._agents[spec.name].aclose()
        folders = await self._workers.train(list(jobs.values()))
        made = {key: (folder, job.fingerprint) for (key, job), folder in zip(jobs.items(), folders, strict=True)}
        return {arm: Trained({seed: made[arm, seed] for seed in seeds}) for arm in arms}

    @property
    def _template(self) -> dict[str, Any]:
        """Further arguments of the student's chat template, for rows as for prompts that are served."""
        return dict(self.recipe.student.options.get("chat_template_kwargs") or {})

    def updates(self, trained: Trained, seed: int) -> int:
        """Updates that a training took."""
        folder, _ = trained.of(seed)
        return json.loads((folder / "train_result.json").read_text("utf-8"))["steps"]

    # --- tests

    async def sit(self, arms: Mapping[str, Trained], questions: int | None = None) -> Arms:
        """Examine every model of every arm on the test questions, or the first of them. What is kept is read back."""
        return await self._sat(arms, self.task, "test", self.run.path / "evaluations", questions)

    async def also_test(self, arms: Mapping[str, Trained]) -> dict[str, Arms]:
        """The same on the test questions of the other tasks, by their names in the recipe. Committees do not sit."""
        return {
            name: await self._sat(arms, task, f"test:{name}", self.run.path / "evaluations" / file_name(name))
            for name, task in self.also.items()
        }

    async def _sat(
        self, arms: Mapping[str, Trained], task: Task, stage: str, kept: Path, questions: int | None = None
    ) -> Arms:
        problems = task.problems("test")[:questions]
        who = [(arm, seed) for arm, trained in arms.items() for seed in trained.models]
        sat = await together(
            *(self._sits(arms[arm].models[seed], problems, task, stage, (arm, seed), kept) for arm, seed in who)
        )
        found: dict[str, dict[int, Sequence[Judged]]] = {arm: {} for arm in arms}
        for (arm, seed), rows in zip(who, sat, strict=True):
            found[arm][seed] = rows
        return found

    @asynccontextmanager
    async def answering(self, model: Path) -> AsyncIterator[Agent]:
        """A trained student that answers, with a place at the gate; closed at the end."""
        async with self._gate.enter("answering"):
            student = self._agent(self.recipe.student, model=str(model))
            yield student
            await student.aclose()

    @property
    def _exam_sampling(self) -> Sampling:
        test = self.recipe.test
        return Sampling(test.temperature, test.top_p, test.max_new_tokens, tuple(self.recipe.student.stop))

    async def _sits(
        self,
        model: tuple[Path, str],
        problems: Sequence[Problem],
        task: Task,
        stage: str,
        who: tuple[str, int],
        kept: Path,
    ) -> Sequence[Judged]:
        """One model on test questions; ``who`` it is, by arm and training seed, and in which folder that is kept."""
        (folder, fingerprint), (arm, seed) = model, who
        path = kept / f"{file_name(arm)}-{seed}.jsonl"
        depends = [
            fingerprint,
            digest([to_json(p) for p in problems]),
            self.recipe.test.model_dump(mode="json"),
            self.prompts.fingerprint,
            self.rules.word_limit,
            self._redo,
        ]
        if (rows := self.run.kept_rows(path, depends, Judged)) is not None:
            return rows
        async with self.answering(folder) as student:
            with self.run.counting(f"{stage} {arm}, seed {seed}", len(problems)) as advance:
                rows = await examine(
                    student,
                    problems,
                    task,
                    self.prompts,
                    self.rules,
                    self.run.journal,
                    self._exam_sampling,
                    stage=stage,
                    seed=self.recipe.seed,
                    in_flight=self.recipe.in_flight,
                    done=lambda _: advance(),
                )
        self.run.keep_rows(path, depends, rows)
        return rows

    def right(self, tested: Mapping[int, Sequence[Judged]]) -> int:
        """Right answers over all seeds of an arm."""
        return sum(bool(j.correct) for rows in tested.values() for j in rows)

    def results(
        self, tested: Arms, also: Mapping[str, Arms], pairs: Sequence[tuple[str, str]], **facts: Any
    ) -> dict[str, Any]:
        """What ``results.json`` holds; ``wall_s`` is the time that this process spent on the run."""
        further = {name: compared(self.also[name].name, arms, pairs) for name, arms in also.items()}
        wall_s = time.monotonic() - self._begun
        return results(self.task.name, tested, pairs, wall_s, also=further, **facts)
