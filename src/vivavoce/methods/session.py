"""What the methods share: the task, the agents and the prompts of a run, opened once, and the verbs over them.

A method reads as a list of these verbs; how each is resumed, shown and written into the run is settled here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vivavoce.agents import Agent, open_agent
from vivavoce.config import AgentSpec, Recipe
from vivavoce.data.rules import TreeRules
from vivavoce.data.trees import Grower
from vivavoce.debate.prompting import prompt_set
from vivavoce.debate.rounds import Committee, Member, debate_all
from vivavoce.debate.rules import DebateRules
from vivavoce.debate.votes import VoteBy, vote
from vivavoce.errors import RecipeError
from vivavoce.evaluate.examine import Judged, examine, judged
from vivavoce.evaluate.table import Arms, results
from vivavoce.graph import Graph, read_graphs, write_graphs
from vivavoce.progress import bar, say
from vivavoce.records import Example, Problem, Sampling, Tree, digest, node, seed_of, to_json
from vivavoce.run import Run
from vivavoce.tasks import open_task
from vivavoce.train.jobs import Job, train_all
from vivavoce.train.settings import SFTSettings, TreeDPOSettings

Settings = SFTSettings | TreeDPOSettings


@dataclass(frozen=True)
class Trained:
    """A model for each training seed: its folder and the fingerprint of all that it came from."""

    models: Mapping[int, tuple[Path, str]]

    def of(self, seed: int) -> tuple[Path, str]:
        """The model of a seed; what was not trained has one model for every seed."""
        return self.models.get(seed) or next(iter(self.models.values()))


class Session:
    """An opened run. Use it as ``async with Session(recipe, run, rules) as s``; agents are closed at the end.

    Opening checks everything that can be checked before something is spent: options, keys, prompts, and that task
    and student can do what the rules ask. Raises RecipeError, MissingKey or MissingDependency.
    """

    def __init__(self, recipe: Recipe, run: Run, rules: DebateRules) -> None:
        self.recipe, self.run, self.rules = recipe, run, rules
        self.task = open_task(recipe.task.name, recipe.task.options)
        self.prompts = prompt_set(rules.prompts)
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
        self._agents = {spec.name: self._agent(spec) for spec in [*recipe.teachers, recipe.student]}
        self._begun = time.monotonic()

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._open.aclose()

    def _agent(self, spec: AgentSpec, **changes: Any) -> Agent:
        agent = open_agent(spec.name, spec.backend, {**spec.options, **changes})
        self._open.push_async_callback(agent.aclose)
        return agent

    @property
    def speakers(self) -> tuple[str, ...]:
        """Those whose answers are read in the debate."""
        return (*self.teachers, *((self.student,) if self.rules.student == "always" else ()))

    # --- debate

    async def debate(self, problems: Sequence[Problem]) -> list[Graph]:
        """Debate the training questions, by the recipe's rules."""
        members = [self._member(spec, "teacher") for spec in self.recipe.teachers]
        members.append(self._member(self.recipe.student, "student"))
        return await self._debated("train", problems, self.rules, members)

    async def debate_test(self, problems: Sequence[Problem]) -> list[Graph]:
        """Debate the test questions among the teachers, without gold in any role, for the committee's own score.

        One answer each, drawn as students are tested; nobody reflects, so that the votes differ by rounds alone.
        """
        test = self.recipe.test
        rules = self.rules.model_copy(
            update={
                "roles": "gold_free",
                "stop": "cap_only",
                "reflect": False,
                "feedback_from": "none",
                "reflection_sees_gold": False,
                "student": "never",
                "max_rounds": test.committee_rounds,
            }
        )
        members = [
            Member(self._agents[t.name], "teacher", t.sampling(temperature=test.temperature, top_p=test.top_p))
            for t in self.recipe.teachers
        ]
        return await self._debated("test", problems, rules, members)

    def _member(self, spec: AgentSpec, role: Any) -> Member:
        return Member(self._agents[spec.name], role, spec.sampling(), spec.samples)

    async def _debated(
        self, stage: str, problems: Sequence[Problem], rules: DebateRules, members: Sequence[Member]
    ) -> list[Graph]:
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
        depends = [
            [p.id for p in problems],
            digest([to_json(p) for p in problems]),
            rules.model_dump(mode="json"),
            self.prompts.fingerprint,
            self.recipe.seed,
            self._redo,
            [(m.agent.identity, m.name, m.role, to_json(m.sampling), m.samples) for m in members],
        ]
        path = self.run.path / "graphs" / f"{stage}.jsonl"
        if (graphs := self.run.cached(path, depends)) is not None:
            return list(read_graphs(graphs))
        with bar(f"debate {stage} questions", len(problems)) as advance:
            made = await debate_all(problems, committee, self.recipe.in_flight, lambda _: advance())
        failed = sum(len(g.failures()) for g in made)
        if failed:
            say(f"{failed} calls failed for good; their agents are absent there (viva run --retry-failed asks again)")
        self.run.keep(path, depends, lambda part: write_graphs(part, made))
        return made

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

    def rows(self, name: str, rows: Iterable[Example | Tree]) -> Path:
        """Write training rows into the run; views of the graphs, so they are simply made again each time."""
        path = self.run.path / "data" / f"{name}.jsonl"
        self.run.write(path, "".join(to_json(row) + "\n" for row in rows))
        return path

    def grower(self, rules: TreeRules) -> Grower:
        """What preference trees are grown with."""
        return Grower(
            rules,
            self.rules,
            self.prompts,
            self.task,
            self.student,
            self.speakers,
            (self.student, self._later_name),
            self._count,
            self.recipe.seed,
        )

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
        self, arms: Mapping[str, tuple[Trained, Path | Mapping[int, Path], Settings | Mapping[int, Settings]]]
    ) -> dict[str, Trained]:
        """Train every arm on every seed: from which model, on which rows, how (one for all seeds, or by seed)."""
        jobs: dict[tuple[str, int], Job] = {}
        for seed in self.recipe.seeds:
            for arm, (start, rows, settings) in arms.items():
                path = rows[seed] if isinstance(rows, Mapping) else rows
                if not path.stat().st_size:
                    raise RecipeError(
                        f"arm `{arm}` has no training rows",
                        str(path),
                        "were there right answers (and for trees, wrong ones too)? see `viva graph show`",
                    )
                how = settings[seed] if isinstance(settings, Mapping) else settings
                folder, fingerprint = start.of(seed)
                jobs[arm, seed] = Job(
                    f"{arm.replace(':', '-')}-{seed}", folder, fingerprint, path, how, seed_of(self.recipe.seed, seed)
                )
        folders = await asyncio.to_thread(train_all, list(jobs.values()), self.run, self.recipe.parallel)
        made = {key: (folder, job.fingerprint) for (key, job), folder in zip(jobs.items(), folders, strict=True)}
        return {arm: Trained({seed: made[arm, seed] for seed in self.recipe.seeds}) for arm in arms}

    def updates(self, trained: Trained) -> dict[int, int]:
        """Updates that the training of each seed took."""
        return {
            seed: json.loads((folder / "train_result.json").read_text("utf-8"))["steps"]
            for seed, (folder, _) in trained.models.items()
        }

    @property
    def _later_name(self) -> str:
        return f"{self.student} after SFT"

    async def attempt(
        self, graphs: Sequence[Graph], students: Trained, samples: int, temperature: float
    ) -> dict[int, list[Graph]]:
        """The graphs, by training seed, with ``samples`` more answers of that seed's student to every question.

        The answers stand in round 0 under a name of their own: they read nobody.
        """
        if not samples:
            return {seed: list(graphs) for seed in self.recipe.seeds}
        tried = {}
        for seed in self.recipe.seeds:
            student = self._agent(self.recipe.student, model=str(students.of(seed)[0]))
            sampling = self.recipe.student.sampling(temperature=temperature, logprobs=False)
            sat: list[list[Judged]] = []
            with bar(f"attempts of seed {seed}", len(graphs) * samples) as advance:
                sat += await asyncio.gather(
                    *(
                        examine(
                            student,
                            [g.problem for g in graphs],
                            self.task,
                            self.prompts,
                            self.rules,
                            self.run.journal,
                            sampling,
                            stage="attempts",
                            seed=seed_of(self.recipe.seed, seed, i),
                            in_flight=self.recipe.in_flight,
                            done=lambda _: advance(),
                        )
                        for i in range(samples)
                    )
                )
            tried[seed] = [
                g.extended(
                    node(
                        "answer",
                        g.problem.id,
                        self._later_name,
                        0,
                        j.text,
                        sample=i,
                        answer=j.answer,
                        correct=j.correct,
                        status=j.status,
                        usage=j.usage,
                    )
                    for i, j in enumerate(by_sample)
                    if j.status != "error"
                )
                for g, by_sample in zip(graphs, zip(*sat, strict=True), strict=True)
            ]
            await student.aclose()
        return tried

    # --- tests

    async def test(self, arms: Mapping[str, Trained]) -> Arms:
        """Examine every model of every arm on the test questions; after them, the committee itself."""
        problems = self.task.problems("test")
        test = self.recipe.test
        sampling = Sampling(test.temperature, test.top_p, test.max_new_tokens, tuple(self.recipe.student.stop))
        tested: dict[str, dict[int, Sequence[Judged]]] = {}
        for arm, trained in arms.items():
            tested[arm] = {}
            for seed, (folder, fingerprint) in trained.models.items():
                path = self.run.path / "evaluations" / f"{arm.replace(':', '-')}-{seed}.jsonl"
                depends = [
                    fingerprint,
                    digest([to_json(p) for p in problems]),
                    test.model_dump(mode="json"),
                    self.prompts.fingerprint,
                    self.rules.word_limit,
                    self._redo,
                ]
                if (rows := self.run.kept_rows(path, depends, Judged)) is None:
                    agent = self._agent(self.recipe.student, model=str(folder))
                    with bar(f"test {arm}, seed {seed}", len(problems)) as advance:
                        rows = await examine(
                            agent,
                            problems,
                            self.task,
                            self.prompts,
                            self.rules,
                            self.run.journal,
                            sampling,
                            stage="test",
                            seed=self.recipe.seed,
                            in_flight=self.recipe.in_flight,
                            done=lambda _, a=advance: a(),
                        )
                    await agent.aclose()
                    self.run.keep_rows(path, depends, rows)
                tested[arm][seed] = rows
        if test.committee:
            tested |= self._votes(await self.debate_test(problems))
        return tested

    def _votes(self, graphs: Sequence[Graph]) -> dict[str, dict[int, Sequence[Judged]]]:
        """The committee's answers: each teacher, votes over drafts (no debate), and the vote after the last round."""
        by: VoteBy = "probability" if all(t.logprobs for t in self.recipe.teachers) else "confidence"
        seed, first = self.recipe.seed, self.recipe.seeds[0]
        arms = {
            f"teacher:{t}": judged(
                graphs, lambda g, t=t: next(iter(g.stated(0, [t])), None), lambda g, t=t: g.answers(0, [t])
            )
            for t in self.teachers
        }
        drafts: dict[str, VoteBy] = {
            "vote:majority": "majority",
            "vote:most_confident": "most_confident",
            "vote:confidence": "confidence",
        }
        arms |= {
            name: judged(graphs, lambda g, how=how: vote(g.stated(0), how, seed), lambda g: g.answers(0))
            for name, how in drafts.items()
        }
        arms["vote:debate"] = judged(graphs, lambda g: vote(g.stated(g.rounds - 1), by, seed), lambda g: g.answers())
        return {name: {first: rows} for name, rows in arms.items()}

    def right(self, tested: Mapping[int, Sequence[Judged]]) -> int:
        """Right answers over all seeds of an arm."""
        return sum(bool(j.correct) for rows in tested.values() for j in rows)

    def results(self, tested: Arms, pairs: Sequence[tuple[str, str]], **facts: Any) -> dict[str, Any]:
        """What ``results.json`` holds; ``wall_s`` is the time that this process spent on the run."""
        return results(self.task.name, tested, pairs, time.monotonic() - self._begun, **facts)
